"""Opening by name: laziness, auto, and what is never chosen by itself."""

import subprocess
import sys

import pytest

from pi_dynn.errors import InputError, MeterNotFound
from pi_dynn.power import meter_names, open_meter
from pi_dynn.power.opening import _AUTO_ORDER


def no_firmware(command):
    raise FileNotFoundError(2, "vcgencmd")


def test_every_name_of_the_contract():
    assert set(meter_names()) == {
        "ina219", "ina226", "ina228", "ina260", "pi-ina219", "hwmon", "iio", "rapl", "pmic", "estimate", "external",
        "tcp", "replay", "fake", "auto",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("board", "name", "rails"),
    [
        ("pi4", "hwmon", ("ina219",)),
        ("orin_nano", "hwmon", ("VDD_IN",)),
        ("agx_orin", "hwmon", ("VDD_GPU_SOC", "VDD_CPU_CV")),
        ("laptop", "rapl", ("package-0",)),
    ],
)
def test_auto_finds_the_meter_of_each_board(lay_out, board, name, rails):
    with open_meter("auto", root=lay_out(board), run=no_firmware, require=True) as meter:
        assert (meter.info.name, meter.info.rails) == (name, rails)


def test_auto_on_a_pi_5(lay_out, pi5_firmware):
    with open_meter("auto", root=lay_out("pi5"), run=pi5_firmware, require=True) as meter:
        assert meter.info.name == "pmic"


def test_auto_without_a_meter_estimates(tmp_path):
    with open_meter("auto", root=tmp_path, run=no_firmware) as meter:
        assert (meter.info.name, meter.info.label) == ("estimate", "ESTIMATED")


def test_a_required_meter_that_is_not_there(tmp_path):
    with pytest.raises(MeterNotFound) as caught:
        open_meter("auto", root=tmp_path, run=no_firmware, require=True)
    said = str(caught.value)
    assert all(name in said for name in _AUTO_ORDER) and said.count("i2c-1: enable I2C") == 1
    assert "\n" not in said


def test_a_fake_is_no_required_meter(clock):
    with pytest.raises(MeterNotFound, match="SIMULATED"):
        open_meter("fake", clock=clock, require=True)


def test_auto_never_tries_a_fake_or_a_replay():
    assert not {"fake", "replay", "estimate"} & set(_AUTO_ORDER)


def test_auto_passes_options_to_those_who_know_them(lay_out):
    root = lay_out("pi4")
    (root / "sys/class/hwmon/hwmon10/shunt_resistor").write_text("10000\n")
    with open_meter("auto", root=root, run=no_firmware, shunt_ohm=0.1) as meter:
        assert (meter.info.name, meter.info.shunt_ohm) == ("hwmon", 0.1)


def test_auto_drops_no_option(lay_out, tmp_path):
    with pytest.raises(MeterNotFound, match="hwmon, .*: takes no max_current_a"):
        open_meter("auto", root=lay_out("pi4"), run=no_firmware, max_current_a=2.0)
    with pytest.raises(MeterNotFound, match="rapl, .*: takes no address"):
        open_meter("auto", root=tmp_path, run=no_firmware, address=0x41)  # and no estimate in its place


@pytest.mark.parametrize("spec", ["ina225", "", "fake:x", "ina219:1", "replay:", "tcp://"])
def test_unknown_names(spec):
    with pytest.raises(InputError, match="choose one of ina219"):
        open_meter(spec)


def test_unknown_options():
    with pytest.raises(InputError, match="'estimate' has no option 'shunt_ohm': it takes none"):
        open_meter("estimate", shunt_ohm=0.1)
    with pytest.raises(InputError, match="no option 'adress'.*address"):
        open_meter("ina219", adress=0x41)


def test_importing_needs_no_bus_no_linux_and_no_torch():
    """On any system, warnings being errors, and with fcntl, smbus2 and torch out of reach."""
    program = (
        "import sys\n"
        "for name in ('torch', 'fcntl', 'smbus2', 'ina219', 'Adafruit_GPIO'): sys.modules[name] = None\n"
        "import pi_dynn.power, pi_dynn.board, pi_dynn.stats\n"
        "backends = {'ina219', 'pi_ina219', 'hwmon', 'rapl', 'pmic', 'estimate', 'replay', 'fake', 'smbus'}\n"
        "loaded = {name.rpartition('.')[2] for name in sys.modules if name.startswith('pi_dynn.power.')}\n"
        "assert not backends & loaded, backends & loaded\n"
        "pi_dynn.power.open_meter('auto', root='/nowhere').close()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
