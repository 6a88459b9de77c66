"""The exceptions of pi_dynn. Imports no other room.

Every error pi_dynn raises on purpose descends from `PiDynnError`, and also from the builtin a caller
would naturally catch. A message is one line: what happened, the value, and what to do about it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


class PiDynnError(Exception):
    """Base of every error raised by pi_dynn."""


class InputError(PiDynnError, ValueError):
    """An argument (an image, a tensor, an option) cannot be used."""


class BundleError(PiDynnError, ValueError):
    """A bundle file is damaged, of another schema, or not a bundle."""


class BundleNotFound(BundleError, FileNotFoundError):
    """There is no bundle at the given path or of the given name."""


class CheckpointError(PiDynnError, ValueError):
    """A checkpoint does not fit the model, or cannot be read safely."""


class EngineUnavailable(PiDynnError, RuntimeError):
    """The requested quantised engine is not in this torch build, or fails its self-test."""


class TorchUnusable(PiDynnError, ImportError):
    """The installed torch cannot run on this processor."""


class ModelError(PiDynnError, ValueError):
    """A network cannot be built with the given arguments."""


class UnknownModel(ModelError, LookupError):
    """No network is registered under the given name."""


class DatasetError(PiDynnError, ValueError):
    """A data set folder is missing, incomplete or not laid out as expected."""


class CalibrationError(PiDynnError, ValueError):
    """Thresholds cannot be chosen, or a calibration record does not fit the bundle."""


class CameraUnavailable(PiDynnError, OSError):
    """The camera is not there, is in use, or has stopped giving frames."""


class BrokerUnavailable(PiDynnError, ConnectionError):
    """The MQTT broker cannot be reached, or refuses this client."""


class ClusterError(PiDynnError, OSError):
    """The scheduler or its workers cannot be reached, are lost, or cannot use the bundle."""


class PowerError(PiDynnError):
    """Base of everything that goes wrong with a power meter."""


class MeterNotFound(PowerError, FileNotFoundError):
    """The meter, its bus or its chip is not there."""


class MeterAmbiguous(PowerError):
    """There are several meters, and none of them was named."""


class MeterDenied(PowerError, PermissionError):
    """The meter is there, but this user may not read it."""


class MeterBusError(PowerError, OSError):
    """The bus to the meter failed and the bounded retries did not help."""


class TraceInvalid(PowerError, ValueError):
    """A power trace does not support the energy figure requested from it."""


@contextmanager
def need_extra(extra: str, what: str, raises: type[PiDynnError] = InputError) -> Iterator[None]:
    """Wraps imports of optional packages that `what` needs and the extra `extra` installs.

    Raises: `raises` where one is missing, with the command that installs it for this interpreter.
    """
    try:
        yield
    except ImportError as error:
        checkout = Path(__file__).resolve().parents[1]
        package = f"-e '{checkout}[{extra}]'" if (checkout / "setup.cfg").exists() else f"'pi_dynn[{extra}]'"
        command = f"{sys.executable} -m pip install {package}"
        if find_spec("torch") is None:  # pip would bring it along
            command = f"{checkout}/scripts/setup.sh --lite --with {extra}"
        if not isinstance(error, ModuleNotFoundError):
            raise raises(
                f"what {what} needs cannot be imported ({error}); another version may do: {command}"
            ) from error
        raise raises(f"{what} needs {error.name or error}, which is not installed: {command}") from error
