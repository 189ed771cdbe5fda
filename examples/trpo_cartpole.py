"""TRPO on CartPole: a policy in plain NumPy learns to balance, beside the plain policy gradient.

python examples/trpo_cartpole.py [picture.png]: both methods play the same number of episodes of
gymnasium's CartPole-v1 with the same network, baseline and advantages; they differ in nothing but
the step. The Fisher is the exact one of the policy at the visited states: with one logit z per
state its score is (a − π) ∂z/∂θ, whose square has the mean π (1 − π) (∂z/∂θ)² over the actions, so
no action is drawn for it.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

import fastfisher as ff
from networks import Bernoulli, Dense, Network

mpl.use("Agg")
import matplotlib.pyplot as plt

Array = NDArray[np.float64]

try:
    import gymnasium
except ImportError as error:
    raise ImportError(
        "gymnasium: expected an installed package, got none. pip install 'fastfisher[examples]'."
    ) from error

DISCOUNT, TRACE = 0.99, 0.97  # γ, and λ of the generalised advantages
SOLVED = 475.0  # the mean return that CartPole-v1 calls solved
RATES = (1.0, 3.0, 10.0)  # of the plain policy gradient: the best one, and both its neighbours
MAX_KL = 0.01
POLICY = Network([Dense(4, 32), Dense(32, 1)], Bernoulli())


@dataclass
class Episodes:
    """Episodes played side by side, (steps, episodes, …); `played` tells which steps count."""

    states: Array
    actions: Array
    played: Array
    failed: Array
    last: Array

    @property
    def returns(self) -> Array:
        """One point for each step, as the game has it."""
        points: Array = self.played.sum(axis=0)
        return points


def play(
    environment: Any, theta: Array, rng: np.random.Generator, seed: int | None = None
) -> Episodes:
    """Play one episode in each of the environment's copies."""
    state, _ = environment.reset(seed=seed)
    rows, alive = [], np.ones(environment.num_envs, bool)
    while alive.any():
        _, z = POLICY.forward(theta, state.astype(float))
        action = POLICY.likelihood.draw(z, rng)[:, 0].astype(int)
        new, _, failed, stopped, _ = environment.step(action)
        rows.append((state, action, alive, failed & alive, new))
        alive = alive & ~failed & ~stopped
        state = new
    states, actions, played, failed, after = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    final = played.sum(axis=0) - 1
    last = after[final, np.arange(len(final))]
    return Episodes(states.astype(float), actions, played, failed, last.astype(float))


class Baseline:
    """The value of a state, linear in its quadratic monomials."""

    def __init__(self) -> None:
        self.coefficients = np.zeros(15)

    def features(self, states: Array) -> Array:
        x = np.concatenate([states, np.ones((*states.shape[:-1], 1))], axis=-1)
        i, j = np.triu_indices(5)
        products: Array = x[..., i] * x[..., j]
        return products

    def __call__(self, states: Array) -> Array:
        return self.features(states) @ self.coefficients

    def fit(self, states: Array, values: Array) -> None:
        self.coefficients = np.asarray(np.linalg.lstsq(self.features(states), values)[0], float)


def advantages(episodes: Episodes, baseline: Baseline) -> tuple[Array, Array]:
    """Generalised advantages, (steps, episodes): discounted sums of what beats the baseline."""
    values = baseline(episodes.states)
    following = np.concatenate([values[1:], values[:1]])
    final = episodes.played.sum(axis=0) - 1
    following[final, np.arange(len(final))] = baseline(episodes.last)
    surprise = 1.0 + DISCOUNT * np.where(episodes.failed, 0.0, following) - values
    out, ahead = np.zeros_like(values), np.zeros(values.shape[1])
    for t in reversed(range(len(values))):
        ahead = np.where(episodes.played[t], surprise[t] + DISCOUNT * TRACE * ahead, 0.0)
        out[t] = ahead
    return out, values


