"""Preconditioners: small frozen values that say what stands for F + damping inside CG.

A preconditioner is anything with the method ``prepare(fisher, damping, *, threads)``, which returns
a function from residuals (p, k) to approximate solutions (p, k), Hermitian and positive definite,
or None for the identity.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.solvers.nystrom import nystrom

if TYPE_CHECKING:
    from fastfisher.fisher.protocol import Fisher

__all__ = ["BlockJacobi", "Nystrom"]

# Vectors of a sketch: eight readings of the scores, which serve eight vectors each.
_DEFAULT_RANK = 64


@dataclass(frozen=True, slots=True)
class BlockJacobi:
    """Precondition by the diagonal blocks of F + damping, each factored by Cholesky.

    For parameters that fall into groups (layers, neighbours) which F couples more within than
    across. Where F is block-diagonal in these blocks CG needs a single step.

    Parameters
    ----------
    block_size : int
        Rows of each block, the last may be smaller.
    blocks : sequence of int, optional
        Sizes of the blocks instead; they add up to p.

    Raises
    ------
    NotPositiveDefiniteError
        Names the pivot of a block that is not: then F + damping is not either.

    Notes
    -----
    The blocks cost n · p · block_size multiplications and one reading of the scores; one
    application p · block_size per right-hand side, in parallel over the blocks.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.kron(np.eye(3), [[2.0, 1.0], [1.0, 2.0]])
    >>> cg = ff.CG(preconditioner=ff.BlockJacobi(block_size=2))
    >>> ff.solve(F, np.arange(6.0), solver=cg).iterations
    1
    >>> ff.BlockJacobi(blocks=[2, 4]).blocks
    (2, 4)
    >>> solve = ff.BlockJacobi(block_size=2).prepare(ff.DenseFisher.from_matrix(F), 0.0, threads=0)
    >>> callable(solve)
    True
    """

    block_size: int = 96  # whole panels of every dtype
    blocks: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _check.count("block_size", self.block_size, 1)
        if self.blocks is not None:
            sizes = tuple(_check.count("blocks", size, 1) for size in self.blocks)
            object.__setattr__(self, "blocks", sizes)

    def prepare(
        self, fisher: "Fisher", damping: Any, *, threads: int = 0
    ) -> Callable[[Any], Any] | None:
        """Return the function that solves with the diagonal blocks of F + damping.

        Parameters
        ----------
        fisher : Fisher
        damping : float or array (p,)
            What is added to the diagonal.
        threads : int
            0 for the default.
        """
        params = fisher.shape[0]
        sizes = self._sizes(params)
        ops = fisher._ops
        _memory.guard(
            2 * sum(ops.Triangle.bytes_for(size, fisher.dtype) for size in sizes),
            "BlockJacobi",
            "Use smaller blocks.",
            ops,
        )
        factors, start = [], 0
        for size in sizes:
            triangle, scale = fisher._block_triangle(start, start + size, threads)
            own = damping if isinstance(damping, float) else damping[start : start + size]
            try:
                factors.append(triangle.cholesky(scale, own, threads=threads, with_norm=False))
            except NotPositiveDefiniteError as error:
                pivot = start + (error.pivot or 0)
                raise NotPositiveDefiniteError(
                    "fisher: expected a positive definite F + damping, got a block of it with the "
                    f"pivot {error.value:.3g} at parameter {pivot}. Add damping.",
                    pivot=pivot,
                    value=error.value,
                ) from None
            start += size
        factor = ops.BlockFactor.of(factors)
        return lambda R: factor.solve(R, threads)

    def _sizes(self, params: int) -> list[int]:
        if self.blocks is None:
            whole, rest = divmod(params, self.block_size)
            return [self.block_size] * whole + [rest] * (rest > 0)
        if sum(self.blocks) != params:
            raise ValueError(
                f"blocks: expected sizes that add up to p = {params}, got {sum(self.blocks)}. "
                "Every parameter belongs to one block."
            )
        return list(self.blocks)


@dataclass(frozen=True, slots=True)
class Nystrom:
    """Precondition by a randomised Nyström approximation U Λ Uᴴ of F.

    For spectra that fall off: with at least 2 · d + 1 vectors, d the effective dimension of F at
    the damping, the number of CG steps no longer depends on the condition. In the basis U the
    preconditioned spectrum is level, P⁻¹ = (λ_r + μ) U (Λ + μI)⁻¹ Uᴴ + (I − UUᴴ) with μ the
    damping. A vector damping D is split off first: what is approximated is D^-½ F D^-½, with μ = 1.

    Parameters
    ----------
    rank : int, optional
        r, the vectors of the sketch, at most p; default 64 (or p).
    rng : int, numpy.random.Generator or None
        An int, the default, gives the same sketch each time.

    Notes
    -----
    The sketch is one product of F with r vectors, for scores one reading for every 8 vectors; an
    application costs 2 p r multiplications per right-hand side. Eigenvalues of P below
    8 √p eps of the largest are taken as that, which keeps it positive definite in the working
    precision.

    References
    ----------
    Z. Frangella, J. A. Tropp and M. Udell, "Randomized Nyström preconditioning", SIAM J. Matrix
    Anal. Appl. 44 (2023) 718.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> F = np.diag(np.r_[np.geomspace(1e6, 1e3, 10), np.full(90, 1e-3)])
    >>> cg = ff.CG(preconditioner=ff.Nystrom(rank=12))
    >>> ff.solve(F, np.ones(100), damping=1.0, solver=cg).iterations <= 4
    True
    >>> ff.Nystrom(rank=12, rng=1).rng
    1
    >>> callable(ff.Nystrom(rank=12).prepare(ff.DenseFisher.from_matrix(F), 1.0, threads=0))
    True
    """

    rank: int | None = None
    rng: Any = 0

    def __post_init__(self) -> None:
        if self.rank is not None:
            _check.count("rank", self.rank, 1)
        _check.generator(self.rng)

    def prepare(
        self, fisher: "Fisher", damping: Any, *, threads: int = 0
    ) -> Callable[[Any], Any] | None:
        """Return the function R → P⁻¹ R; None, the identity, where F is zero.

        Parameters
        ----------
        fisher : Fisher
        damping : float or array (p,)
            What is added to the diagonal; a vector is positive throughout.
        threads : int
            0 for the default.
        """
        xp, dtype, params = fisher._ops.xp, fisher._real_dtype, fisher.shape[0]
        root: Any = None
        mu = damping
        if not isinstance(damping, float):
            if not bool((damping > 0).all()):
                raise ValueError(
                    "damping: expected a positive vector for Nystrom(), got a zero in it. "
                    "It divides the parameters by their damping: use BlockJacobi() or 'jacobi'."
                )
            root, mu = xp.sqrt(damping)[:, None].astype(dtype), 1.0

        def product(V: Any) -> Any:
            if root is None:
                return fisher._product(V, threads)
            return fisher._product(V / root, threads) / root

        rank = min(_DEFAULT_RANK, params) if self.rank is None else self.rank
        U, values = nystrom(fisher._ops, product, params, fisher.dtype, rank, self.rng)
        if mu == 0.0:  # no more than what is known not to be zero
            kept = values > params * float(np.finfo(dtype).eps) * values[:1].sum()
            U, values = U[:, kept], values[kept]
        if values.shape[0] == 0:
            return None
        least = 8 * math.sqrt(params) * float(np.finfo(dtype).eps)
        change = xp.maximum((values[-1] + mu) / (values + mu), least) - 1.0
        U, change = U.astype(fisher.dtype), change[:, None].astype(dtype)
        adjoint = U.conj().T
        if root is None:
            return lambda R: R + U @ (change * (adjoint @ R))

        def apply(R: Any) -> Any:
            scaled = R / root
            return (scaled + U @ (change * (adjoint @ scaled))) / root

        return apply
