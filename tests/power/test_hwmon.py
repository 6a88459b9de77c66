"""Chips behind a kernel driver, from the file trees of real boards."""

import pytest

from pi_dynn.errors import InputError, MeterBusError, MeterDenied, MeterNotFound, PowerError
from pi_dynn.power import SampleFlags, open_meter


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
