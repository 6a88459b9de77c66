"""The text of `doctor`, compared exactly."""

from pi_dynn.doctor import check_up, doctor_text
from tests.energy.simulated import SimulatedBoard
from tests.golden import assert_golden
from tests.test_doctor import Ina219Only, healthy_pi


def test_a_healthy_pi_is_as_kept():
    assert_golden("doctor.txt", doctor_text(check_up(healthy_pi())))


def test_problems_are_as_kept():
    from pi_dynn.errors import MeterDenied

    sick = healthy_pi(
        snapshot=SimulatedBoard(governor="ondemand", bits=0x50005, celsius=82.0).snapshot,
        open_meter=Ina219Only(MeterDenied("this user may not open /dev/i2c-1: sudo usermod -aG i2c $USER")),
    )
    assert_golden("doctor_problems.txt", doctor_text(check_up(sick)))
