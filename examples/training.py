"""KFAC, EKFAC and the exact layered natural gradient in one loop, and the contest with Adam.

Each step goes along (F + λI)⁻¹ of the mean gradient and along the step before, as far as the
quadratic model of the mini-batch says, and λ follows how well the model foretold the gain: the loop
of J. Martens and R. Grosse, "Optimizing neural networks with Kronecker-factored approximate
curvature", ICML (2015). There is no learning rate; λ at the start is all there is to choose.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import fastfisher as ff
from fastfisher.demo.tables import training_table
from fastfisher.demo.training import (
    Adam,
    Contest,
    Entrant,
    Method,
    Run,
    Sample,
    batches,
    tune_and_run,
)
from networks import Network, Scores

Array = NDArray[np.float64]
Precondition = Callable[[list[Scores], Array, float], Array]
BATCH = 500
EVERY = 5  # steps from one look at λ to the next, and from one eigenbasis of EKFAC to the next
# The likeliest first: a trial ends once it has taken more steps than the best before it.
RATES = (0.01, 0.003, 0.03, 0.001, 0.1, 0.3)
DAMPINGS = (0.1, 0.03, 0.3, 0.01, 1.0, 3.0)


@dataclass(frozen=True)
class NaturalGradient:
    """θ ← θ + α (F + λI)⁻¹ ḡ + μ (the step before); λ is `damping` at the first step.

    The kinds below say which F, and whose labels its gradients have: those of the data (the
    empirical Fisher, which costs no further gradients) or drawn from the model (Monte Carlo).
    """

    damping: float
    batch: int = BATCH
    drawn: ClassVar[bool] = True

    def preconditioner(self, network: Network) -> Precondition:
        """Return what gives (F + λI)⁻¹ of the ascent, for the layers' scores and λ."""
        raise NotImplementedError

    def iterates(
        self, network: Network, theta: Array, sample: Sample, rng: np.random.Generator
    ) -> Iterator[Array]:
        draws = rng.spawn(1)[0]  # a stream of its own: the mini-batches stay those of Adam
        precondition = self.preconditioner(network)
        damping, step = self.damping, np.zeros_like(theta)
        for count, (x, y) in enumerate(batches(sample, self.batch, rng), 1):
            inputs, z = network.forward(theta, x)
            mean = network.likelihood.mean(z)
            gradients = network.backward(theta, inputs, y - mean)
            ascent = network.mean_gradient(inputs, gradients)
            if self.drawn:
                y_drawn = network.likelihood.draw(z, draws)
                gradients = network.backward(theta, inputs, y_drawn - mean)
            along = precondition(network.scores(inputs, gradients), ascent, damping)
            step, promise = best_step(network, theta, inputs, z, ascent, (along, step), damping)
            if count % EVERY == 0:
                before = network.likelihood.loss(z, y).mean()
                gain = before - network.evaluate(theta + step, x, y)[0]
                if gain > 0.75 * promise:
                    damping *= 0.95**EVERY
                elif gain < 0.25 * promise:
                    damping /= 0.95**EVERY
            theta = theta + step
            yield theta


def best_step(
    network: Network,
    theta: Array,
    inputs: list[Array],
    z: Array,
    ascent: Array,
    directions: tuple[Array, Array],
    damping: float,
) -> tuple[Array, float]:
    """Return the best combination of the directions and the gain that the model promises.

    The gain of Σ cᵢ dᵢ is modelled as c·b − ½ cᵀMc with bᵢ = ḡ·dᵢ and M_ij = dᵢᵀ F dⱼ, where F is
    the exact Fisher E[Jᵀ F_out J], its labels summed out: one tangent for each direction.
    """
    D = np.stack(directions)
    tangents = [network.tangent(theta, inputs, d) for d in D]
    M = np.array(
        [[np.vdot(u, network.likelihood.fisher(z, v)) for v in tangents] for u in tangents]
    )
    M, b = M / len(z), D @ ascent
    # Least squares: the first step has none before it.
    c = np.linalg.lstsq(M + damping * D @ D.T, b, rcond=None)[0]
    return c @ D, float(c @ b - 0.5 * c @ M @ c)


class KFAC(NaturalGradient):
    """G ⊗ A for each layer, each factor averaged over the steps; factored damping."""

    def preconditioner(self, network: Network) -> Precondition:
        K = ff.KroneckerFisher(network.shapes)

        def precondition(layers: list[Scores], ascent: Array, damping: float) -> Array:
            K.decay(0.95).update(layers)
            along: Array = K.solve(ascent, damping=damping, damping_mode="factored")
            return along

        return precondition


class EKFAC(NaturalGradient):
    """KFAC with the second moments of the gradients themselves in the factors' eigenbasis."""

    def preconditioner(self, network: Network) -> Precondition:
        K = ff.KroneckerFisher(network.shapes, eigen=True)
        updates = 0

        def precondition(layers: list[Scores], ascent: Array, damping: float) -> Array:
            nonlocal updates
            K.decay(0.95).update(layers)
            updates += 1
            if updates % EVERY == 0:
                K.refresh()
            along: Array = K.solve(ascent, damping=damping)
            return along

        return precondition


class Exact(NaturalGradient):
    """All of F, no block left out: the mini-batch's own, by the Gram matrix of its samples."""

    def preconditioner(self, _network: Network) -> Precondition:
        return lambda layers, ascent, damping: ff.LayerFisher(layers).solve(ascent, damping=damping)


class ExactEmpirical(Exact):
    """The same for the labels of the data: the empirical Fisher, of the gradients at hand."""

    drawn = False


METHODS: dict[str, tuple[Callable[[float], Method], tuple[float, ...]]] = {
    "Adam, batches of 64": (partial(Adam, batch=64), RATES),
    "Adam": (partial(Adam, batch=BATCH), RATES),
    "KFAC": (KFAC, DAMPINGS),
    "EKFAC": (EKFAC, DAMPINGS),
    "Exact layers, own labels": (ExactEmpirical, DAMPINGS),
    "Exact layers, drawn labels": (Exact, DAMPINGS),
}


def compete(
    contest: Contest,
    output: Path,
    *,
    limits: tuple[int, int, int],
    ticks: Sequence[float],
    loss: str,
    steps: int | None = None,
) -> list[Run]:
    """Tune each method over its six settings, run it, print the table and draw the picture.

    `limits` are the most steps of Adam in batches of 64, of Adam, and of the others. With `steps`
    each takes that many with its first setting alone: shows that everything works.

    All on one thread, in seconds of processor time: beside busy neighbours the clock on the wall
    says more about them than about the methods.
    """
    small, large, few = limits
    most = dict.fromkeys(METHODS, few) | {"Adam, batches of 64": small, "Adam": large}
    runs = []
    with threadpool_limits(limits=1):
        for name, (method, settings) in METHODS.items():
            grid = [method(setting) for setting in settings[: 1 if steps else None]]
            entrant = Entrant(name, grid, steps or most[name])
            runs.append(tune_and_run(contest, entrant, lambda: None, 0, time.process_time))
    print(training_table(contest, runs))
    if find_spec("matplotlib") is not None:
        from fastfisher.demo.picture import draw_contest

        draw_contest(contest, runs, output, ticks=ticks, loss=loss)
        print(f"Picture: {output}")
    return runs
