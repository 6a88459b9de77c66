"""The examples in the docstrings of this room are true."""

import doctest
import importlib
import pkgutil

import pytest

import pi_dynn.calibrate

MODULES = sorted(module.name for module in pkgutil.walk_packages(pi_dynn.calibrate.__path__, "pi_dynn.calibrate."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    with_examples = {name for name in MODULES if doctest.testmod(importlib.import_module(name)).attempted}
    assert {"pi_dynn.calibrate.bounds", "pi_dynn.calibrate.drift"} <= with_examples
