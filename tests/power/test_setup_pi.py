"""The set-up script, on the tree of a Raspberry Pi in a temporary folder."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup_pi.sh"
LINE = "dtparam=i2c_arm=on,i2c_arm_baudrate=400000"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture
def pi(tmp_path):
    root = tmp_path / "root"
    for name, text in {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "boot/firmware/config.txt": "#dtparam=i2c_arm=on\ndtparam=audio=on\n[cm4]\notg_mode=1\n",
        "etc/group": "video:x:44:\ni2c:x:998:other\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def setup(pi, tmp_path):
    """Run the script on the tree; `usermod` is a stand-in that knows only `-aG GROUP USER`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    usermod = tools / "usermod"
    usermod.write_text(
        f'#!/bin/sh\n[ "$1" = -aG ] || exit 9\nsed -i "s/^\\($2:.*:[^:,]*\\)$/\\1,$3/; s/:,/:/" "{pi}/etc/group"\n'
    )
    usermod.chmod(0o755)

    def run(*options):
        return subprocess.run(
            ["bash", str(SCRIPT), "--root", str(pi), "--user", "ada", *options],
            capture_output=True,
            text=True,
            env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        )

    return run


def files_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_sets_up_a_fresh_board_and_says_what_it_did(pi, setup):
    before = (pi / "boot/firmware/config.txt").read_text()
    done = setup()
    assert done.returncode == 0, done.stderr
    config = (pi / "boot/firmware/config.txt").read_text()
    assert config.startswith(before)
    assert config.splitlines()[-3:] == [
        "[all]",  # not only for the board of the section before
        "# pi_dynn: the power meter, fast enough for 209 samples a second",
        LINE,
    ]
    assert (pi / "boot/firmware/config.txt.before-pi_dynn").read_text() == before
    assert (pi / "etc/modules-load.d/pi_dynn.conf").read_text() == "i2c-dev\n"
    assert (pi / "etc/group").read_text() == "video:x:44:ada\ni2c:x:998:other,ada\n"
    assert (pi / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor").read_text() == "performance\n"
    assert (pi / "etc/tmpfiles.d/pi_dynn.conf").read_text().endswith(" performance\n")
    assert done.stdout.count("change: ") == 6
    assert "reboot" in done.stdout


def test_a_second_run_changes_nothing(pi, setup):
    setup()
    before = files_of(pi)
    again = setup()
    assert again.returncode == 0
    assert files_of(pi) == before
    assert "nothing to change" in again.stdout
    assert again.stdout.count("already: ") == 6
    assert "reboot" not in again.stdout


def test_a_dry_run_touches_nothing(pi, setup):
    before = files_of(pi)
    done = setup("--dry-run")
    assert done.returncode == 0, done.stderr
    assert files_of(pi) == before
    assert done.stdout.count("would change: ") == 6
    assert "nothing was touched" in done.stdout


def test_a_later_line_that_undoes_it_is_overruled(pi, setup):
    config = pi / "boot/firmware/config.txt"
    config.write_text(f"{LINE}\ndtparam=i2c_arm=on\ndtparam=i2c_arm_baudrate=100000\n")
    setup()
    assert config.read_text().splitlines()[-1] == LINE
    assert setup().stdout.count("already: ") == 6


def test_the_old_place_of_the_configuration(pi, setup):
    (pi / "boot/firmware/config.txt").rename(pi / "boot/config.txt")
    assert setup().returncode == 0
    assert LINE in (pi / "boot/config.txt").read_text()


def test_the_governor_can_be_given_back(pi, setup):
    setup()
    assert setup("--governor", "ondemand").stdout.count("change: ") == 2
    assert (pi / "sys/devices/system/cpu/cpufreq/policy0/scaling_governor").read_text() == "ondemand\n"


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [(("--frobnicate",), 2, "unknown option '--frobnicate'"), (("--user",), 2, "needs a value"), (("--help",), 0, "")],
)
def test_options(setup, options, status, words):
    done = setup(*options)
    assert done.returncode == status
    assert words in done.stderr


def test_another_computer_is_left_alone(pi, setup):
    (pi / "proc/device-tree/model").write_text("NVIDIA Jetson\0")
    before = files_of(pi)
    done = setup()
    assert done.returncode == 1
    assert "setup_pi: error: this is no Raspberry Pi" in done.stderr
    assert files_of(pi) == before


def test_a_board_without_a_boot_partition(pi, setup):
    (pi / "boot/firmware/config.txt").unlink()
    done = setup()
    assert done.returncode == 1
    assert "is the boot partition mounted?" in done.stderr
