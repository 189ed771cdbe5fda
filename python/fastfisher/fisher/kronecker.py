"""KroneckerFisher: a network's Fisher by two small factors per layer (KFAC, EKFAC, chains)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastfisher import _memory
from fastfisher._ops.conjugates import hermitian_part
from fastfisher._range import in_range
from fastfisher._turns import still
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.factor import Factor, MatrixFactor
from fastfisher.fisher.kronecker_chain import Chain, ChainFactor
from fastfisher.fisher.kronecker_factor import (
    Eigenbasis,
    EigenFactor,
    LayersFactor,
    PairFactor,
    cholesky_of,
    shares,
    two_sided,
)
from fastfisher.fisher.kronecker_sums import KroneckerSums
from fastfisher.fisher.layers import Conv2dLayer, LinearLayer, layers_of
from fastfisher.solvers.auto import DIRECT_LIMIT
from fastfisher.solvers.damping import FactoredDamping

__all__ = ["KroneckerFisher"]

# Per-sample gradients that `leverage` makes of layers at a time take about this many bytes.
_ROWS_BYTES = 2**26


class KroneckerFisher(KroneckerSums):
    """The Fisher of a network as one Kronecker product G ⊗ A for each layer: KFAC.

    A = E[a aᵀ] of the layer's inputs and G = E[g gᵀ] of the gradients at its outputs. For the
    (d_out, d_in) weight raveled in C order the block is ``np.kron(G, A)``; blocks between layers
    are zero. Whose Fisher it is the gradients say: of log-likelihoods with labels drawn from the
    model it approximates the Monte-Carlo Fisher, with labels of the data the empirical one.

    Parameters
    ----------
    shapes : list of (d_out, d_in)
        Of the weights; a bias is one more input (``LinearLayer(a, g, bias=True)``).
    eigen : bool
        EKFAC: keep the second moments of the per-sample gradients in the eigenbasis of the factors,
        in place of the products of eigenvalues.
    tridiagonal : bool
        Couple neighbours in the list of layers: the distribution of gradients that has the
        tridiagonal blocks G_l,m ⊗ A_l,m and is a Markov chain beyond them. Its inverse is
        block-tridiagonal, and it is positive semi-definite always.
    weight_sharing : {"expand", "reduce"}
        For layers with T positions. "expand" takes each for a sample: A = Σ_it a aᵀ / (n T) and
        G = Σ_it g gᵀ / n. "reduce" goes over the positions first: A is of the mean of a, G of the
        sum of g.
    dtype : dtype
        float64 or float32, to sum in.
    center : bool
        Only False: factors of centred scores do not exist.
    reduction : {"mean", "sum"}
        Whether F is the mean over samples, or Σw times that.
    like : array, optional
        An array of the kind that the layers will have.

    See Also
    --------
    LayerFisher : the exact empirical Fisher of the same layers.

    Notes
    -----
    A sample of weight 2 counts twice, in both factors. ``K.decay(0.95).update(batch)`` decays sums
    and weights alike, so the factors are the bias-corrected moving averages. Factors are sums:
    `merge` is exact to rounding.

    Damping. A number is added exactly, F + λI, in the eigenbasis of the factors, which is computed
    once between updates and serves any damping. ``damping_mode="factored"`` is the cheaper
    (G + (√λ / π) I) ⊗ (A + π √λ I), π = √((tr A / dim A) / (tr G / dim G)), solved by two Cholesky
    factorisations; `Solution.method` tells them apart. A vector, and ``"diagonal"``, make a dense
    matrix of each layer; ``CG(preconditioner=K.factor(damping=1e-2).solve)`` does without.

    EKFAC. The first update computes the basis from its own factors and then the moments in that
    basis, so then ‖F − EKFAC‖ ≤ ‖F − KFAC‖ in the Frobenius norm. Later ones sum their moments in
    the same basis, however the factors drift, until `refresh` takes that of the factors at hand;
    the moments are carried over as the diagonal, in the new basis, of what was held. `merge` does
    the same with moments in another basis than its own: what is lost is the part of the other
    Fisher that is not diagonal here, never more than its Frobenius norm, and the trace is kept.

    Chains. ``damping_mode="factored"`` damps A and G of each layer before the chain is made of
    them. Any other damping above 0 makes a dense matrix, up to 16384 parameters, and beyond is
    left to CG.

    References
    ----------
    J. Martens and R. Grosse, "Optimizing neural networks with Kronecker-factored approximate
    curvature", ICML (2015), arXiv:1503.05671. T. George et al., "Fast approximate natural gradient
    descent in a Kronecker-factored eigenbasis", NeurIPS (2018). R. Eschenhagen et al.,
    "Kronecker-factored approximate curvature for modern neural network architectures", NeurIPS
    (2023).

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> rng = np.random.default_rng(0)
    >>> a, g = rng.standard_normal((50, 4)), rng.standard_normal((50, 3))
    >>> K = ff.KroneckerFisher([(3, 5)]).update([ff.LinearLayer(a, g, bias=True)])
    >>> gradients = [rng.standard_normal((3, 5))]
    >>> step = K.solve(gradients, damping=1e-2)
    >>> step[0].shape
    (3, 5)
    >>> ff.solve(K, gradients, damping=1e-2, damping_mode="factored").method
    'kronecker-cholesky'
    >>> A, G = K.factors[0]
    >>> K.shapes, A.shape, G.shape
    ([(3, 5)], (5, 5), (3, 3))
    """

    _composition = "the factors of layers"

    def __repr__(self) -> str:
        told = "".join(f", {name}={value!r}" for name, value in self._structure().items())
        return super().__repr__().replace(", dtype", f"{told}, dtype", 1)

    @in_range
    def diagonal(self) -> Any:
        """Return the diagonal of F, (p,)."""
        if self._eigen:
            parts = [basis.diagonal(basis.values) for basis in self._eigenbases()]
        else:
            with self._lock:
                a, g = self._scales()
                diagonals = [sums.diagonal() for sums in self._sums]
            parts = [
                (g * G[:, None] * (a * A)).reshape(-1)
                for A, G in zip(diagonals[::2], diagonals[1::2], strict=True)
            ]
        return self._ops.xp.concat(parts)

    @in_range
    def to_dense(self) -> Any:
        """Return F as a full symmetric array (p, p)."""
        self._guard_matrix(3)
        if self._tridiagonal:
            return self._dense_chain(0.0)
        out = self._ops.zeros((self._params, self._params), self._dtype)
        for where, block in zip(self._slices(), self._blocks(), strict=True):
            out[where, where] = block
        return out

    @in_range
    @still
    def leverage(self, scores: Any, damping: Any = 0.0, *, damping_mode: str = "absolute") -> Any:
        """Return hᵢ = sᵢᵀ (F + damping)⁻¹ sᵢ per sample, (n,), divided by Σw when F is a mean.

        `scores` are an array (n, p), or a list of layers as `update` takes them.
        """
        if not isinstance(scores, (list, tuple)) or not any(map(_is_layer, scores)):
            return super().leverage(scores, damping, damping_mode=damping_mode)
        found = layers_of(scores, self._shapes)
        factor, scale = self.factor(damping=damping, damping_mode=damping_mode), self._scale
        out = self._ops.empty(found[0].samples, self._dtype)
        step = max(1, _ROWS_BYTES // (self._params * self._dtype.itemsize))
        for start in range(0, len(out), step):
            block = slice(start, min(start + step, len(out)))
            rows = [one.rows(block, self._dtype) for one in found]
            out[block] = scale * factor.quadratic_columns(self._ops.xp.concat(rows, axis=1).T)
        if not self._ops.all_finite(out):
            for place, one in enumerate(found):
                one.a.check_finite(f"layers[{place}].inputs")
                one.g.check_finite(f"layers[{place}].gradients")
        return out

    # ---- products and factors ----
    def _product(self, V: Any, threads: int) -> Any:
        if self._tridiagonal:
            return self._chain(0.0, threads).product(V)
        parts = []
        if self._eigen:
            for basis, where in zip(self._eigenbases(), self._slices(), strict=True):
                parts.append(basis.times(basis.values, V[where], threads))
        else:
            parts = self._times_factors(self.factors, V, threads)
        return self._ops.xp.concat(parts)

    def _damped_product(self, V: Any, shift: Any, threads: int) -> Any:
        if not isinstance(shift, FactoredDamping):
            return super()._damped_product(V, shift, threads)
        if self._tridiagonal:
            return self._chain(shift.damping, threads).product(V)
        parts = self._times_factors(self._damped_factors(shift.damping), V, threads)
        return self._ops.xp.concat(parts)

    def _times_factors(self, factors: list[tuple[Any, Any]], V: Any, threads: int) -> list[Any]:
        """Return (G ⊗ A) V of each layer."""
        product = self._ops.product

        def times(A: Any, G: Any, W: Any) -> Any:
            return two_sided(W, lambda X: product(G, X, threads), lambda X: product(A, X, threads))

        return [
            times(A, G, V[where].reshape(len(G), len(A), -1)).reshape(V[where].shape)
            for (A, G), where in zip(factors, self._slices(), strict=True)
        ]

    def _matrix_factor(self, shift: Any, *, threads: int = 0, with_norm: bool = True) -> Factor:
        if self._tridiagonal:
            if isinstance(shift, FactoredDamping):
                return ChainFactor(self._chain(shift.damping, threads), self._dtype, threads)
            if isinstance(shift, float) and shift == 0.0:
                return ChainFactor(self._undamped_chain(threads), self._dtype, threads)
            return super()._matrix_factor(shift, threads=threads, with_norm=with_norm)
        if isinstance(shift, FactoredDamping):
            layers = self._pairs(shift.damping, threads, with_norm)
        elif isinstance(shift, float):
            layers = []
            for basis in self._eigenbases():
                basis.check(shift)
                layers.append(EigenFactor(basis, basis.values + shift, threads))
        else:
            layers = self._dense_factors(shift, threads, with_norm)
        return LayersFactor(layers, self._slices(), threads)

    def _pairs(self, damping: float, threads: int, with_norm: bool) -> list[Any]:
        """Return the Cholesky factors of A and G with factored damping."""
        out: list[Any] = []
        with self._lock:
            a, g = self._scales()
            for place, where in enumerate(self._slices()):
                A, G = self._sums[2 * place : 2 * place + 2]
                added = shares(a * A.diagonal(), g * G.diagonal(), damping)
                right, left = (
                    cholesky_of(
                        triangle.copy(),
                        scale,
                        extra,
                        f"the factor {letter} of layer {place}",
                        where.start,
                        step,
                        threads=threads,
                        with_norm=with_norm,
                    )
                    for triangle, scale, extra, letter, step in zip(
                        (A, G), (a, g), added, "AG", (1, A.size), strict=True
                    )
                )
                out.append(PairFactor(self._ops, right, left, threads))
        return out

    def _dense_factors(self, shift: Any, threads: int, with_norm: bool) -> list[Any]:
        """Return the Cholesky factor of each block with a vector added to its diagonal."""
        largest = self._rows_to_factor(shift)
        if largest > DIRECT_LIMIT:
            raise ValueError(
                f"damping: expected a number for a layer of more than {DIRECT_LIMIT} parameters, "
                f"got a vector for {largest}. It leaves no factors: use "
                "solver=CG(preconditioner=K.factor(damping=1e-2).solve)."
            )
        _memory.guard(
            sum((where.stop - where.start) ** 2 for where in self._slices()) * self._dtype.itemsize,
            "a dense matrix of each layer",
            "Use solver=CG(), or a number for the damping.",
            self._ops,
        )
        layers = []
        for place, (where, block) in enumerate(zip(self._slices(), self._blocks(), strict=True)):
            factor = cholesky_of(
                self._ops.Triangle.from_dense(block, threads=threads),
                1.0,
                shift[where],
                f"layer {place}",
                where.start,
                1,
                threads=threads,
                with_norm=with_norm,
            )
            layers.append(MatrixFactor(self._ops, factor, threads))
        return layers

    def _blocks(self) -> Iterator[Any]:
        """Yield the dense block of each layer."""
        if self._eigen:
            for basis in self._eigenbases():
                Q = self._ops.xp.kron(basis.left, basis.right)
                yield self._ops.product(Q * basis.values.reshape(-1), Q.T, 0)
        else:
            for A, G in self.factors:
                yield self._ops.xp.kron(G, A)

    def _matrix_triangle(self, threads: int) -> tuple[Any, float]:
        return self._ops.Triangle.from_dense(self.to_dense(), threads=threads), 1.0

    @property
    def _matrix_rows(self) -> int:
        return max(max(shape) for shape in self._shapes)

    def _rows_to_factor(self, shift: Any) -> int:
        if isinstance(shift, FactoredDamping):
            return self._matrix_rows
        if self._tridiagonal and not (isinstance(shift, float) and shift == 0.0):
            return self._params
        if isinstance(shift, float):
            return self._matrix_rows
        return max(rows * columns for rows, columns in self._shapes)

    def _factored_damping(self, damping: Any) -> FactoredDamping:
        if self._eigen:
            raise ValueError(
                "damping_mode: expected one of absolute, trace, diagonal with eigen=True, got "
                "'factored'. Corrected eigenvalues have no factors to damp."
            )
        if not isinstance(damping, float):
            raise ValueError(
                "damping: expected a number with damping_mode='factored', got a vector. "
                "It is shared out to the factors of each layer."
            )
        return FactoredDamping(damping)

    # ---- spectrum ----
    def _spectral_power(
        self, V: Any, power: float, shift: Any, *, truncate: bool
    ) -> tuple[Any, int]:
        damped = self._damped_values(shift)
        if damped is None:
            return super()._spectral_power(V, power, shift, truncate=truncate)
        xp, rank, parts = self._ops.xp, 0, []
        for basis, values, where in zip(self._eigenbases(), damped, self._slices(), strict=True):
            kept = values > basis.rounding * float(values.max())
            rank += int(kept.sum())
            if truncate:
                values = xp.where(kept, xp.where(kept, values, 1.0) ** power, 0.0)
            else:
                if power < 0 and isinstance(shift, float):
                    basis.check(shift)
                elif power < 0 and not kept.all():
                    raise NotPositiveDefiniteError(
                        "fisher: expected a positive definite F + damping for the power "
                        f"{power}, got the eigenvalue {float(values.min()):.3g}. Add damping.",
                        value=float(values.min()),
                    )
                values = values**power
            parts.append(basis.times(values, V[where], 0))
        return xp.concat(parts), rank

    def _spectral_solver(
        self, rhs: Any, threads: int
    ) -> tuple[Any, float, Callable[[list[float]], Any]]:
        if self._tridiagonal:
            return super()._spectral_solver(rhs, threads)
        xp, bases, slices = self._ops.xp, self._eigenbases(), self._slices()
        values = xp.sort(xp.concat([basis.values.reshape(-1) for basis in bases]))
        inner = [
            basis.inwards(rhs[where].reshape(*basis.values.shape, -1), threads)
            for basis, where in zip(bases, slices, strict=True)
        ]

        def solve(shifts: list[float]) -> Any:
            parts = []
            for basis, W in zip(bases, inner, strict=True):
                divided = [W / (basis.values + shift)[:, :, None] for shift in shifts]
                outer = basis.outwards(xp.concat([W[:, :, :0], *divided], axis=2), threads)
                parts.append(outer.reshape(basis.values.size, outer.shape[2]))
            return xp.concat(parts)

        return values, float(values[0]), solve

    def _leading(self, k: int) -> tuple[Any, Any]:
        if self._tridiagonal:
            return super()._leading(k)
        xp, bases, slices = self._ops.xp, self._eigenbases(), self._slices()
        _memory.guard(k * self._params * self._dtype.itemsize, "eigsh", "Ask for fewer.", self._ops)
        values = xp.concat([basis.values.reshape(-1) for basis in bases])
        order = xp.argsort(-values, kind="stable")[:k]
        vectors = self._ops.zeros((self._params, k), self._dtype)
        chosen, from_host = self._ops.to_host(order), self._ops.from_host
        for basis, where in zip(bases, slices, strict=True):
            own = np.flatnonzero((chosen >= where.start) & (chosen < where.stop))
            rows, along = np.divmod(chosen[own] - where.start, basis.right.shape[1])
            left, right = basis.left[:, from_host(rows)], basis.right[:, from_host(along)]
            outer = left[:, None, :] * right[None, :, :]
            vectors[where, from_host(own)] = outer.reshape(basis.values.size, len(own))
        return values[order], vectors

    def _effective_dimension(self, shift: Any) -> float:
        damped = self._damped_values(shift)
        if damped is None:
            return super()._effective_dimension(shift)
        total = 0.0
        for basis, values in zip(self._eigenbases(), damped, strict=True):
            if isinstance(shift, float):
                basis.check(shift)
            total += float((basis.values / values).sum(dtype="float64"))
        return total

    def _damped_values(self, shift: Any) -> list[Any] | None:
        """Return the damped eigenvalues of each layer; None where its basis does not serve."""
        if self._tridiagonal or not isinstance(shift, (float, FactoredDamping)):
            return None
        bases = self._eigenbases()
        if isinstance(shift, float):
            return [basis.values + shift for basis in bases]
        out = []
        for basis in bases:
            g, a = basis.parts
            extra = shares(a, g, shift.damping)
            out.append((g + extra[1])[:, None] * (a + extra[0]))
        return out

    def _damped_dense(self, shift: Any) -> Any:
        if not isinstance(shift, FactoredDamping):
            return super()._damped_dense(shift)
        self._guard_matrix(3)
        return self._dense_chain(shift.damping)

    # ---- what is made of the sums, once between updates ----
    def _eigenbases(self) -> list[Eigenbasis]:
        with self._lock:
            if "basis" not in self._made:
                a, g = self._scales()
                if self._bases:
                    scale = self._scale
                    self._made["basis"] = [
                        Eigenbasis(self._ops, pair, moments * scale, None, f"layer {place}")
                        for place, (pair, moments) in enumerate(
                            zip(self._bases, self._moments, strict=True)
                        )
                    ]
                else:
                    self._made["basis"] = [
                        self._decomposed(self._sums, i, a, g) for i in range(len(self._shapes))
                    ]
            found: list[Eigenbasis] = self._made["basis"]
            return found

    def _chain(self, damping: float, threads: int, *, strict: bool = False) -> Chain:
        """Return the completion with factored damping; the last one is kept, and the undamped."""
        strict = strict or damping > 0.0
        with self._lock:
            key = ("chain", damping > 0.0, strict)
            if self._made.get(key, (None, None))[0] != damping:
                a, g = self._scales()
                crosses = [
                    (a * A, g * G)
                    for A, G in zip(self._crosses[::2], self._crosses[1::2], strict=True)
                ]
                chain = Chain(
                    self._ops,
                    self._damped_factors(damping),
                    crosses,
                    self._slices(),
                    threads,
                    strict=strict,
                )
                self._made[key] = (damping, chain)
            found: Chain = self._made[key][1]
            return found

    def _undamped_chain(self, threads: int) -> Chain:
        try:
            return self._chain(0.0, threads, strict=True)
        except NotPositiveDefiniteError as error:
            # No pivot: the damping that would do is not worth a dozen dense factorisations.
            raise NotPositiveDefiniteError(
                f"{error} Use damping_mode='factored' with a positive damping.", value=error.value
            ) from None

    def _dense_chain(self, damping: float) -> Any:
        half = self._chain(damping, 0).product(self._ops.xp.eye(self._params, dtype=self._dtype))
        return hermitian_part(half)

    def _damped_factors(self, damping: float) -> list[tuple[Any, Any]]:
        """Return (A, G) of each layer with factored damping, dense."""
        factors = self.factors
        for A, G in factors:
            a, g = self._ops.xp.einsum("ii->i", A), self._ops.xp.einsum("ii->i", G)
            extra = shares(a, g, damping)
            a += extra[0]
            g += extra[1]
        return factors


def _is_layer(value: Any) -> bool:
    """Tell whether this is a layer, or one side of it, rather than a row of scores."""
    return isinstance(value, (LinearLayer, Conv2dLayer)) or any(
        getattr(side, "ndim", 0) >= 2
        for side in (value if isinstance(value, (list, tuple)) else (value,))
    )
