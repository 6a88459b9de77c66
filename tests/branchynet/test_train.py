"""The study from images to its tables, on a run too short to learn anything; nothing of the other scripts is needed."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "branchynet" / "train.py"


@pytest.fixture
def images(tmp_path):
    """Two classes of ten pictures of noise each."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(10):
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def test_one_epoch_ends_in_tables_and_a_second_run_trains_no_more(images, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main, out = runpy.run_path(str(SCRIPT))["main"], tmp_path / "out"
    arguments = ["--data", str(images), "--out", str(out), "--epochs", "1", "--batch-size", "8"]
    main(arguments, standalone_mode=False)
    said = capsys.readouterr().out
    assert said.startswith("joint, epoch 1: ") and "the published sign: unsure images leave" in said
    assert "0.900    not reached" in said
    assert {path.name for path in out.iterdir()} >= {"branchynet.pt", "study.txt", "cutoffs.png", "desired.png"}
    main(arguments, standalone_mode=False)
    assert "joint, epoch 1" not in capsys.readouterr().out


def test_it_borrows_nothing_from_another_script():
    others = {path.stem for path in SCRIPT.parents[1].glob("embedded/*.py")}
    for path in SCRIPT.parent.glob("*.py"):
        lines = [line.split() for line in path.read_text().splitlines() if line.startswith(("from ", "import "))]
        assert not others & {words[1] for words in lines}
