"""A forecast: what a supernova survey will say about cosmology, and whether fits agree.

python examples/forecast_ellipse.py [picture.png]: from the Fisher information of distances to
supernovae about H₀, Ωₘ, the equation of state w and their absolute magnitude M, ellipses of each
pair of parameters: the others marginalised, known, or helped by a prior on Ωₘ; beside the most
likely parameters of simulated surveys, which should fill the first kind.
"""

import sys
from typing import Any

import matplotlib as mpl
import numpy as np

import fastfisher as ff

mpl.use("Agg")
import matplotlib.pyplot as plt

NAMES = ("$H_0$", r"$\Omega_m$", "$w$", "$M$")
TRUTH = np.array([70.0, 0.3, -1.0, -19.3])
LIGHT = 299_792.458  # km/s
REDSHIFTS = np.linspace(0.02, 1.5, 75)
SIGMA = 0.01  # magnitudes, of the mean of some hundred supernovae at one redshift
SIGMA_M = 0.005  # of the magnitude M, from supernovae in galaxies whose distance is known
SIGMA_MATTER = 0.003  # of Ωₘ, from the cosmic microwave background
# No magnitude tells H₀ from M, as both shift all of them: without this prior F is singular.
CALIBRATED = np.array([0.0, 0.0, 0.0, SIGMA_M**-2])
WITH_MATTER = CALIBRATED + np.array([0.0, SIGMA_MATTER**-2, 0.0, 0.0])
RADII = (2.30, 6.18)  # Δχ² of 68.3 % and 95.4 % of two Gaussian parameters


def magnitudes(theta: Any) -> tuple[Any, Any]:
    """Return the magnitudes of flat wCDM (…, n) for θ (…, 4), and their Jacobian (…, n, 4).

    m = M + 25 + 5 log₁₀((1 + z) (c/H₀) ∫₀ᶻ dz'/E), with E² = Ωₘ x³ + (1 − Ωₘ) x³⁽¹⁺ʷ⁾, x = 1 + z'.
    """
    hubble, matter, w, M = (theta[..., i, None] for i in range(4))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    x = 1 + REDSHIFTS[:, None] * (nodes + 1) / 2  # 16 points up to each redshift
    step = REDSHIFTS[:, None] * weights / 2
    dark = x ** (3 * (1 + w[..., None]))
    energy = np.sqrt(matter[..., None] * x**3 + (1 - matter[..., None]) * dark)
    distance = (step / energy).sum(axis=-1)
    by_matter = -0.5 * (step * (x**3 - dark) / energy**3).sum(axis=-1)
    by_w = -1.5 * (1 - matter) * (step * np.log(x) * dark / energy**3).sum(axis=-1)
    m = M + 25 + 5 * np.log10((1 + REDSHIFTS) * LIGHT / hubble * distance)
    slopes = [-1 / hubble + 0 * m, by_matter / distance, by_w / distance]
    return m, np.stack([*(5 / np.log(10) * slope for slope in slopes), np.ones_like(m)], axis=-1)


def fits(surveys: int, rng: np.random.Generator) -> Any:
    """Return the most likely parameters of simulated surveys, (surveys, 4), by Fisher scoring.

    The calibration of M is one more measurement. All surveys take a step at once: one small system
    each.
    """
    m, _ = magnitudes(TRUTH)
    data = m + SIGMA * rng.standard_normal((surveys, len(m)))
    calibration = TRUTH[3] + SIGMA_M * rng.standard_normal(surveys)
    theta = np.tile(TRUTH, (surveys, 1))
    for _ in range(8):
        model, jacobian = magnitudes(theta)
        roots = jacobian / SIGMA
        information = ff.batch.empirical_fisher(roots, reduction="sum") + np.diag(CALIBRATED)
        gradient = np.einsum("bnp,bn->bp", roots, (data - model) / SIGMA)
        gradient[:, 3] += (calibration - theta[:, 3]) / SIGMA_M**2
        theta = theta + ff.batch.solve(information, gradient).value
    return theta


def ellipse(information: Any, radius: float) -> Any:
    """Return the curve xᵀ S x = radius, (2, 200), of the information S about two parameters."""
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.sqrt(radius) * np.stack([np.cos(angle), np.sin(angle)])
    return ff.DenseFisher.from_matrix(information).apply_power(circle, -0.5)


