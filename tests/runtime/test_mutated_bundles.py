"""A part of benchmarks/mutated_bundles.py, whose 10,000 take a minute."""

import json
import random

import pytest
import torch

from benchmarks.mutated_bundles import Outcomes, answer_of, judge, lie_in_records, lying, mutated, small_bundle
from pi_dynn.calibrate.records import ExitRow
from pi_dynn.errors import BundleError
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.latency.records import ColdStart, Profile, ProfileStep
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
    rng, outcomes, x, path = random.Random(2), Outcomes(), torch.rand(3, 28, 28), tmp_path / "bundle.pt"
    bundle.save(path)
    files = plain_files(path.read_bytes())
    manifest = json.loads(files[MANIFEST_FILE])
    for number in range(100):
        content = packed({**files, MANIFEST_FILE: json.dumps(lying(manifest, rng)).encode()})
        for use in (lambda path: answer_of(load_bundle(path), x), bundle_info):
            judge(outcomes, path, content, use, None, str(number))
    assert outcomes.wrong == []


def test_a_lying_record_is_refused_in_a_line_or_printed(tmp_path):
    exits = [ExitRow(0, 3, 4, 1.0, 0.75, 7)]
    step = ProfileStep("block", 3, 5, 0.3, 0.06, 0.5, 9, 8, 7, None)
    benchmark = {
        "name": "one",
        "stats": {"rounds": 3, "median": 0.1, "iqr": 0.01},
        "extra_info": {"label": "SIMULATED"},
    }
    documents = {
        "evaluation": Evaluation("ucm", 4, 0, 0.5, 1.0, 0.7, 0.75, 8.5, 9, exits, [0.5], "fp32", "fp32", "net.pt"),
        "profile": Profile("net", "ab", "int8", "x86", 1, 5, 0.001, 1.01, (1.0, 1.02), [5], [3], [step], None),
        "cold": ColdStart("x86", 1, 3, 0.9, 0.01, 0.3, 0.003, 10**8),
        "tests": {"machine_info": {}, "benchmarks": [benchmark]},
    }
    for name, one in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(one if isinstance(one, dict) else one.to_dict()))
    outcomes = lie_in_records(sorted(tmp_path.iterdir()), 400, random.Random(3), tmp_path / "lying.json")
    assert outcomes.wrong == []
    assert outcomes.counts["refused"] > 100 and outcomes.counts["answered"] > 20


def test_a_size_that_the_network_does_not_take_is_one_line(bundle, tmp_path):
    small = bundle.manifest.preprocess.to_dict() | {"size": 1}
    lied = bundle.with_manifest(preprocess=type(bundle.manifest.preprocess).from_dict(small))
    with pytest.raises(BundleError, match="images of 1 px that its manifest promises .*: export it again") as caught:
        Session(lied, threads=1, engine="fp32")
    assert "\n" not in str(caught.value)
    assert "failed in the TorchScript interpreter" not in str(caught.value)  # the first of many lines, no reason


def test_exits_beyond_the_last_block_are_named(bundle):
    values = bundle.manifest.to_dict() | {"depth": 9, "exit_blocks": [3, 9]}
    with pytest.raises(BundleError, match="do not rise from 0 to below 8"):
        type(bundle.manifest).from_dict(values)
