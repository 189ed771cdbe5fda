"""Three Gaussians: the narrower the distribution, the more a sample says about its mean.

python examples/three_gaussians.py [picture.png]: draws the densities, what ten samples of each say
about the mean, and how far the best estimate is off, beside the Cramér–Rao bound √(1/(n F)).
"""

import sys

import matplotlib as mpl
import numpy as np

import fastfisher as ff

mpl.use("Agg")
import matplotlib.pyplot as plt

SCALES = (0.5, 1.0, 2.0)
SAMPLES = 10


def main(path: str = "three_gaussians.png", *, repeats: int = 200_000) -> list[tuple[float, ...]]:
    """Print the table and draw the picture; return bound and errors of mean and median."""
    figure, (densities, likelihoods, errors) = plt.subplots(1, 3, figsize=(12, 3.6))
    grid = np.linspace(-5, 5, 400)
    print("scale  information  bound  error of the mean, and of the median")
    rows: list[tuple[float, ...]] = []
    for scale in SCALES:
        family = ff.Gaussian(0.0, scale, fixed_scale=True)
        information = family.fisher_information()
        label = f"σ = {scale}, F = {information.item():g}"
        densities.plot(grid, np.exp(family.log_prob(grid)), label=label)

        # The log-likelihood of a few samples is a parabola of curvature n·F around its top.
        x = family.sample(SAMPLES, rng=0)
        means = ff.Gaussian(grid[:, None], scale, fixed_scale=True)
        log_likelihood = means.log_prob(x).sum(axis=1)
        likelihoods.plot(grid, log_likelihood - log_likelihood.max())

        # No unbiased estimate does better than the bound; the mean attains it, the median does not.
        draws = family.sample(SAMPLES * repeats, rng=1).reshape(repeats, SAMPLES)
        estimates = draws.mean(axis=1)
        bound = np.sqrt(ff.cramer_rao_bound(SAMPLES * information).item())
        rows.append((bound, estimates.std(), np.median(draws, axis=1).std()))
        print("{:5} {:12g} {:6.3f} {:18.3f} {:16.3f}".format(scale, information.item(), *rows[-1]))
        errors.hist(estimates, bins=80, range=(-2, 2), density=True, histtype="step")
        limit = ff.Gaussian(0.0, bound, fixed_scale=True)
        errors.plot(grid, np.exp(limit.log_prob(grid)), color="0.2", lw=1, ls=":", zorder=3)
    densities.set(title="three densities", xlabel="x")
    densities.legend(frameon=False, fontsize=8)
    likelihoods.set(
        title=f"log-likelihood of {SAMPLES} samples", xlabel="mean", ylim=(-6, 0.3), xlim=(-3, 3)
    )
    errors.set(title="estimates of the mean, and N(0, 1/(nF))", xlabel="estimate", xlim=(-2, 2))
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    print(f"The picture is in {path}.")
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:2])