def inside(information: Any, offsets: Any) -> Any:
    """Return which fits lie within each of `RADII`, as shares."""
    squares = ff.DenseFisher.from_matrix(information).quadratic_form(offsets.T)
    return [float(np.mean(squares < radius)) for radius in RADII]


def main(path: str = "forecast_ellipse.png", *, surveys: int = 2000) -> dict[str, Any]:
    """Print the table, draw the picture; return the errors of each parameter, and the fits."""
    m, jacobian = magnitudes(TRUTH)
    family = ff.Gaussian(m, np.full(len(m), SIGMA), fixed_scale=True)
    F = ff.exact_fisher(jacobian[:, None, :], family, into=ff.DenseFisher)
    found = fits(surveys, np.random.default_rng(1))
    errors = {
        "others known": ff.add_prior(F, CALIBRATED).diagonal() ** -0.5,
        "marginalised": ff.cramer_rao_bound(F, prior=CALIBRATED, diagonal=True) ** 0.5,
        "… with a prior on Ωₘ": ff.cramer_rao_bound(F, prior=WITH_MATTER, diagonal=True) ** 0.5,
        f"of {surveys} fits": found.std(axis=0),
    }
    print(f"{'one standard error':22} {'H0':>9} {'Ωm':>9} {'w':>9} {'M':>9}")
    for name, values in errors.items():
        print(f"{name:22}", *(f"{value:9.4f}" for value in values))

    figure, axes = plt.subplots(3, 3, figsize=(8, 7.5), sharex="col")
    for i in range(3):
        for j in range(3):
            if j > i:
                axes[i, j].set_axis_off()
            elif j < i:
                contours(axes[i, j], F, found, [j, i])
            else:
                marginal(axes[i, i], errors, found, i)
        axes[2, i].set_xlabel(NAMES[i])
        axes[i, 0].set_ylabel(NAMES[i] if i else "density")
    axes[2, 1].sharey(axes[2, 0])
    axes[2, 1].tick_params(labelleft=False)
    figure.legend(
        *axes[1, 0].get_legend_handles_labels(),
        loc=(0.6, 0.72),
        frameon=False,
        title="regions of 68.3 % and 95.4 %",
    )
    figure.tight_layout(h_pad=0.3, w_pad=0.3)
    figure.savefig(path, dpi=90)
    print(f"The picture is in {path}.")
    return {**errors, "fits": found, "F": F}


def contours(axes: Any, F: ff.Fisher, found: Any, pair: list[int]) -> None:
    """Draw the ellipses of two parameters, and print how many fits lie in those marginalised."""
    offsets = found[:, pair] - TRUTH[pair]
    shown = slice(400)
    axes.plot(*found[shown, pair].T, ".", ms=2, color="0.7", label="fits")
    of_all = ff.marginalize(F, pair, prior=CALIBRATED)
    kinds = {
        "others marginalised": (of_all, "C0", "-"),
        r"… and a prior on $\Omega_m$": (ff.marginalize(F, pair, prior=WITH_MATTER), "C1", "-"),
        "others known": (ff.condition_on(F, pair), "C2", "--"),
    }
    for label, (information, color, style) in kinds.items():
        for radius, alpha in zip(RADII, (1.0, 0.5), strict=True):
            x, y = ellipse(information, radius) + TRUTH[pair][:, None]
            axes.plot(x, y, color=color, ls=style, alpha=alpha, label=label)
            label = "_again"
    shares = ", ".join(f"{share:.1%}" for share in inside(of_all, offsets))
    print(f"{shares} of the fits are within the ellipses of parameters {pair}")


def marginal(axes: Any, errors: dict[str, Any], found: Any, i: int) -> None:
    """Draw the fits of one parameter beside the Gaussians of the forecasts."""
    axes.hist(found[:, i], bins=40, density=True, color="0.85")
    grid = TRUTH[i] + 4 * errors["marginalised"][i] * np.linspace(-1, 1, 200)
    kinds = {"marginalised": "C0", "… with a prior on Ωₘ": "C1"}
    for name, color in kinds.items():
        family = ff.Gaussian(TRUTH[i], errors[name][i], fixed_scale=True)
        axes.plot(grid, np.exp(family.log_prob(grid)), color=color)
    axes.set_yticks([])


if __name__ == "__main__":
    main(*sys.argv[1:2])
