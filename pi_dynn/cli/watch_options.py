"""The options of `pi-dynn watch`, in groups."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import cloup

from pi_dynn.cli.calibration_options import budget_options, calibration_option
from pi_dynn.cli.options import (
    NUMBERS,
    accept_all_option,
    bundle_option,
    enabled_option,
    engine_option,
    no_exit_option,
    threads_option,
    threshold_option,
    thresholds_option,
    trust_option,
)

if TYPE_CHECKING:
    from pi_dynn.data.region import Region

AT_LEAST_S = 60.0


class WatchCommand(cloup.Command):
    """Keeps the words of the command line, for the unit of a service."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)


def _region(context: click.Context, parameter: click.Parameter, value: list[float] | None) -> "Region | None":
    from pi_dynn.data.region import Region
    from pi_dynn.errors import InputError

    if value is None:
        return None
    try:
        return Region(*value)
    except TypeError as error:
        raise click.BadParameter("expected four numbers X,Y,W,H: shares of the picture, or pixels") from error
    except InputError as error:
        raise click.BadParameter(str(error)) from error


when_options = cloup.option_group(
    "When",
    cloup.option(
        "--every", "every_s", type=click.FloatRange(0.0), default=0.0, metavar="S", help="Seconds in between."
    ),
    cloup.option("--count", "limit", type=click.IntRange(1), metavar="N", help="End after N frames."),
    cloup.option("--motion", is_flag=True, help="Skip frames that show what the last answered one did."),
    cloup.option(
        "--at-least",
        "at_least_s",
        type=click.FloatRange(0.0, min_open=True),
        metavar="S",
        help=f"With --motion, answer one every S seconds anyway. [default: {AT_LEAST_S:g}]",
    ),
    cloup.option(
        "--roi",
        type=NUMBERS,
        callback=_region,
        metavar="X,Y,W,H",
        help="Look at that part only: shares of the picture if none is above 1, otherwise pixels.",
    ),
)
"""Which frames are answered."""

told_options = cloup.option_group(
    "What is told",
    cloup.option(
        "--agree",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Tell a change of the label once N answers running have it.",
    ),
    cloup.option("--top", type=click.IntRange(1), default=1, show_default=True, help="Show the N likeliest classes."),
    accept_all_option,
    cloup.option(
        "--save-unsure",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Save pictures with an unsure answer there, for later labelling.",
    ),
    cloup.option(
        "--unsure-below", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True, help="In probability."
    ),
    cloup.option(
        "--quota-mb", type=click.FloatRange(0.0), default=500.0, show_default=True, help="Save no more than that."
    ),
)
"""Which answers are told, and which pictures kept."""

place_options = cloup.option_group(
    "Where to",
    cloup.option(
        "--mqtt",
        envvar="PI_DYNN_MQTT",
        metavar="URL",
        help="Publish to mqtt://host:port/topic instead; a password is better kept in PI_DYNN_MQTT.",
    ),
    cloup.option("--home-assistant", is_flag=True, help="Be a device of Home Assistant, on the broker of --mqtt."),
    cloup.option(
        "--service",
        type=click.Choice(["install", "remove", "status"]),
        help="Run this line as a service of systemd, from now on and after every start.",
    ),
    cloup.option(
        "--dry-run", is_flag=True, help="Print the service's unit, or what Home Assistant is told; do no more."
    ),
)
"""Where answers go, and who runs the watch."""

network_options = cloup.option_group(
    "Network",
    bundle_option,
    trust_option,
    engine_option,
    threads_option,
    enabled_option,
    threshold_option,
    thresholds_option,
    no_exit_option,
    cloup.option(
        "--deadline-ms", type=click.FloatRange(0.0), help="Answer at the next exit once this much time has passed."
    ),
)
"""The network and its exits."""

record_options = cloup.option_group(
    "By a calibration record",
    calibration_option,
    budget_options,
    cloup.option(
        "--joules-per-day",
        type=click.FloatRange(0.0, min_open=True),
        metavar="J",
        help="Net energy of the answers: cheaper thresholds of the record, and fewer answers, keep to it.",
    ),
)
"""Thresholds that a record brings, and how they move."""
