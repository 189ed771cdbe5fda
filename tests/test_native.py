"""Which core is loaded, on how many threads, and that importing leaves the process as it was."""

import ast
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastfisher as ff
from fastfisher import _cpu, _native

LEVELS = ["baseline", "avx2", "avx512", "avx512_bf16", "amx"]
SUPPORTED = _cpu.supported()
# A contributor's build may hold fewer levels; .ci/run insists on every one.
USABLE = [level for level in SUPPORTED if find_spec(f"fastfisher.{_native.MODULES[level]}")]

# What Linux calls the features of x86-64-v3 and v4; it lists one only if it saves the registers.
V3 = {"pni", "ssse3", "cx16", "sse4_1", "sse4_2", "popcnt", "lahf_lm"}
V3 |= {"fma", "movbe", "xsave", "avx", "f16c", "bmi1", "avx2", "bmi2", "abm"}
V4 = V3 | {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}


def run(code: str, **environment: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process with these variables set (None: removed)."""
    env = os.environ | {k: v for k, v in environment.items() if v is not None}
    for key in (k for k, v in environment.items() if v is None):
        env.pop(key, None)
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


def printed(code: str, **environment: Any) -> str:
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- detection ----


def test_supported_starts_at_the_baseline() -> None:
    assert SUPPORTED[0] == "baseline"
    assert set(SUPPORTED) <= set(LEVELS)


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64", reason="Linux on x86-64"
)
def test_detection_is_exact() -> None:
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = set(facts["flags"].split())
    expected = ["baseline"] + ["avx2"] * (flags >= V3) + ["avx512"] * (flags >= V4)
    if flags >= V4 | {"avx512_bf16"}:  # faster than plain multiply-adds on AMD alone
        expected.insert(-1 if facts["vendor_id"] == "GenuineIntel" else 3, "avx512_bf16")
    if flags >= V4 | {"amx_tile", "amx_bf16"} and "amx" in SUPPORTED:
        expected.append("amx")  # unless the kernel refuses the state, which cpuinfo does not tell
    assert expected == SUPPORTED


@pytest.mark.skipif(
    platform.machine() in {"x86_64", "AMD64"}, reason="other processors than x86-64"
)
def test_other_processors_have_the_baseline_only() -> None:
    assert SUPPORTED == ["baseline"]


# ---- choice ----


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_request_the_fastest_level_is_chosen(nothing: str | None) -> None:
    code = "import fastfisher._native as n; print(n.isa)"
    assert printed(code, FASTFISHER_ISA=nothing) == USABLE[-1]


@pytest.mark.parametrize("level", USABLE)
def test_a_request_is_met_and_the_module_says_so(level: str) -> None:
    code = "import fastfisher._native as n; print(n.isa, n.core.isa, n.core.__name__)"
    isa, core_isa, module = printed(code, FASTFISHER_ISA=level).split()
    assert isa == core_isa == level
    assert module.rpartition(".")[2] == _native.MODULES[level]


def test_unknown_level_is_an_import_error() -> None:
    done = run("import fastfisher", FASTFISHER_ISA="sse9")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: FASTFISHER_ISA: expected one of baseline, avx2, avx512, "
        "avx512_bf16, amx, got 'sse9'. "
        "Leave it unset to get the fastest level of this machine."
    )


def test_level_beyond_the_processor_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"FASTFISHER_ISA: expected a level that this processor"):
        _native.choose_isa("avx512", ["baseline", "avx2"], LEVELS)


def test_level_that_was_not_built_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"holds \(baseline\), got 'avx2'\. Build the package"):
        _native.choose_isa("avx2", LEVELS, ["baseline"])


def test_nothing_usable_is_an_import_error() -> None:
    with pytest.raises(ImportError, match=r"got none\. Build the package first"):
        _native.choose_isa(None, LEVELS, [])


def test_the_fastest_usable_level_wins() -> None:
    assert _native.choose_isa(None, LEVELS, ["baseline", "avx2"]) == "avx2"
    assert _native.choose_isa(None, ["baseline"], LEVELS) == "baseline"


def test_two_levels_live_in_one_process() -> None:
    code = "\n".join(
        [
            "from importlib import import_module",
            "from fastfisher import _native",
            f"for level in {USABLE}:",
            "    core = import_module('fastfisher.' + _native.MODULES[level])",
            "    assert core.isa == level",
            "    assert core.triangle_size(1, 8) == _native.core.triangle_size(1, 8)",
            "print('ok')",
        ]
    )
    assert printed(code) == "ok"


def test_the_stub_lists_every_verb_of_the_core() -> None:
    stub = Path(_native.__file__).with_name("_core.pyi").read_text(encoding="utf-8")
    body = ast.parse(stub).body
    listed = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    listed |= {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if node.value is None
    }
    assert listed == {verb for verb in vars(_native.core) if not verb.startswith("_")}


def names_and_types(node: ast.FunctionDef) -> list[tuple[str, Any]]:
    """Return the arguments of a function, those that stand before / without a name."""
    named = [(a.arg, a.annotation) for a in node.args.args]
    return [("", a.annotation) for a in node.args.posonlyargs] + named


@pytest.mark.parametrize("module", [_native.core, _cpu])
def test_the_stub_says_what_each_verb_takes(module: ModuleType) -> None:
    # stubtest (`nox -s stubs`) sees names alone: pybind11 tells signatures in docstrings only.
    kinds = {"Array": "ndarray", "Array | None": "ndarray", "int": "supportsint"}
    kinds |= {"float": "supportsfloat", "bool": "bool", "Sequence[int]": "sequence"}
    name = "_cpu.pyi" if module is _cpu else "_core.pyi"
    stub = ast.parse(Path(_native.__file__).with_name(name).read_text(encoding="utf-8"))
    for node in (n for n in stub.body if isinstance(n, ast.FunctionDef)):
        said = getattr(module, node.name).__doc__
        signatures = re.findall(rf"^(?:\d+\. )?({node.name}\(.*)$", said, re.MULTILINE)
        overloads = [s for s in signatures if "*args" not in s]
        assert overloads, node.name
        for overload in overloads:
            made = ast.parse(f"def {overload}: ...").body[0]
            assert isinstance(made, ast.FunctionDef)
            bound = [("" if a.startswith("arg") else a, t) for a, t in names_and_types(made)]
            wanted = names_and_types(node)
            assert [a for a, _ in bound] == [a for a, _ in wanted], overload
            for (argument, real), (_, written) in zip(bound, wanted, strict=True):
                kind, text = kinds.get(ast.unparse(written), ""), ast.unparse(real).lower()
                assert kind in text, (node.name, argument, text)
                if kind == "ndarray":
                    optional = ast.unparse(written).endswith("| None")
                    assert text.endswith("| none") == optional, (node.name, argument, text)


# ---- the environment ----


def test_importing_leaves_the_environment_as_it_was() -> None:
    code = "\n".join(
        [
            "import os",
            "before = dict(os.environ)",
            "import fastfisher",
            "assert dict(os.environ) == before",
            "print('ok')",
        ]
    )
    assert printed(code, GOMP_SPINCOUNT=None, KMP_BLOCKTIME=None, OMP_WAIT_POLICY=None) == "ok"
    assert printed(code, GOMP_SPINCOUNT="7", OMP_WAIT_POLICY="active") == "ok"


def test_calm_openmp_sets_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("KMP_BLOCKTIME", "5")
    with _native.calm_openmp():
        assert os.environ["GOMP_SPINCOUNT"] == "1000"
        assert os.environ["KMP_BLOCKTIME"] == "5"
    assert "GOMP_SPINCOUNT" not in os.environ
    assert os.environ["KMP_BLOCKTIME"] == "5"


def test_calm_openmp_respects_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    with _native.calm_openmp():
        assert "GOMP_SPINCOUNT" not in os.environ


def test_calm_openmp_restores_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)

    def fail() -> None:
        with _native.calm_openmp():
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_importing_brings_numpy_and_nothing_else() -> None:
    code = "\n".join(
        [
            "import sys, numpy",
            "import fastfisher",
            "heavy = {'scipy', 'sklearn', 'matplotlib', 'tqdm', 'importlib.metadata'}",
            "import json; print(json.dumps(sorted(heavy & set(sys.modules))))",
        ]
    )
    assert printed(code) == "[]"


# ---- threads ----


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the default number of threads back afterwards."""
    yield
    ff.set_num_threads(None)


@pytest.mark.usefixtures("threads")
def test_set_num_threads() -> None:
    default = ff.get_num_threads()
    assert default >= 1
    ff.set_num_threads(1)
    assert ff.get_num_threads() == 1
    ff.set_num_threads(None)
    assert ff.get_num_threads() == default


@pytest.mark.parametrize("n", [0, -3])
def test_set_num_threads_wants_at_least_one(n: int) -> None:
    with pytest.raises(ValueError, match=rf"n: expected at least 1 thread, got {n}\. None goes"):
        ff.set_num_threads(n)


@pytest.mark.parametrize("n", [1.0, "2", True])
def test_set_num_threads_wants_a_whole_number(n: Any) -> None:
    with pytest.raises(TypeError, match=r"n: expected a whole number of threads or None, got"):
        ff.set_num_threads(n)


def test_omp_num_threads_is_honoured() -> None:
    code = "import fastfisher as ff; print(ff.get_num_threads())"
    assert printed(code, OMP_NUM_THREADS="1") == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_affinity_is_honoured() -> None:
    code = "\n".join(
        [
            "import os",
            "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
            "import fastfisher as ff",
            "print(ff.get_num_threads())",
        ]
    )
    assert printed(code, OMP_NUM_THREADS=None) == "1"


@pytest.mark.skipif(not _native.core.openmp, reason="a build without OpenMP")
def test_threadpoolctl_is_honoured() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert ff.get_num_threads() == 1


def group(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)


def test_cpu_quota_v2(tmp_path: Path) -> None:
    memberships = tmp_path / "cgroup"
    memberships.write_text("0::/a/b\n")
    root = tmp_path / "fs"
    group(root / "a" / "b", cpu__max="max 100000\n")
    assert _native.cpu_quota(str(memberships), str(root)) is None
    group(root / "a", cpu__max="150000 100000\n")
    assert _native.cpu_quota(str(memberships), str(root)) == 2
    group(root, cpu__max="50000 100000\n")
    assert _native.cpu_quota(str(memberships), str(root)) == 1


def test_cpu_quota_v1(tmp_path: Path) -> None:
    memberships = tmp_path / "cgroup"
    memberships.write_text("5:memory:/\n3:cpu,cpuacct:/box\n")
    root = tmp_path / "fs"
    group(root / "cpu,cpuacct" / "box", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert _native.cpu_quota(str(memberships), str(root)) is None
    group(root / "cpu,cpuacct", cpu__cfs_quota_us="320000\n", cpu__cfs_period_us="100000\n")
    assert _native.cpu_quota(str(memberships), str(root)) == 4


def test_cpu_quota_without_control_groups(tmp_path: Path) -> None:
    assert _native.cpu_quota(str(tmp_path / "none"), str(tmp_path)) is None


@pytest.mark.usefixtures("threads")
def test_the_quota_bounds_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "cpu_quota", lambda: 1)
    ff.set_num_threads(None)
    assert ff.get_num_threads() == 1


# ---- show_config ----


def test_show_config_as_dict() -> None:
    config = ff.show_config("dict")
    assert config["isa"] == _native.isa
    assert config["isa_supported"] == SUPPORTED
    assert config["threads"] == ff.get_num_threads()
    assert config["fastfisher"] == ff.__version__
    assert isinstance(config["openmp"], bool)
    assert config["eigen"].count(".") == 2
    assert {"compiler", "numpy", "python", "platform"} <= set(config)


def test_show_config_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert ff.show_config() is None
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["isa"] == _native.isa
    assert lines["isa_supported"] == ", ".join(SUPPORTED)


def test_show_config_refuses_other_modes() -> None:
    with pytest.raises(ValueError, match=r"mode: expected 'print' or 'dict', got 'json'\. 'print'"):
        ff.show_config("json")  # type: ignore[call-overload]
