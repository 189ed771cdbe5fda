"""The 27 nonlinear regressions of the NIST Statistical Reference Datasets, with their derivatives.

Data, starting points and certified values are in ``data/nist_strd.json``; they are public domain:
https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml. A model returns its values (n,) and its
Jacobian (n, p).
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

PI = np.pi


def stacked(value: np.ndarray, *columns: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the value and the Jacobian of these columns."""
    return value, np.column_stack([np.broadcast_to(column, value.shape) for column in columns])


def misra1a(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(-b[1] * x)
    return stacked(-b[0] * np.expm1(-b[1] * x), -np.expm1(-b[1] * x), b[0] * x * e)


def misra1b(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = 1 + b[1] * x / 2
    return stacked(b[0] * (1 - u**-2), 1 - u**-2, b[0] * x * u**-3)


def misra1c(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = 1 + 2 * b[1] * x
    return stacked(b[0] * (1 - u**-0.5), 1 - u**-0.5, b[0] * x * u**-1.5)


def misra1d(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = 1 + b[1] * x
    return stacked(b[0] * b[1] * x / u, b[1] * x / u, b[0] * x / u**2)


def chwirut(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = b[1] + b[2] * x
    f = np.exp(-b[0] * x) / u
    return stacked(f, -x * f, -f / u, -x * f / u)


def danwood(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    f = x ** b[1]
    return stacked(b[0] * f, f, b[0] * f * np.log(x))


def lanczos(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e = [np.exp(-b[k] * x) for k in (1, 3, 5)]
    columns = []
    for k in range(3):
        columns += [e[k], -b[2 * k] * x * e[k]]
    return stacked(sum(b[2 * k] * e[k] for k in range(3)), *columns)


def gauss(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(-b[1] * x)
    value, columns = b[0] * e, [e, -b[0] * x * e]
    for height, centre, width in (b[2:5], b[5:8]):
        u = (x - centre) / width
        g = np.exp(-u * u)
        value = value + height * g
        columns += [g, 2 * height * g * u / width, 2 * height * g * u * u / width]
    return stacked(value, *columns)


def rational(
    top: int, bottom: int
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the model (b₀ + b₁ x + …) / (1 + b x + …) with so many coefficients."""

    def model(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        powers = [x**k for k in range(max(top, bottom + 1))]
        above = sum(b[k] * powers[k] for k in range(top))
        below = 1 + sum(b[top + k] * powers[k + 1] for k in range(bottom))
        f = above / below
        columns = [powers[k] / below for k in range(top)]
        return stacked(f, *columns, *(-f * powers[k + 1] / below for k in range(bottom)))

    return model


def nelson(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    time, temperature = x
    e = time * np.exp(-b[2] * temperature)
    return stacked(b[0] - b[1] * e, 1.0, -e, b[1] * temperature * e)


def mgh17(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e, f = np.exp(-x * b[3]), np.exp(-x * b[4])
    return stacked(b[0] + b[1] * e + b[2] * f, 1.0, e, f, -b[1] * x * e, -b[2] * x * f)


def roszman(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    d = x - b[3]
    u = PI * (d * d + b[2] ** 2)
    return stacked(b[0] - b[1] * x - np.arctan(b[2] / d) / PI, 1.0, -x, -d / u, -b[2] / u)


def enso(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = np.full(x.shape, b[0])
    columns = [np.ones(x.shape)]
    angle = 2 * PI * x / 12
    value += b[1] * np.cos(angle) + b[2] * np.sin(angle)
    columns += [np.cos(angle), np.sin(angle)]
    for period, c, s in (b[3:6], b[6:9]):
        angle = 2 * PI * x / period
        cos, sin = np.cos(angle), np.sin(angle)
        value += c * cos + s * sin
        columns += [(c * sin - s * cos) * angle / period, cos, sin]
    return stacked(value, *columns)


def mgh09(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    above, below = x * x + x * b[1], x * x + x * b[2] + b[3]
    f = b[0] * above / below
    return stacked(f, above / below, b[0] * x / below, -f * x / below, -f / below)


def mgh10(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = x + b[2]
    e = np.exp(b[1] / u)
    return stacked(b[0] * e, e, b[0] * e / u, -b[0] * b[1] * e / u**2)


def eckerle(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = (x - b[2]) / b[1]
    e = np.exp(-0.5 * u * u) / b[1]
    return stacked(b[0] * e, e, b[0] * e * (u * u - 1) / b[1], b[0] * e * u / b[1])


def rat42(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(b[1] - b[2] * x)
    u = 1 + e
    return stacked(b[0] / u, 1 / u, -b[0] * e / u**2, b[0] * x * e / u**2)


def rat43(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(b[1] - b[2] * x)
    u = 1 + e
    f = u ** (-1 / b[3])
    slope = -b[0] * f * e / (b[3] * u)
    return stacked(b[0] * f, f, slope, -x * slope, b[0] * f * np.log(u) / b[3] ** 2)


def bennett(b: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    u = b[1] + x
    f = u ** (-1 / b[2])
    return stacked(b[0] * f, f, -b[0] * f / (b[2] * u), b[0] * f * np.log(u) / b[2] ** 2)


MODELS = {
    "Bennett5": bennett,
    "BoxBOD": misra1a,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "DanWood": danwood,
    "ENSO": enso,
    "Eckerle4": eckerle,
    "Gauss1": gauss,
    "Gauss2": gauss,
    "Gauss3": gauss,
    "Hahn1": rational(4, 3),
    "Kirby2": rational(3, 2),
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "MGH09": mgh09,
    "MGH10": mgh10,
    "MGH17": mgh17,
    "Misra1a": misra1a,
    "Misra1b": misra1b,
    "Misra1c": misra1c,
    "Misra1d": misra1d,
    "Nelson": nelson,
    "Rat42": rat42,
    "Rat43": rat43,
    "Roszman1": roszman,
    "Thurber": rational(4, 3),
}
DATA = json.loads((Path(__file__).parent / "data" / "nist_strd.json").read_text(encoding="utf-8"))


class Problem(SimpleNamespace):
    """One of the sets: x, y, starts, certified, deviations and what else the file has."""

    def residuals(self, b: np.ndarray) -> np.ndarray:
        """Return r(b), model less data."""
        with np.errstate(all="ignore"):
            answer: np.ndarray = self.model(b, self.x)[0] - self.y
            return answer

    def jacobian(self, b: np.ndarray) -> np.ndarray:
        """Return ∂r/∂b."""
        with np.errstate(all="ignore"):
            answer: np.ndarray = self.model(b, self.x)[1]
            return answer


def problem(name: str) -> Problem:
    """Return the set of this name as arrays."""
    values = {k: np.array(v) if isinstance(v, list) else v for k, v in DATA[name].items()}
    if name == "Nelson":  # its model is of log y
        values["y"] = np.log(values["y"])
    return Problem(name=name, model=MODELS[name], **values)


def digits(found: float | np.ndarray, certified: float | np.ndarray) -> float:
    """Return the least number of correct digits: −log₁₀ of the relative error, at most 11."""
    with np.errstate(divide="ignore", invalid="ignore"):
        each = -np.log10(np.abs(found - certified) / np.abs(certified))
    return float(np.clip(np.nan_to_num(each, nan=0.0, posinf=11.0), 0, 11).min())
