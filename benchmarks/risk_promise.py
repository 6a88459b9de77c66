"""Is the promise of risk control kept over a thousand splits?

Draws 5,000 images a thousand times from a population of simulated ones, chooses thresholds on each draw, and
counts how often more than epsilon is lost on the whole population: for both risks, with the exact test, with
the normal limit, and without any test. Run it from the root: `python -m benchmarks.risk_promise`.
"""

import math

import click

from benchmarks.risk_simulation import PromiseSimulation
from pi_dynn.calibrate.risk import RiskSettings
from pi_dynn.text import percent, table
from tests.calibrate.synthetic import synthetic_outcomes

EPSILONS = (0.005, 0.01, 0.02)


@click.command()
@click.option("--splits", default=1000, show_default=True)
@click.option("--images", default=5000, show_default=True, help="Images in each split.")
@click.option("--delta", default=0.1, show_default=True)
def main(splits: int, images: int, delta: float) -> None:
    """Print one line per risk, epsilon and test."""
    simulation = PromiseSimulation(synthetic_outcomes(20_000, 6), images, splits)
    rows = []
    for risk in ("harm", "gap"):
        for epsilon in EPSILONS:
            exact, limit = (RiskSettings(epsilon, delta, risk, corrected) for corrected in (True, False))
            for name, result in (
                ("exact", simulation.keep(exact)),
                ("normal limit", simulation.keep(limit)),
                ("untested", simulation.keep_untested(exact)),
            ):
                share = result.broken / splits
                half = 1.96 * math.sqrt(share * (1 - share) / splits)
                rows.append(
                    (
                        risk,
                        f"{100 * epsilon:g} points",
                        name,
                        f"{percent(share)} +- {percent(half)}",
                        str(result.vacuous),
                        f"{result.mean_cost:.1f} %",
                    )
                )
    headers = ("risk", "epsilon", "test", "broken", "none left", "mean cost")
    click.echo(table(headers, rows, left=3, markdown=True))


if __name__ == "__main__":
    main()
