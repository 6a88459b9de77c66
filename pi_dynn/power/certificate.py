"""Shunt certificates: the calibration of a particular meter board against a reference ammeter.

The shunts of breakout boards are accurate to 1 % and the chip's gain to 0.5 %. A comparison at two currents, idle and
under load, separates the gain from the offset of the chip; one at a single current takes the offset for gain.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from pi_dynn import files
from pi_dynn.clock import current_date
from pi_dynn.errors import CalibrationError, InputError
from pi_dynn.power.meter import MeterAccuracy
from pi_dynn.records import Record, read_record

_SHUNT_TOLERANCE = 0.01  # of the resistors on breakout boards
_LARGEST_OFFSET_V = 200e-6  # over the shunt, of an INA219 at its widest range


@dataclass(frozen=True)
class ShuntCertificate(Record):
    """One meter board: its shunt as printed on it, and what corrects its currents and voltages.

    true current = gain x reading + offset_a; true voltage = voltage_gain x reading. `uncertainty` is that of the
    current as a share, by the limits of the reference and of what the comparison leaves open; None in certificates of
    version 0.1. `expires` is a date after which it is refused. `temperature_c` is that of the room.
    """

    KIND = "shunt certificate"
    SCHEMA = "pi_dynn.shunt/1"

    board: str
    shunt_ohm: float
    gain: float
    reference_a: float
    measured_a: float
    instrument: str
    date: str
    idle_reference_a: float | None = None
    idle_measured_a: float | None = None
    offset_a: float = 0.0
    voltage_gain: float = 1.0
    uncertainty: float | None = None
    serial: str = ""
    temperature_c: float | None = None
    expires: str | None = None

    def checked_shunt(self, shunt_ohm: float | None) -> float:
        """The shunt. Raises: InputError if another value was given beside the certificate."""
        if shunt_ohm is not None and shunt_ohm != self.shunt_ohm:
            raise InputError(
                f"the certificate of {self.board} is of a {self.shunt_ohm!r} ohm shunt, not {shunt_ohm!r}: drop one"
            )
        return self.shunt_ohm

    @property
    def corrections(self) -> dict[str, float | None]:
        """What corrects readings, by its names in the settings of a chip."""
        return {
            "gain": self.gain,
            "offset_a": self.offset_a,
            "voltage_gain": self.voltage_gain,
            "certified": self.uncertainty,
        }

    def save(self, path: str | Path) -> None:
        """Write the certificate to `path` as JSON."""
        files.write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")


def fit_certificate(
    *,
    board: str,
    shunt_ohm: float,
    reference_a: float,
    measured_a: float,
    instrument: str,
    date: str,
    idle_a: tuple[float, float] | None = None,
    voltage_v: tuple[float, float] | None = None,
    instrument_share: float = 0.005,
    serial: str = "",
    temperature_c: float | None = None,
    expires: str | None = None,
) -> ShuntCertificate:
    """The certificate that corrects `measured_a` to `reference_a`, and with a second point the offset, too.

    `idle_a` and `voltage_v` are pairs of reference and reading, at idle and of the bus voltage. `instrument_share` is
    the accuracy of the reference, as a share. With one current the offset that the chip may have counts as uncertainty.

    Raises: InputError if the two are more than 10 % apart: then it is the wrong shunt, not its tolerance; or if
    the two currents are too close to tell gain from offset.

    >>> record = fit_certificate(board="no. 1", shunt_ohm=0.1, reference_a=1.01, measured_a=1.0, idle_a=(0.508, 0.5),
    ...                          instrument="bench meter", date="2025-01-01")
    >>> round(record.gain, 4), round(record.offset_a, 4), record.uncertainty
    (1.004, 0.006, 0.005)
    """
    for reference, measured in ((reference_a, measured_a), *((idle_a,) if idle_a is not None else ())):
        if not (reference > 0 and measured > 0 and math.isclose(reference, measured, rel_tol=0.1)):
            raise InputError(
                f"the reference shows {reference!r} A and the meter {measured!r} A, more than 10 % apart: "
                f"the shunt is not {shunt_ohm!r} ohm, read its marking (R100 is 0.1)"
            )
    gain, offset_a = reference_a / measured_a, 0.0
    uncertainty = instrument_share + _LARGEST_OFFSET_V / shunt_ohm / measured_a
    if idle_a is not None:
        if not measured_a >= 1.2 * idle_a[1]:
            raise InputError(
                f"{idle_a[1]!r} and {measured_a!r} A are too close to tell gain from offset: load the board more"
            )
        gain = (reference_a - idle_a[0]) / (measured_a - idle_a[1])
        offset_a, uncertainty = reference_a - gain * measured_a, instrument_share
    return ShuntCertificate(
        board=board,
        shunt_ohm=shunt_ohm,
        gain=gain,
        reference_a=reference_a,
        measured_a=measured_a,
        instrument=instrument,
        date=date,
        idle_reference_a=None if idle_a is None else idle_a[0],
        idle_measured_a=None if idle_a is None else idle_a[1],
        offset_a=offset_a,
        voltage_gain=1.0 if voltage_v is None else voltage_v[0] / voltage_v[1],
        uncertainty=uncertainty,
        serial=serial,
        temperature_c=temperature_c,
        expires=expires,
    )


def load_certificate(path: str | Path, today: str | None = None) -> ShuntCertificate:
    """The certificate in a file; `today` is a date such as 2027-01-31, by default that of the computer.

    Raises: CalibrationError if the file is not there, not a certificate, has expired, or its gains are not near 1.
    """
    cure = "make one as calibration/README.md says"
    certificate = read_record(ShuntCertificate, path, CalibrationError, cure)
    gains = (certificate.gain, certificate.voltage_gain)
    if not (certificate.shunt_ohm > 0 and all(0.9 <= gain <= 1.12 for gain in gains)):
        raise CalibrationError(
            f"{path}: shunt_ohm={certificate.shunt_ohm!r}, gain={certificate.gain!r}, "
            f"voltage_gain={certificate.voltage_gain!r}; {cure}"
        )
    if certificate.expires is not None:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", certificate.expires):
            raise CalibrationError(f"{path}: expires={certificate.expires!r} is no date such as 2027-01-31; {cure}")
        if certificate.expires < (today or current_date()):
            raise CalibrationError(f"{path}: expired on {certificate.expires}: calibrate the board again")
    return certificate


def calibrated(certificate: str | Path | None, shunt_ohm: float | None, default_ohm: float) -> dict[str, float | None]:
    """The shunt of a meter board and what corrects its readings, by their names in the settings of a chip.

    Raises: CalibrationError as `load_certificate` does, InputError if certificate and `shunt_ohm` disagree.
    """
    if certificate is None:
        return {"shunt_ohm": default_ohm if shunt_ohm is None else shunt_ohm}
    record = load_certificate(certificate)
    return {"shunt_ohm": record.checked_shunt(shunt_ohm)} | record.corrections


def data_sheet_accuracy(
    sheet: str, gain: float, voltage: float, offset_w: float, certified: float | None, shunt: str = ""
) -> MeterAccuracy:
    """The largest errors of a chip and its shunt by the data `sheet`, which with `shunt` is their source.

    With a certificate gain and shunt are as accurate as that, the share `certified`.
    """
    if certified is not None:
        return MeterAccuracy(f"shunt certificate, {sheet}", certified, 0.0, voltage, offset_w)
    return MeterAccuracy(sheet + shunt, _SHUNT_TOLERANCE, gain, voltage, offset_w)
