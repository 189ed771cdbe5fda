"""The Markov completion of layers: equal to the Fisher beside its diagonal, its inverse a band."""

import math
from types import ModuleType
from typing import Any

import numpy as np

from fastfisher._ops.portable import Portable
from fastfisher._range import in_range
from fastfisher.errors import NotPositiveDefiniteError
from fastfisher.fisher.factor import Factor
from fastfisher.fisher.kronecker_factor import cholesky_of, two_sided
from fastfisher.fisher.spectrum import cutoff

__all__ = ["Chain", "ChainFactor"]

# Steps of the norm estimate: it ends by itself after two or three (Higham, 1988).
_ESTIMATE_STEPS = 5


class Chain(Portable):
    """F̂ = Ξ⁻¹ Σ Ξ⁻ᵀ, so F̂⁻¹ = Ξᵀ Σ⁻¹ Ξ: the gradients of layer l given those of layer l + 1.

    With A_l, G_l the factors of layer l and A_l,l+1, G_l,l+1 the cross moments of neighbours:

    * Ψ_l = (G_l,l+1 G_l+1⁻¹) ⊗ (A_l,l+1 A_l+1⁻¹), and Ξ has 1 on and -Ψ_l beside its diagonal;
    * Σ_l = G_l ⊗ A_l - D_l ⊗ C_l, C_l = A_l,l+1 A_l+1⁻¹ A_l+1,l and D_l likewise; Σ of the last
      layer is G ⊗ A.

    Σ_l is diagonal in P_l, Q_l with P_lᵀ A_l P_l = I and P_lᵀ C_l P_l = diag(s):
    Σ_l⁻¹ = (Q ⊗ P) diag(1 / (1 - s_Q s_P)) (Q ⊗ P)ᵀ. A factor that is singular is inverted on its
    range, unless `strict`: then it raises.
    """

    def __init__(
        self,
        ops: ModuleType,
        factors: list[tuple[Any, Any]],
        crosses: list[tuple[Any, Any]],
        slices: list[slice],
        threads: int,
        *,
        strict: bool,
    ) -> None:
        self.ops, self.slices, self.threads = ops, slices, threads
        self.links: list[tuple[Any, Any]] = []  # Ψ_l as (ΨG, ΨA)
        self.nodes: list[_Node] = []
        products: list[Any] = [None, None]
        for place in reversed(range(len(factors))):
            sides: list[_Side] = []
            links = []
            for which, letter in enumerate("AG"):
                name = f"the factor {letter} of layer {place}"
                step = factors[place][0].shape[0] if letter == "G" else 1
                if self.nodes:
                    after = self.nodes[0].sides[which]
                    products[which] = ops.product(crosses[place][which], after.P, threads)
                    links.append(ops.product(products[which], after.P.T, threads))
                sides.append(
                    _Side(
                        ops,
                        factors[place][which],
                        products[which],
                        (name, slices[place].start, step),
                        threads,
                        strict=strict,
                    )
                )
            if links:
                self.links.insert(0, (links[1], links[0]))
            self.nodes.insert(0, _Node(ops, sides, place, slices[place].start, threads, strict))

    def _split(self, V: Any) -> list[Any]:
        return [
            V[where].reshape(*node.shape, -1)
            for node, where in zip(self.nodes, self.slices, strict=True)
        ]

    def _joined(self, parts: list[Any]) -> Any:
        return self.ops.xp.concat(
            [part.reshape(part.shape[0] * part.shape[1], part.shape[2]) for part in parts]
        )

    def _linked(self, place: int, W: Any, *, transposed: bool = False) -> Any:
        """Return Ψ W of the layer after `place`, or Ψᵀ W of `place`."""
        G, A = (M.T for M in self.links[place]) if transposed else self.links[place]
        product, threads = self.ops.product, self.threads
        return two_sided(W, lambda X: product(G, X, threads), lambda X: product(A, X, threads))

    def product(self, V: Any) -> Any:
        """Return F̂ V."""
        parts = self._split(V)
        for place in range(len(self.links)):  # Ξ⁻ᵀ
            parts[place + 1] = parts[place + 1] + self._linked(place, parts[place], transposed=True)
        parts = [node.times(W) for node, W in zip(self.nodes, parts, strict=True)]
        for place in reversed(range(len(self.links))):  # Ξ⁻¹
            parts[place] = parts[place] + self._linked(place, parts[place + 1])
        return self._joined(parts)

    def halved(self, V: Any) -> list[Any]:
        """Return Σ^-½ Ξ V, in the basis of each layer."""
        parts = self._split(V)
        for place in range(len(self.links)):  # each layer takes what the next one still is
            parts[place] = parts[place] - self._linked(place, parts[place + 1])
        return [node.halved(W) for node, W in zip(self.nodes, parts, strict=True)]

    def doubled(self, parts: list[Any]) -> Any:
        """Return Ξᵀ Σ^-½ of what `halved` returns: F̂⁻¹ is one after the other."""
        parts = [node.doubled(W) for node, W in zip(self.nodes, parts, strict=True)]
        for place in reversed(range(len(self.links))):
            parts[place + 1] = parts[place + 1] - self._linked(place, parts[place], transposed=True)
        return self._joined(parts)


