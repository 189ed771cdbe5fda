#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.10.14"]
# ///
"""Every job of a contributor, one session each: `nox -l` lists them, `nox -s tests` runs one."""

import os
import shlex
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"

PROJECT = nox.project.load_toml()
PYTHONS = nox.project.python_versions(PROJECT)
GROUPS = PROJECT["dependency-groups"]
# Builds that nobody ships hold one level: the others would only repeat the sources.
ONE_LEVEL = "-Ccmake.define.FASTFISHER_LEVELS=baseline"
STRICT = "-Ccmake.define.FASTFISHER_WERROR=ON"
# Bytes of a repaired wheel of five levels: 5.8 MB with GCC 12.
WHEEL_LIMIT = 6_000_000


def supported_levels(session: nox.Session, **env: str) -> list[str]:
    """Ask which instruction-set levels this machine has."""
    ask = "from fastfisher import _cpu; print(*_cpu.supported())"
    return str(session.run("python", "-c", ask, silent=True, env=env)).split()


def newest(folder: str, pattern: str) -> Path:
    """Return the file that was made last."""
    return max(Path(folder).glob(pattern), key=os.path.getmtime)


@nox.session(python=PYTHONS, default=False)
def tests(session: nox.Session) -> None:
    """Run the test suite at the fastest level of this machine."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", "tests", *session.posargs)


@nox.session
def isa(session: nox.Session) -> None:
    """Run the test suite once per instruction-set level that this machine has."""
    session.install(".[test]")
    for level in supported_levels(session):
        session.run("python", "-m", "pytest", *session.posargs, env={"FASTFISHER_ISA": level})


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """Run the test suite with the oldest versions that the dependencies allow."""
    session.install("uv")
    # statsmodels and Matplotlib set no upper limits for these two when they were as old as this;
    # named here, they are taken as old as they may be, and pandas knows NumPy 2 since 2.2.2.
    session.run(
        *("uv", "pip", "install", "--python", session.virtualenv.location),
        *("--resolution", "lowest-direct", ".[test]", ONE_LEVEL),
        *("pandas>=2.2.2,<3", "pyparsing>=3.1,<3.2"),
    )
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def serial(session: nox.Session) -> None:
    """Build without OpenMP and run the test suite."""
    session.install(".[test]", STRICT, ONE_LEVEL, "-Ccmake.define.FASTFISHER_OPENMP=OFF")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def clang(session: nox.Session) -> None:
    """Build with Clang (CLANGXX names it), a warning being an error, and run the test suite."""
    compiler = os.environ.get("CLANGXX", "clang++")
    session.install(".[test]", STRICT, env={"CXX": compiler})
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def system_eigen(session: nox.Session) -> None:
    """Build with the Eigen of the system, as an offline build does, and run the test suite."""
    # Without isolation for all: one of NGBoost's dependencies has no wheel and asks for setuptools.
    session.install("scikit-build-core>=0.11", "pybind11>=3.0", "cmake", "ninja", "setuptools")
    session.install("--no-build-isolation", ".[test]", STRICT, ONE_LEVEL)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def emulate(session: nox.Session) -> None:
    """Cross-compile the kernels for AArch64 and check them under QEMU, without Python."""
    session.install("--no-deps", "cmeel-eigen==3.4.1")
    [eigen] = Path(session.virtualenv.location).rglob("cmeel.prefix/include/eigen3")
    program = Path(session.create_tmp()) / "kernels"
    definitions = ("EIGEN_MPL2_ONLY", "EIGEN_DONT_PARALLELIZE", "EIGEN_NO_DEBUG")
    session.run(
        *("aarch64-linux-gnu-g++", "-std=c++17", "-O1", "-fopenmp", "-ffp-contract=fast"),
        *("-Wall", "-Wextra", "-Wpedantic", "-Wno-maybe-uninitialized", "-Werror"),
        *(f"-D{name}" for name in definitions),
        *("-isystem", str(eigen), "-Isrc/cpp", "tests/kernels.cpp"),
        *sorted(map(str, Path("src/cpp/kernels").glob("*.cpp"))),
        *("-o", str(program)),
        external=True,
    )
    session.run("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(program), external=True)


@nox.session(default=False)
def lapack(session: nox.Session) -> None:
    """Run LAPACK's test program at every level and write docs/reliability.md (ten minutes)."""
    session.install(".[test]")
    session.run("python", "tests/lapack_table.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, packaging conventions and workflows."""
    session.install(*GROUPS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("validate-pyproject", "pyproject.toml")
    session.run("repo-review", ".")
    session.run("zizmor", "--offline", ".github")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install(*GROUPS["lint"], "numpy")
    session.run("mypy")


@nox.session(default=False)
def stubs(session: nox.Session) -> None:
    """Check that the stubs of the compiled modules list what those hold."""
    session.install(*GROUPS["lint"], ".", ONE_LEVEL)
    session.chdir(session.create_tmp())  # the stubs that were installed, not those of the checkout
    session.run("stubtest", "fastfisher._core", "fastfisher._cpu")


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Build a source distribution, from it a wheel, and check both as an index would."""
    session.install(*GROUPS["wheel"])
    session.run("python", "-m", "build", "--outdir", "dist")
    source, built = newest("dist", "fastfisher-*.tar.gz"), newest("dist", "fastfisher-*.whl")
    session.run("auditwheel", "repair", str(built), "-w", "wheelhouse")
    repaired = newest("wheelhouse", "fastfisher-*.whl")
    session.run("check-wheel-contents", str(repaired))
    session.run("twine", "check", "--strict", str(source), str(repaired))
    # Two of its ten points are for an author's e-mail address. There is none: reports come through
    # the site, as SECURITY.md says.
    session.run("pyroma", "--min=8", ".")
    size = repaired.stat().st_size
    if size > WHEEL_LIMIT:
        session.error(f"{repaired.name}: expected at most {WHEEL_LIMIT} bytes, got {size}.")
    session.log(f"{repaired.name}: {size / 1e6:.1f} MB")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure every function beside its NumPy line and print the table."""
    session.install(".[bench]")
    session.run("python", "-m", "bench", *session.posargs)


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """Run the main job."""
    session.install(".[demo]")
    session.run("python", "-m", "fastfisher", "demo", *session.posargs)


def sanitized(session: nox.Session, flags: str, runtimes: list[str], *more: str) -> dict[str, str]:
    """Install a build with sanitizers, and return the environment that preloads their runtimes."""
    session.install(
        ".[test]",
        f"--config-settings=cmake.define.CMAKE_CXX_FLAGS=-O1 -g {flags}",
        "--config-settings=cmake.build-type=Debug",
        "--config-settings=install.strip=false",
        *more,
    )
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    libraries = [
        subprocess.run(
            [*compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True
        ).stdout.strip()
        for name in runtimes
    ]
    return {"LD_PRELOAD": " ".join(libraries), "PYTHONMALLOC": "malloc"}


@nox.session(default=False)
def sanitize(session: nox.Session) -> None:
    """Run the suite per level with the address and undefined-behaviour sanitizers."""
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
    environment = sanitized(session, flags, ["libasan.so", "libubsan.so"])
    environment["ASAN_OPTIONS"] = "detect_leaks=0:allocator_may_return_null=1"
    for level in supported_levels(session, **environment):
        session.run(
            "python", "-m", "pytest", *session.posargs, env=environment | {"FASTFISHER_ISA": level}
        )


@nox.session(default=False)
def threads(session: nox.Session) -> None:
    """Run all kernels on several threads with the thread sanitizer."""
    # GCC's OpenMP is unknown to the sanitizer, so the same tasks run on std::thread.
    environment = sanitized(
        session,
        "-fsanitize=thread -DFASTFISHER_STD_THREADS",
        ["libtsan.so"],
        "--config-settings=cmake.define.FASTFISHER_OPENMP=OFF",
    )
    environment["TSAN_OPTIONS"] = "halt_on_error=1:ignore_noninstrumented_modules=1:exitcode=66"
    session.run("python", "tests/threads.py", env=environment)


@nox.session(default=False)
def leaks(session: nox.Session) -> None:
    """Call every public function a thousand times, right and wrong, and look for what grows."""
    session.install(".[test]")
    session.run("python", "tests/leaks.py", "1000", "--resident")


@nox.session(default=False)
def memory(session: nox.Session) -> None:
    """Run every public call in a limited address space."""
    session.install(".[test]")
    session.run("python", "tests/memory_limits.py", env={"OPENBLAS_NUM_THREADS": "1"})


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Load damaged files for a minute, or for as many seconds as given."""
    session.install(".[test]")
    session.run("python", "tests/fuzz_load.py", *(session.posargs or ["60"]))


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation."""
    session.install(".[docs]", ONE_LEVEL)
    session.run("sphinx-build", "-W", "-b", "html", "docs", "docs/_build/html")


if __name__ == "__main__":
    nox.main()
