"""How often the net energy lies within its expanded uncertainty, over chips drawn from the data sheet's tolerances.

Every draw is a simulated INA219 with its own shunt, gain, bus voltage gain, offset, oscillator and noise, at the limits
or anywhere within; the run follows the protocol and the package's own functions compute the budget.

    python benchmarks/energy_budget.py
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pi_dynn.board import Board
from pi_dynn.energy.protocol import EnergyParts, EnergySettings, measure_call
from pi_dynn.energy.records import EnergyResult
from pi_dynn.energy.results import energy_results
from pi_dynn.power.fake import TRANSFER_400_KHZ_S, FakeBus, Ina219Chip, SimulatedClock, Switched, open_fake
from pi_dynn.text import table

IDLE_W, ACTIVE_W, CALL_S = 2.18, 3.26, 0.02
TRUE_NET_J, TRUE_GROSS_J = CALL_S * (ACTIVE_W - IDLE_W), CALL_S * ACTIVE_W
SHUNT_TOLERANCE, GAIN_TOLERANCE, VOLTAGE_TOLERANCE, OFFSET_V = 0.01, 0.005, 0.005, 200e-6
SETTINGS = EnergySettings(trials=3, trial_s=2.0, idle_s=2.0)


def drawn_run(seed: int) -> EnergyResult:
    """A run on a chip drawn with this seed."""
    rng = random.Random(seed)
    clock, load = SimulatedClock(), Switched(IDLE_W)
    chip = Ina219Chip(
        clock,
        load,
        shunt_ohm=0.1 * (1 + rng.uniform(-SHUNT_TOLERANCE, SHUNT_TOLERANCE)),
        noise_v=rng.uniform(0.0, 4e-4),
        offset_v=rng.uniform(-OFFSET_V, OFFSET_V),
        gain_error=rng.uniform(-GAIN_TOLERANCE, GAIN_TOLERANCE),
        voltage_error=rng.uniform(-VOLTAGE_TOLERANCE, VOLTAGE_TOLERANCE),
        oscillator=rng.uniform(0.95, 1.05),
        seed=seed,
    )

    @contextmanager
    def working() -> Iterator[None]:
        load.set_power(clock.now_ns() * 1e-9, ACTIVE_W)
        yield
        load.set_power(clock.now_ns() * 1e-9, IDLE_W)

    with open_fake(clock=clock, bus=FakeBus(chip, clock, transfer_s=TRANSFER_400_KHZ_S)) as meter:
        parts = EnergyParts(meter, clock, Board(), working)
        (result,) = energy_results(*measure_call(parts, lambda: clock.sleep(CALL_S), "call", SETTINGS))
    return result


def covered(result: EnergyResult) -> tuple[bool, bool]:
    """Whether the expanded uncertainties cover the true net and gross energy."""
    assert result.valid, result.invalid_reasons
    assert result.net_j is not None and result.net_expanded_j is not None
    assert result.gross_j is not None and result.gross_expanded_j is not None
    net = abs(result.net_j - TRUE_NET_J) <= result.net_expanded_j
    return net, abs(result.gross_j - TRUE_GROSS_J) <= result.gross_expanded_j


@click.command()
@click.option("--draws", default=500, show_default=True)
def main(draws: int) -> None:
    """Print the budget of one run, and how often net and gross energy are within theirs."""
    nominal = drawn_run(0)
    rows = [
        (part.source, part.kind, f"{part.net_j * 1e6:.1f}", f"{part.gross_j * 1e6:.1f}") for part in nominal.uncertainty
    ]
    click.echo(table(("part (uJ per call)", "type", "net", "gross"), rows))
    pairs = [covered(drawn_run(seed)) for seed in range(draws)]
    net, gross = (sum(column) / draws for column in zip(*pairs, strict=True))
    click.echo(f"within the expanded uncertainty (k = 2), of {draws} chips: net {net:.1%}, gross {gross:.1%}")


if __name__ == "__main__":
    main()
