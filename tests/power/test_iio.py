"""Chips behind IIO drivers, from the file trees of real boards."""

import pytest

from pi_dynn.errors import MeterAmbiguous, MeterBusError, MeterNotFound
from pi_dynn.power import SampleFlags, open_meter


@pytest.fixture
def tree(tmp_path):
    """Write files below a folder of its own; returns the folder."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return write


def ina2xx(number=0, name="ina219", current="6120"):
    device = f"sys/bus/iio/devices/iio:device{number}"
    return {
        f"{device}/name": name,
        f"{device}/in_voltage1_raw": "1270",
        f"{device}/in_voltage1_scale": "4.000000",
        f"{device}/in_current3_raw": current,
        f"{device}/in_current3_scale": "0.100000",
        f"{device}/in_shunt_resistor": "0.100000",
    }


JETPACK_4 = {
    f"sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/{name}": text
    for name, text in {
        "rail_name_0": "POM_5V_GPU",
        "in_voltage0_input": "5032",
        "in_current0_input": "104",
        "rail_name_1": "POM_5V_IN",
        "in_voltage1_input": "5032",
        "in_current1_input": "952",
        "rail_name_2": "NC",
    }.items()
}


def test_ina219_of_a_pi(tree, clock):
    with open_meter("iio", root=tree(ina2xx()), clock=clock) as meter:
        sample = meter.read()
        assert (sample.voltage_v, sample.current_a) == pytest.approx((5.08, 0.612))
        assert sample.power_w == pytest.approx(5.08 * 0.612)
        assert (meter.info.name, meter.info.scope, meter.info.rails) == ("iio", "board input", ("ina219",))
        assert meter.info.shunt_ohm == 0.1
        assert meter.info.accuracy.shunt == 0.01
        assert meter.read() is None


def test_the_total_of_a_jetson_with_jetpack_4(tree, clock):
    root = tree(JETPACK_4)
    with open_meter("auto", root=root, clock=clock, run=None) as meter:
        assert meter.read().power_w == pytest.approx(5.032 * 0.952)
        assert (meter.info.name, meter.info.scope) == ("iio", "module input")
    part = open_meter("iio", root=root, clock=clock, rails=["POM_5V_GPU"])
    assert part.read().power_w == pytest.approx(5.032 * 0.104)
    assert "not the whole board" in part.info.scope
    assert "POM_5V_IN" in part.info.notes[0]


def test_of_two_chips_none_is_taken_by_itself(tree, clock):
    root = tree({**ina2xx(), **ina2xx(1, "ina226")})
    with pytest.raises(MeterAmbiguous, match="ina219, ina226 2: name some of them with --rail"):
        open_meter("iio", root=root)
    assert open_meter("iio", root=root, clock=clock, rails=["ina226 2"]).info.rails == ("ina226 2",)
    with pytest.raises(MeterNotFound, match="not nothing"):
        open_meter("iio", root=root, rails=["nothing"])


def test_clipping_and_nonsense(tree, clock):
    root = tree(ina2xx(current="32000"))
    meter = open_meter("iio", root=root, clock=clock)
    assert meter.read().flags == SampleFlags.CLIPPED
    (root / "sys/bus/iio/devices/iio:device0/in_voltage1_scale").write_text("much\n")
    clock.advance(1.0)
    with pytest.raises(MeterBusError, match="the scale 'much'"):
        meter.read()


def test_a_board_without_such_a_chip(tmp_path):
    with pytest.raises(MeterNotFound, match="no ina2xx or ina3221x"):
        open_meter("iio", root=tmp_path)


@pytest.mark.parametrize(("current", "flag"), [("6120", SampleFlags.NONE), ("32000", SampleFlags.CLIPPED)])
def test_a_current_at_the_end_of_the_range_is_clipped(tree, clock, current, flag):
    """3.2 A over 0.1 ohm are the 320 mV that the chip takes."""
    with open_meter("iio", root=tree(ina2xx(current=current)), clock=clock) as meter:
        assert meter.read().flags == flag
