"""Shunt certificates: one comparison with an ammeter, written down and used."""

import json

import pytest

from pi_dynn.errors import CalibrationError, InputError
from pi_dynn.power.certificate import ShuntCertificate, fit_certificate, load_certificate
from pi_dynn.power.fake import Constant, FakeBus, Ina219Chip
from pi_dynn.power.ina.ina219 import Ina219, settings_for

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


def test_two_points_tell_the_offset_from_the_gain(clock, tmp_path, next_sample):
    def meter_with(load_w, certificate=None):
        chip = Ina219Chip(clock, Constant(load_w), gain_error=0.004, offset_v=2e-4, voltage_error=-0.003)
        return Ina219(FakeBus(chip, clock), clock, settings_for(shunt_ohm=None, certificate=certificate))

    idle, loaded = next_sample(meter_with(2.04)), next_sample(meter_with(6.12))  # 0.4 and 1.2 A at 5.1 V
    points = {"reference_a": 1.2, "measured_a": loaded.current_a, "idle_a": (0.4, idle.current_a)}
    record = fit_certificate(shunt_ohm=0.1, voltage_v=(5.1, loaded.voltage_v), serial="A7", **points, **ABOUT)
    assert record.gain == pytest.approx(1 / 1.004, rel=1e-3)
    assert record.offset_a == pytest.approx(-2e-3, rel=0.1)
    record.save(tmp_path / "two.json")
    meter = meter_with(4.08, tmp_path / "two.json")
    sample = next_sample(meter)
    assert (sample.current_a, sample.voltage_v) == pytest.approx((0.8, 5.1), rel=1e-3)
    assert meter.info.accuracy.shunt == record.uncertainty == 0.005
    assert meter.info.accuracy.gain == 0.0


def test_one_point_leaves_the_offset_to_the_uncertainty():
    record = fit_certificate(shunt_ohm=0.1, reference_a=0.43, measured_a=0.43, instrument_share=0.001, **ABOUT)
    assert record.uncertainty == pytest.approx(0.001 + 2e-3 / 0.43)


def test_two_currents_too_close_to_each_other():
    with pytest.raises(InputError, match="too close to tell gain from offset"):
        fit_certificate(shunt_ohm=0.1, reference_a=1.0, measured_a=1.0, idle_a=(0.95, 0.95), **ABOUT)


def test_an_expired_certificate_is_refused(tmp_path):
    record = fit_certificate(shunt_ohm=0.1, reference_a=1.0, measured_a=1.0, expires="2026-01-31", **ABOUT)
    record.save(tmp_path / "c.json")
    assert load_certificate(tmp_path / "c.json", today="2026-01-31") == record
    with pytest.raises(CalibrationError, match="expired on 2026-01-31"):
        load_certificate(tmp_path / "c.json", today="2026-02-01")
    (tmp_path / "c.json").write_text(json.dumps({**record.to_dict(), "expires": "soon"}))
    with pytest.raises(CalibrationError, match="'soon' is no date"):
        load_certificate(tmp_path / "c.json")


def test_how_far_apart_two_currents_have_to_be_is_by_the_meter():
    fit_certificate(shunt_ohm=0.1, reference_a=1.2, measured_a=1.15, idle_a=(1.0, 0.95), **ABOUT)
    with pytest.raises(InputError, match="too close"):
        fit_certificate(shunt_ohm=0.1, reference_a=1.2, measured_a=1.13, idle_a=(1.0, 0.95), **ABOUT)
