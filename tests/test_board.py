"""Board snapshots from the file trees of five boards, and the changes between two that invalidate a run."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pi_dynn.board import (
    BoardSnapshot,
    advice,
    core_name,
    decode_throttle,
    instruction_sets,
    invalidating_changes,
    read_throttle,
    take_snapshot,
)

BOARDS = json.loads((Path(__file__).parent / "power" / "boards.json").read_text(encoding="utf-8"))


def no_command(command):
    raise FileNotFoundError(2, command[0])


@pytest.fixture
def lay_out(tmp_path):
    def write(board):
        for name, text in BOARDS[board].items():
            path = tmp_path / board / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / board

    return write


def snapshot_of(root, run=no_command, load_percent=3.0):
    return take_snapshot(root, run, lambda: load_percent)


@pytest.mark.parametrize(
    ("board", "expected"),
    [
        ("pi4", ("Raspberry Pi 4 Model B Rev 1.4", 4, "ondemand", 600e6, 1500e6, 47.712, 0x50000)),
        ("pi5", ("Raspberry Pi 5 Model B Rev 1.0", 4, "performance", 2400e6, 2400e6, 52.35, 0)),
        ("orin_nano", ("NVIDIA Jetson Orin Nano Developer Kit", 6, "schedutil", 1344e6, 1510.4e6, 49.343, None)),
        ("agx_orin", ("Jetson AGX Orin", 11, "performance+schedutil", 2201.6e6, 2201.6e6, 51.5, None)),
        ("laptop", ("LENOVO 21HM", 8, "powersave", 1100e6, 4700e6, 61.0, None)),
    ],
)
def test_each_board_by_its_files(lay_out, board, expected):
    snapshot = snapshot_of(lay_out(board))
    assert (snapshot.model, snapshot.cores, snapshot.governor) == expected[:3]
    assert (snapshot.frequency_hz, snapshot.frequency_max_hz, snapshot.temperature_c) == pytest.approx(expected[3:6])
    assert snapshot.throttle_bits == expected[6]


@pytest.mark.parametrize(
    ("parts", "core"),
    [
        (("0xd08",) * 4, "Cortex-A72"),
        (("0xd03", "0xd0b"), "Cortex-A76"),
        (("0xfff",), None),
        (("x",), None),
        ((), None),
    ],
)
def test_core_by_its_part_number(tmp_path, parts, core):
    (tmp_path / "proc").mkdir()
    lines = [f"processor\t: {i}\nCPU part\t: {part}\n" for i, part in enumerate(parts)]
    (tmp_path / "proc/cpuinfo").write_text("\n".join(lines))
    assert core_name(tmp_path) == core == snapshot_of(tmp_path).core


def test_instruction_sets_of_the_first_core(tmp_path):
    assert instruction_sets(tmp_path) == frozenset()
    (tmp_path / "proc").mkdir()
    for name in ("flags", "Features"):
        (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{name}\t\t: fp asimd\n\n{name}\t: other\n")
        assert instruction_sets(tmp_path) == {"fp", "asimd"}


def test_a_board_without_any_file(tmp_path):
    snapshot = snapshot_of(tmp_path)
    assert snapshot.model == snapshot.machine
    assert snapshot.cores >= 1
    names = ("governor", "frequency_hz", "temperature_c", "throttle_bits", "throttle")
    assert [getattr(snapshot, name) for name in names] == [None] * 5
    assert snapshot.memory_total_bytes >= snapshot.memory_available_bytes > 0


def test_files_that_hold_no_number(lay_out):
    root = lay_out("pi4")
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("hot")
    (root / "sys/devices/system/cpu/online").write_text("all")
    (root / "proc/device-tree/model").write_bytes(b"\xff\xfe")
    snapshot = snapshot_of(root)
    assert snapshot.temperature_c is None
    assert snapshot.cores >= 1
    assert snapshot.model == snapshot.machine


def test_a_snapshot_survives_json(lay_out):
    snapshot = snapshot_of(lay_out("pi4"))
    assert BoardSnapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot


# Throttle bits


@pytest.mark.parametrize(
    ("bits", "now", "since_boot"),
    [
        (0x0, (), ()),
        (0x1, ("under-voltage",), ()),
        (0x2, ("frequency capped",), ()),
        (0x8, ("soft temperature limit",), ()),
        (0x50000, (), ("under-voltage", "throttled")),
        (0x50005, ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        (0xA0000, (), ("frequency capped", "soft temperature limit")),
    ],
)
def test_throttle_bits_in_words(bits, now, since_boot):
    assert decode_throttle(bits) == (now, since_boot)


def test_throttle_from_the_file_the_firmware_or_the_alarm(lay_out, tmp_path):
    def firmware(command):
        assert tuple(command) == ("vcgencmd", "get_throttled")
        return "throttled=0x50005\n"

    assert read_throttle(lay_out("pi4"), firmware) == 0x50000  # the file comes first
    assert read_throttle(tmp_path / "empty", firmware) == 0x50005
    root = lay_out("pi5")
    assert read_throttle(root, firmware) == 0x50005
    (root / "sys/class/hwmon/hwmon2/in0_lcrit_alarm").write_text("1\n")
    assert read_throttle(root, no_command) == 1
    assert read_throttle(root, None) == 1
    assert read_throttle(tmp_path / "empty", None) is None


@pytest.mark.parametrize(
    "run",
    [
        no_command,
        lambda command: "VCHI initialization failed\n",
        lambda command: (_ for _ in ()).throw(subprocess.TimeoutExpired(command, 2)),
        lambda command: (_ for _ in ()).throw(subprocess.CalledProcessError(1, command)),
    ],
)
def test_a_firmware_that_does_not_answer(tmp_path, run):
    assert read_throttle(tmp_path, run) is None


# Two snapshots


@pytest.fixture
def before(lay_out):
    return snapshot_of(lay_out("pi4"))


def test_nothing_changed_nothing_is_invalid(before):
    warmer = replace(before, temperature_c=60.0, load_average=4.0, frequency_hz=1500e6)
    assert invalidating_changes(before, warmer) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"throttle_bits": 0x50005}, "throttle state changed (0x50000 to 0x50005)"),
        ({"throttle_bits": None}, "throttle state changed (0x50000 to unknown)"),
        ({"governor": "performance"}, "the governor changed from ondemand to performance"),
    ],
)
def test_changes_that_make_a_run_invalid(before, changes, words):
    assert invalidating_changes(before, replace(before, **changes)) == (words,)


def test_throttled_all_along(before):
    throttled = replace(before, throttle_bits=0x50005)
    assert invalidating_changes(throttled, throttled) == ("throttled throughout: under-voltage, throttled",)


def test_advice_has_a_cure_for_each_trouble(before):
    fine = replace(before, governor="performance", throttle_bits=0)
    assert advice(fine) == ()
    assert advice(replace(fine, governor=None, throttle_bits=None, temperature_c=None)) == ()
    assert advice(before)[0] == "governor is ondemand: sudo cpufreq-set -g performance"
    assert "reboot" in advice(replace(fine, throttle_bits=0x50000))[0]
    assert "5.1 V supply" in advice(replace(fine, throttle_bits=0x1))[0]
    assert "81 C" in advice(replace(fine, temperature_c=81.2))[0]
    assert "close them" in advice(replace(fine, other_load_percent=55.0))[0]


def test_this_machine():
    snapshot = take_snapshot(utilisation_percent=lambda: 0.0)
    assert snapshot.model
    assert snapshot.cores >= 1
