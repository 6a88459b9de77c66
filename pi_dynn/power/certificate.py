"""Shunt certificates: the one-point calibration of a particular meter board.

The shunts of breakout boards are accurate to 1 % and the chip's gain to 0.5 %. One comparison with a
reference ammeter removes most of both errors.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from pi_dynn import files
from pi_dynn.errors import CalibrationError, InputError
from pi_dynn.records import Record, read_record


@dataclass(frozen=True)
class ShuntCertificate(Record):
    """One meter board: its shunt as printed on it, and the gain that its currents are multiplied by."""

    KIND = "shunt certificate"
    SCHEMA = "pi_dynn.shunt/1"

    board: str
    shunt_ohm: float
    gain: float
    reference_a: float
    measured_a: float
    instrument: str
    date: str

    def save(self, path: str | Path) -> None:
        """Write the certificate to `path` as JSON."""
        files.write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")


def fit_certificate(
    *, board: str, shunt_ohm: float, reference_a: float, measured_a: float, instrument: str, date: str
) -> ShuntCertificate:
    """The certificate of a one-point calibration, with the gain that corrects `measured_a` to `reference_a`.

    Raises: InputError if the two are more than 10 % apart: then it is the wrong shunt, not its tolerance.

    >>> fit_certificate(board="no. 1", shunt_ohm=0.1, reference_a=1.01, measured_a=1.0,
    ...                 instrument="bench meter", date="2025-01-01").gain
    1.01
    """
    if not (reference_a > 0 and measured_a > 0 and math.isclose(reference_a, measured_a, rel_tol=0.1)):
        raise InputError(
            f"the reference shows {reference_a!r} A and the meter {measured_a!r} A, more than 10 % apart: "
            f"the shunt is not {shunt_ohm!r} ohm, read its marking (R100 is 0.1)"
        )
    return ShuntCertificate(board, shunt_ohm, reference_a / measured_a, reference_a, measured_a, instrument, date)


def load_certificate(path: str | Path) -> ShuntCertificate:
    """The certificate in a file.

    Raises: CalibrationError if the file is not there, not a certificate, or its gain is not near 1.
    """
    cure = "make one as calibration/README.md says"
    certificate = read_record(ShuntCertificate, path, CalibrationError, cure)
    if not (certificate.shunt_ohm > 0 and 0.9 <= certificate.gain <= 1.12):
        raise CalibrationError(f"{path}: shunt_ohm={certificate.shunt_ohm!r}, gain={certificate.gain!r}; {cure}")
    return certificate
