"""E2 of the theory: KFAC, EKFAC and their chain are what their definitions say, for any shape."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfisher as ff
import kronecker
import oracle

SIDES = st.integers(1, 7)
NETS = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3)
SAMPLES = st.integers(10, 40)
SHARINGS = ("expand", "reduce")


def norm(M: np.ndarray) -> float:
    return float(np.linalg.norm(M))


def empirical(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the block diagonal of the Fisher that the factors stand for."""
    S, sizes = kronecker.scores(layers), [g.shape[1] * a.shape[1] for a, g in layers]
    F, ends = oracle.fisher(S, weights), np.cumsum([0, *sizes])
    return kronecker.block_diagonal([F[i:j, i:j] for i, j in pairwise(ends)])


@settings(deadline=None, max_examples=15)
@given(NETS, SAMPLES, st.sampled_from(SHARINGS), st.sampled_from([None, 1, 3]))
def test_e2_every_definition(
    shapes: Sequence[tuple[int, int]], n: int, sharing: str, positions: int | None
) -> None:
    layers, weights = kronecker.draw(n, shapes, positions=positions), oracle.draw_weights(n)
    for name, define in kronecker.DEFINITIONS.items():
        options: dict[str, Any] = {} if name == "kfac" else {name: True}
        K = ff.KroneckerFisher.from_layers(
            layers, weights=weights, weight_sharing=sharing, **options
        )
        expected = define(layers, weights, sharing=sharing)
        # Neighbours of a chain divide by their factors, of condition up to some hundreds here.
        terms = n * len(expected) * (1e3 if name == "tridiagonal" else 10)
        oracle.close(K.to_dense(), expected, float, terms, norm(expected))


@pytest.mark.parametrize("eigen", [False, True])
def test_e2_a_single_sample_is_exact(eigen: bool) -> None:
    for shape in ((1, 1), (4, 7), (5, 2)):
        layers = kronecker.draw(1, [shape])
        K = ff.KroneckerFisher.from_layers(layers, eigen=eigen)
        F = oracle.fisher(kronecker.scores(layers))
        oracle.close(K.to_dense(), F, float, 100, norm(F))


@pytest.mark.parametrize("eigen", [False, True])
def test_e2_a_full_factorial_is_exact(eigen: bool) -> None:
    a, g = oracle.draw(7, 4), oracle.draw(6, 3)
    layers = [(np.repeat(a, 6, axis=0), np.tile(g, (7, 1)))]
    K = ff.KroneckerFisher.from_layers(layers, eigen=eigen)
    F = oracle.fisher(kronecker.scores(layers))
    oracle.close(K.to_dense(), F, float, 1000, norm(F))


@settings(deadline=None, max_examples=25)
@given(NETS, st.integers(1, 30), st.sampled_from([None, 3]), st.sampled_from(SHARINGS))
def test_e2_ekfac_is_nearer_than_kfac(
    shapes: Sequence[tuple[int, int]], n: int, positions: int | None, sharing: str
) -> None:
    layers, weights = kronecker.draw(n, shapes, positions=positions), oracle.draw_weights(n)
    F = empirical(layers, weights)
    kfac, ekfac = (
        norm(
            F
            - ff.KroneckerFisher.from_layers(
                layers, weights=weights, weight_sharing=sharing, eigen=eigen
            ).to_dense()
        )
        for eigen in (False, True)
    )
    assert ekfac <= kfac + 100 * len(F) * np.finfo(float).eps * norm(F)


def test_e2_expand_is_exact_for_a_deep_linear_network_with_a_loss_at_every_position() -> None:
    # y_t = W2 W1 x_t with unit Gaussian noise: the gradients at W1's output, one for each output k,
    # are the columns of W2ᵀ, and the exact Fisher of W1 is E[Σ_t x xᵀ] beside W2ᵀ W2.
    n, T, outputs = 5, 4, 3
    W2, x = oracle.draw(outputs, 2), oracle.rng(1).standard_normal((n, 6, T))
    a = np.repeat(x, outputs, axis=0)
    g = np.repeat(np.tile(W2, (n, 1))[:, :, None], T, axis=2) * np.sqrt(outputs)
    K = ff.KroneckerFisher.from_layers([(a, g)], weight_sharing="expand")
    exact = np.kron(W2.T @ W2, np.einsum("njt,nkt->jk", x, x) / n)
    oracle.close(K.to_dense(), exact, float, 1000, norm(exact))


