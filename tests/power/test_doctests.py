"""The examples in the docstrings of this room and of the board are true."""

import doctest
import importlib
import pkgutil

import pytest

import pi_dynn.power

MODULES = sorted(
    ["pi_dynn.board", *(module.name for module in pkgutil.walk_packages(pi_dynn.power.__path__, "pi_dynn.power."))]
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    with_examples = {name for name in MODULES if doctest.testmod(importlib.import_module(name)).attempted}
    assert {
        "pi_dynn.board",
        "pi_dynn.power.energy",
        "pi_dynn.power.integrate",
        "pi_dynn.power.ina.smbus",
    } <= with_examples
