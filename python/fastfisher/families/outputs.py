"""Fishers of a model from the Jacobians of its outputs: exact (type II), and Monte Carlo."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastfisher import _check, _memory
from fastfisher._ops import ops_of
from fastfisher._ops.border import takes_tensors
from fastfisher.errors import NonFiniteError
from fastfisher.families.family import Family
from fastfisher.fisher import DenseFisher, Fisher
from fastfisher.fisher.accumulator import Accumulator
from fastfisher.fisher.streaming import CHUNK

__all__ = ["exact_fisher", "monte_carlo_fisher", "output_fisher"]

# Bytes of the rows made at a time, which are still in the cache when they are summed. Measured for
# p = 20 … 2000: 1 to 4 MiB take half the time of 16 MiB at p ≤ 200, and the same at p ≥ 1000.
_ROWS = 2 * 2**20
# But no fewer rows than the engine packs at a time, since a dense target is read once per block.
_LEAST_ROWS = 512

# For the distributions of a block of samples, (b, …): the factors R (b, r, outputs).
Roots = Callable[[Family, int], Any]


@takes_tensors
def output_fisher(family: Family) -> Any:
    """Return the Fisher information of all outputs of a sample, F_out, one matrix per sample.

    Equivalent to ``family.fisher_information()`` for a batch (n,). A batch (n, m) is m independent
    distributions per sample, whose matrices become the diagonal blocks of one.

    Parameters
    ----------
    family : Family
        The distribution of the data given the model's outputs, which are its parameters.

    Returns
    -------
    array (n, outputs, outputs)
        Without the first axis for a single distribution.

    See Also
    --------
    exact_fisher

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> ff.output_fisher(ff.Poisson([[1.0, 4.0]]))
    array([[[1.  , 0.  ],
            [0.  , 0.25]]])
    """
    _check_family(family)
    return _joined(family.fisher_information(), family)


@takes_tensors
def exact_fisher(
    jacobians: Any,
    family: Family,
    *,
    weights: Any = None,
    into: Any = None,
    n_threads: int | None = None,
) -> Any:
    """Return the exact (type-II) Fisher of a model, F = Σ wᵢ Jᵢᵀ F_out,i Jᵢ / Σ w.

    It is the expectation over the data that the *model* says it would see at each input, in closed
    form: no labels are needed, and none are drawn. For natural parameters as outputs (logits, a
    mean of known scale) it is the generalised Gauss–Newton matrix.

    Parameters
    ----------
    jacobians : array (n, outputs, p), float64 or float32
        Jᵢ = ∂(outputs of sample i)/∂θ. Outputs are the parameters of the family, in their order;
        of m distributions per sample, all of the first come first.
    family : Family
        The distribution at these outputs, with the batch (n,), or (n, m) for m independent ones
        per sample; a single one stands for all samples.
    weights : array (n,), optional
        Per sample: not negative, not all zero.
    into : class or instance of a representation, optional
        What to sum in, for example ``ff.DiagonalFisher``. An instance is updated, and returned.
    n_threads : int, optional

    Returns
    -------
    array (p, p), or the representation `into`
        Its `weight_sum` is Σw, n without weights; its `n_samples` counts rows, several per sample.

    Raises
    ------
    NonFiniteError
        If a Jacobian is not finite; an instance is unchanged.
    TypeError, ValueError
        For shapes that do not fit; says what the family expects.

    See Also
    --------
    monte_carlo_fisher, empirical_fisher

    Notes
    -----
    F_out = RᵀR in closed form, and F is the empirical Fisher of the rows R J: r rows per sample, r
    the number of outputs (d + d² for a multivariate Gaussian of unknown covariance). They are made
    in blocks of 2 MiB or 512 rows, while the block before is summed; ``ff.ScoreFisher`` keeps all
    of them. n r p² multiplications for a dense target. Its bits are the same for any number of
    threads.

    References
    ----------
    J. Martens, "New insights and perspectives on the natural gradient method", J. Mach. Learn.
    Res. 21 (2020) 146.

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> eta = x @ [0.1, -0.2]  # Poisson regression: the rate is exp(η), and ∂λ/∂θ = λ x
    >>> rate = np.exp(eta)
    >>> F = ff.exact_fisher((rate[:, None] * x)[:, None, :], ff.Poisson(rate))
    >>> bool(np.allclose(F, x.T @ (rate[:, None] * x) / 3))
    True
    >>> labels = ff.Categorical(np.zeros((3, 2)))
    >>> jacobians = np.einsum("kl,nj->nklj", np.eye(2), x).reshape(3, 2, 4)
    >>> ff.exact_fisher(jacobians, labels, into=ff.DiagonalFisher).diagonal().round(4)
    array([0.25  , 0.4167, 0.25  , 0.4167])
    """

    def roots(part: Family, count: int) -> Any:
        R = _joined(part._information_root(), part)
        return np.broadcast_to(R, (count, *R.shape[-2:]))

    return _summed(jacobians, family, roots, weights, into, n_threads)


@takes_tensors
def monte_carlo_fisher(
    jacobians: Any,
    family: Family,
    n_draws: int = 1,
    *,
    rng: Any = None,
    weights: Any = None,
    into: Any = None,
    n_threads: int | None = None,
) -> Any:
    """Return the Monte-Carlo Fisher: of scores whose labels are drawn from the model.

    Each of the `n_draws` labels of a sample gives a row Jᵢᵀ s, s the family's score. It estimates
    ``exact_fisher`` without bias, with an error that falls as 1/√(n·n_draws); it is not the
    empirical Fisher, whose labels are the data's.

    Parameters
    ----------
    jacobians : array (n, outputs, p), float64 or float32
    family : Family
    n_draws : int
        Labels per sample, at least 1.
    rng : None, int or numpy.random.Generator
        An int gives the same draws each time.
    weights : array (n,), optional
    into : class or instance of a representation, optional
    n_threads : int, optional

    Returns
    -------
    array (p, p), or the representation `into`
        Its `weight_sum` is Σw, n without weights: more draws are no more data.

    Raises
    ------
    NonFiniteError, TypeError, ValueError
        As ``exact_fisher``.

    See Also
    --------
    exact_fisher, empirical_fisher

    Examples
    --------
    >>> import numpy as np, fastfisher as ff
    >>> x = np.random.default_rng(0).standard_normal((1000, 3))
    >>> family = ff.Bernoulli(np.full(1000, 0.5))
    >>> J = 0.25 * x[:, None, :]  # logistic regression: ∂p/∂θ = p (1 − p) x
    >>> drawn = ff.monte_carlo_fisher(J, family, 10, rng=0)
    >>> bool(np.allclose(drawn, ff.exact_fisher(J, family), atol=0.02))
    True
    """
    draws = _check.count("n_draws", n_draws, 1)
    generator = _check.generator(rng)

    def roots(part: Family, count: int) -> Any:
        single = part.batch_shape == ()
        labels = part.sample(draws * count if single else draws, generator)
        if single:
            labels = labels.reshape(draws, count, *labels.shape[1:])
        scores = part.score(labels).reshape(draws, count, -1)
        return scores.swapaxes(0, 1) / math.sqrt(draws)

    return _summed(jacobians, family, roots, weights, into, n_threads, draws)


def _summed(
    jacobians: Any,
    family: Family,
    roots: Roots,
    weights: Any,
    into: Any,
    n_threads: int | None,
    draws: int = 0,
) -> Any:
    """Return Σ wᵢ Jᵢᵀ RᵢᵀRᵢ Jᵢ / Σw in `into`.

    Row a of √r Rᵢ Jᵢ weighs wᵢ/r: r rows of a sample weigh as much as the sample, so that means,
    sums and the weight sum are those of samples, not of rows.
    """
    _check_family(family)
    ops = ops_of(jacobians)
    J = _checked_jacobians(ops, jacobians, family)
    samples, outputs, params = J.shape
    w, _ = _check.weights(ops, weights, samples, J.dtype)
    target = _target(into, params, J.dtype)
    rows = draws or _joined_rows(family)

    def blocks(step: int) -> Iterator[tuple[Any, Any]]:
        for start in range(0, samples, step):
            block = slice(start, min(start + step, samples))
            count = block.stop - block.start
            R = roots(family._part(block) if family.batch_shape else family, count)
            made = np.matmul((math.sqrt(rows) * R).astype(J.dtype), J[block])
            share = np.ones(count, J.dtype) if w is None else w[block]
            if share.any():  # a weight of 0 leaves a sample out; there may be no other in a block
                yield made.reshape(-1, params), np.repeat(share / rows, rows)

    size = rows * max(params, outputs) * J.dtype.itemsize
    if isinstance(target, Accumulator):
        room = min(CHUNK, max(_ROWS, _LEAST_ROWS * size // rows))
        step = max(1, room // size)
        if step < samples:
            target.update_from(blocks(step), n_threads=n_threads)
        else:
            target.update(*next(blocks(samples)), n_threads=n_threads)
        return target.to_dense() if into is None else target
    _memory.guard(
        samples * size,
        f"{target.__name__} of {rows} rows per sample",
        "Use an accumulator, such as DiagonalFisher, which takes the rows in blocks.",
    )
    made, shares = next(blocks(samples))
    return target.from_scores(made, weights=shares, n_threads=n_threads)


def _target(into: Any, params: int, dtype: Any) -> Any:
    """Return the accumulator to update, or a class that is built from all rows at once."""
    if into is None:
        return DenseFisher(params, dtype=dtype)
    if isinstance(into, type) and issubclass(into, Accumulator):
        return into(params, dtype=dtype)
    if isinstance(into, type) and issubclass(into, Fisher) and hasattr(into, "from_scores"):
        return into
    if not isinstance(into, Accumulator):
        name = into.__name__ if isinstance(into, type) else type(into).__name__
        raise TypeError(
            f"into: expected a representation that scores are added to, or its class, got {name}. "
            "DenseFisher, DiagonalFisher and ScoreFisher are such classes."
        )
    if into.shape[0] != params:
        raise ValueError(
            f"into: expected {params} parameters as the Jacobians have, got {into.shape[0]}. "
            "Build it with that many."
        )
    if into.center:
        raise ValueError(
            "into: expected center=False, got a centred Fisher. "
            "The model's own scores have mean zero: there is nothing to subtract."
        )
    _check.narrowing(dtype, into.dtype)
    return into


def _checked_jacobians(ops: Any, value: Any, family: Family) -> Any:
    array = ops.to_array("jacobians", value)
    outputs = math.prod(family.batch_shape[1:]) * family.parameters.shape[-1]
    if array.dtype.kind == "c":
        raise TypeError(
            f"jacobians: expected real numbers, got {array.dtype}. "
            "Families have real parameters: give real and imaginary parts as outputs of their own."
        )
    if array.ndim != 3 or array.shape[1] != outputs or array.shape[2] == 0:
        raise ValueError(
            f"jacobians: expected shape (n, {outputs}, p), got {array.shape}. "
            f"{type(family).__name__} takes {outputs} output(s) per sample, also when that is one."
        )
    if array.shape[0] == 0:
        raise ValueError(
            f"jacobians: expected at least one sample, got shape {array.shape}. "
            "The mean over no samples is not defined."
        )
    if family.batch_shape and family.batch_shape[0] != array.shape[0]:
        raise ValueError(
            f"jacobians: expected {family.batch_shape[0]} samples as the family has, got "
            f"{array.shape[0]}. Give one Jacobian per distribution."
        )
    step = max(1, _ROWS // array[0].nbytes)
    for start in range(0, array.shape[0], step):
        block = array[start : start + step]
        if not ops.all_finite(block):
            place = start + next(i for i, one in enumerate(block) if not ops.all_finite(one))
            raise NonFiniteError(
                f"jacobians: expected finite values, got NaN or infinity in sample {place}. "
                "Find out where it comes from.",
                row=place,
            )
    return array


def _check_family(family: Any) -> None:
    if not isinstance(family, Family):
        raise TypeError(
            f"family: expected a Family, got {type(family).__name__}. "
            "Give one such as Categorical(logits), at the model's outputs."
        )
    if len(family.batch_shape) > 2:
        raise ValueError(
            f"family: expected a batch (n,) or (n, m), got {family.batch_shape}. "
            "The first axis is the sample, the second its independent outputs."
        )


def _joined_rows(family: Family) -> int:
    """Return the number of rows r of R, for one distribution's worth of work."""
    some = family._part(slice(0, 1)) if family.batch_shape else family
    return int(_joined(some._information_root(), some).shape[-2])


def _joined(blocks: Any, family: Family) -> Any:
    """Return (n, m, r, k), the matrices of m distributions, as block-diagonal (n, m r, m k)."""
    if len(family.batch_shape) < 2:
        return blocks
    n, m, r, k = blocks.shape
    out = np.zeros((n, m, r, m, k))
    every = np.arange(m)
    out[:, every, :, every, :] = blocks.swapaxes(0, 1)
    return out.reshape(n, m * r, m * k)
