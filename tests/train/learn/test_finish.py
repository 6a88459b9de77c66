"""What `learn` does with a network that it has trained."""

import re
from dataclasses import replace
from importlib import resources

import pytest

from pi_dynn.data.layouts import open_data
from pi_dynn.runtime.archive import SHIPPED
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.train.learn.finish import Built, judge


@pytest.fixture
def scenes(tmp_path):
    """The samples, a folder per class."""
    for sample in (resources.files("pi_dynn.assets") / "samples").iterdir():
        folder = tmp_path / re.sub(r"\d+[.]jpg$", "", sample.name)
        folder.mkdir(exist_ok=True)
        (folder / sample.name).write_bytes(sample.read_bytes())
    return open_data(tmp_path).data


@pytest.mark.parametrize("name", SHIPPED)
def test_the_curve_goes_through_the_bundle_where_the_thresholds_are_its_own(scenes, name):
    bundle = load_bundle(name)
    thresholds = bundle.manifest.thresholds
    known = bundle.manifest.labels
    labels = [known.index(scenes.classes[label]) for label in scenes.labels]
    judged = judge(Built(bundle, [thresholds], None, 1.0), replace(scenes, classes=known, labels=labels))
    (point,) = judged.curve
    assert point.accuracy == judged.evaluation.acc1
    assert point.mean_cost == pytest.approx(judged.evaluation.mean_macs)
