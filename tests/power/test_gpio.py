"""The GPIO line, on a stand-in for gpiod."""

import sys
from types import SimpleNamespace

import pytest

from pi_dynn.errors import InputError
from pi_dynn.power.gpio import trial_line


@pytest.fixture
def lines(monkeypatch):
    """What was done to the lines of a chip, as a stand-in for gpiod notes it."""
    done = []

    class Request:
        def __init__(self, chip, consumer, config):
            if chip != "/dev/gpiochip0":
                raise FileNotFoundError(2, "No such file or directory")
            done.append(("requested", consumer, sorted(config)))

        def set_value(self, line, value):
            done.append((line, value))

        def release(self):
            done.append("released")

    values = SimpleNamespace(ACTIVE="high", INACTIVE="low")
    line = SimpleNamespace(Direction=SimpleNamespace(OUTPUT="output"), Value=values)
    gpiod = SimpleNamespace(
        line=line,
        LineSettings=lambda direction, output_value: (direction, output_value),
        request_lines=lambda chip, consumer, config: Request(chip, consumer, config),
    )
    monkeypatch.setitem(sys.modules, "gpiod", gpiod)
    monkeypatch.setitem(sys.modules, "gpiod.line", line)
    return done


def test_the_line_follows_and_ends_low(lines):
    with pytest.raises(KeyboardInterrupt), trial_line("/dev/gpiochip0:17") as edge:
        edge(True)
        edge(False)
        edge(True)
        raise KeyboardInterrupt
    assert lines == [("requested", "pi_dynn", [17]), (17, "high"), (17, "low"), (17, "high"), (17, "low"), "released"]


@pytest.mark.parametrize(
    ("place", "why"), [("17", "no GPIO line"), ("/dev/gpiochip0:x", "no GPIO line"), ("/dev/gpiochip9:1", "gpioinfo")]
)
def test_lines_that_are_none(lines, place, why):
    with pytest.raises(InputError, match=why), trial_line(place):
        pass


def test_without_the_library_it_says_which_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(InputError, match=r"\[gpio\]'"), trial_line("/dev/gpiochip0:17"):
        pass