class ChainFactor(Factor):
    """The completion made ready to solve: everything is Ξᵀ Σ^-½ and its transpose."""

    method = "kronecker-chain"

    def __init__(self, chain: Chain, dtype: Any, threads: int) -> None:
        super().__init__(chain.slices[-1].stop, threads)
        self._ops, self._dtype, self._chain = chain.ops, dtype, chain

    def solve_columns(self, rhs: Any) -> Any:
        """Return F̂⁻¹ rhs."""
        return self._chain.doubled(self._chain.halved(rhs))

    def quadratic_columns(self, V: Any) -> Any:
        """Return ‖Σ^-½ Ξ v‖² for each column."""
        return sum((W**2).sum(axis=(0, 1)) for W in self._chain.halved(V))

    @property
    def logdet(self) -> float:
        """Log det Σ, for Ξ has determinant 1."""
        return math.fsum(node.logdet for node in self._chain.nodes)

    @property
    def rcond(self) -> float:
        """Estimate of 1 / κ₁."""
        params = self.shape[0]
        norms = (
            _norm1_estimate(self._ops, apply, params, self._dtype)
            for apply in (self._chain.product, self.solve_columns)
        )
        return 1 / math.prod(norms)

    @in_range
    def inverse_diagonal(self) -> Any:
        """Return the diagonal of Ξᵀ Σ⁻¹ Ξ: of Σ_l⁻¹ and of Ψ_l-1ᵀ Σ_l-1⁻¹ Ψ_l-1."""
        product, chain = self._ops.product, self._chain
        out = [node.inverse_diagonal(node.sides[1].P, node.sides[0].P) for node in chain.nodes]
        for place, (G, A) in enumerate(chain.links):
            node = chain.nodes[place]
            Q, P = (
                product(M.T, side.P, self._threads)
                for M, side in zip((G, A), reversed(node.sides), strict=True)
            )
            out[place + 1] = out[place + 1] + node.inverse_diagonal(Q, P)
        return self._ops.xp.concat([part.reshape(-1) for part in out])

    def _sample_columns(self, generator: Any, count: int) -> Any:
        normal = self._normal(generator, self.shape[0], count)
        return self._chain.doubled(self._chain._split(normal))


class _Side:
    """One factor M of a layer and C = Y Yᵀ ≤ M: P with Pᵀ M P = I, Pᵀ C P = diag(s); M P."""

    def __init__(
        self,
        ops: ModuleType,
        M: Any,
        Y: Any,
        place: tuple[str, int, int],
        threads: int,
        *,
        strict: bool,
    ) -> None:
        xp = ops.xp
        try:
            L = cholesky_of(
                ops.Triangle.from_dense(M, threads=threads),
                1.0,
                0.0,
                *place,
                threads=threads,
                with_norm=False,
            )
        except NotPositiveDefiniteError:
            if strict:
                raise
            values, vectors = ops.eigh(M)
            kept = values > cutoff(values, len(values))
            root = xp.sqrt(values[kept])
            basis, image, self.logdet = vectors[:, kept] / root, vectors[:, kept] * root, -math.inf
            if Y is None:
                E, self.s = xp.eye(len(root), dtype=M.dtype), xp.zeros(len(root), M.dtype)
            else:
                E, self.s = _leading_of(ops, ops.product(basis.T, Y, threads), threads)
            self.P, self.MP = (ops.product(X, E, threads) for X in (basis, image))
            return
        self.logdet = float(L.logdet())
        if Y is None:
            E, self.s = xp.eye(len(M), dtype=M.dtype), xp.zeros(len(M), M.dtype)
        else:
            E, self.s = _leading_of(ops, L.half_solve(Y, threads=threads), threads)
        self.P = L.half_solve(E, transposed=True, threads=threads)
        self.MP = ops.product(M, self.P, threads)


