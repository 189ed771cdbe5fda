"""Factors: F + damping made ready, to solve and sample with as often as one likes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastfisher import _check, _memory
from fastfisher._ops.border import TakesTensors
from fastfisher._ops.conjugates import hermitian_part, squares
from fastfisher._ops.held_verbs import held_verbs
from fastfisher._ops.portable import Portable
from fastfisher._range import in_range

if TYPE_CHECKING:
    from types import ModuleType

    from fastfisher.fisher.held_scores import HeldScores

__all__ = ["DiagonalFactor", "DualFactor", "Factor", "MatrixFactor", "RootFactor", "as_it_is"]

# tr F / λ from which the dual refines a general solution, which takes as long as the solution. Up
# to here the error is at most √10⁴ times that of the condition number; a fiftieth of it was seen.
_REFINED_FROM = 1e4


def as_it_is(flat: Any) -> Any:
    """Return a result as it is: the question was a flat vector."""
    return flat


class Factor(Portable, TakesTensors, ABC):
    """A reusable factorisation of A = F + damping; ``Fisher.factor`` makes it.

    Attributes
    ----------
    logdet : float
        log det A.
    rcond : float
        Estimate of 1 / κ₁ of the matrix that was factored (the Gram matrix in the dual), or 1 / κ₂
        where its eigenvalues are known.
    shape : tuple
        (p, p).

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> factor = ff.DenseFisher.from_matrix([[2.0, 1.0], [1.0, 2.0]]).factor()
    >>> factor.shape, factor.method, round(factor.logdet, 6), round(factor.rcond, 6)
    ((2, 2), 'cholesky', 1.098612, 0.333333)
    >>> factor.solve([3.0, 3.0]).round(6), factor.inverse_diagonal().round(6)
    (array([1., 1.]), array([0.666667, 0.666667]))
    >>> factor.inverse().round(6)
    array([[ 0.666667, -0.333333],
           [-0.333333,  0.666667]])
    >>> factor.sample(0, size=4).shape
    (4, 2)
    >>> factor.solve_columns(np.ones((2, 1))).T.round(6)
    array([[0.333333, 0.333333]])
    >>> factor.quadratic_columns(np.eye(2)).round(6)  # vᵀ A⁻¹ v of each column
    array([0.666667, 0.666667])
    """

    method: str
    _ops = held_verbs()
    _dtype: Any

    def __init__(self, params: int, threads: int) -> None:
        self.shape = (params, params)
        self._threads = threads

    def _unfolded(self, name: str, v: Any) -> tuple[Any, Callable[[Any], Any]]:  # noqa: ARG002
        """Return a vector in flat form, as the Fisher that was factored takes it."""
        return v, as_it_is

    @abstractmethod
    def solve_columns(self, rhs: Any) -> Any:
        """Return A⁻¹ rhs for a checked right-hand side (p, k)."""

    @abstractmethod
    def quadratic_columns(self, V: Any) -> Any:
        """Return v* A⁻¹ v for each column of V (p, k), real."""

    @property
    @abstractmethod
    def logdet(self) -> float:
        """Log det A."""

    @property
    @abstractmethod
    def rcond(self) -> float:
        """Estimate of 1 / κ₁, or 1 / κ₂."""

    @abstractmethod
    def inverse_diagonal(self) -> Any:
        """Return the diagonal of A⁻¹, (p,): the variances, if F is the total information."""

    @abstractmethod
    def _sample_columns(self, generator: Any, count: int) -> Any:
        """Return `count` draws as columns (p, count)."""

    @in_range
    def solve(self, rhs: Any) -> Any:
        """Return A⁻¹ rhs.

        Parameters
        ----------
        rhs : array (p,) or (p, k)

        Returns
        -------
        array, of the shape of `rhs`
        """
        rhs, fold = self._unfolded("rhs", rhs)
        columns = _check.finite_columns(self._ops, "rhs", rhs, self.shape[0], self._dtype)
        return fold(self.solve_columns(columns.reshape(self.shape[0], -1)).reshape(columns.shape))

    @in_range
    def inverse(self) -> Any:
        """Return A⁻¹, (p, p), symmetric (Hermitian)."""
        params = self.shape[0]
        # The unit matrix, its solution and the mean; a complex solve has both in real form too.
        copies = 5 if self._dtype.kind == "c" else 3
        _memory.guard(
            copies * params * params * self._dtype.itemsize,
            "inverse",
            "inverse_diagonal() and solve() do without the matrix.",
            self._ops,
        )
        return hermitian_part(self.solve_columns(self._ops.xp.eye(params, dtype=self._dtype)))

    @in_range
    def sample(self, rng: Any = None, size: int | None = None) -> Any:
        """Draw from the Gaussian N(0, A⁻¹).

        Of a complex A the draws are circular: E[z z*] = A⁻¹ and E[z zᵀ] = 0.

        Parameters
        ----------
        rng : None, int or numpy.random.Generator
            An int gives the same draws each time.
        size : int, optional
            How many; None gives one, without the leading axis.

        Returns
        -------
        array (p,) or (size, p)
        """
        count = 1 if size is None else _check.count("size", size)
        draws = self._sample_columns(_check.generator(rng), count).T
        return draws[0] if size is None else draws

    def _normal(self, generator: Any, rows: int, count: int) -> Any:
        normal = generator.standard_normal((count, rows))
        if self._dtype.kind == "c":
            normal = (normal + 1j * generator.standard_normal((count, rows))) * math.sqrt(0.5)
        return self._ops.from_host(normal.T.astype(self._dtype))


class MatrixFactor(Factor):
    """The Cholesky factor of an explicit matrix."""

    method = "cholesky"

    def __init__(self, ops: "ModuleType", factor: Any, threads: int) -> None:
        super().__init__(factor.size, threads)
        self._ops = ops
        self._factor = factor
        self._dtype = factor.dtype

    def solve_columns(self, rhs: Any) -> Any:
        """Return A⁻¹ rhs."""
        return self._factor.solve(rhs, self._threads)

    def quadratic_columns(self, V: Any) -> Any:
        """Return ‖L⁻¹ v‖² for each column."""
        return squares(self._factor.half_solve(V, threads=self._threads)).sum(axis=0)

    @property
    def logdet(self) -> float:
        """Log det A."""
        return float(self._factor.logdet())

    @property
    def rcond(self) -> float:
        """Estimate of 1 / κ₁(A), by Hager and Higham."""
        return float(self._factor.rcond(self._threads))

    @in_range
    def inverse(self) -> Any:
        """Return A⁻¹, (p, p), symmetric (Hermitian)."""
        _memory.guard(
            self.shape[0] ** 2 * self._dtype.itemsize
            + self._ops.Triangle.bytes_for(self.shape[0], self._dtype),
            "inverse",
            "inverse_diagonal() and solve() do without the matrix.",
            self._ops,
        )
        return self._factor.inverse(self._threads).to_dense(1.0, threads=self._threads)

    @in_range
    def inverse_diagonal(self) -> Any:
        """Return the diagonal of A⁻¹, (p,)."""
        return self._factor.inverse_diagonal(self._threads)

    def _sample_columns(self, generator: Any, count: int) -> Any:
        normal = self._normal(generator, self.shape[0], count)
        return self._factor.half_solve(normal, transposed=True, threads=self._threads)


class RootFactor(MatrixFactor):
    """The same factor L = Rᴴ from a QR factorisation, which never saw the matrix."""

    method = "qr"


class DiagonalFactor(Factor):
    """A diagonal matrix: everything is element-wise."""

    method = "cholesky"  # whose factor is the root of the diagonal

    def __init__(self, ops: "ModuleType", diagonal: Any, dtype: Any, threads: int) -> None:
        super().__init__(diagonal.shape[0], threads)
        self._ops = ops
        self._diagonal = diagonal
        self._dtype = dtype

    def solve_columns(self, rhs: Any) -> Any:
        """Return rhs / diagonal."""
        return rhs / self._diagonal[:, None]

    def quadratic_columns(self, V: Any) -> Any:
        """Return Σ |v|² / diagonal for each column."""
        return (squares(V) / self._diagonal[:, None]).sum(axis=0)

    @property
    def logdet(self) -> float:
        """Sum of the logarithms."""
        return float(self._ops.xp.log(self._diagonal).sum(dtype="float64"))

    @property
    def rcond(self) -> float:
        """Smallest over largest."""
        return float(self._diagonal.min() / self._diagonal.max())

    @in_range
    def inverse_diagonal(self) -> Any:
        """Return 1 / diagonal."""
        return 1 / self._diagonal

    def _sample_columns(self, generator: Any, count: int) -> Any:
        normal = self._normal(generator, self.shape[0], count)
        return normal / self._ops.xp.sqrt(self._diagonal)[:, None]


class DualFactor(Factor):
    """The Cholesky factor of c U Uᴴ + λI, n × n, standing for A = c UᴴU + λI, p × p.

    U = W½ (S − 1mᵀ) and c is 1 / Σw, or 1 for sums. A vector damping D is carried by the scaled
    scores S D^-½ with λ = 1: A = D^½ (c Ũᴴ Ũ + I) D^½.
    """

    method = "dual"

    def __init__(self, fisher: "HeldScores", shift: Any, threads: int, with_norm: bool) -> None:
        super().__init__(fisher.shape[0], threads)
        self._ops = fisher._ops
        self._dtype = fisher.dtype
        self._stretch: Any = None
        if not isinstance(shift, float):
            self._stretch = (1.0 / self._ops.xp.sqrt(shift)).astype(fisher._real_dtype)
            fisher, shift = fisher._stretched(self._stretch), 1.0
        self._fisher = fisher
        self._damping = float(shift)
        gram = fisher._gram_triangle(threads)
        self._size = fisher._scale * float(gram.diagonal().sum(dtype="float64"))
        self._factor = gram.cholesky(
            fisher._scale, self._damping, threads=threads, with_norm=with_norm
        )

    def _stretched(self, columns: Any) -> Any:
        return columns if self._stretch is None else columns * self._stretch[:, None]

    def solve_columns(self, rhs: Any) -> Any:
        """Return x = (g − c Uᴴ (c UUᴴ + λI)⁻¹ U g) / λ, refined where that pays.

        The difference leaves an error of up to eps (‖F‖ / λ)^{3/2}; with the residual of x as
        another right-hand side it is that of the condition number, eps ‖F‖ / λ.
        """
        fisher = self._fisher
        fisher._refuse_cancelled(self._damping, self._size)
        g = self._stretched(rhs)
        x = self._difference(g)
        if self._size > _REFINED_FROM * self._damping:
            inner = fisher._rooted_dot(x, self._threads)
            product = fisher._scale * fisher._rooted_transpose_dot(inner, self._threads)
            x += self._difference(g - product - self._damping * x)
        return self._stretched(x)

    def _difference(self, g: Any) -> Any:
        fisher = self._fisher
        z = self._factor.solve(fisher._rooted_dot(g, self._threads), self._threads)
        return (g - fisher._scale * fisher._rooted_transpose_dot(z, self._threads)) / self._damping

    def own_leverages(self) -> Any:
        """Return the diagonal of (c UUᴴ + λI)⁻¹ c UUᴴ, (n,): c u A⁻¹ uᴴ of each row u of U.

        Each entry comes from products of its own size, where `quadratic_columns` subtracts numbers
        larger by ‖F‖ / λ. Their sum is the effective dimension.
        """
        fisher = self._fisher
        gram = fisher._gram_triangle(self._threads).to_dense(fisher._scale)
        return self.solve_gram(gram).diagonal().real

    def solve_gram(self, Y: Any) -> Any:
        """Return (c UUᴴ + λI)⁻¹ Y for Y of shape (n, k)."""
        return self._factor.solve(Y, self._threads)

    def solve_mean_score(self) -> Any:
        """Return A⁻¹ g for the g that None stands for, (p, 1): b Uᴴ (c UUᴴ + λI)⁻¹ √w y."""
        fisher = self._fisher
        scale = fisher._row_space_scale
        if scale is None:
            mean = fisher._mean_score(self._threads)
            return self.solve_columns(
                mean if self._stretch is None else mean / self._stretch[:, None]
            )
        z = self._factor.solve(fisher._rooted_targets(), self._threads)
        return self._stretched(scale * fisher._rooted_transpose_dot(z, self._threads))

    def quadratic_columns(self, V: Any) -> Any:
        """Return (‖v‖² − c ‖L⁻¹ U v‖²) / λ for each column, never below 0."""
        fisher = self._fisher
        V = self._stretched(V)
        half = self._factor.half_solve(fisher._rooted_dot(V, self._threads), threads=self._threads)
        difference = squares(V).sum(axis=0) - fisher._scale * squares(half).sum(axis=0)
        return self._ops.xp.maximum(difference, 0) / self._damping

    @property
    def logdet(self) -> float:
        """Log det of the n × n matrix, plus (p − n) log λ, plus Σ log D."""
        rest: float = (self.shape[0] - self._factor.size) * math.log(self._damping)
        if self._stretch is not None:
            rest -= 2 * float(self._ops.xp.log(self._stretch).sum(dtype="float64"))
        return rest + float(self._factor.logdet())

    @property
    def rcond(self) -> float:
        """Estimate of 1 / κ₁ of the n × n matrix."""
        return float(self._factor.rcond(self._threads))

    @in_range
    def inverse_diagonal(self) -> Any:
        """Return (1 − c ‖L⁻¹ U e_j‖²) / λ for each parameter j, (p,)."""
        xp, params = self._ops.xp, self.shape[0]
        out = xp.empty(params, dtype=self._fisher._real_dtype)
        for start in range(0, params, 1024):
            block = slice(start, start + 1024)
            half = self._factor.half_solve(
                self._fisher._rooted_columns(block), threads=self._threads
            )
            out[block] = 1 - self._fisher._scale * squares(half).sum(axis=0)
        out = xp.maximum(out, 0) / self._damping
        return out if self._stretch is None else out * self._stretch**2

    def _sample_columns(self, generator: Any, count: int) -> Any:
        # A⁻¹ (√c Uᴴ e₁ + D^½ e₂) has covariance A⁻¹ (c UᴴU + D) A⁻¹ = A⁻¹.
        fisher = self._fisher
        samples, params = self._factor.size, self.shape[0]
        first = fisher._rooted_transpose_dot(self._normal(generator, samples, count), self._threads)
        second = self._normal(generator, params, count)
        z = math.sqrt(fisher._scale) * first + math.sqrt(self._damping) * second
        if self._stretch is not None:
            z = z / self._stretch[:, None]
        return self.solve_columns(z)