class Surrogate:
    """What an update may know: states, actions and advantages, and the policy that played."""

    def __init__(self, theta: Array, states: Array, actions: Array, advantage: Array) -> None:
        self.states, self.actions = states, actions[:, None].astype(float)
        self.advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        self.inputs, z = POLICY.forward(theta, states)
        self.theta, self.probability = theta, POLICY.likelihood.mean(z)
        self.loss = POLICY.likelihood.loss(z, self.actions)[:, None]

    def objective(self, theta: Array) -> float:
        """Mean of π(a∣s) / π_old(a∣s) times the advantage."""
        _, z = POLICY.forward(theta, self.states)
        ratio = np.exp(self.loss - POLICY.likelihood.loss(z, self.actions)[:, None])
        return float((ratio[:, 0] * self.advantage).mean())

    def kl(self, theta: Array) -> float:
        """Mean over the states of KL(π_old ‖ π)."""
        _, z = POLICY.forward(theta, self.states)
        old, new = (ff.Bernoulli(p[:, 0]) for p in (self.probability, POLICY.likelihood.mean(z)))
        return float(old.kl(new).mean())

    def gradient(self) -> Array:
        """Mean of the score (a − π) ∂z/∂θ times the advantage."""
        weighted = (self.actions - self.probability) * self.advantage[:, None]
        gradients = POLICY.backward(self.theta, self.inputs, weighted)
        return POLICY.mean_gradient(self.inputs, gradients)

    def fisher(self) -> ff.LayerFisher:
        """Exact Fisher of the policy: mean over the states of π (1 − π) ∂z/∂θ (∂z/∂θ)ᵀ."""
        spread = np.sqrt(self.probability * (1 - self.probability))
        gradients = POLICY.backward(self.theta, self.inputs, spread)
        return ff.LayerFisher(POLICY.scores(self.inputs, gradients))


Update = Callable[[Surrogate], Array]


def trust_region(surrogate: Surrogate) -> Array:
    """Return the parameters after one TRPO update."""
    theta: Array = ff.trpo_step(
        surrogate.objective,
        surrogate.kl,
        surrogate.theta,
        surrogate.gradient(),
        surrogate.fisher(),
        max_kl=MAX_KL,
    ).theta
    return theta


def plain(rate: float) -> Update:
    """Return the update by the gradient itself."""
    return lambda surrogate: surrogate.theta + rate * surrogate.gradient()


def copies(episodes: int) -> Any:
    """Return that many copies of the game."""
    return gymnasium.make_vec(
        "CartPole-v1", num_envs=episodes, vectorization_mode="vector_entry_point"
    )


def learn(
    update: Update, seed: int | None, updates: int, episodes: int
) -> tuple[Array, Array, Array]:
    """Return the mean return before each update, the KL of each, and the last parameters."""
    rng, environment = np.random.default_rng(seed), copies(episodes)
    theta, baseline = POLICY.initial(rng), Baseline()
    returns, divergences = [], []
    for i in range(updates):
        batch = play(environment, theta, rng, seed=None if i else seed)
        advantage, values = advantages(batch, baseline)
        at = batch.played
        surrogate = Surrogate(theta, batch.states[at], batch.actions[at], advantage[at])
        baseline.fit(batch.states[at], (advantage + values)[at])
        theta = update(surrogate)
        returns.append(batch.returns.mean())
        divergences.append(surrogate.kl(theta))
    environment.close()
    return np.array(returns), np.array(divergences), theta


def evaluate(theta: Array, episodes: int = 100, seed: int | None = 1000) -> float:
    """Return the mean return of new episodes."""
    environment = copies(episodes)
    mean = play(environment, theta, np.random.default_rng(seed), seed).returns.mean()
    environment.close()
    return float(mean)


def main(
    path: str = "trpo_cartpole.png", *, updates: int = 50, episodes: int = 16, seeds: int = 3
) -> None:
    """Print the table, draw the picture."""
    methods: dict[str, Update] = {f"TRPO, max_kl = {MAX_KL:g}": trust_region}
    methods |= {f"policy gradient, rate {rate:g}": plain(rate) for rate in RATES}
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    print(f"{updates * episodes} episodes each   mean return of the last tenth, 100 new episodes")
    for color, (name, update) in zip(("C3", "C9", "C0", "C7"), methods.items(), strict=True):
        runs = [learn(update, seed, updates, episodes) for seed in range(seeds)]
        returns, divergences, thetas = zip(*runs, strict=True)
        late = np.mean([r[-max(updates // 10, 1) :] for r in returns])
        scores = "  ".join(f"{evaluate(theta):5.1f}" for theta in thetas)
        print(f"{name:28} {late:15.1f}   {scores}")
        played = episodes * np.arange(updates)
        left.plot(played, np.mean(returns, axis=0), color, label=name, zorder=3)
        ends = np.min(returns, axis=0), np.max(returns, axis=0)
        left.fill_between(played, *ends, color=color, alpha=0.15, lw=0)
        right.semilogy(played, np.maximum(divergences[0], 1e-6), color)
    left.axhline(SOLVED, color="0.6", lw=1, ls=":")
    right.axhline(MAX_KL, color="0.6", lw=1, ls=":")
    left.set(title=f"mean and range of {seeds} runs", xlabel="episodes", ylabel="return")
    right.set(
        title="true KL divergence of each update, first run", xlabel="episodes", ylabel="nats"
    )
    left.legend(frameon=False, fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
    print(f"The picture is in {path}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
