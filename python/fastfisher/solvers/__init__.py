"""Solvers: small frozen values that say how (F + damping) x = g is solved.

A solver is anything with the method ``solve(fisher, rhs, shift, *, threads, diagnose)``. `rhs` is
(p, k), or None for the mean score of a `ScoreFisher`; `shift` is what is added to the diagonal, a
float or a vector (p,); `diagnose=False` leaves out residual and condition number for callers who
want the value alone. It returns a `Solution`, or raises what `fastfisher.errors` names. A solver
that can do better for a path of dampings than one after the other also has ``solve_path``, with the
same meaning of `rhs`, and one that leaves a factorisation behind ``factor(fisher, shift, *,
threads)``.
"""

from fastfisher.solvers.auto import choose
from fastfisher.solvers.cg import CG
from fastfisher.solvers.cholesky import Cholesky
from fastfisher.solvers.dual import Dual
from fastfisher.solvers.eigh import Eigh
from fastfisher.solvers.path import PathSolution
from fastfisher.solvers.preconditioners import BlockJacobi, Nystrom
from fastfisher.solvers.qr import QR
from fastfisher.solvers.solution import Solution, Status

__all__ = [
    "CG",
    "QR",
    "BlockJacobi",
    "Cholesky",
    "Dual",
    "Eigh",
    "Nystrom",
    "PathSolution",
    "Solution",
    "Status",
    "choose",
]
