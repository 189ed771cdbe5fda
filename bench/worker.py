"""A child process that runs the other side: NumPy with chosen OpenBLAS kernels, or torch.

It reads one JSON request per line and answers with one. Its own clock does the timing, so that the
pipe costs nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

CORE_TYPES = ("SkylakeX", "Zen", "Haswell")


class Worker:
    """The parent's end: one child with its own kernels."""

    def __init__(self, kind: str, core_type: str | None = None) -> None:
        environment = dict(os.environ)
        if core_type is not None:
            environment["OPENBLAS_CORETYPE"] = core_type
        self.name = f"OpenBLAS {core_type}" if core_type else kind
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ask(self, **request: Any) -> Any:
        """Send one request; a child that died (kernels this processor lacks) is a RuntimeError."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(f"{self.name}: the worker ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the child."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()


def openblas_kernels() -> str:
    """The kernels that the loaded OpenBLAS libraries run, by threadpoolctl."""
    from threadpoolctl import threadpool_info

    found = {
        str(library.get("architecture"))
        for library in threadpool_info()
        if library["internal_api"] == "openblas"
    }
    return ", ".join(sorted(found)) or "no OpenBLAS"


def fingerprint(answer: Any) -> list[float]:
    """A few numbers by which the parent recognises the answer."""
    parts = answer if isinstance(answer, tuple) else (answer,)
    flat = np.concatenate([np.asarray(part).ravel() for part in parts])
    if np.iscomplexobj(flat):
        flat = flat.view(flat.real.dtype)
    return [float(x) for x in flat[:: max(1, len(flat) // 7)][:8]]


def serve(kind: str) -> None:
    """Answer requests until the parent closes the pipe."""
    from fastfisher.demo.clock import stopwatch

    from .job import Job
    from .jobs import find

    job: Job | None = None
    inputs: tuple[Any, ...] = ()
    lines: Mapping[str, Callable[..., Any]] = {}
    for request_line in sys.stdin:
        request = json.loads(request_line)
        answer: Any = None
        if request["do"] == "kernels":
            answer = openblas_kernels()
        elif request["do"] == "probe":
            A = np.random.default_rng(0).standard_normal((1000, 1000))
            answer = min(stopwatch(lambda: A.T @ A)() for _ in range(8))  # noqa: B023
        elif request["do"] == "load":
            inputs = ()  # let the old ones go before the new ones come
            job = find(request["job"])
            lines = job.lines
            if kind == "torch":
                lines = {"torch": job.torch} if job.torch else {}
            if lines:
                inputs = job.inputs(request["full"])
            if kind == "torch":
                inputs = _as_tensors(inputs)
            answer = {line: fingerprint(call(*inputs)) for line, call in lines.items()}
        elif request["do"] == "time" and job is not None:
            call = lines[request["line"]]
            answer = stopwatch(lambda: call(*inputs), job.repeat)()  # noqa: B023
        print(json.dumps(answer), flush=True)


def _as_tensors(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    import torch

    def tensor(x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        if x.dtype.name == "bfloat16":  # which torch cannot take from NumPy by name
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(x)

    return tuple(tensor(x) for x in inputs)


if __name__ == "__main__":
    serve(sys.argv[1])
