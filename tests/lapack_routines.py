"""Every factor, solve and sum of the library, as LAPACK's tests ask for it: answers and ratios.

A routine is a function of (kind, p, dtype) that returns `answer(threads)`, a tuple of arrays, and
`judge(*arrays)`, a dictionary of ratios. An answer may be a `FisherError` instead where `may_fail`
says so: a zero row, or what is singular to rounding.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fastfisher as ff
import lapack
from fastfisher.fisher.factor import Factor
from oracle import DTYPES, EPS, EVERY, rng, wide

RESIDUAL = "‖b − A x‖ / (‖A‖ ‖x‖ ε)"
FORWARD = "‖x − x*‖ rcond / (‖x*‖ ε)"
FACTOR = "‖L Lᴴ − A‖ / (p ‖A‖ ε)"
INVERSE = "‖I − A A⁻¹‖ / (p ‖A‖ ‖A⁻¹‖ ε)"
VARIANCES = "|diag A⁻¹ − its diagonal| / (p ε · it)"
LOGDET = "|log det A − log det* A| / ((p / rcond + |log det A|) ε)"
RCOND = "rcond beside the true one"
ENTRIES = "|F − F*| / (|S|ᵀ|S| ε), each entry"
QR_FACTOR = "‖Rᴴ R − Sᴴ S‖ / (max(n, p) ‖S‖² ε)"
QR_FRAME = "‖I − Qᴴ Q‖ rcond / (max(n, p) ε), Q = S R⁻¹"
CONSISTENT = "‖y − S x‖ / (max(n, p) ‖S‖ ‖x‖ ε), y = S x*"
NORMAL = "‖Sᴴ(y − S x)‖ / (max(n, p) ‖S‖ (‖S‖ ‖x‖ + ‖y‖) ε)"
THRESHOLDS = {ENTRIES: 16}  # LAPACK's: 30 for what is factored, 16 for products
THRESHOLD = 30

SINGULAR = ("first row zero", "middle row zero", "last row zero", "singular to rounding")
COLUMNS = 24  # of a product that are checked against long double
ROUTINES: dict[str, Any] = {}

# What answers a problem with so many threads, and what judges the answer.
Posed = tuple[Callable[[int], tuple[np.ndarray, ...]], Callable[..., dict[str, Any]]]
Pose = Callable[..., Posed]


class Routine(NamedTuple):
    """What a row of the table is about."""

    pose: object
    dtypes: tuple[Any, ...]
    least: int
    largest: int
    kinds: tuple[Any, ...]
    may_fail: tuple[Any, ...]


def routine(
    name: str,
    dtypes: tuple[Any, ...] = EVERY,
    least: int = 1,
    largest: int = 1000,
    kinds: tuple[str, ...] = lapack.KINDS,
    may_fail: tuple[str, ...] = SINGULAR,
) -> Callable[[Pose], Pose]:
    """Enter a function in the table."""

    def enter(
        pose: Pose,
    ) -> Pose:
        ROUTINES[name] = Routine(pose, dtypes, least, largest, kinds, may_fail)
        return pose

    return enter


def long(array: np.ndarray) -> np.ndarray:
    """Return the array in long double, real or complex."""
    array = np.asarray(array)
    return array.astype(np.clongdouble if array.dtype.kind == "c" else np.longdouble)


def draw(n: int, p: int, dtype: npt.DTypeLike) -> np.ndarray:
    numbers = rng(n, p, 7).standard_normal((n, p))
    if np.dtype(dtype).kind == "c":
        numbers = numbers + 1j * rng(n, p, 8).standard_normal((n, p))
    return numbers.astype(dtype)


def size(array: np.ndarray) -> float:
    """Return ‖array‖₁ of any shape."""
    return float(np.abs(array).sum(axis=0).max(initial=0))


def over(error: float, scale: float | np.floating) -> float:
    """Return error / scale, where 0 / 0 is 0."""
    return float(error / scale) if error else 0.0


class System:
    """A matrix with a known solution: b = A x*, formed in long double and rounded once.

    `told` is the norm in which its factor tells the condition: 2 where it knows the eigenvalues.
    """

    def __init__(self, A: np.ndarray, columns: int = 3, told: int = 1) -> None:
        self.A, self.eps, self.told = A, EPS[A.dtype], told
        self.exact = draw(len(A), columns, A.dtype)
        self.b = (long(A) @ long(self.exact)).astype(A.dtype)

    @cached_property
    def rcond(self) -> float:
        """1 / (‖A‖ ‖A⁻¹‖), 0 of a singular matrix."""
        norm = lapack.norm1(self.A)
        try:
            return 1 / lapack.norm1(np.linalg.inv(wide(self.A) / norm)) if norm else 0.0
        except np.linalg.LinAlgError:
            return 0.0

    def solved(self, x: np.ndarray) -> dict[str, Any]:
        """Return the ratios of a solution."""
        A, x, exact = long(self.A), long(x), long(self.exact)
        norm = lapack.norm1(self.A)
        residuals = np.abs(long(self.b) - A @ x).sum(axis=0)
        scales = norm * np.abs(x).sum(axis=0) * self.eps
        errors = np.abs(x - exact).sum(axis=0) * self.rcond
        sizes = np.abs(exact).sum(axis=0) * self.eps
        return {
            RESIDUAL: max(map(over, residuals, scales), default=0.0),
            FORWARD: max(map(over, errors, sizes), default=0.0),
        }

    def inverted(self, X: np.ndarray, variances: np.ndarray) -> dict[str, Any]:
        """Return the ratios of an inverse and of its diagonal alone."""
        p, norm = len(self.A), lapack.norm1(self.A)
        X = wide(X) * norm
        error = size(wide(self.A) / norm @ X - np.eye(p))
        apart = np.abs(wide(variances) * norm - X.diagonal().real)
        return {
            INVERSE: over(error, p * size(X) * self.eps),
            VARIANCES: float((apart / np.abs(X.diagonal())).max(initial=0)) / (p * self.eps),
        }

    def measured(self, logdet: float, rcond: float) -> dict[str, Any]:
        """Return the ratios of two numbers: LAPACK's of rcond is max / min − (1 − min / max)."""
        p, norm = len(self.A), lapack.norm1(self.A)
        exact = np.linalg.slogdet(wide(self.A) / norm)[1] + p * np.log(norm)
        true = self.rcond
        if self.told == 2:
            values = np.abs(np.linalg.eigvalsh(wide(self.A) / norm))
            true = float(values.min() / values.max())
        less, more = sorted((float(rcond), true))
        return {
            LOGDET: abs(float(logdet) - exact) / ((p / self.rcond + abs(exact)) * self.eps),
            RCOND: more / less - (1 - less / more),
        }


