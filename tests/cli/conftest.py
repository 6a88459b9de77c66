"""The command line as a person uses it, in this process."""

import io
import sys
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from pi_dynn.cli.main import main
from pi_dynn.models import registry
from pi_dynn.models.gfnet import GFNet
from tests.cli.training import TINY


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def pi_dynn(capsys, monkeypatch):
    """Run `pi-dynn` with the given arguments and standard input; one thread, the engine without a choice."""
    monkeypatch.setenv("PI_DYNN_ENGINE", "fp32")

    def run(*arguments, stdin: str | bytes = "") -> Outcome:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), encoding="utf-8"))
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def tiny_network(monkeypatch):
    """A network named "tiny" among those registered."""
    monkeypatch.setitem(registry._BUILDERS, "tiny", lambda **arguments: GFNet(TINY, **arguments))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Noise of three colours, twelve pictures each."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for i in range(12):
            pixels = rng.integers(0, 120, (24, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def other_scenes(tmp_path_factory):
    """Plain pictures of two other classes."""
    folder = tmp_path_factory.mktemp("other")
    for name in ("one", "two"):
        (folder / name).mkdir()
        for i in range(8):
            Image.new("RGB", (16, 16), (i, 0, 99)).save(folder / name / f"{i}.png")
    return folder
