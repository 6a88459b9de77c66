"""scripts/fit_torchvision.sh, with a Python that stands in for an environment."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "fit_torchvision.sh"
STAND_IN = """#!/usr/bin/env bash
case "$*" in
  *importlib.metadata*) cat versions ;;
  *"import torchvision"*)
    [ -f fits ] && exit 0
    echo "RuntimeError: operator torchvision::nms does not exist" >&2
    exit 1 ;;
  "-m pip "*)
    echo "$*" > asked
    [ -f offline ] && exit 1
    echo "2.13.0+cpu 0.28.0+cpu" > versions
    [ -f wrong ] || touch fits ;;
esac
"""


@pytest.fixture
def fit(tmp_path):
    """Run the script where these marks are set; returns what it prints."""
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "versions").write_text("2.13.0+cpu 0.28.0\n")

    def run(*marks: str) -> str:
        for mark in marks:
            (tmp_path / mark).touch()
        done = subprocess.run([SCRIPT, "./python"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_pair_that_fits_is_left_alone(fit, tmp_path):
    assert fit("fits") == "torchvision 0.28.0 loads beside torch 2.13.0+cpu\n"
    assert not (tmp_path / "asked").exists()


def test_one_that_does_not_fit_is_replaced_by_that_of_the_build(fit, tmp_path):
    out = fit()
    assert "does not load beside torch 2.13.0+cpu (RuntimeError: operator torchvision::nms does not exist)" in out
    assert out.endswith("replaced: torchvision 0.28.0+cpu loads beside torch 2.13.0+cpu\n")
    asked = (tmp_path / "asked").read_text()
    assert "--no-deps" in asked and "--index-url https://download.pytorch.org/whl/cpu torchvision==0.28.*" in asked


@pytest.mark.parametrize("mark", ["offline", "wrong"])
def test_where_there_is_none_it_says_so_and_ends_well(fit, mark):
    out = fit(mark)
    assert "none that fits can be had here" in out and "./python -m pip install" in out


def test_the_build_of_torch_names_the_index(fit, tmp_path):
    (tmp_path / "versions").write_text("2.9.1+cu126 0.24.0\n")
    fit()
    assert "whl/cu126 torchvision==0.24.*" in (tmp_path / "asked").read_text()
