"""How often the 95 % intervals of energies cover the true value, and how often equal things are called different.

Idle power carries white noise, or wanders with a time constant (a first-order Gauss-Markov process) beside it. The runs
follow the protocol, idle, trial, idle, trial, ..., idle, and go through the package's own functions.

    python benchmarks/energy_coverage.py
"""

from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray

from pi_dynn.power import MeterInfo, RunEnergy, Span, Trace, idle_neighbours, run_energy, trial_energy
from pi_dynn.power.meter import SIMULATED
from pi_dynn.stats import independent_difference_interval, mean_interval
from pi_dynn.text import table

PERIOD_S = 0.1
WINDOW_S = 10.0
BETWEEN_S = 1.0  # between a trial and the idle window after it: power settles
IDLE_W, NET_W, NOISE_W = 2.2, 0.2, 0.1
ANSWERS = 100
TRUE_J = NET_W * WINDOW_S / ANSWERS
WHITE = 0.0
NOISES_S = (WHITE, 1.0, 3.0, 10.0, 30.0)
TRIALS = (3, 5, 10)
_INFO = MeterInfo("fake", "board input", (), 0.0, PERIOD_S, measured=False, label=SIMULATED)


@dataclass(frozen=True)
class Coverage:
    """Of many runs: the share of intervals that cover the true energy, and of equal things that get a verdict.

    `paired` are the trials of one run measured in turns, `apart` two runs.
    """

    covered: float
    paired: float
    apart: float


def wandering_w(rng: np.random.Generator, count: int, constant_s: float) -> NDArray[np.float64]:
    """`count` samples of noise with this time constant, its standard deviation NOISE_W; white noise for 0."""
    white_w = NOISE_W * rng.normal(size=count)
    if constant_s == WHITE:
        return white_w
    keep = np.exp(-PERIOD_S / constant_s)
    steps_w = NOISE_W * np.sqrt(1 - keep**2) * rng.normal(size=count)
    wander_w = np.empty(count)
    last_w = NOISE_W * rng.normal()
    for i, step_w in enumerate(steps_w):
        wander_w[i] = last_w = keep * last_w + step_w
    return 0.3 * white_w + wander_w


def simulated_run(rng: np.random.Generator, trials: int, constant_s: float) -> tuple[RunEnergy, list[float]]:
    """The energy of one run, and the net energies of its trials."""
    idle, work, now_s = [], [], PERIOD_S / 2
    for number in range(trials + 1):
        idle.append(_span(now_s, "idle"))
        now_s += WINDOW_S + 4 * PERIOD_S
        if number < trials:
            work.append(_span(now_s, "trial"))
            now_s += WINDOW_S + BETWEEN_S
    t_ns = np.arange(0, round(now_s / PERIOD_S) + 5) * round(PERIOD_S * 1e9)
    power_w = IDLE_W + wandering_w(rng, len(t_ns), constant_s)
    for span in work:
        power_w[(t_ns > span.t0_ns) & (t_ns < span.t1_ns)] += NET_W
    unknown = np.full(len(t_ns), np.nan)
    trace = Trace(_INFO, t_ns, power_w, None, unknown, unknown, np.zeros(len(t_ns), dtype=np.int64))
    energies = []
    for span, around in zip(work, idle_neighbours(idle, work), strict=True):
        windows = [window for window in (around.before, around.after) if window is not None]
        energies.append(trial_energy(trace, span, ANSWERS, windows))
    return run_energy(energies), [energy.net_j for energy in energies]


def _span(start_s: float, label: str) -> Span:
    return Span(round(start_s * 1e9), round((start_s + WINDOW_S) * 1e9), label)


def coverage(trials: int, constant_s: float, runs: int, seed: int = 0) -> Coverage:
    """The coverage of `runs` simulated runs of `trials` trials."""
    rng = np.random.default_rng([seed, trials, round(constant_s)])
    covered = paired = apart = 0
    before = simulated_run(rng, trials, constant_s)[0]
    for _ in range(runs):
        run, _ = simulated_run(rng, trials, constant_s)
        covered += _holds(run.net_ci95_j, TRUE_J)
        apart += not _holds(
            independent_difference_interval(
                before.net_j, before.net_se_j, before.trials, run.net_j, run.net_se_j, run.trials
            ),
            0.0,
        )
        _, net_j = simulated_run(rng, 2 * trials, constant_s)  # A B B A: both of each pair are neighbours
        pairs = [(net_j[2 * i], net_j[2 * i + 1])[:: 1 if i % 2 == 0 else -1] for i in range(trials)]
        paired += not _holds(mean_interval([one - other for one, other in pairs]), 0.0)
        before = run
    return Coverage(covered / runs, paired / runs, apart / runs)


def _holds(interval: tuple[float, float] | None, value: float) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]


@click.command()
@click.option("--runs", default=1000, show_default=True)
def main(runs: int) -> None:
    """Print coverage and false verdicts for every noise and number of trials."""
    rows = []
    for constant_s in NOISES_S:
        noise = "white" if constant_s == WHITE else f"wanders within {constant_s:g} s"
        for trials in TRIALS:
            one = coverage(trials, constant_s, runs)
            rows.append((noise, str(trials), f"{one.covered:.1%}", f"{one.paired:.1%}", f"{one.apart:.1%}"))
    headers = ("idle power", "trials", "intervals that cover", "false verdicts, in turns", "false verdicts, two runs")
    click.echo(table(headers, rows))


if __name__ == "__main__":
    main()
