"""`pi-dynn watch --service`: the unit of a watch is written, removed or looked at."""

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pi_dynn.cli.status import ExitStatus

if TYPE_CHECKING:
    from pi_dynn.classify.service import Service

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")  # there where systemd runs: sd_booted(3)
ENVIRONMENT = "/etc/pi-dynn.env"


def described_service(source: str, arguments: Sequence[str], save_unsure: Path | None) -> "Service":
    """The service that runs this command line, here and as this user (behind sudo, the one who called it)."""
    from pi_dynn.classify.service import Service

    words: list[str] = []
    left = iter(arguments)
    for word in left:
        if word == "--service":
            next(left, None)
        elif word != "--dry-run" and not word.startswith("--service="):
            words.append(word)
    command = [sys.executable, "-m", "pi_dynn.cli", "watch", *words]
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    folders = () if save_unsure is None else (save_unsure.resolve(),)
    return Service(source, command, Path.cwd(), user, folders)


def check_password(mqtt: str | None, arguments: Sequence[str]) -> None:
    """Raises: click.UsageError for a password on the command line, which all users could read in the unit."""
    from pi_dynn.classify.mqtt import parse_broker

    if mqtt is None:
        return
    if parse_broker(mqtt).password is not None and any(mqtt in word for word in arguments):
        raise click.UsageError(f"keep the broker's password out of the unit: PI_DYNN_MQTT=... in {ENVIRONMENT}")


def run_service(action: str, service: "Service", mqtt_from_environment: bool) -> int:
    """Install and start, remove, or show the service."""
    path = UNITS / service.name
    if action == "status":
        return ExitStatus.ERROR if systemctl("status", "--no-pager", service.name) else ExitStatus.OK
    if action == "remove":
        if not path.exists():
            raise click.ClickException(f"{path}: no such service; give the source it was installed with")
        failed = systemctl("disable", "--now", service.name)
        path.unlink()
        return ExitStatus.ERROR if failed + systemctl("daemon-reload") else ExitStatus.OK
    from pi_dynn.files import write_text

    if not RUNNING.is_dir():
        raise click.ClickException("systemd does not run here, so nothing is installed; --dry-run prints the unit")
    for folder in service.writable:
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, service.user)
    try:
        write_text(path, service.unit)
    except PermissionError as error:
        again = f"sudo {sys.executable} -m pi_dynn.cli watch ... --service install"
        raise click.ClickException(f"{path}: not writable by this user; {again}") from error
    click.echo(f"{path} written", err=True)
    if mqtt_from_environment:
        click.echo(f"put PI_DYNN_MQTT into {ENVIRONMENT}, for root only: sudo chmod 600 {ENVIRONMENT}", err=True)
    failed = systemctl("daemon-reload") or systemctl("enable", "--now", service.name)
    return ExitStatus.ERROR if failed else ExitStatus.OK


def systemctl(*arguments: str) -> int:
    """The exit status of systemctl, whose output is shown. Raises: click.ClickException where there is none."""
    try:
        return subprocess.run(["systemctl", *arguments], check=False).returncode
    except FileNotFoundError as error:
        raise click.ClickException("this system has no systemctl; --dry-run prints the unit") from error
