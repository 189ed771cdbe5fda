"""The two tables that the demo prints."""

from __future__ import annotations

from dataclasses import asdict

from .clock import Roofs
from .speed import Measurement
from .training import Contest, Method, Run


def training_table(contest: Contest, runs: list[Run]) -> str:
    """Steps and seconds to the target, accuracy there, and the chosen setting."""
    p, n, held_out = contest.network.n_params, len(contest.train[1]), len(contest.held_out[1])
    target = f"loss {contest.target:g}"
    lines = [
        "",
        f"{contest.title}: {p} parameters, {n} digits to train on, {held_out} held out",
        f"{'':28} {'steps to':>9} {'seconds':>8} {'accuracy':>9} {'lowest':>7}",
        f"{'':28} {target:>9} {'to it':>8} {'there':>9} {'loss':>7}   chosen setting",
    ]
    for run in runs:
        step = run.steps_to(contest.target)
        at = -1 if step is None else step
        reached = f"not in {len(run.losses) - 1}" if step is None else str(step)
        seconds = "" if step is None else f"{run.seconds[step]:.3f}"
        lines.append(
            f"{run.name:28} {reached:>9} {seconds:>8} {run.accuracies[at]:9.1%} "
            f"{min(run.losses):7.3f}   {describe(run.method)}"
        )
    lines += [
        "Loss and accuracy on the held-out digits, seconds of stepping alone. Each method could",
        f"choose from six settings, by steps to the target on {len(contest.validation[1])} others.",
    ]
    arrived = {run: step for run in runs if (step := run.steps_to(contest.target)) is not None}
    if arrived:
        fewest = min(arrived, key=lambda run: arrived[run])
        quickest = min(arrived, key=lambda run: run.seconds[arrived[run]])
        lines.append(f"Fewest steps: {fewest.name}. Fewest seconds: {quickest.name}.")
    return "\n".join(lines)


def speed_table(measurements: list[Measurement], roofs: Roofs) -> str:
    """Milliseconds, ratio, and the share of the roof."""
    heads = f"{'NumPy':>9} {'ours':>9} {'ratio':>7} {'of roof':>8}   fastest NumPy or SciPy line"
    lines = [
        "",
        f"Roofs: {roofs.float64 / 1e9:.0f} Gflop/s, {roofs.bandwidth / 1e9:.0f} GB/s read",
        f"{'float64':17} {'shape':>13} {heads}",
    ]
    for m in measurements:
        times = f"{m.best * 1e3:6.1f} ms {m.ours * 1e3:6.1f} ms {m.best / m.ours:6.1f}×"
        lines.append(f"{m.name:17} {m.shape:>13} {times} {m.roof / m.ours:8.0%}   {m.line}")
    return "\n".join(lines)


def describe(method: Method) -> str:
    """Spell a frozen setting: ``rate 1, damping 0.01``."""
    settings = asdict(method)  # type: ignore[call-overload]
    return ", ".join(f"{name} {value:g}" for name, value in settings.items() if value is not None)
