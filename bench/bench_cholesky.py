"""Damped Cholesky beside SciPy: factor and solve, inverse, log-determinant."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg as sla

import fastfisher as ff

from . import oracle
from .job import Job, Real, as_test

DAMPING = 1e-2


def system(rng: np.random.Generator, p: int, dtype: Real) -> tuple[np.ndarray, np.ndarray]:
    G = rng.standard_normal((2 * p, p), dtype=dtype)
    return G.T @ G / (2 * p), rng.standard_normal(p, dtype=dtype)


def ours(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.solve(A, b, damping=DAMPING, solver=ff.Cholesky()).value
    return answer


def mixed(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.solve(
        A, b, damping=DAMPING, solver=ff.Cholesky(precision="mixed")
    ).value
    return answer


def by_cho_factor(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    damped = A.copy(order="F")
    np.einsum("ii->i", damped)[:] += DAMPING
    answer: np.ndarray = sla.cho_solve(
        sla.cho_factor(damped, lower=True, overwrite_a=True, check_finite=False), b
    )
    return answer


def by_solve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    damped = A.copy(order="F")
    np.einsum("ii->i", damped)[:] += DAMPING
    answer: np.ndarray = sla.solve(damped, b, assume_a="pos", overwrite_a=True, check_finite=False)
    return answer


def factored_by_torch(A: Any) -> Any:
    import torch

    damped = A.clone()
    damped.diagonal().add_(DAMPING)
    return torch.linalg.cholesky(damped)


def by_torch(A: Any, b: Any) -> Any:
    import torch

    return torch.cholesky_solve(b[:, None], factored_by_torch(A))[:, 0]


def inverse_by_torch(A: Any, b: Any) -> Any:
    import torch

    return torch.cholesky_inverse(factored_by_torch(A))


def logdet_by_torch(A: Any, b: Any) -> Any:
    return 2 * factored_by_torch(A).diagonal().log().sum()


def error(x: np.ndarray, A: np.ndarray, b: np.ndarray) -> float:
    return oracle.solve_residual(x, A, b, DAMPING)


def inverse(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.DenseFisher.from_matrix(A).factor(damping=DAMPING).inverse()
    return answer


def inverse_by_potri(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    damped = A.copy(order="F")
    np.einsum("ii->i", damped)[:] += DAMPING
    L, _ = sla.lapack.dpotrf(damped, lower=True, overwrite_a=True)
    X, _ = sla.lapack.dpotri(L, lower=True, overwrite_c=True)
    answer: np.ndarray = np.tril(X) + np.tril(X, -1).T
    return answer


def inverse_by_inv(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.inv(A + DAMPING * np.eye(len(A)))


def inverse_error(X: np.ndarray, A: np.ndarray, b: np.ndarray) -> float:
    return oracle.solve_residual(X @ b, A, b, DAMPING)


def logdet(A: np.ndarray, b: np.ndarray) -> float:
    return ff.DenseFisher.from_matrix(A).logdet(DAMPING)


def logdet_by_numpy(A: np.ndarray, b: np.ndarray) -> float:
    L = np.linalg.cholesky(A + DAMPING * np.eye(len(A)))
    return float(2 * np.log(np.diag(L)).sum())


def logdet_error(value: float, A: np.ndarray, b: np.ndarray) -> float:
    sign, reference = np.linalg.slogdet(A + DAMPING * np.eye(len(A)))
    return abs(value - reference) / abs(reference) if sign > 0 else np.inf


JOBS = [
    *(
        Job(
            name,
            (p,),
            make=system,
            ours=call,
            lines={
                "cho_solve(cho_factor(F + λI), b)": by_cho_factor,
                "scipy.linalg.solve(F + λI, b, assume_a='pos')": by_solve,
            },
            torch=by_torch,
            error=error,
            tolerance=1e-13,
            work=(lambda p, itemsize: (p**3 / 3, p * p * itemsize / 2)) if call is ours else None,
        )
        for name, call, p in (
            ("Cholesky solve", ours, 1000),
            ("Cholesky solve", ours, 2000),
            ("Cholesky solve", ours, 4000),
            ("Cholesky solve, mixed precision", mixed, 2000),
            ("Cholesky solve, mixed precision", mixed, 4000),
        )
    ),
    Job(
        "inverse",
        (2000,),
        make=system,
        ours=inverse,
        lines={"potri(potrf(F + λI))": inverse_by_potri, "inv(F + λI)": inverse_by_inv},
        torch=inverse_by_torch,
        error=inverse_error,
        tolerance=1e-12,
        work=lambda p, itemsize: (p**3, p * p * itemsize / 2),
    ),
    Job(
        "log-determinant",
        (2000,),
        make=system,
        ours=logdet,
        lines={"2 log diag(cholesky(F + λI)).sum()": logdet_by_numpy},
        torch=logdet_by_torch,
        error=logdet_error,
        tolerance=1e-11,
        work=lambda p, itemsize: (p**3 / 3, p * p * itemsize / 2),
    ),
]

test_cholesky = as_test(JOBS)
