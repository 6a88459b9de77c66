"""Chips behind a kernel driver, from the file trees of real boards."""

import numpy as np
import pytest

from pi_dynn.errors import InputError, MeterAmbiguous, MeterBusError, MeterDenied, MeterNotFound, PowerError
from pi_dynn.power import SampleFlags, SteppedSampler, open_meter
from pi_dynn.power.certificate import ShuntCertificate


def test_ina219_behind_the_kernel_on_a_pi(lay_out, clock):
    with open_meter("hwmon", root=lay_out("pi4"), clock=clock) as meter:
        reading = meter.read()
    assert (reading.power_w, reading.voltage_v, reading.current_a) == pytest.approx((3.108, 5.08, 0.612))
    assert reading.flags == SampleFlags.NONE
    assert (meter.info.scope, meter.info.rails, meter.info.shunt_ohm) == ("board input", ("ina219",), 0.1)


def test_the_drivers_default_shunt_is_not_believed(lay_out):
    root = lay_out("pi4")
    (root / "sys/class/hwmon/hwmon10/shunt_resistor").write_text("10000\n")
    with pytest.raises(PowerError, match="10 times too high.*shunt_ohm"):
        open_meter("hwmon", root=root)


def test_a_shunt_the_kernel_does_not_know_is_put_right(lay_out, clock):
    root = lay_out("pi4")
    chip = root / "sys/class/hwmon/hwmon10"
    (chip / "shunt_resistor").write_text("10000\n")  # so an R100 board reads ten times too much
    (chip / "curr1_input").write_text("6120\n")
    (chip / "power1_input").write_text("31080000\n")
    reading = open_meter("hwmon", root=root, clock=clock, shunt_ohm=0.1).read()
    assert (reading.power_w, reading.current_a) == pytest.approx((3.108, 0.612))
    correct = open_meter("hwmon", root=root, clock=clock, shunt_ohm=0.01).read()
    assert correct.power_w == pytest.approx(31.08)


def test_a_clipped_current_is_flagged(lay_out, clock):
    root = lay_out("pi4")
    meter = open_meter("hwmon", root=root, clock=clock)
    (root / "sys/class/hwmon/hwmon10/curr1_input").write_text("3200\n")
    assert meter.read().flags == SampleFlags.CLIPPED


def test_reversed_leads(lay_out, clock):
    root = lay_out("pi4")
    meter = open_meter("hwmon", root=root, clock=clock)
    (root / "sys/class/hwmon/hwmon10/curr1_input").write_text("-610\n")
    assert meter.read().flags & SampleFlags.REVERSED
    with pytest.raises(PowerError, match="backwards"):
        open_meter("hwmon", root=root)


def test_orin_nano_takes_the_module_input(lay_out, clock):
    with open_meter("hwmon", root=lay_out("orin_nano"), clock=clock) as meter:
        reading = meter.read()
    assert reading.power_w == pytest.approx(5.032 * 0.952)
    assert (meter.info.rails, meter.info.scope, meter.info.shunt_ohm) == (("VDD_IN",), "module input", 0.005)
    assert meter.info.resolution_w == pytest.approx(8e-3 * 5.032)  # 40 uV over 5 mohm


def test_agx_orin_has_no_total_and_says_so(lay_out, clock):
    with open_meter("hwmon", root=lay_out("agx_orin"), clock=clock) as meter:
        reading = meter.read()
    assert reading.power_w == pytest.approx(19.072 * (0.220 + 0.080))
    assert reading.voltage_v is None
    assert meter.info.rails == ("VDD_GPU_SOC", "VDD_CPU_CV")
    assert "not the whole board" in meter.info.scope
    assert "VIN_SYS_5V0, VDDQ_VDD2_1V8AO" in meter.info.notes[0]


def test_rails_by_label(lay_out, clock):
    root = lay_out("agx_orin")
    meter = open_meter("hwmon", root=root, clock=clock, rails=["VDDQ_VDD2_1V8AO"])
    assert meter.read().power_w == pytest.approx(4.992 * 0.160)
    with pytest.raises(MeterNotFound, match="VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO, not NC"):
        open_meter("hwmon", root=root, rails=["NC"])  # unconnected channels and sums are no rails


def test_a_disabled_channel_is_no_rail(lay_out):
    root = lay_out("orin_nano")
    (root / "sys/class/hwmon/hwmon3/in1_enable").write_text("0\n")
    with pytest.raises(MeterNotFound, match="VDD_CPU_GPU_CV, VDD_SOC"):
        open_meter("hwmon", root=root)


def test_a_board_without_such_a_chip(lay_out):
    with pytest.raises(MeterNotFound, match="found: cpu_thermal, rp1_adc, rpi_volt"):
        open_meter("hwmon", root=lay_out("pi5"))


def test_options_that_do_not_fit(lay_out):
    root = lay_out("pi4")
    with pytest.raises(InputError, match="more than 0 ohm"):
        open_meter("hwmon", root=root, shunt_ohm=0.0)
    with pytest.raises(InputError, match="one rail"):
        open_meter("hwmon", root=root, rails=["VDD_IN"])


