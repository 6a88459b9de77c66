"""`pi-dynn doctor` from end to end, on this machine whatever it is."""

import json

import pytest
from click.testing import CliRunner

from pi_dynn.cli.doctor import command
from pi_dynn.records import Finding


@pytest.fixture(scope="module")
def findings(tiny_bundle_path):
    result = CliRunner().invoke(command, ["--json", "--bundle", str(tiny_bundle_path)])
    assert result.exit_code == 0, result.output
    return [Finding.from_dict(json.loads(line)) for line in result.stdout.splitlines()]


def test_every_topic_is_looked_at(findings):
    topics = dict.fromkeys(finding.topic for finding in findings)
    assert list(topics) == ["system", "torch", "engines", "onnx", "extras", "threads", "board", "i2c", "meters"]


def test_each_problem_has_a_cure(findings):
    assert all((finding.problem is None) == (finding.cure is None) for finding in findings)


def test_what_torch_says_is_what_torch_is(findings):
    import torch

    (build,) = [finding.value for finding in findings if (finding.topic, finding.name) == ("torch", "build")]
    assert build.startswith(torch.__version__)


def test_every_real_meter_is_tried(findings):
    assert {"ina219", "ina226", "ina228", "ina260", "pi-ina219", "hwmon", "iio", "rapl", "pmic", "auto"} == {
        finding.name for finding in findings if finding.topic == "meters"
    }
