"""A Fisher known by its products alone: solved like any other, and what it cannot answer."""

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastfisher as ff
import oracle

P = 7


@pytest.fixture
def matrix() -> np.ndarray:
    return oracle.fisher(oracle.draw(30, P))


class Product:
    """The least that counts as an operator."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.shape, self.products = matrix.shape, 0
        self._matrix = matrix

    def __matmul__(self, v: np.ndarray) -> np.ndarray:
        self.products += 1
        answer: np.ndarray = self._matrix @ v
        return answer


def kinds(matrix: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield "own", Product(matrix)
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    yield "scipy", linalg.aslinearoperator(matrix)
    yield "sparse", sparse.csr_array(matrix)
    yield "ours", ff.ScoreFisher(oracle.draw(30, P)).as_linear_operator()


def test_every_kind_is_solved_by_conjugate_gradients(matrix: np.ndarray) -> None:
    g = np.linspace(-1, 1, P)
    for name, operator in kinds(matrix):
        solution = ff.solve(operator, g, damping=0.1)
        assert (solution.method, solution.status) == ("cg", ff.Status.SUCCESS), name
        expected = np.linalg.solve(matrix + 0.1 * np.eye(P), g)
        np.testing.assert_allclose(solution.value, expected, rtol=1e-7)
        direct = ff.solve(operator, g, damping=0.1, solver=ff.Cholesky())
        np.testing.assert_allclose(direct.value, expected, rtol=1e-12)
        total = ff.reparametrize(operator, np.eye(P)[:, :2])  # it is total, as a matrix is
        np.testing.assert_allclose(total, matrix[:2, :2], rtol=1e-12)


def test_a_path_of_dampings_shares_its_products(matrix: np.ndarray) -> None:
    operator, g = Product(matrix), np.linspace(-1, 1, P)
    dampings = [0.01, 0.1, 1.0]
    path = ff.solve_path(operator, g, dampings)
    for value, damping in zip(path.value, dampings, strict=True):
        np.testing.assert_allclose(value, np.linalg.solve(matrix + damping * np.eye(P), g), 1e-6)
    assert operator.products <= 2 * P + len(dampings)  # one Krylov space, and the true residuals


def test_a_function_is_a_fisher_for_the_trust_region(matrix: np.ndarray) -> None:
    g = np.linspace(-1, 1, P)
    expected = ff.trust_region_step(matrix, g, 0.01, damping=0.1).value
    step = ff.trust_region_step(lambda v: matrix @ v, g, 0.01, damping=0.1)
    np.testing.assert_allclose(step.value, expected, rtol=1e-7)
    narrow = ff.trust_region_step(
        lambda v: matrix.astype(v.dtype) @ v, g.astype(np.float32), 0.01, damping=0.1
    )
    assert narrow.value.dtype == np.float32
    np.testing.assert_allclose(narrow.value, expected, rtol=1e-4)
    whole = ff.trust_region_step(lambda v: matrix @ v, [1, -2, 3, 0, 0, 0, 1], 0.01, damping=0.1)
    assert whole.value.dtype == np.float64


def test_truncated_iterations_cost_as_many_products(matrix: np.ndarray) -> None:
    operator = Product(matrix)
    solver = ff.CG(max_iterations=3, preconditioner=None, allow_truncated=True)
    ff.trust_region_step(operator, np.ones(P), 0.01, damping=0.1, solver=solver)
    assert operator.products == 3 + 2  # the true residual, and the length


def test_the_matrix_itself_takes_p_products(matrix: np.ndarray) -> None:
    from fastfisher.functions import as_fisher

    operator = Product(matrix)
    fisher = as_fisher(operator)
    np.testing.assert_allclose(fisher.to_dense(), matrix, rtol=1e-14)
    assert operator.products == P
    factor = fisher.factor(damping=0.1)
    assert factor.method == "cholesky"
    np.testing.assert_allclose(factor.logdet, np.linalg.slogdet(matrix + 0.1 * np.eye(P))[1])
    V = oracle.draw(P, 3)
    np.testing.assert_allclose(fisher @ V, matrix @ V, rtol=1e-12)
    assert fisher.reduction == "sum"


def test_what_a_product_alone_does_not_know(matrix: np.ndarray) -> None:
    for solver, mode in ((ff.CG(), "absolute"), ("auto", "trace"), ("auto", "diagonal")):
        with pytest.raises(TypeError, match=r"fisher: expected .* knows its diagonal"):
            ff.solve(Product(matrix), np.ones(P), damping=0.1, damping_mode=mode, solver=solver)
    from fastfisher.functions import as_fisher

    with pytest.raises(TypeError, match="fisher: expected a representation made of arrays"):
        pickle.dumps(as_fisher(Product(matrix)))


def test_negative_curvature_is_named_and_can_be_shifted(matrix: np.ndarray) -> None:
    with pytest.raises(ff.NotPositiveDefiniteError):
        ff.solve(Product(-matrix), np.ones(P))
    shifted = ff.solve(Product(-matrix), np.ones(P), on_failure="shift")
    assert shifted.status == ff.Status.SHIFTED
    assert shifted.damping_used > 0


def test_products_of_another_shape_or_kind() -> None:
    g = np.ones(3)
    with pytest.raises(
        ValueError, match=r"fisher: expected a square operator .* got shape \(2, 3\)"
    ):
        ff.solve(Product(np.ones((2, 3))), g)
    with pytest.raises(ValueError, match=r"fisher: expected a product of shape \(3,\), got \(2,\)"):
        ff.trust_region_step(lambda v: v[:2], g, 0.01)
    with pytest.raises(TypeError, match="fisher: expected real numbers, got complex128"):
        ff.trust_region_step(lambda v: 1j * v, g, 0.01)
    with pytest.raises(TypeError, match="fisher: expected real numbers, got object"):
        ff.trust_region_step(lambda v: None, g, 0.01)


def test_complex_products() -> None:
    S = oracle.draw(30, P, np.complex128)
    matrix, g = oracle.fisher(S), oracle.draw(P, 1, np.complex128)[:, 0]
    solution = ff.trust_region_step(lambda v: matrix @ v, g, 0.01, damping=0.1)
    expected = ff.trust_region_step(matrix, g, 0.01, damping=0.1).value
    np.testing.assert_allclose(solution.value, expected, rtol=1e-6)


def test_a_function_may_work_in_place() -> None:
    def product(v: np.ndarray) -> np.ndarray:
        v *= np.array([1.0, 4.0])
        return v

    step = ff.trust_region_step(product, np.array([3.0, 8.0]), 0.125).value
    np.testing.assert_allclose(step, [0.3, 0.2], rtol=1e-12)
