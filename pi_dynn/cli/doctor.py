"""`pi-dynn doctor`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pi_dynn.cli.options import bundle_option, json_option

if TYPE_CHECKING:
    from pi_dynn.records import Finding


@click.command()
@bundle_option
@json_option
def command(bundle: Path | None, as_json: bool) -> None:
    """Show what this machine offers: torch and its engines, threads, board, I2C buses, meters.

    Each problem comes with its cure. The exit status is 0 also when there are some: a laptop without a meter is
    no failure.

    \b
    Example:
      pi-dynn doctor
    """
    from pi_dynn.doctor import Probes, check_up, doctor_text

    findings = check_up(Probes(engines=lambda: _engines(bundle)))
    if as_json:
        for finding in findings:
            click.echo(json.dumps(finding.to_dict()))
    else:
        click.echo(doctor_text(findings))


def _engines(bundle: Path | None) -> "Sequence[Finding]":
    """Only called once torch is known to survive its import."""
    from pi_dynn.clock import PerfClock
    from pi_dynn.runtime.engine_choice import engine_findings

    return engine_findings(bundle, PerfClock())