def test_e2_reduce_is_exact_for_a_deep_linear_network_with_a_loss_of_the_mean() -> None:
    # y = W2 W1 mean_t x_t: every position has the gradient W2ᵀ e_k / T.
    n, T, outputs = 5, 4, 3
    W2, x = oracle.draw(outputs, 2), oracle.rng(1).standard_normal((n, 6, T))
    a = np.repeat(x, outputs, axis=0)
    g = np.repeat(np.tile(W2, (n, 1))[:, :, None], T, axis=2) * np.sqrt(outputs) / T
    K = ff.KroneckerFisher.from_layers([(a, g)], weight_sharing="reduce")
    mean = x.mean(axis=2)
    exact = np.kron(W2.T @ W2, mean.T @ mean / n)
    oracle.close(K.to_dense(), exact, float, 1000, norm(exact))


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("bias", [False, True])
def test_e2_convolutions_are_their_unrolled_patches(sharing: str, bias: bool) -> None:
    rng = oracle.rng(2)
    x, g = rng.standard_normal((30, 2, 6, 5)), rng.standard_normal((30, 3, 3, 4))
    layer = ff.Conv2dLayer(x, g, (3, 2), stride=(2, 1), padding=(1, 0), bias=bias)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    rows = [
        padded[:, :, 2 * i : 2 * i + 3, j : j + 2].reshape(30, -1)
        for i in range(3)
        for j in range(4)
    ]
    a = np.stack(rows, axis=2)
    if bias:
        a = np.concatenate([a, np.ones((30, 1, 12))], axis=1)
    unrolled = [(a, g.reshape(30, 3, 12))]
    for name, define in kronecker.DEFINITIONS.items():
        options: dict[str, Any] = {} if name == "kfac" else {name: True}
        K = ff.KroneckerFisher.from_layers([layer], weight_sharing=sharing, **options)
        expected = define(unrolled, sharing=sharing)
        assert K.shapes == [(3, 12 + bias)]
        oracle.close(K.to_dense(), expected, float, 1e4, norm(expected))


@settings(deadline=None, max_examples=12)
@given(NETS, SAMPLES, st.floats(1e-3, 10.0), st.sampled_from(["kfac", "tridiagonal"]))
def test_e2_factored_damping_is_what_it_says(
    shapes: Sequence[tuple[int, int]], n: int, damping: float, name: str
) -> None:
    layers = kronecker.draw(n, shapes)
    K = ff.KroneckerFisher.from_layers(layers, tridiagonal=name == "tridiagonal")
    A = kronecker.DEFINITIONS[name](layers, damping=damping)
    rhs = oracle.draw(len(A), 2)
    kappa, terms = np.linalg.cond(A), 100 * len(A)
    solution = ff.solve(K, rhs, damping=damping, damping_mode="factored")
    oracle.close(solution.value, np.linalg.solve(A, rhs), float, terms * kappa)
    assert solution.method == ("kronecker-chain" if K._tridiagonal else "kronecker-cholesky")
    assert solution.damping_used == damping
    assert solution.residual is not None
    assert solution.rcond is not None
    assert solution.residual < 1e-10
    assert 0 < solution.rcond <= 1.0001
    factor = K.factor(damping=damping, damping_mode="factored")
    inverse = np.linalg.inv(A)
    oracle.close(factor.inverse(), inverse, float, terms * kappa)
    oracle.close(factor.inverse_diagonal(), np.diag(inverse), float, terms * kappa)
    oracle.close(factor.logdet, np.linalg.slogdet(A)[1], float, terms, kappa)
    oracle.close(K.logdet(damping, damping_mode="factored"), factor.logdet, float, 10)
    draws = factor.sample(0, 1000)
    squares = np.einsum("ni,ij,nj->n", draws, A, draws)
    assert abs(squares.mean() - len(A)) < 5 * np.sqrt(2 * len(A) / 1000)
    values, Q = np.linalg.eigh(A)
    for power in (-1.0, -0.5, 0.5):
        found = K.apply_power(rhs, power, damping=damping, damping_mode="factored")
        oracle.close(found, Q @ (values[:, None] ** power * (Q.T @ rhs)), float, terms * kappa)
    dimension = np.trace(np.linalg.solve(A, K.to_dense()))
    found = K.effective_dimension(damping, damping_mode="factored")
    oracle.close(found, dimension, float, terms, kappa * len(A))


def test_e2_a_chain_has_a_block_tridiagonal_inverse_and_its_blocks_within() -> None:
    shapes = [(2, 3), (3, 2), (1, 4), (2, 2)]
    layers = kronecker.draw(50, shapes)
    K = ff.KroneckerFisher.from_layers(layers, tridiagonal=True)
    F, slices = K.to_dense(), K._slices()
    inverse = np.linalg.inv(F)
    for i, rows in enumerate(slices):
        for j, columns in enumerate(slices):
            if abs(i - j) > 1:
                assert np.abs(inverse[rows, columns]).max() < 1e-12 * np.abs(inverse).max()
            elif i <= j:
                A, G = kronecker.cross(layers[i], layers[j])
                oracle.close(F[rows, columns], np.kron(G, A), float, 1e4, norm(F))
    assert np.linalg.eigvalsh(F)[0] > 0
    oracle.close(K.factor().inverse(), inverse, float, 1e4, norm(inverse))


def test_e2_a_chain_of_singular_factors_is_positive_semidefinite() -> None:
    layers = kronecker.draw(4, [(2, 6), (5, 3), (6, 6)])
    K = ff.KroneckerFisher.from_layers(layers, tridiagonal=True)
    F = K.to_dense()
    values = np.linalg.eigvalsh(F)
    assert abs(values[0]) < 1e-13 * values[-1]
    # The tridiagonal blocks are met on the ranges too.
    for i in range(3):
        for j in range(i, min(i + 2, 3)):
            A, G = kronecker.cross(layers[i], layers[j])
            oracle.close(F[K._slices()[i], K._slices()[j]], np.kron(G, A), float, 1e4, norm(F))
    with pytest.raises(ff.NotPositiveDefiniteError, match="of the factor A of layer"):
        K.solve(np.ones(len(F)))
    x = K.solve(np.ones(len(F)), damping=0.1, damping_mode="factored")
    A = kronecker.chain(layers, damping=0.1)
    oracle.close(x, np.linalg.solve(A, np.ones(len(F))), float, 1e4 * np.linalg.cond(A))
