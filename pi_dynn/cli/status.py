"""Exit statuses, which error ends in which, and how an error is shown."""

from enum import IntEnum, unique

from pi_dynn.cli.printing import show
from pi_dynn.errors import CameraUnavailable, MeterAmbiguous, MeterBusError, MeterDenied, MeterNotFound, TraceInvalid
from pi_dynn.text import shown


@unique
class ExitStatus(IntEnum):
    """What the program's exit status means; a contract with scripts."""

    OK = 0
    ERROR = 1
    USAGE = 2
    HARDWARE_UNAVAILABLE = 3
    MEASUREMENT_INVALID = 4
    INTERRUPTED = 130


_STATUS = {
    CameraUnavailable: ExitStatus.HARDWARE_UNAVAILABLE,
    MeterNotFound: ExitStatus.HARDWARE_UNAVAILABLE,
    MeterAmbiguous: ExitStatus.HARDWARE_UNAVAILABLE,
    MeterDenied: ExitStatus.HARDWARE_UNAVAILABLE,
    MeterBusError: ExitStatus.HARDWARE_UNAVAILABLE,
    TraceInvalid: ExitStatus.MEASUREMENT_INVALID,
}


def status_of(error: Exception) -> ExitStatus:
    """The exit status for an error of pi_dynn."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), ExitStatus.ERROR)


def show_error(message: str) -> None:
    """One line on stderr for what went wrong, whatever characters a name in it has."""
    show(f"pi-dynn: error: {shown(' '.join(message.split()))}", err=True)
