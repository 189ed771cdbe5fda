"""Spectral lines: photon counts fitted by Levenberg–Marquardt, and how sure the curve is.

python examples/spectral_lines.py [picture.png]: two lines that overlap on a falling background, the
parameters with their standard errors beside the true ones, and the 95 % band of the fitted curve.
"""

import sys

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

import fastfisher as ff

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]
NAMES = ("background", "slope", "height 1", "centre 1", "width", "height 2", "centre 2")
TRUTH = np.array([120.0, 0.35, 160.0, 4.2, 0.45, 90.0, 5.4])
START = np.array([100.0, 0.5, 100.0, 4.0, 1.0, 100.0, 6.0])
CHANNELS = 160


def model(b: Array, x: Array) -> tuple[Array, Array]:
    """Return an exponential background with two lines of one width, and the derivatives (n, p)."""
    background = np.exp(-b[1] * x)
    first, second = (x - b[3]) / b[4], (x - b[6]) / b[4]
    line, other = np.exp(-0.5 * first**2), np.exp(-0.5 * second**2)
    value = b[0] * background + b[2] * line + b[5] * other
    jacobian = np.column_stack(
        [
            background,
            -b[0] * x * background,
            line,
            b[2] * line * first / b[4],
            (b[2] * line * first**2 + b[5] * other * second**2) / b[4],
            other,
            b[5] * other * second / b[4],
        ]
    )
    return value, jacobian


def main(path: str = "spectral_lines.png", *, channels: int = CHANNELS) -> None:
    """Print the table, draw the picture."""
    x = np.linspace(0.0, 10.0, channels)
    counts = ff.Poisson(model(TRUTH, x)[0]).sample(1, rng=0)[0]
    # Counts have the deviation √expected. √counts would favour low ones, so the fit tells it: then
    # this is Fisher scoring of the Poisson likelihood.
    sigma, b = np.sqrt(np.maximum(counts, 1.0)), START
    for _ in range(4):
        fit = ff.levenberg_marquardt(
            lambda b: model(b, x)[0] - counts,
            b,
            jacobian=lambda b: model(b, x)[1],
            sigma=sigma,
            absolute_sigma=True,
        )
        b, sigma = fit.theta, np.sqrt(model(fit.theta, x)[0])
    errors = fit.standard_errors()
    print(f"{fit.status.name} after {fit.iterations} steps: {fit.message}")
    print(f"χ² = {2 * fit.loss:.1f} for {fit.degrees_of_freedom} degrees of freedom")
    print("parameter       true   fitted     ±")
    for name, true, value, error in zip(NAMES, TRUTH, fit.theta, errors, strict=True):
        print(f"{name:12} {true:7.2f} {value:8.3f} {error:6.3f}")

    fine = np.linspace(0.0, 10.0, 600)
    curve, rows = model(fit.theta, fine)
    band = 1.96 * np.sqrt(fit.fisher.leverage(rows))  # jᵀ (JᵀWJ)⁻¹ j, the variance of the curve
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5.2), sharex=True, height_ratios=(3, 1))
    above.errorbar(x, counts, sigma, fmt=".", color="0.6", ms=3, lw=0.6, label="counts ± σ")
    above.fill_between(fine, curve - band, curve + band, color="C1", alpha=0.4, lw=0)
    above.plot(fine, curve, color="C1", lw=1.2, label="fit with its 95 % band")
    above.plot(fine, model(TRUTH, fine)[0], "k:", lw=1, label="truth")
    for part, place in enumerate((2, 5)):
        alone = np.where(np.isin(np.arange(7), (0, 2, 5)) & (np.arange(7) != place), 0, fit.theta)
        above.plot(fine, model(alone, fine)[0], color="C0", lw=0.8, ls="--",
                   label=None if part else "each line")  # fmt: skip
    above.set(ylabel="photons", ylim=(0, None), title="two lines on a falling background")
    above.legend(frameon=False, fontsize=8)
    below.axhline(0, color="0.7", lw=0.8)
    below.plot(x, -fit.residuals / sigma, ".", ms=3, color="0.4")
    below.set(xlabel="channel energy", ylabel="(counts − fit)/σ", ylim=(-4, 4))
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"The picture is in {path}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
