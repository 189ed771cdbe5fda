"""The GPU path beside cuBLAS, cuSOLVER and torch on one device: ``python -m bench.gpu [--write]``.

Needs a CUDA device and CuPy (``pip install 'fastfisher[cupy]'``, or cupy-cuda13x); times torch too
if it is installed. Runs the tests marked ``gpu`` first. ``--write`` puts the table into the README.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastfisher as ff

from .table import duration, put

ROUNDS = 15
# Each measurement takes about so long: more than any clock's step or launch.
SECONDS = 0.02
READ = """
extern "C" __global__ void read(const float4* x, long long n, float* out) {
  float sum = 0.0f;
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
       i += (long long)gridDim.x * blockDim.x) {
    const float4 y = x[i];
    sum += y.x + y.y + y.z + y.w;
  }
  if (sum == 0.12345f) *out = sum;
}
"""


@dataclass(frozen=True)
class Job:
    """One line of the table: what is timed, against what, and what bounds it."""

    name: str
    shape: str
    dtype: str
    ours: Callable[..., Any]  # takes nothing; what it works on are defaults, bound in the loop
    others: dict[str, Callable[..., Any]]
    work: float  # operations, or bytes read
    roof: str  # "flops" or "bytes"
    goal: str
    tolerance: float


def main() -> None:
    """Check that there is a device, test, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--no-tests", action="store_true", help="do not run the tests first")
    options = parser.parse_args()
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        sys.exit("CuPy is not installed: pip install 'fastfisher[cupy]' (or cupy-cuda13x).")
    try:
        cupy.cuda.runtime.getDeviceCount()
        device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        sys.exit(f"No CUDA device: {error}. There is nothing to measure.")
    tests = "not run" if options.no_tests else _tests()
    roofs = _roofs(cupy)
    head = (
        f"{device}, CUDA {cupy.cuda.runtime.runtimeGetVersion()}, CuPy {cupy.__version__}; "
        f"float32 {roofs['float32'] / 1e12:.1f} TF/s, float64 {roofs['float64'] / 1e12:.1f} TF/s "
        f"(gemm), {roofs['bytes'] / 1e9:.0f} GB/s read. Tests: {tests}."
    )
    columns = ["job", "shape", "dtype", "cupy", "torch", "ours", "×·best·other", "of·roof", "goal"]
    lines = [
        head,
        "",
        f"| {' | '.join(columns).replace('·', ' ')} |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for job in jobs(cupy, _torch()):
        lines.append(_line(cupy, job, roofs))
        print(lines[-1], flush=True)
        cupy.get_default_memory_pool().free_all_blocks()
    text = "\n".join(lines)
    print(f"\n{text}")
    if options.write:
        put("gpu", text)


def _tests() -> str:
    """Run the tests that need a device and return pytest's last line; stop if one fails."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout.strip().splitlines()[-1].strip("= ")


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


# ---- clocks ----
def _milliseconds(cupy: Any, call: Callable[[], Any], times: int) -> float:
    """Return what one call takes on the device, of several in a row."""
    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(times):
        call()
    stop.record()
    stop.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, stop)) / times


def _medians(cupy: Any, calls: list[Callable[[], Any]]) -> list[float]:
    """Return the median seconds of each call, taken in turn."""
    times = []
    for call in calls:
        call()
        once = _milliseconds(cupy, call, 1) * 1e-3
        times.append(max(round(SECONDS / max(once, 1e-6)), 1))
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, number, found in zip(calls, times, taken, strict=True):
            found.append(_milliseconds(cupy, call, number) * 1e-3)
    return [statistics.median(found) for found in taken]


def _roofs(cupy: Any) -> dict[str, float]:
    """Return operations per second of large products, and bytes per second of reading."""
    roofs = {}
    size = 8192
    for name in ("float32", "float64"):
        A = cupy.random.default_rng(0).standard_normal((size, size), dtype=name)
        out = cupy.empty_like(A)
        (seconds,) = _medians(cupy, [partial(cupy.matmul, A, A, out=out)])
        roofs[name] = 2.0 * size**3 / seconds
    numbers = cupy.ones(2**30, dtype=np.float32)
    read = cupy.RawKernel(READ, "read")
    blocks = 16 * cupy.cuda.Device().attributes["MultiProcessorCount"]
    given = (numbers, np.int64(numbers.size // 4), cupy.zeros(1, dtype=np.float32))
    (seconds,) = _medians(cupy, [lambda: read((blocks,), (256,), given)])
    return {**roofs, "bytes": numbers.nbytes / seconds}


# ---- the jobs ----
def jobs(cupy: Any, torch: Any) -> Iterator[Job]:
    """Yield all jobs; the arrays of one are gone before the next is made."""
    for name in ("float32", "float64"):
        yield from _of_scores(cupy, torch, name)
        yield from _of_bandwidth(cupy, torch, name)
        yield from _of_solves(cupy, torch, name)
        for p in (2, 3, 8, 15, 32):
            yield _of_batches(cupy, torch, name, p)


def _draw(cupy: Any, name: str, *shape: int) -> Any:
    return cupy.random.default_rng(sum(shape)).standard_normal(shape, dtype=name)


def _of_scores(cupy: Any, torch: Any, name: str) -> Iterator[Job]:
    from cupy import cublas

    eps = float(np.finfo(name).eps)
    for n, p in ((4096, 2048), (16384, 4096), (100_000, 200)):
        S = _draw(cupy, name, n, p)
        w = cupy.abs(_draw(cupy, name, n, 1))[:, 0]

        def syrk(S: Any = S) -> Any:
            out = cublas.syrk("T", S, lower=True)
            out /= len(S)
            return cupy.tril(out) + cupy.tril(out, -1).T

        others: dict[str, Callable[..., Any]] = {
            "cupy": lambda S=S: S.T @ S / len(S),
            "cupy syrk": syrk,
        }
        if torch:
            T = torch.from_dlpack(S)
            others["torch"] = lambda T=T: T.T @ T / len(T)
        flops, bound = 1.0 * n * p * (p + 1), 8 * n**0.5 * eps
        yield Job(
            "Fisher", f"{n}×{p}", name, lambda S=S: ff.empirical_fisher(S), others,
            flops, "flops", "within 10 % of syrk", bound,
        )  # fmt: skip
        others = {"cupy": lambda S=S, w=w: S.T @ (w[:, None] * S) / w.sum()}
        yield Job(
            "weighted Fisher", f"{n}×{p}", name, lambda S=S, w=w: ff.empirical_fisher(S, weights=w),
            others, flops, "flops", "", bound,
        )  # fmt: skip
    if name == "float32":
        H = _draw(cupy, name, 16384, 4096).astype(np.float16)
        yield Job(
            "Fisher of halves", "16384×4096", "float16",
            lambda: ff.empirical_fisher(H), {"cupy": lambda: (G := H.astype(name)).T @ G / len(G)},
            16384.0 * 4096 * 4097, "flops", "", 8 * 128 * eps,
        )  # fmt: skip


def _of_bandwidth(cupy: Any, torch: Any, name: str) -> Iterator[Job]:
    n, p = (1_000_000, 500) if name == "float64" else (2_000_000, 500)
    S, eps = _draw(cupy, name, n, p), float(np.finfo(name).eps)
    T: Any = torch.from_dlpack(S) if torch else None
    others: dict[str, Callable[..., Any]] = {"cupy": lambda: cupy.einsum("ij,ij->j", S, S) / n}
    if torch:
        others["torch"] = lambda: (T * T).mean(0)
    yield Job(
        "diagonal", f"{n}×{p}", name, lambda: ff.fisher_diagonal(S), others,
        float(S.nbytes), "bytes", "≥ 85 % of reading", n**0.5 * eps,
    )  # fmt: skip
    for k in (1, 4, 8):
        V = _draw(cupy, name, p, k)
        others = {"cupy": lambda V=V: S.T @ (S @ V) / n}
        if torch:
            X = torch.from_dlpack(V)
            others["torch"] = lambda X=X: T.T @ (T @ X) / n
        yield Job(
            f"F·v, {k}", f"{n}×{p}", name, lambda V=V: ff.fvp(S, V), others,
            float(S.nbytes), "bytes", "≥ 85 % of reading" if k == 1 else "", n**0.5 * eps,
        )  # fmt: skip


def _of_solves(cupy: Any, torch: Any, name: str) -> Iterator[Job]:
    from cupyx.scipy.linalg import solve_triangular

    eps = float(np.finfo(name).eps)

    def by_cupy(F: Any, b: Any) -> Any:
        L = cupy.linalg.cholesky(F + 0.1 * cupy.eye(len(F), dtype=name))
        return solve_triangular(L.T, solve_triangular(L, b, lower=True), lower=False)

    for p in (2048, 8192):
        S, b = _draw(cupy, name, 2 * p, p), _draw(cupy, name, p, 1)[:, 0]
        F = ff.empirical_fisher(S)
        others: dict[str, Callable[..., Any]] = {"cupy": lambda F=F, b=b: by_cupy(F, b)}
        if torch:
            A, c = torch.from_dlpack(F), torch.from_dlpack(b)

            def by_torch(A: Any = A, c: Any = c) -> Any:
                L = torch.linalg.cholesky(A + 0.1 * torch.eye(len(A), dtype=A.dtype, device="cuda"))
                return torch.cholesky_solve(c[:, None], L)[:, 0]

            others["torch"] = by_torch
        yield Job(
            "Cholesky solve", f"{p}", name,
            lambda F=F, b=b: ff.solve(F, b, damping=0.1, solver=ff.Cholesky()).value,
            others, p**3 / 3, "flops", "= cuSOLVER", 1000 * p**0.5 * eps,
        )  # fmt: skip
    for n, p in ((16384, 4096), (512, 200_000)):
        S = _draw(cupy, name, n, p)

        def step(S: Any = S, n: int = n, p: int = p) -> Any:
            one = cupy.ones(n, dtype=name)
            if n < p:
                return S.T @ by_cupy(S @ S.T / n, one / n)
            return by_cupy(S.T @ S / n, S.T @ one / n)

        m = min(n, p)
        yield Job(
            "natural gradient", f"{n}×{p}", name, lambda S=S: ff.natural_gradient(S, damping=0.1),
            {"cupy": step}, 1.0 * n * p * m + m**3 / 3, "flops", "", 1000 * m**0.5 * eps,
        )  # fmt: skip


def _of_batches(cupy: Any, torch: Any, name: str, p: int) -> Job:
    from cupyx import lapack

    count = {2: 2_000_000, 3: 1_000_000, 8: 400_000, 15: 100_000, 32: 40_000}[p]
    F = ff.batch.empirical_fisher(_draw(cupy, name, count, 2 * p + 2, p))
    b = _draw(cupy, name, count, p)
    others = {
        "cupy": lambda: cupy.linalg.solve(F, b[:, :, None])[:, :, 0],
        "cupy posv": lambda: lapack.posv(F, b[:, :, None])[:, :, 0],
    }
    if torch:
        A, c = torch.from_dlpack(F), torch.from_dlpack(b)

        def by_torch() -> Any:
            L = torch.linalg.cholesky_ex(A).L
            return torch.cholesky_solve(c[:, :, None], L)[:, :, 0]

        others["torch"] = by_torch
    return Job(
        "batch.solve", f"{count} of {p}", name, lambda: ff.batch.solve(F, b).value, others,
        float(F.nbytes / 2 + 2 * b.nbytes), "bytes", "≥ 5×", 1e6 * float(np.finfo(name).eps),
    )  # fmt: skip


# ---- the table ----
def _line(cupy: Any, job: Job, roofs: dict[str, float]) -> str:
    """Check the answers, time everybody in turn, and return a line."""
    wanted = cupy.asarray(job.others["cupy"]())
    size = float(abs(wanted).max())
    error = float(abs(cupy.asarray(job.ours()) - wanted).max()) / size
    assert error <= job.tolerance, f"{job.name} {job.shape} {job.dtype}: error {error:.1e}"
    del wanted
    ours, *others = _medians(cupy, [job.ours, *job.others.values()])
    named = dict(zip(job.others, others, strict=True))
    cupys = min(seconds for name, seconds in named.items() if name.startswith("cupy"))
    torchs = named.get("torch")
    roof = roofs["bytes"] if job.roof == "bytes" else roofs.get(job.dtype, roofs["float32"])
    cells = [
        *(job.name, job.shape, job.dtype),
        duration(cupys),
        "–" if torchs is None else duration(torchs),
        duration(ours),
        f"{min(others) / ours:.2f}",
        f"{job.work / ours / roof:.0%}",
        job.goal,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
