"""Fisher scoring: generalised linear models in ten lines, beside a statistics package.

python examples/fisher_scoring.py [picture.png]: fits a binomial model (schools of California), a
probit (students of economics) and a Poisson one (visits to a doctor), compares coefficients and
standard errors with those of statsmodels, and draws how fast the scoring arrives.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

import fastfisher as ff

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]
Family = Callable[[Array], ff.Binomial | ff.Bernoulli | ff.Poisson]
Link = Callable[[Array], tuple[Array, Array]]
Problem = tuple[Array, Array, Family, Link]


def fisher_scoring(
    X: Array, y: Array, family: Family, mean_and_slope: Link
) -> tuple[ff.DescentResult, ff.DenseFisher]:
    """Fit y ~ family(μ) with μ, dμ/dη = mean_and_slope(Xβ); returns the result and F, in totals."""

    def model(beta: Array) -> tuple[float, Array, ff.DenseFisher]:
        mean, slope = mean_and_slope(X @ beta)
        distribution = family(mean)
        weights = slope**2 * distribution.fisher_information()[:, 0, 0]
        F = ff.DenseFisher.from_scores(X, weights=weights, reduction="sum")
        score = X.T @ (slope * distribution.score(y)[:, 0])
        return -distribution.log_prob(y).sum(), -score, F

    result = ff.natural_gradient_descent(model, np.zeros(X.shape[1]), tolerance=1e-22)
    return result, model(result.theta)[2]


def logistic(eta: Array) -> tuple[Array, Array]:
    """Mean and slope of the logit link."""
    mean = 1 / (1 + np.exp(-eta))
    return mean, mean * (1 - mean)


def normal(eta: Array) -> tuple[Array, Array]:
    """Mean and slope of the probit link."""
    from scipy.special import ndtr

    return ndtr(eta), np.exp(-(eta**2) / 2) / np.sqrt(2 * np.pi)


def exponential(eta: Array) -> tuple[Array, Array]:
    """Mean and slope of the log link."""
    return np.exp(eta), np.exp(eta)


def problems() -> Iterator[tuple[str, Problem, Any]]:
    """Yield a name, what `fisher_scoring` takes, and the model of statsmodels."""
    import statsmodels.api as sm

    families, links = sm.families, sm.families.links
    data = sm.datasets.star98.load()
    X, counts = sm.add_constant(data.exog, prepend=False).to_numpy(), data.endog.to_numpy()
    schools = lambda mean: ff.Binomial(counts.sum(axis=1), mean)  # noqa: E731
    theirs = sm.GLM(counts, X, families.Binomial())
    yield "schools: binomial, logit", (X, counts[:, 0], schools, logistic), theirs

    data = sm.datasets.spector.load()
    X, y = sm.add_constant(data.exog, prepend=False).to_numpy(), data.endog.to_numpy()
    theirs = sm.GLM(y, X, families.Binomial(links.Probit()))
    yield "students: Bernoulli, probit", (X, y, ff.Bernoulli, normal), theirs

    data = sm.datasets.randhie.load()
    X, y = sm.add_constant(data.exog, prepend=False).to_numpy(), data.endog.to_numpy()
    theirs = sm.GLM(y, X, families.Poisson())
    yield "doctor visits: Poisson, log", (X, y, ff.Poisson, exponential), theirs


def main(path: str = "fisher_scoring.png") -> None:
    """Fit, compare, draw."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    print("largest difference from statsmodels, relative     coefficients  errors  steps")
    for name, ours, theirs in problems():
        result, F = fisher_scoring(*ours)
        reference = theirs.fit(tol=1e-13, tol_criterion="params")
        errors = np.sqrt(F.factor().inverse_diagonal())
        differences = [
            np.abs(mine / their - 1).max()
            for mine, their in ((result.theta, reference.params), (errors, reference.bse))
        ]
        print(f"{name:28} p = {len(errors):2}, n = {len(ours[0]):6}", end="")
        print(f"{differences[0]:16.0e}{differences[1]:9.0e}{result.iterations:6}")
        decrements = [record.decrement for record in result.history]
        axes.semilogy(decrements, ".-", label=name)
    axes.set(
        xlabel="step",
        ylabel="½ gᵀF⁻¹g, nats",
        title="quadratic for canonical links, linear for others",
    )
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"The picture is in {path}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