class _Node(Portable):
    """Σ of one layer in the bases of its two sides (A, G)."""

    def __init__(
        self,
        ops: ModuleType,
        sides: list[_Side],
        place: int,
        start: int,
        threads: int,
        strict: bool,
    ) -> None:
        self.ops, self.sides, self._threads = ops, sides, threads
        A, G = sides
        self.shape = (G.P.shape[0], A.P.shape[0])
        self.rest = 1 - G.s[:, None] * A.s
        rounding = max(self.shape) * float(np.finfo(self.rest.dtype).eps)
        if strict and float(self.rest.min()) <= rounding:
            raise NotPositiveDefiniteError(
                "fisher: expected a positive definite F + damping, got layer "
                f"{place} determined by the next, with {float(self.rest.min()):.3g} of it left.",
                pivot=start,
                value=float(self.rest.min()),
            )
        self.logdet = float(
            self.shape[1] * G.logdet
            + self.shape[0] * A.logdet
            + (ops.xp.log(self.rest).sum(dtype="float64") if strict else 0.0)
        )

    def _two_sided(self, G: Any, A: Any, W: Any) -> Any:
        product, threads = self.ops.product, self._threads
        return two_sided(W, lambda X: product(G, X, threads), lambda X: product(A, X, threads))

    def times(self, W: Any) -> Any:
        """Return Σ W."""
        A, G = self.sides
        inner = self._two_sided(G.MP.T, A.MP.T, W)
        inner *= self.rest[:, :, None]
        return self._two_sided(G.MP, A.MP, inner)

    def halved(self, W: Any) -> Any:
        """Return (1 - s s)^-½ Qᵀ W P."""
        A, G = self.sides
        inner = self._two_sided(G.P.T, A.P.T, W)
        inner /= self.ops.xp.sqrt(self.rest)[:, :, None]
        return inner

    def doubled(self, W: Any) -> Any:
        """Return Q (1 - s s)^-½ W Pᵀ, the transpose of `halved`."""
        A, G = self.sides
        return self._two_sided(G.P, A.P, W / self.ops.xp.sqrt(self.rest)[:, :, None])

    def inverse_diagonal(self, Q: Any, P: Any) -> Any:
        """Return the diagonal of (Q ⊗ P) (1 - s s)⁻¹ (Q ⊗ P)ᵀ, (d_out, d_in)."""
        product = self.ops.product
        return product(product(Q**2, 1 / self.rest, 0), (P**2).T, 0)


def _leading_of(ops: ModuleType, Y: Any, threads: int) -> tuple[Any, Any]:
    """Return eigenvectors and eigenvalues of Y Yᵀ, from 0 to 1."""
    values, vectors = ops.eigh(ops.product(Y, Y.T, threads))
    cutoff(values, 1)
    return vectors, ops.xp.clip(values, 0, 1)


def _norm1_estimate(ops: ModuleType, apply: Any, params: int, dtype: Any) -> float:
    """Return an estimate of ‖M‖₁ of the symmetric M that `apply` multiplies with; never above it.

    N. J. Higham, "FORTRAN codes for estimating the one-norm", ACM Trans. Math. Softw. 14 (1988).
    """
    xp = ops.xp
    x = xp.full((params, 1), 1 / params, dtype)
    found = 0.0
    for _ in range(_ESTIMATE_STEPS):
        y = apply(x)
        found = max(found, float(abs(y).sum(dtype="float64")))
        z = apply(2 * (y >= 0).astype(dtype) - 1)
        place = int(abs(z).argmax())
        if float(abs(z[place, 0])) <= float((z * x).sum(dtype="float64")):
            break
        x = xp.zeros((params, 1), dtype)
        x[place] = 1
    return found
