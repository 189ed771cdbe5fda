"""Gradient descent, Adam and natural gradient, tuned on the same terms and timed step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import fastfisher as ff

from .models import Array, Network

Sample = tuple[Array, NDArray[Any]]  # inputs, and labels or targets as the network takes them
Tick = Callable[[], object]
Clock = Callable[[], float]


class Trainable(Protocol):
    """What a contest asks of a network; a method may ask for more."""

    @property
    def n_params(self) -> int:
        """Length of the parameter vector."""
        ...

    def initial(self, rng: np.random.Generator) -> Array:
        """Draw parameters to start from."""
        ...

    def evaluate(self, theta: Array, x: Array, y: NDArray[Any], /) -> tuple[float, float]:
        """Mean loss and the share of right guesses."""
        ...

    def mean_score(self, theta: Array, x: Array, y: NDArray[Any], /) -> Array:
        """Gradient of the mean log-likelihood."""
        ...


class Method(Protocol):
    """A frozen value that yields one parameter vector after another."""

    def iterates(
        self, network: Any, theta: Array, sample: Sample, rng: np.random.Generator
    ) -> Iterator[Array]:
        """Start at theta, take one step per item."""
        ...


@dataclass(frozen=True)
class GradientDescent:
    """θ ← θ + α ḡ with ḡ the mean score."""

    rate: float

    def iterates(
        self, network: Trainable, theta: Array, sample: Sample, rng: np.random.Generator
    ) -> Iterator[Array]:
        while True:
            theta = theta + self.rate * network.mean_score(theta, *sample)
            yield theta


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba's Adam (2015), on the whole training set or on mini-batches."""

    rate: float
    batch: int | None = None

    def iterates(
        self, network: Trainable, theta: Array, sample: Sample, rng: np.random.Generator
    ) -> Iterator[Array]:
        adam = ff.Adam(step_size=self.rate)
        state = adam.start(theta)
        for x, y in batches(sample, self.batch, rng):
            state = adam.step(state, -network.mean_score(state.theta, x, y))
            yield state.theta


@dataclass(frozen=True)
class EmpiricalNaturalGradient:
    """θ ← θ + α (F̂ + λI)⁻¹ ḡ with F̂ the mean of s sᵀ over the data's own labels."""

    rate: float
    damping: float

    def iterates(
        self, network: Network, theta: Array, sample: Sample, rng: np.random.Generator
    ) -> Iterator[Array]:
        while True:
            scores = network.scores(theta, *sample)
            theta = theta + self.rate * ff.natural_gradient(scores, damping=self.damping)
            yield theta


@dataclass(frozen=True)
class ExactNaturalGradient:
    """θ ← θ + α (F + λI)⁻¹ ḡ with the labels summed out under the model (type-II Fisher)."""

    rate: float
    damping: float

    def iterates(
        self, network: Network, theta: Array, sample: Sample, rng: np.random.Generator
    ) -> Iterator[Array]:
        while True:
            gradient = network.mean_score(theta, *sample)
            rows, weights = network.class_scores(theta, sample[0])
            theta = theta + self.rate * ff.natural_gradient(
                rows, gradient, damping=self.damping, weights=weights
            )
            yield theta


@dataclass(frozen=True)
class Contest:
    """One task: the network, its three samples, and the loss to reach."""

    title: str
    network: Trainable
    train: Sample
    validation: Sample
    held_out: Sample
    target: float


@dataclass(frozen=True)
class Entrant:
    """One line of the table: a name, the settings it is tuned over, the steps it may take."""

    name: str
    grid: list[Method]
    max_steps: int


@dataclass(eq=False)
class Run:
    """What happened on the watched sample, from before the first step; seconds of stepping."""

    name: str
    method: Method
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def steps_to(self, target: float) -> int | None:
        """First step at which the loss was at or under the target."""
        return next((step for step, loss in enumerate(self.losses) if loss <= target), None)

    def rank(self, target: float) -> tuple[float, float]:
        """Order of merit: fewer steps to the target, then the lower loss on the way."""
        steps = self.steps_to(target)
        return (np.inf if steps is None else steps, min(self.losses))


def tune_and_run(
    contest: Contest, entrant: Entrant, tick: Tick, seed: int, clock: Clock = time.perf_counter
) -> Run:
    """Choose the entrant's setting on the validation sample, then run it on the held-out one.

    A trial stops at the target, or once it has taken more steps than the best one before it.
    """
    target, limit = contest.target, entrant.max_steps
    trials = []
    for method in entrant.grid:
        trials.append(
            _run(contest, entrant.name, method, contest.validation, seed, limit, clock, target)
        )
        limit = min(limit, trials[-1].steps_to(target) or limit)
        tick()
    best = min(trials, key=lambda trial: trial.rank(target)).method
    run = _run(contest, entrant.name, best, contest.held_out, seed, entrant.max_steps, clock)
    tick()
    return run


def _run(
    contest: Contest,
    name: str,
    method: Method,
    watched: Sample,
    seed: int,
    max_steps: int,
    clock: Clock,
    stop_at: float = -np.inf,
) -> Run:
    """Step until the limit, the target, or a loss ten times the first: by then it has diverged."""
    network, rng = contest.network, np.random.default_rng(seed)
    theta = network.initial(rng)
    loss, accuracy = network.evaluate(theta, *watched)
    run = Run(name, method, [loss], [accuracy], [0.0])
    iterates = method.iterates(network, theta, contest.train, rng)
    for _ in range(max_steps):
        start = clock()
        theta = next(iterates)
        elapsed = clock() - start
        loss, accuracy = network.evaluate(theta, *watched)
        if not loss <= 10 * run.losses[0]:
            break
        run.losses.append(loss)
        run.accuracies.append(accuracy)
        run.seconds.append(run.seconds[-1] + elapsed)
        if loss <= stop_at:
            break
    return run


def batches(sample: Sample, size: int | None, rng: np.random.Generator) -> Iterator[Sample]:
    """Shuffled mini-batches without end; None is the whole sample each time."""
    x, y = sample
    while size is None:
        yield sample
    while True:
        order = rng.permutation(len(y))
        for start in range(0, len(y) - size + 1, size):
            rows = order[start : start + size]
            yield x[rows], y[rows]
