"""Score tests at scale: which of 50 000 genetic variants matter to a disease, from one fit.

python examples/score_tests.py [picture.png]: simulates a case-control study of two populations, in
one of which the disease is more frequent, fits logistic regression *without* any variant by Fisher
scoring, and tests each variant for a place in it. A model that leaves the population out finds
whatever differs between the two; one that has it finds the variants with an effect.
"""

import sys
import time
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

import fastfisher as ff

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]
EFFECTS = {0.12: 0.45, 0.31: -0.4, 0.47: 0.5, 0.68: 0.4, 0.9: -0.45}  # place: log odds per allele


def study(
    rng: np.random.Generator, people: int, variants: int
) -> tuple[NDArray[np.int8], Array, Array, Array, list[int]]:
    """Return allele counts (people, variants) as int8, covariates, who is ill, and what matters."""
    population = (np.arange(people) < people // 2).astype(float)
    frequency = rng.uniform(0.1, 0.5, variants)
    drift = 0.06 * rng.standard_normal(variants)  # of the frequencies in the two populations
    counts = np.empty((people, variants), np.int8)
    for group, sign in ((0.0, -0.5), (1.0, 0.5)):
        rows = population == group
        here = np.clip(frequency + sign * drift, 0.02, 0.98).astype(np.float32)
        alleles = rng.random((2, rows.sum(), variants), np.float32) < here
        counts[rows] = alleles.sum(axis=0, dtype=np.int8)
    causal = [int(place * variants) for place in EFFECTS]
    age = rng.standard_normal(people)
    liability = counts[:, causal] @ np.array(list(EFFECTS.values()))
    liability += 0.3 * age + 0.8 * population
    ill = rng.random(people) < 1 / (1 + np.exp(liability.mean() - liability))
    return counts, age, population, ill.astype(float), causal


def fitted(X: Array, y: Array) -> Array:
    """Return the probabilities of logistic regression, by Fisher scoring."""
    theta = np.zeros(X.shape[1])
    for _ in range(25):
        mu = 1 / (1 + np.exp(-X @ theta))
        F = ff.empirical_fisher(X, weights=mu * (1 - mu), reduction="sum")
        step = ff.solve(F, X.T @ (y - mu)).value
        theta += step
        if np.abs(step).max() < 1e-10:
            break
    return 1 / (1 + np.exp(-X @ theta))


def quantiles(axes: Any, p_values: Array, label: str) -> None:
    """Draw ordered p-values against those of a uniform distribution."""
    expected = (np.arange(len(p_values)) + 0.5) / len(p_values)
    axes.plot(-np.log10(expected), -np.log10(np.sort(p_values)), ".", ms=3, label=label)


def main(
    path: str = "score_tests.png", *, people: int = 2000, variants: int = 50_000
) -> ff.ScoreTests:
    """Print how the tests went, draw the picture, return the tests of the right model."""
    counts, age, population, ill, causal = study(np.random.default_rng(0), people, variants)
    ones = np.ones(people)
    nulls = {
        "without the population": np.column_stack([ones, age]),
        "with it": np.column_stack([ones, age, population]),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.8), width_ratios=(1, 2))
    for label, X in nulls.items():
        mu = fitted(X, ill)
        start = time.perf_counter()
        tests = ff.score_tests(counts, ill - mu, X, weights=mu * (1 - mu))
        seconds = time.perf_counter() - start
        # The median of χ² with one degree of freedom is 0.455: a ratio of 1 means the right level.
        inflation = np.median(tests.statistic) / 0.4549
        print(f"{label:23} {variants} tests in {seconds:.2f} s, inflation {inflation:.2f}")
        quantiles(left, tests.p_value, f"{label}: inflation {inflation:.2f}")
    limit = 0.05 / variants
    found = np.flatnonzero(tests.p_value < limit)
    print(f"below 0.05 / {variants}: {found.tolist()}; with an effect: {causal}")

    most = -np.log10(0.5 / variants)
    left.plot([0, most], [0, most], color="0.6", lw=1, zorder=0)
    left.set(title=f"p-values of {variants} variants")
    left.set(xlabel="expected −log₁₀ p", ylabel="observed −log₁₀ p")
    left.legend(frameon=False, fontsize=8)
    chromosome = np.arange(variants) * 22 // variants
    height = -np.log10(tests.p_value)
    for parity in (0, 1):
        some = np.flatnonzero(chromosome % 2 == parity)
        right.plot(some, height[some], ".", ms=2, color=("#1f4e79", "#7ba7cc")[parity])
    right.plot(causal, height[causal], "o", mfc="none", mec="#c44e52", label="has an effect")
    right.axhline(-np.log10(limit), color="0.6", lw=1, ls="--", label="0.05 / number of tests")
    right.set(title="with the population in the null model", xlabel="variant", ylabel="−log₁₀ p")
    right.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"The picture is in {path}.")
    return tests


if __name__ == "__main__":
    main(*sys.argv[1:2])
