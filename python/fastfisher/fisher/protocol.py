"""The protocol that every representation of F meets, with what they share written once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from os import PathLike
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastfisher import _check, _memory, _persist
from fastfisher._ops import ops_of
from fastfisher._ops.border import TakesTensors, inside
from fastfisher._ops.held_verbs import held_verbs
from fastfisher._range import in_range
from fastfisher._turns import still
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.factor import DualFactor, Factor, MatrixFactor, RootFactor, as_it_is
from fastfisher.fisher.spectrum import cutoff, eigenvalue_powers, signed
from fastfisher.solvers.auto import choose_for_factor
from fastfisher.solvers.damping import MODES, diagonal_shift
from fastfisher.solvers.failure import smallest_damping
from fastfisher.solvers.path import PathSolution, solve_path_system
from fastfisher.solvers.solve import solve_system

__all__ = ["Fisher", "moved"]

# Leverages are computed for this many rows at a time, so their memory does not grow with n.
_LEVERAGE_ROWS = 1024


def moved(held: Any, source: ModuleType, target: ModuleType) -> Any:
    """Return a copy for the arrays of `target`; lists item by item, plain values stay."""
    if isinstance(held, list | tuple):
        return type(held)(moved(one, source, target) for one in held)
    if hasattr(held, "moved"):
        return held.moved(source, target)
    if held is None or isinstance(held, str | int | float | dict):
        return held
    return target.from_host(source.to_host(held))


class Fisher(TakesTensors, ABC):
    """A Fisher matrix: p × p, symmetric, positive semi-definite, held as its structure allows.

    Of complex scores it is the Hermitian F = E[s* sᵀ]: vectors and matrices are then complex, while
    weights, dampings, diagonals, eigenvalues and quadratic forms v* F v stay real.

    Every representation has these methods. `damping` is a number or a vector (p,); the matrix
    that is solved, factored or raised to a power is F + damping. `damping_mode` says what the
    number means: ``"absolute"`` F + λI, ``"trace"`` F + λ (tr F / p) I, ``"diagonal"``
    F + λ diag(F); `KroneckerFisher` adds ``"factored"``.

    Attributes
    ----------
    shape : tuple
        (p, p).
    dtype : numpy.dtype
        Of the sums and of every result; vectors are converted to it.
    weight_sum : float
        Σw of what went in.
    n_samples : int
        How many rows went in.
    reduction : "mean" or "sum"
        Whether F is divided by `weight_sum`.
    center : bool
        Whether the mean score is subtracted.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> isinstance(ff.DenseFisher.from_scores(np.eye(2)), ff.Fisher)
    True
    >>> F = ff.DenseFisher.from_scores([[1.0, 0.0], [1.0, 2.0]])
    >>> F.shape, F.dtype, F.n_samples, F.weight_sum, F.reduction, F.center
    ((2, 2), dtype('float64'), 2, 2.0, 'mean', False)
    >>> F.to_dense()
    array([[1., 1.],
           [1., 2.]])
    >>> F.diagonal(), F.trace(), F.quadratic_form([1.0, 1.0]), round(F.logdet(1.0), 6)
    (array([1., 2.]), 3.0, 5.0, 1.609438)
    >>> F @ np.array([1.0, 0.0]), F.solve([2.0, 3.0], damping=1.0).round(6)
    (array([1., 1.]), array([0.6, 0.8]))
    >>> F.factor(damping=1.0).inverse().round(6)
    array([[ 0.6, -0.2],
           [-0.2,  0.4]])
    >>> F.solve_path([2.0, 3.0], [0.0, 1.0]).value.round(6)
    array([[1. , 1. ],
           [0.6, 0.8]])
    >>> values, vectors = F.eigsh(1)
    >>> values.round(6), vectors.shape
    (array([2.618034]), (2, 1))
    >>> F.apply_power(np.eye(2), -0.5).shape  # whitens
    (2, 2)
    >>> round(F.effective_dimension(1.0), 6), F.leverage([[1.0, 0.0]], 1.0).round(6)
    (1.0, array([0.3]))
    >>> F.as_linear_operator().shape  # SciPy's
    (2, 2)
    >>> F.save("fisher.npz")
    >>> ff.load("fisher.npz").n_samples
    2
    """

    __array_ufunc__ = None  # so that `array @ F` asks us instead of taking F apart

    _ops = held_verbs()
    _params: int
    _dtype: Any
    _center: bool
    _reduction: str
    _weight_sum: float
    _n_samples: int

    # ---- what a representation writes ----
    @abstractmethod
    def _product(self, V: Any, threads: int) -> Any:
        """Return F V for V of shape (p, k)."""

    @abstractmethod
    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,), real."""

    @abstractmethod
    def to_dense(self) -> Any:
        """Return F as a full symmetric (Hermitian) array (p, p)."""

    @abstractmethod
    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        """Return a triangle T that may be used up, and c, with F = c T."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return everything as plain arrays, numbers and strings, for pickle and `save`."""

    @classmethod
    @abstractmethod
    def _from_state(cls, state: dict[str, Any]) -> "Fisher":
        """Build from `_state`; raise ValueError if the pieces do not fit together."""

    # ---- what it is ----
    if not TYPE_CHECKING:  # to which what has this method would be an array

        def __array__(self, *_: Any, **__: Any) -> Any:
            """Refuse to become p × p numbers unasked; an array of objects is filled one by one."""
            raise TypeError(
                f"{type(self).__name__}: expected an array, got what stands for one. F.to_dense() "
                "makes p × p numbers; ff.solve, F.factor() and F @ v need none."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        return (self._params, self._params)

    @property
    def dtype(self) -> Any:
        """Dtype of the sums and results."""
        return self._dtype

    @property
    def _filled(self) -> bool:
        return getattr(self, "_n_samples", 0) > 0

    @property
    def _real_dtype(self) -> Any:
        """Dtype of dampings, diagonals and eigenvalues."""
        return _check.real_of(self._dtype)

    @property
    def weight_sum(self) -> float:
        """Σw of the samples, after any decay."""
        return self._weight_sum

    @property
    def n_samples(self) -> int:
        """Number of samples that went in; decay does not change it."""
        return self._n_samples

    @property
    def reduction(self) -> str:
        """``"mean"`` or ``"sum"``."""
        return self._reduction

    @property
    def center(self) -> bool:
        """Whether the mean score is subtracted."""
        return self._center

    @property
    def _scale(self) -> float:
        """The c in F = c · sums."""
        if self._reduction == "sum":
            return 1.0
        if self._weight_sum == 0.0:
            raise ValueError(
                f"{type(self).__name__}: expected at least one sample with a weight, got none. "
                "The mean over no samples is not defined: update first, or use reduction='sum'."
            )
        return 1.0 / self._weight_sum

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(n_params={self._params}, dtype={self._dtype}, "
            f"center={self._center}, reduction={self._reduction!r}, "
            f"n_samples={self._n_samples}, weight_sum={self._weight_sum:g})"
        )

    # ---- products ----
    @in_range
    def __matmul__(self, v: Any) -> Any:
        """Return F v for v of shape (p,) or (p, k)."""
        if isinstance(v, Fisher):
            return NotImplemented
        v, fold = self._unfolded("v", v)
        columns = _check.finite_columns(self._ops, "v", v, self._params, self._dtype)
        return fold(self._product(columns.reshape(self._params, -1), 0).reshape(columns.shape))

    @in_range
    def quadratic_form(self, v: Any) -> Any:
        """Return v* F v: a float for v (p,), an array (k,) for the columns of v (p, k)."""
        v, _ = self._unfolded("v", v)
        columns = _check.finite_columns(self._ops, "v", v, self._params, self._dtype)
        V = columns.reshape(self._params, -1)
        values = (V.conj() * self._product(V, 0)).real.sum(axis=0)
        return values if columns.ndim == 2 else float(values[0])

    @in_range
    def trace(self) -> float:
        """Return tr F."""
        return float(self.diagonal().sum(dtype="float64"))

    def as_linear_operator(self) -> Any:
        """Return F as a ``scipy.sparse.linalg.LinearOperator``; needs SciPy."""
        from scipy.sparse.linalg import LinearOperator

        product = self._for_scipy
        return LinearOperator(
            self.shape, matvec=product, rmatvec=product, matmat=product, dtype=self._dtype
        )

    @inside  # SciPy's vectors are NumPy's
    def _for_scipy(self, V: Any) -> Any:
        return self @ V

    # ---- solves ----
    def solve(
        self,
        rhs: Any,
        *,
        damping: Any = 0.0,
        damping_mode: str = "absolute",
        solver: Any = "auto",
        n_threads: int | None = None,
    ) -> Any:
        """Return (F + damping)⁻¹ rhs; ``fastfisher.solve`` also tells how it went.

        Parameters
        ----------
        rhs : array (p,) or (p, k)
        damping : float or array (p,)
        damping_mode : {"absolute", "trace", "diagonal"} and of `KroneckerFisher` "factored"
        solver : "auto" or a solver
        n_threads : int, optional

        Returns
        -------
        array, of the shape of `rhs`

        Raises
        ------
        NotPositiveDefiniteError, ConvergenceError, NonFiniteError
        """
        return solve_system(
            self,
            rhs,
            damping=damping,
            damping_mode=damping_mode,
            solver=solver,
            threads=_check.threads(n_threads),
            diagnose=False,
        ).value

    def solve_path(
        self,
        rhs: Any,
        dampings: Any,
        *,
        damping_mode: str = "absolute",
        solver: Any = "auto",
        on_failure: str = "raise",
        n_threads: int | None = None,
    ) -> PathSolution:
        """Solve (F + λI) x = rhs for every λ of a path; see ``fastfisher.solve_path``."""
        return solve_path_system(
            self,
            rhs,
            dampings,
            damping_mode=damping_mode,
            solver=solver,
            on_failure=on_failure,
            threads=_check.threads(n_threads),
        )

    @still
    def factor(
        self,
        *,
        damping: Any = 0.0,
        damping_mode: str = "absolute",
        solver: Any = "auto",
        n_threads: int | None = None,
    ) -> Factor:
        """Return a reusable factorisation of F + damping.

        It has ``.solve(rhs)``, ``.logdet``, ``.inverse()``, ``.inverse_diagonal()``,
        ``.sample(rng)`` and ``.rcond``, and does not change when F does.

        Parameters
        ----------
        damping : float or array (p,)
        damping_mode : {"absolute", "trace", "diagonal"}
        solver : "auto", Cholesky(), Dual() or QR()
            What factors; "auto" is the dual where n < p scores are held. ``QR()`` of the scores
            gives covariances with the error of their condition number instead of its square.
        n_threads : int, optional

        Returns
        -------
        Factor
            ``.method`` says which: "cholesky", "dual", "qr", or the "kronecker-…" of a network.

        Raises
        ------
        NotPositiveDefiniteError
        TypeError
            For a solver that leaves no factor, such as ``CG()``.
        """
        shift = diagonal_shift(self, damping, damping_mode)
        threads = _check.threads(n_threads)
        factor = choose_for_factor(self, solver).factor
        try:
            return factor(self, shift, threads=threads)  # type: ignore[no-any-return]
        except NotPositiveDefiniteError as error:
            if error.pivot is None:
                raise
            extra, _ = smallest_damping(self, lambda mu: factor(self, shift + mu, threads=threads))
            raise error.with_damping(extra) from None

    def logdet(self, damping: Any = 0.0, *, damping_mode: str = "absolute") -> float:
        """Return log det (F + damping)."""
        return self.factor(damping=damping, damping_mode=damping_mode).logdet

    @still
    def effective_dimension(self, damping: Any = 0.0, *, damping_mode: str = "absolute") -> float:
        """Return tr F (F + damping)⁻¹, the number of directions that the damping leaves free."""
        return self._effective_dimension(diagonal_shift(self, damping, damping_mode))

    @in_range
    @still
    def leverage(self, scores: Any, damping: Any = 0.0, *, damping_mode: str = "absolute") -> Any:
        """Return hᵢ = sᵢᵀ (F + damping)⁻¹ sᵢ* per row, (n,), divided by Σw when F is a mean.

        Over the samples that F was made of, Σ wᵢ hᵢ is the effective dimension. A centred F
        subtracts its mean score first.
        """
        rows = _check.scores(self._ops, scores, self._params)
        _check.same_kind(rows.dtype, self._dtype)
        factor = self.factor(damping=damping, damping_mode=damping_mode)
        mean, scale = self._mean_or_none(), self._scale
        out = self._ops.empty(rows.shape[0], self._real_dtype)
        for start in range(0, rows.shape[0], _LEVERAGE_ROWS):
            block = slice(start, start + _LEVERAGE_ROWS)
            V = rows[block].astype(self._dtype)
            if mean is not None:
                V = V - mean
            out[block] = scale * factor.quadratic_columns(V.conj().T)
        if not self._ops.all_finite(out):
            self._ops.column_mean(
                rows, None, _check.sum_dtype(rows.dtype), True, 0
            )  # names the place
        return out

    # ---- spectrum ----
    @in_range
    @still
    def apply_power(
        self, v: Any, power: float, *, damping: Any = 0.0, damping_mode: str = "absolute"
    ) -> Any:
        """Return (F + damping)^power v, by the eigenvalues; -0.5 whitens.

        Eigenvalues that are zero to rounding raise `NotPositiveDefiniteError` for a negative power.
        """
        v, fold = self._unfolded("v", v)
        columns = _check.finite_columns(self._ops, "v", v, self._params, self._dtype)
        shift = diagonal_shift(self, damping, damping_mode)
        value, _ = self._spectral_power(
            columns.reshape(self._params, -1), _check.finite("power", power), shift, truncate=False
        )
        return fold(value.reshape(columns.shape))

    def eigsh(self, k: int) -> tuple[Any, Any]:
        """Return the k largest eigenvalues, largest first, (k,), and eigenvectors, (p, k).

        The sign is fixed: the entry of largest size in each vector is positive.
        """
        k = _check.count("k", k, 1)
        if k > self._params:
            raise ValueError(
                f"k: expected at most {self._params}, got {k}. F has no more eigenvalues."
            )
        values, vectors = self._leading(k)
        return values, signed(self._ops.xp, vectors)

    # ---- files ----
    def save(self, path: str | bytes | PathLike[str]) -> None:
        """Write to an ``.npz`` file that ``fastfisher.load`` reads; no pickle inside.

        What lives on a device is copied to the host for it, and looks like NumPy's in the file. The
        file appears under its name only when it is complete.
        """
        held = self if self._ops.here() == "" else self._moved(ops_of(None))
        _persist.save(path, type(self).__name__, held._state())

    def _moved(self, ops: ModuleType) -> "Fisher":
        """Return one of the same content whose arrays are those of `ops`, copied."""
        state = {name: moved(value, self._ops, ops) for name, value in self._state().items()}
        return type(self)._from_state(state)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._from_state, (self._state(),), {"_home": self._home}

    # ---- what solvers use; representations override what they can do better ----
    def _still(self) -> Any:
        """Return a context in which nobody else changes F."""
        return nullcontext()

    def _unfolded(self, name: str, v: Any) -> tuple[Any, Callable[[Any], Any]]:  # noqa: ARG002
        """Return the vector (p,) or (p, k) that `v` is, and what gives a result the form of `v`."""
        return v, as_it_is

    @property
    def _scores_held(self) -> int | None:
        """Number of scores held, None if they are gone."""
        return None

    # Whether vᵀFv is computed as a sum of squares, which cannot cancel.
    _sums_squares: bool = False
    # What F consists of where `_matrix_factor` factors no p × p matrix, in words; else "".
    _composition: str = ""
    # The solvers that "auto" is for this class, for one damping and for a path of them; None where
    # it looks at the shape.
    _own_solver: Any = None
    _own_path_solver: Any = None

    @property
    def _cancels(self) -> bool:
        """Whether solves lose digits by ‖F‖ / λ, as Woodbury's identity does."""
        return False

    @property
    def _matrix_rows(self) -> int:
        """Rows of the largest matrix that `_matrix_factor` factors."""
        return 1 if self._composition else self._params

    def _rows_to_factor(self, shift: Any) -> int:  # noqa: ARG002
        """Rows of the largest matrix that `_matrix_factor` factors for this damping."""
        return self._matrix_rows

    def _factored_damping(self, damping: Any) -> Any:  # noqa: ARG002
        """Return the damping of F's factors."""
        raise ValueError(
            f"damping_mode: expected one of {', '.join(MODES)} for {type(self).__name__}, got "
            "'factored'. Only KroneckerFisher has factors to damp."
        )

    def _mean_or_none(self) -> Any:
        """Return the mean score (p,) that is subtracted, None when not centred."""
        return None

    def _mean_score(self, threads: int) -> Any:  # noqa: ARG002
        """Return the mean score (p, 1)."""
        raise TypeError(
            f"rhs: expected a right-hand side, got None. {type(self).__name__} knows no mean score."
        )

    def _matrix_factor(self, shift: Any, *, threads: int = 0, with_norm: bool = True) -> Factor:
        """Return the Cholesky factor of F + shift."""
        triangle, scale = self._matrix_triangle(threads)
        factor = triangle.cholesky(scale, shift, threads=threads, with_norm=with_norm)
        return MatrixFactor(self._ops, factor, threads)

    def _dual_factor(
        self,
        shift: Any,  # noqa: ARG002
        *,
        threads: int = 0,  # noqa: ARG002
        with_norm: bool = True,  # noqa: ARG002
    ) -> DualFactor:
        """Return the factor of the dual system."""
        raise TypeError(
            f"solver: expected Cholesky() or CG() for {type(self).__name__}, got Dual(). "
            "The dual needs the scores: use ScoreFisher."
        )

    @property
    def _row_space_scale(self) -> float | None:
        """The b in the right-hand side b Uᴴ √w y that None stands for; None where it is not so."""
        return None

    def _square_root(self, threads: int, *, with_root: bool = False) -> Any:  # noqa: ARG002
        """Return a root R that may be used up, with F = c RᴴR; `with_root` adds the column √w y."""
        raise TypeError(
            f"solver: expected Cholesky() or CG() for {type(self).__name__}, got QR(). "
            "QR needs the scores: use ScoreFisher, or SquareRootFisher to stream them."
        )

    def _root_factor(self, shift: Any, tolerance: float, threads: int) -> Factor:
        """Return the factor of F + shift by QR."""
        root = self._square_root(threads)
        root.damp(self._scale, shift, threads)
        return RootFactor(self._ops, root.factor(tolerance, threads=threads), threads)

    @contextmanager
    def _borrowed_triangle(self, threads: int) -> Iterator[tuple[Any, float]]:
        """Give a triangle T that is only read, and c, with F = c T."""
        yield self._matrix_triangle(threads)

    def _block_triangle(self, start: int, stop: int, threads: int) -> tuple[Any, float]:
        """Return a triangle B that may be used up, and c, with F[start:stop, start:stop] = c B."""
        unit = self._ops.zeros((self._params, stop - start), self._dtype)
        unit[self._ops.xp.arange(start, stop), self._ops.xp.arange(stop - start)] = 1
        block = self._product(unit, threads)[start:stop]
        return self._ops.Triangle.from_dense(block, threads=threads), 1.0

    def _residual(self, rhs: Any, x: Any, shift: Any, threads: int) -> float:
        """Return the worst ‖rhs − (F + shift) x‖ / ‖rhs‖ of the columns."""
        return float(self._ops.worst_residual(rhs, self._damped_product(x, shift, threads)))

    def _damped_product(self, V: Any, shift: Any, threads: int) -> Any:
        """Return (F + shift) V."""
        return self._product(V, threads) + self._times(shift, V)

    def _damped_dense(self, shift: Any) -> Any:
        """Return F + shift as a full array."""
        matrix = self.to_dense()
        rows = self._ops.xp.arange(self._params)
        matrix[rows, rows] += shift
        return matrix

    def _times(self, shift: Any, V: Any) -> Any:
        """Return diag(shift) V."""
        return shift * V if isinstance(shift, float) else shift[:, None] * V

    def _shift_vector(self, shift: Any) -> Any:
        """Return the shift as a vector (p,) of our real dtype."""
        out = self._ops.empty(self._params, self._real_dtype)
        out[...] = shift
        return out

    def _conjugate_gradients(
        self,
        rhs: Any,
        shift: Any,
        preconditioner: Any,
        rtol: float,
        atol: float,
        steps: int,
        threads: int,
    ) -> Any:
        """Return (x, status, iterations, true relative residual), the last three per column."""
        diagonal = self._shift_vector(shift)[:, None]

        def apply(V: Any) -> Any:
            return self._product(V, threads) + diagonal * V

        precondition = preconditioner
        if preconditioner is not None and not callable(preconditioner):

            def precondition(R: Any) -> Any:
                return R / preconditioner[:, None]

        return self._ops.cg_callable(apply, precondition, rhs, rtol, atol, steps)

    def _shifted_conjugate_gradients(
        self, rhs: Any, shifts: list[float], rtol: float, atol: float, steps: int, threads: int
    ) -> Any:
        """Return (x (p, m·k), status, iterations, true relative residual) for every shift."""
        return self._ops.shifted_cg_callable(
            lambda V: self._product(V, threads), shifts, rhs, rtol, atol, steps, threads
        )

    def _eigenvalue_bound(self) -> float:
        """Return a number that no eigenvalue exceeds in size; the trace of a PSD matrix is one."""
        return abs(self.trace())

    def _spectral_power(
        self, V: Any, power: float, shift: Any, *, truncate: bool
    ) -> tuple[Any, int]:
        """Return (F + shift)^power V and the rank; `truncate` drops what is not positive."""
        values, vectors = self._ops.eigh(self._damped_dense(shift))
        powers, rank = eigenvalue_powers(self._ops.xp, values, power, truncate)
        return vectors @ (powers[:, None] * (vectors.conj().T @ V)), rank

    def _spectral_solver(
        self,
        rhs: Any,
        threads: int,  # noqa: ARG002
    ) -> tuple[Any, float, Callable[[list[float]], Any]]:
        """Return eigenvalues, the least of F, and what gives all (F + λ)⁻¹ rhs side by side."""
        values, Q = self._ops.eigh(self.to_dense())
        cutoff(values, self._params)  # refuses what is not finite
        inner = Q.conj().T @ rhs
        return values, float(values[0]), lambda shifts: Q @ self._divided(inner, values, shifts)

    def _divided(self, inner: Any, values: Any, shifts: list[float]) -> Any:
        """Return inner / (values + λ) for every shift side by side, (rows, m·k)."""
        divided = [inner / (values + shift).astype(self._real_dtype)[:, None] for shift in shifts]
        return self._ops.xp.concat([inner[:, :0], *divided], axis=1)

    def _leading(self, k: int) -> tuple[Any, Any]:
        """Return the k largest eigenvalues and their vectors, largest first."""
        values, vectors = self._ops.eigh(self.to_dense())
        return values[: -k - 1 : -1], vectors[:, : -k - 1 : -1]

    def _effective_dimension(self, shift: Any) -> float:
        # Each term (A⁻¹F)_jj is exact to its size, where p − tr D A⁻¹ would cancel.
        factor = self._matrix_factor(shift, with_norm=False)
        return float(factor.solve_columns(self.to_dense()).trace().real)

    def _guard_matrix(self, copies: int = 1) -> None:
        """Raise if `copies` of p × p numbers will not fit."""
        _memory.guard(
            copies * self._params**2 * self._dtype.itemsize,
            f"{type(self).__name__} as a matrix",
            "Use F @ v, F.diagonal() or solver=CG(), which need no matrix.",
            self._ops,
        )
