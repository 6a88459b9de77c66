"""A part of benchmarks/mutated_bundles.py, whose 10,000 take a minute."""

import random

import pytest
import torch

from benchmarks.mutated_bundles import Outcomes, answer_of, judge, lying, mutated, small_bundle
from pi_dynn.errors import BundleError
from pi_dynn.runtime.archive import MANIFEST_FILE, packed, plain_files
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.info import bundle_info
from pi_dynn.runtime.session import Session


@pytest.fixture(scope="module")
def bundle():
    return small_bundle()


def test_a_changed_bundle_is_refused_or_answers_the_same(bundle, tmp_path):
    rng, outcomes, x, path = random.Random(1), Outcomes(), torch.rand(3, 28, 28), tmp_path / "bundle.pt"
    bundle.save(path)
    data, expected = path.read_bytes(), answer_of(bundle, x)
    for number in range(200):
        judge(outcomes, path, mutated(data, rng), lambda path: answer_of(load_bundle(path), x), expected, str(number))
    assert outcomes.wrong == []
    assert outcomes.counts["refused"] > 100


def test_a_lying_manifest_is_refused_in_a_line_or_believed(bundle, tmp_path):
    import json

    rng, outcomes, x, path = random.Random(2), Outcomes(), torch.rand(3, 28, 28), tmp_path / "bundle.pt"
    bundle.save(path)
    files = plain_files(path.read_bytes())
    manifest = json.loads(files[MANIFEST_FILE])
    for number in range(100):
        content = packed({**files, MANIFEST_FILE: json.dumps(lying(manifest, rng)).encode()})
        for use in (lambda path: answer_of(load_bundle(path), x), bundle_info):
            judge(outcomes, path, content, use, None, str(number))
    assert outcomes.wrong == []


def test_a_size_that_the_network_does_not_take_is_one_line(bundle, tmp_path):
    small = bundle.manifest.preprocess.to_dict() | {"size": 1}
    lied = bundle.with_manifest(preprocess=type(bundle.manifest.preprocess).from_dict(small))
    with pytest.raises(BundleError, match="images of 1 px that its manifest promises .*: export it again") as caught:
        Session(lied, threads=1, engine="fp32")
    assert "\n" not in str(caught.value)
