"""Shunt certificates: one comparison with an ammeter, written down and used."""

import json

import pytest

from pi_dynn.errors import CalibrationError, InputError
from pi_dynn.power.certificate import ShuntCertificate, fit_certificate, load_certificate
from pi_dynn.power.fake import Constant, FakeBus, Ina219Chip
from pi_dynn.power.ina219 import Ina219, settings_for

ABOUT = {"board": "no. 3", "instrument": "bench multimeter", "date": "2025-01-31"}


def test_fit_save_load_and_measure(clock, tmp_path, next_sample):
    def meter_with(**options):
        chip = Ina219Chip(clock, Constant(5.1), gain_error=-0.012)  # 1 A
        settings = settings_for(**{"shunt_ohm": None, "certificate": None, **options})
        return Ina219(FakeBus(chip, clock), clock, settings)

    raw_a = next_sample(meter_with()).current_a
    assert raw_a == pytest.approx(0.988)
    record = fit_certificate(shunt_ohm=0.1, reference_a=1.0, measured_a=raw_a, **ABOUT)
    record.save(tmp_path / "no3.json")
    assert load_certificate(tmp_path / "no3.json") == record
    meter = meter_with(certificate=tmp_path / "no3.json")
    assert next_sample(meter).current_a == pytest.approx(1.0, rel=1e-9)
    assert (meter.info.shunt_ohm, meter.info.gain) == (0.1, record.gain)  # both travel with every figure


@pytest.mark.parametrize("measured_a", [0.5, 1.2, 0.0, -1.0])
def test_the_wrong_shunt_is_no_tolerance(measured_a):
    with pytest.raises(InputError, match="read its marking"):
        fit_certificate(shunt_ohm=0.1, reference_a=1.0, measured_a=measured_a, **ABOUT)


def test_a_certificate_of_another_shunt(tmp_path):
    record = ShuntCertificate("no. 3", 0.02, 1.0, 1.0, 1.0, "meter", "2025-01-31")
    record.save(tmp_path / "c.json")
    assert settings_for(shunt_ohm=0.02, certificate=tmp_path / "c.json").shunt_ohm == 0.02
    with pytest.raises(InputError, match="of a 0.02 ohm shunt, not 0.1"):
        settings_for(shunt_ohm=0.1, certificate=tmp_path / "c.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "pi_dynn.shunt/2"}', '{"schema": "pi_dynn.shunt/1", "gain": 1.0}']
)
def test_files_that_are_no_certificate(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CalibrationError, match="calibration/README.md"):
        load_certificate(tmp_path / "c.json")
    with pytest.raises(CalibrationError, match="check the path"):
        load_certificate(tmp_path / "missing.json")


@pytest.mark.parametrize("damage", [{"gain": 2.0}, {"gain": 0.0}, {"shunt_ohm": 0.0}])
def test_a_gain_that_is_no_tolerance_is_refused(tmp_path, damage):
    record = ShuntCertificate("no. 3", 0.1, 1.0, 1.0, 1.0, "meter", "2025-01-31").to_dict()
    (tmp_path / "c.json").write_text(json.dumps({**record, **damage}))
    with pytest.raises(CalibrationError, match="gain"):
        load_certificate(tmp_path / "c.json")
