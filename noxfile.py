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

PYTHONS = nox.project.python_versions(nox.project.load_toml())
GROUPS = nox.project.load_toml()["dependency-groups"]


@nox.session(python=PYTHONS, default=False)
def tests(session: nox.Session) -> None:
    """Run the test suite at the fastest level of this machine."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", "tests", *session.posargs)


@nox.session
def isa(session: nox.Session) -> None:
    """Run the test suite once per instruction-set level that this machine has."""
    session.install(".[test]")
    ask = "from fastfisher import _cpu; print(*_cpu.supported())"
    for level in session.run("python", "-c", ask, silent=True).split():
        session.run("python", "-m", "pytest", *session.posargs, env={"FASTFISHER_ISA": level})


@nox.session
def serial(session: nox.Session) -> None:
    """Build without OpenMP and run the test suite."""
    session.install(".[test]", "--config-settings=cmake.define.FASTFISHER_OPENMP=OFF")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*GROUPS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install(*GROUPS["lint"], "numpy")
    session.run("mypy")


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Build a wheel, graft what it needs, and check it as an index would."""
    session.install(*GROUPS["wheel"])
    session.run("python", "-m", "pip", "wheel", ".", "--no-deps", "-w", "dist")
    built = max(Path("dist").glob("fastfisher-*.whl"), key=os.path.getmtime)
    session.run("auditwheel", "repair", str(built), "-w", "wheelhouse")
    repaired = max(Path("wheelhouse").glob("fastfisher-*.whl"), key=os.path.getmtime)
    session.run("check-wheel-contents", str(repaired))
    session.run("twine", "check", "--strict", str(repaired))


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
    ask = "from fastfisher import _cpu; print(*_cpu.supported())"
    levels = session.run("python", "-c", ask, silent=True, env=environment).split()
    for level in levels:
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
    session.install(".[docs]")
    session.run("sphinx-build", "-W", "-b", "html", "docs", "docs/_build/html")


if __name__ == "__main__":
    nox.main()