def test_a_chip_that_goes_away_or_talks_nonsense(lay_out, clock):
    root = lay_out("pi4")
    meter = open_meter("hwmon", root=root, clock=clock)
    power = root / "sys/class/hwmon/hwmon10/power1_input"
    power.write_text("n/a\n")
    with pytest.raises(MeterBusError, match="'n/a', not a number"):
        meter.read()
    power.unlink()
    with pytest.raises(MeterNotFound, match="is gone"):
        meter.read()


def test_a_file_only_root_may_read(lay_out, monkeypatch):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied")

    root = lay_out("pi4")
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(MeterDenied, match="chmod a\\+r"):
        open_meter("hwmon", root=root)


@pytest.fixture
def two_chips(lay_out, tmp_path):
    """A Pi with an INA219 at 0x40, of its battery, and an INA226 at 0x41 whose driver averages for 36 ms."""
    root = lay_out("pi4")
    first, second = (root / f"sys/class/hwmon/hwmon{number}" for number in (10, 11))
    second.mkdir()
    for name in ("in1_input", "curr1_input", "power1_input"):
        (second / name).write_text((first / name).read_text())
    for name, text in (("name", "ina226"), ("shunt_resistor", "20000"), ("update_interval", "36"), ("label", "board")):
        (second / name).write_text(text)
    for chip, place in ((first, "1-0040"), (second, "1-0041")):
        device = root / "sys/devices" / place
        device.mkdir(parents=True)
        (chip / "device").symlink_to(device)
    return root


def test_of_two_chips_none_is_taken_by_itself(two_chips):
    with pytest.raises(
        MeterAmbiguous, match="ina219 at 1-0040, board at 1-0041: name one with --i2c-address or --rail"
    ):
        open_meter("hwmon", root=two_chips)
    with pytest.raises(MeterAmbiguous):
        open_meter("auto", root=two_chips)


@pytest.mark.parametrize("choice", [{"address": 0x41}, {"bus": 1, "address": 0x41}, {"rails": ["board"]}])
def test_a_chip_is_chosen_by_address_or_label(two_chips, clock, choice):
    with open_meter("auto", root=two_chips, clock=clock, **choice) as meter:
        assert (meter.info.rails, meter.info.shunt_ohm) == (("board",), 0.02)
    with pytest.raises(MeterNotFound, match="no power chip has that address"):
        open_meter("hwmon", root=two_chips, address=0x47)
    with pytest.raises(MeterNotFound, match="no power chip is labelled nothing"):
        open_meter("hwmon", root=two_chips, rails=["nothing"])


def test_it_reads_no_sooner_than_the_chip_converts_and_at_random_times(two_chips, clock):
    meter = open_meter("hwmon", root=two_chips, clock=clock, address=0x41)
    assert meter.read() is not None
    assert meter.read() is None  # not before the next conversion
    with SteppedSampler(meter, clock) as sampler:
        clock.sleep(20.0)
    steps_s = np.diff(sampler.trace().t_ns) * 1e-9
    assert meter.info.nominal_period_s == pytest.approx(1.5 * 1.1 * 0.036)
    assert steps_s.min() >= 1.1 * 0.036 - 1e-6
    assert steps_s.max() <= 2 * 1.1 * 0.036 + 1e-6
    assert np.std(steps_s) > 0.2 * 0.036
    assert np.mean(steps_s) == pytest.approx(meter.info.nominal_period_s, rel=0.05)


def test_the_accuracy_is_that_of_the_chip_or_its_certificate(two_chips, clock, tmp_path):
    with open_meter("hwmon", root=two_chips, clock=clock, address=0x41) as meter:
        assert (meter.info.accuracy.shunt, meter.info.accuracy.gain) == (0.01, 0.001)
        assert meter.info.range_a == pytest.approx(0.08192 / 0.02)
    ShuntCertificate("no. 1", 0.1, 1.01, 1.01, 1.0, "meter", "2025-01-31", offset_a=0.002, uncertainty=0.003).save(
        tmp_path / "c.json"
    )
    with open_meter("auto", root=two_chips, clock=clock, address=0x40, certificate=tmp_path / "c.json") as meter:
        assert meter.info.accuracy.shunt == 0.003
        assert meter.read().current_a == pytest.approx(0.612 * 1.01 + 0.002)
        assert meter.read() is None


def test_channels_without_labels_are_named_by_their_number(lay_out, clock):
    root = lay_out("orin_nano")
    for channel in (1, 2, 3):
        (root / f"sys/class/hwmon/hwmon3/in{channel}_label").unlink()
    with pytest.raises(MeterNotFound, match="channel 1, channel 2, channel 3"):
        open_meter("hwmon", root=root)
    assert open_meter("hwmon", root=root, clock=clock, rails=["channel 1"]).read().power_w == pytest.approx(
        5.032 * 0.952
    )