def of_factor(make: Callable[[int], Factor], system: System, with_inverse: bool = True) -> Posed:
    """Return answer and judge of everything that a factor tells."""

    def answer(threads: int) -> tuple[np.ndarray, ...]:
        factor = make(threads)
        numbers = np.array([factor.logdet, factor.rcond])
        answers = factor.solve(system.b), numbers
        return (*answers, factor.inverse(), factor.inverse_diagonal()) if with_inverse else answers

    def judge(x: np.ndarray, numbers: np.ndarray, *inverses: np.ndarray) -> dict[str, Any]:
        found = system.solved(x) | system.measured(*numbers)
        return found | system.inverted(*inverses) if inverses else found

    return answer, judge


def invertible(kind: str) -> bool:
    """Tell whether the inverse lies within the range: not of what is near an end of it."""
    return not kind.startswith("near")


# ---- matrices ----
@routine("Cholesky")
def cholesky(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    A, _ = lapack.symmetric(kind, p, dtype)
    system, F = System(A), ff.DenseFisher.from_matrix(A)
    answer, judge = of_factor(lambda threads: F.factor(n_threads=threads), system, invertible(kind))

    def with_panels(threads: int) -> tuple[np.ndarray, ...]:
        factor: Any = F.factor(n_threads=threads)
        held = factor._factor
        return getattr(held, "held", held).panels, *answer(threads)

    def judged(panels: np.ndarray, *others: np.ndarray) -> dict[str, Any]:
        if A.dtype.kind == "c":  # the panels are of the real form of conj A
            form = np.kron(A.real, np.eye(2)) + np.kron(A.imag, [[0, 1], [-1, 0]])
            L = lapack.lower(panels, 2 * p)
        else:
            form, L = A, lapack.lower(panels, p)
        return {FACTOR: lapack.factor_ratio(form.astype(L.dtype), L), **judge(*others)}

    return with_panels, judged


def by_solver(
    solver: Callable[..., Any],
) -> Pose:
    def pose(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
        system = System(lapack.symmetric(kind, p, dtype)[0])

        def answer(threads: int) -> tuple[np.ndarray]:
            return (ff.solve(system.A, system.b, solver=solver(dtype), n_threads=threads).value,)

        return answer, system.solved

    return pose


routine("Cholesky, mixed precision", (np.float64, np.complex128))(
    by_solver(lambda dtype: ff.Cholesky(precision="mixed"))
)
routine("Eigh")(by_solver(lambda dtype: ff.Eigh()))
# As exact as the dtype allows, where the iteration comes so far: else it says that it stalls.
routine("CG", largest=193, may_fail=lapack.KINDS[2:])(
    by_solver(lambda dtype: ff.CG(rtol=20 * EPS[np.dtype(dtype)]))
)


# ---- blocks; the matrix is what the scores sum to, so that the sum is not judged twice ----
def block_sizes(p: int) -> list[int]:
    """Return sizes from one to a third of p, the last one what is left."""
    sizes, left = [], p
    for size in (1, 2, 2, 5, max(p // 3, 1), max(p // 3, 1)):
        if size <= left:
            sizes.append(size)
            left -= size
    return [*sizes, left] if left else sizes


@routine("block-diagonal Cholesky")
def block_diagonal(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    S, start = np.zeros((p, p), dtype), 0
    for size in block_sizes(p):
        S[start : start + size, start : start + size] = lapack.scores(
            kind, size, size, dtype, root=True
        )
        start += size
    return blocks(S, block_sizes(p), kind, tridiagonal=False)


@routine("block-tridiagonal Cholesky")
def block_tridiagonal(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    # Rows of scores that touch two neighbouring blocks: their F is block tridiagonal as it stands.
    sizes, letter = block_sizes(p), np.dtype(dtype).kind
    S, start = np.zeros((p, p), np.result_type(dtype, float)), 0
    for size, beside in zip(sizes, [*sizes[1:], 0], strict=True):
        end = start + size
        S[start:end, start:end] = lapack.frame(size, size, letter)
        S[start:end, end : end + beside] = lapack.frame(size, beside, letter) / 4 if beside else 0
        start = end
    values, norm = lapack.spectrum(kind, p, dtype)
    S = np.diag(values) if kind == "diagonal" else S * values**0.5
    S, zero = S * norm**0.5, lapack.zero_of(kind, p)
    if zero is not None:
        S[:, zero] = 0
    return blocks(S.astype(dtype), sizes, kind, tridiagonal=True)


def blocks(S: np.ndarray, sizes: Sequence[int], kind: str, *, tridiagonal: bool) -> Posed:
    def make(threads: int) -> ff.BlockDiagonalFisher:
        return ff.BlockDiagonalFisher.from_scores(
            S, sizes, tridiagonal=tridiagonal, reduction="sum", n_threads=threads
        )

    system = System(make(1).to_dense())
    return of_factor(
        lambda threads: make(threads).factor(n_threads=threads),
        system,
        invertible(kind),
    )


# ---- Kronecker factors ----
def kronecker(
    mode: str,
) -> Pose:
    def pose(kind: str, p: int, dtype: type[Any]) -> Posed:
        rows = max(d for d in range(1, int(p**0.5) + 1) if p % d == 0)
        shape, eps = (rows, p // rows), EPS[np.dtype(dtype)]
        n = max(shape)
        # Moments of this kind need activations of its square root: n rows of them, scaled by √n.
        a, g = (
            np.pad(lapack.scores(kind, d, d, dtype, root=True), ((0, n - d), (0, 0)))
            * dtype(n**0.5)
            for d in (shape[1], shape[0])
        )
        K = ff.KroneckerFisher.from_layers([(a, g)])
        A, G = (wide(factor) for factor in K.factors[0])
        damping = float(np.trace(A) * np.trace(G)) / p * 10 * eps**0.5
        if mode == "factored" and damping:
            pi = (np.trace(A) / len(A) / (np.trace(G) / len(G))) ** 0.5
            A, G = (
                M + share * damping**0.5 * np.eye(len(M)) for M, share in ((A, pi), (G, 1 / pi))
            )
            matrix = np.kron(G, A)
        else:
            matrix = np.kron(G, A) + damping * np.eye(p)
        system = System(matrix.astype(dtype), told=1 if mode == "factored" else 2)
        return of_factor(
            lambda threads: K.factor(damping=damping, damping_mode=mode, n_threads=threads), system
        )

    return pose


MODERATE = tuple(kind for kind in lapack.KINDS if invertible(kind))
for mode in ("absolute", "factored"):
    routine(
        f"Kronecker, {'exact' if mode == 'absolute' else mode} damping", DTYPES, kinds=MODERATE
    )(kronecker(mode))


# ---- batches ----
@routine("batch", DTYPES, largest=50)
def batch(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    system = System(lapack.symmetric(kind, p, dtype)[0], 9)
    stack = np.broadcast_to(system.A, (9, p, p))

    def answer(threads: int) -> Any:
        some: dict[str, Any] = {"n_threads": threads}
        solution = ff.batch.solve(stack, system.b.T, **some)
        found = solution.value.T, np.array([ff.batch.logdet(stack, **some).value, solution.rcond])
        if not invertible(kind):
            return found
        return (
            *found,
            ff.batch.inverse(stack, **some).value[-1],
            ff.batch.inverse_diagonal(stack, **some).value[-1],
        )

    def judge(x: np.ndarray, numbers: np.ndarray, *inverses: Any) -> Any:
        found = system.solved(x) | system.measured(*numbers[:, 0])
        return found | system.inverted(*inverses) if inverses else found

    return answer, judge


@routine("batch, extended precision", (np.float64,), largest=50)
def extended(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    A, _ = lapack.symmetric(kind, p, dtype)
    # Of 40 bits, so that b = A x* with x* of -1 and 1 has no rounding: no condition number, then.
    unit = 2.0 ** np.floor(np.log2(lapack.norm1(A) or 1.0) - 40)
    A = np.rint(A / unit) * unit
    system = System(A)
    system.exact = np.where(system.exact < 0, -1.0, 1.0)
    system.b = A @ system.exact
    assert (long(A) @ system.exact == system.b).all()

    def answer(threads: int) -> Any:
        stack = np.broadcast_to(A, (1, p, p))
        found = ff.batch.solve(stack, system.b[None], precision="extended", n_threads=threads)
        return (found.value[0],)

    def judge(x: np.ndarray) -> Any:
        error = np.abs(x - system.exact).max(initial=0) / EPS[A.dtype]
        return {RESIDUAL: system.solved(x)[RESIDUAL], "‖x − x*‖ / (‖x*‖ ε), at any rcond": error}

    return answer, judge


# ---- scores: QR and the dual ----
def tall(p: int) -> int:
    return 2 * p + 3


@routine("QR of scores", may_fail=())
def qr(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    S = lapack.scores(kind, tall(p), p, dtype)
    n, eps = len(S), EPS[S.dtype]
    unit = 2.0 ** np.floor(np.log2(float(np.abs(S).max()) or 1.0))  # exact: ratios within range

    def answer(threads: int) -> tuple[np.ndarray]:
        F = ff.SquareRootFisher(p, dtype=dtype, reduction="sum")
        return (F.update(S, n_threads=threads).root(),)

    def judge(R: np.ndarray) -> dict[str, Any]:
        scaled, R = wide(S) / unit, wide(R) / unit
        error = size(R.conj().T @ R - scaled.conj().T @ scaled)
        found = {QR_FACTOR: over(error, n * size(scaled) ** 2 * eps)}
        values = np.linalg.svd(R, compute_uv=False)
        if values[-1] > eps * values[0]:
            rcond = values[-1] / values[0]
            Q = np.linalg.solve(R.T, scaled.T).T
            found[QR_FRAME] = size(Q.conj().T @ Q - np.eye(p)) * rcond / (n * eps)
        return found

    return answer, judge


@routine("least squares by QR", kinds=MODERATE)
def least_squares(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    S = lapack.scores(kind, tall(p), p, dtype)
    n, eps = len(S), EPS[S.dtype]
    consistent, other = (long(S) @ draw(p, 1, dtype)[:, 0]).astype(dtype), draw(n, 1, dtype)[:, 0]

    def answer(threads: int) -> Any:
        F = ff.ScoreFisher(S, reduction="sum")
        return tuple(
            F.least_squares(y, solver=ff.QR(), n_threads=threads).value for y in (consistent, other)
        )

    def judge(x: np.ndarray, z: Any) -> Any:
        S_, norm = long(S), size(S)
        first = size(long(consistent) - S_ @ x) / (n * norm * size(x) * eps)
        residual = long(other) - S_ @ z
        scale = norm * size(z) + size(other)
        second = size(S_.conj().T @ residual) / (n * norm * scale * eps)
        return {CONSISTENT: float(first), NORMAL: float(second)}

    return answer, judge


@routine("dual", least=2, kinds=MODERATE, may_fail=())
def dual(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
    S = lapack.scores(kind, p // 2, p, dtype, root=True)
    # The damping that leaves half the digits of a general right-hand side, and little of F.
    F, damping = long(S).conj().T @ long(S), 10 * EPS[S.dtype] ** 0.5
    system = System((F + damping * np.eye(p)).astype(dtype))
    system.b = (F @ long(system.exact) + damping * long(system.exact)).astype(dtype)
    held = ff.ScoreFisher(S, reduction="sum")

    def answer(threads: int) -> tuple[np.ndarray]:
        solution = ff.solve(held, system.b, damping=damping, solver=ff.Dual(), n_threads=threads)
        return (solution.value,)

    def judge(x: np.ndarray) -> dict[str, Any]:
        return {FORWARD: system.solved(x)[FORWARD]}

    return answer, judge


# ---- sums and products, entry by entry ----
def some_columns(p: int) -> Any:
    return np.unique(np.linspace(0, p - 1, min(p, COLUMNS)).astype(int))


def entries(found: Any, left: Any, right: Any, dtype: npt.DTypeLike) -> Any:
    """Return the ratio of leftᴴ right on some columns, in long double."""
    which = some_columns(right.shape[1])
    exact = long(left).conj().T @ long(right[:, which])
    scale = np.abs(long(left)).T @ np.abs(long(right[:, which]))
    # Where products are below the normal numbers each may be wrong by the smallest one.
    scale = scale * EPS[np.dtype(dtype)] + len(left) * float(np.finfo(dtype).smallest_subnormal)
    error = np.abs(long(found)[:, which] - exact) / scale
    return {ENTRIES: float(error.max(initial=0))}


def sums(dtypes: tuple[Any, ...] = EVERY, largest: int = 1000) -> Callable[[Pose], Pose]:
    """Enter a sum over scores: no kind may fail."""

    def enter(
        pose: Pose,
    ) -> Pose:
        def posed(kind: str, p: int, dtype: npt.DTypeLike) -> Posed:
            return pose(lapack.scores(kind, tall(p), p, dtype, root=True), dtype)

        routine(pose.__name__, dtypes, largest=largest, may_fail=())(posed)
        return pose

    return enter


@sums()
def empirical_fisher(S: np.ndarray, dtype: npt.DTypeLike) -> Posed:
    some: dict[str, Any] = {"reduction": "sum"}
    return (
        lambda threads: (ff.empirical_fisher(S, n_threads=threads, **some),),
        lambda F: entries(F, S, S, dtype),
    )


@sums()
def gram(S: np.ndarray, dtype: npt.DTypeLike) -> Posed:
    U = np.ascontiguousarray(S.conj().T)
    return (
        lambda threads: (ff.gram(U, reduction="sum", n_threads=threads),),
        lambda K: entries(K, S, S, dtype),
    )


@sums()
def fisher_diagonal(S: np.ndarray, dtype: npt.DTypeLike) -> Posed:
    def judge(d: np.ndarray) -> dict[str, Any]:
        exact = (np.abs(long(S)) ** 2).sum(axis=0)
        last = len(S) * float(np.finfo(dtype).smallest_subnormal)
        return {
            ENTRIES: float(
                (np.abs(d - exact) / (exact * EPS[np.dtype(dtype)] + last)).max(initial=0)
            )
        }

    return lambda threads: (ff.fisher_diagonal(S, reduction="sum", n_threads=threads),), judge


@sums()
def fvp(S: np.ndarray, dtype: npt.DTypeLike) -> Posed:
    V = draw(S.shape[1], 3, dtype)

    def judge(x: np.ndarray) -> Any:
        A, U = long(S), np.abs(long(S))
        exact, scale = A.conj().T @ (A @ V), U.T @ (U @ np.abs(long(V)))
        last = len(S) * float(np.finfo(dtype).smallest_subnormal)
        error = np.abs(x - exact) / (scale * EPS[np.dtype(dtype)] + last)
        return {ENTRIES: float(error.max(initial=0))}

    return lambda threads: (ff.fvp(S, V, reduction="sum", n_threads=threads),), judge


@sums(DTYPES, 50)
def batch_empirical_fisher(S: np.ndarray, dtype: npt.DTypeLike) -> Posed:
    stack = np.broadcast_to(S, (9, *S.shape))
    return (
        lambda threads: (ff.batch.empirical_fisher(stack, reduction="sum", n_threads=threads)[-1],),
        lambda F: entries(F, S, S, dtype),
    )
