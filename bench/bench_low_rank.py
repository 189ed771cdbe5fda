"""Low-rank sketches beside frequent directions in NumPy, and Woodbury's identity written out."""

from __future__ import annotations

import numpy as np

import fastfisher as ff

from .job import Job, Real, as_test

RANK = 32
DAMPING = 1e-2


def falling_scores(
    rng: np.random.Generator, n: int, p: int, dtype: Real
) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose directions fall off, and two vectors to look at the result with."""
    G = rng.standard_normal((n, p), dtype=dtype)
    G *= np.geomspace(1, 1e-2, p, dtype=dtype)
    return G, rng.standard_normal((p, 2), dtype=dtype)


def sketched(G: np.ndarray, V: np.ndarray) -> np.ndarray:
    answer: np.ndarray = ff.LowRankFisher.from_scores(G, RANK) @ V
    return answer


def frequent_directions(G: np.ndarray, V: np.ndarray, rows: int = 2 * RANK) -> np.ndarray:
    """Shrink `rows` rows to RANK by the Gram matrix, as one would write it for speed."""
    n, p = G.shape
    B, held, lost, start = np.empty((rows, p), G.dtype), 0, 0.0, 0
    while start < n:
        if held == rows:
            w, Q = np.linalg.eigh(B @ B.T)
            left = np.maximum(w[-RANK:] - w[-RANK - 1], 0)
            lost += w.sum() - left.sum()
            B[:RANK] = (Q[:, -RANK:] * np.sqrt(left / w[-RANK:])).T @ B
            held = RANK
        some = min(rows - held, n - start)
        B[held : held + some] = G[start : start + some]
        held, start = held + some, start + some
    answer: np.ndarray = (B[:held].T @ (B[:held] @ V) + lost / p * V) / n
    return answer


def by_more_rows(G: np.ndarray, V: np.ndarray) -> np.ndarray:
    return frequent_directions(G, V, 3 * RANK)


def distance(X: np.ndarray, G: np.ndarray, V: np.ndarray) -> float:
    """‖(F − F̂) v‖ / ‖v‖ in units of the bound tr F / (r + 1)."""
    bound = np.einsum("ij,ij->", G, G) / len(G) / (RANK + 1)
    missed = np.linalg.norm(G.T @ (G @ V) / len(G) - X, axis=0) / np.linalg.norm(V, axis=0)
    return float(missed.max() / bound)


def sketch(
    rng: np.random.Generator, n: int, p: int, dtype: Real
) -> tuple[ff.LowRankFisher, np.ndarray, float, np.ndarray]:
    """A sketch, its rows, ρ and a right-hand side."""
    G, V = falling_scores(rng, n, p, dtype)
    F = ff.LowRankFisher.from_scores(G, RANK)
    return F, F._sums.rows / np.sqrt(n), F.residual, V[:, 0]


def solved(F: ff.LowRankFisher, B: np.ndarray, rho: float, g: np.ndarray) -> np.ndarray:
    answer: np.ndarray = F.solve(g, damping=DAMPING)
    return answer


def woodbury(F: ff.LowRankFisher, B: np.ndarray, rho: float, g: np.ndarray) -> np.ndarray:
    shift = DAMPING + rho
    answer: np.ndarray = (
        g - B.T @ np.linalg.solve(B @ B.T + shift * np.eye(len(B)), B @ g)
    ) / shift
    return answer


def residual(x: np.ndarray, F: ff.LowRankFisher, B: np.ndarray, rho: float, g: np.ndarray) -> float:
    rest = B.T @ (B @ x) + (DAMPING + rho) * x - g
    return float(np.linalg.norm(rest) / np.linalg.norm(g))


JOBS = [
    Job(
        f"low-rank sketch, rank {RANK}",
        (2000, 200_000),
        make=falling_scores,
        ours=sketched,
        lines={
            "eigh(B @ B.T) whenever 2r rows are full": frequent_directions,
            "the same with 3r rows": by_more_rows,
        },
        error=distance,
        tolerance=1.0,
    ),
    Job(
        "solve with 96 rows by Woodbury",
        (96, 200_000),
        make=sketch,
        ours=solved,
        lines={"(g - B.T @ solve(B @ B.T + λI, B @ g)) / λ": woodbury},
        error=residual,
        tolerance=1e-9,
    ),
]

test_low_rank = as_test(JOBS)
