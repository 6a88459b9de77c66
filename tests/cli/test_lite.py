"""What `setup.sh --lite` installs answers without torch, and says what it cannot do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pi_dynn.assets
from pi_dynn.runtime.bundle import load_bundle

pytest.importorskip("ai_edge_litert")
ROOT = Path(__file__).parents[2]
# A module that is None in sys.modules cannot be imported, nor found.
LITE = """
import sys
for name in ("torch", "torchvision", "safetensors", "onnx"):
    sys.modules[name] = None
from pi_dynn.cli.main import main
main(sys.argv[1:])
"""


def run(*arguments, program=LITE, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
    )


def test_it_classifies_like_the_whole_installation(tmp_path):
    light = run("classify", "--json", XDG_CACHE_HOME=str(tmp_path))
    assert light.returncode == 0, light.stderr
    command = [sys.executable, "-m", "pi_dynn.cli", "classify", "--json"]
    in_floats = os.environ | {"PI_DYNN_ENGINE": "fp32"}  # int8 has 7 bits on an x86 processor without VNNI
    whole = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=in_floats)
    answers = [[json.loads(line) for line in answer.stdout.splitlines()] for answer in (light, whole)]
    assert answers[0].pop()["summary"]["engine"] == "litert" and answers[1].pop()["summary"]["images"] == 12
    elsewhere, thresholds = 0, load_bundle(None).manifest.thresholds
    for one, other in zip(*answers, strict=True):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=0.05)
        if one["exit_index"] != other["exit_index"]:  # int8 moves a score that is next to its threshold, and no other
            elsewhere += 1
            first = min(one, other, key=lambda answer: answer["exit_index"])
            assert first["score"] == pytest.approx(thresholds[first["exit_index"]], abs=5e-4)
    assert elsewhere <= 1


def test_onnx_is_taken_where_there_is_no_litert(tmp_path):
    pytest.importorskip("onnxruntime")
    program = LITE.replace('"onnx")', '"onnx", "ai_edge_litert")')
    answer = run("classify", "--json", program=program, XDG_CACHE_HOME=str(tmp_path))
    assert answer.returncode == 0 and not answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1])["summary"]["engine"] == "onnxruntime"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["watch", "fake", "--count", "2"], '"label"'),
        (["energy", "--meter", "fake", "--n", "60"], "SIMULATED"),
        (["info"], "21: agricultural"),
        (["serve", "--help"], "Serve a page"),
        (["models", "recnext_t"], "12.73 M"),
    ],
)
def test_what_it_can_do(arguments, shown, tmp_path):
    answer = run(*arguments, XDG_CACHE_HOME=str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    assert shown in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["learn", ROOT],
        ["export", "-o", "x.pt"],
        ["profile"],
        ["benchmark"],
        ["models", "--count"],
        ["classify", "--bundle", Path(pi_dynn.assets.__path__[0]) / "ucm_efficientnet_lite0_96.pt"],
    ],
)
def test_what_it_cannot_do_is_one_line(arguments, tmp_path):
    answer = run(*arguments, XDG_CACHE_HOME=str(tmp_path))
    (line,) = answer.stderr.splitlines()
    assert answer.returncode == 1 and not answer.stdout
    assert "needs torch" in line and "setup.sh" in line


def test_the_server_imports_no_torch(tmp_path):
    program = "import sys, pi_dynn.classify.live, pi_dynn.web.app; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_its_requirements_are_all_but_torch_and_what_needs_it():
    command = [sys.executable, ROOT / "scripts" / "lite_requirements.py", "serve", "pi"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {line.split()[0] for line in lines}
    assert {"numpy", "pillow", "click", "ai-edge-litert", "starlette", "pi-ina219", "smbus2"} <= names
    assert not {"torch", "torchvision", "safetensors", "onnx"} & names and not any("[" in line for line in lines)
    wrong = subprocess.run([*command, "no-such"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "choose from" in wrong.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("arguments", [["--nonsense"], ["--with"]])
def test_set_up_refuses_what_it_does_not_know(arguments):
    answer = subprocess.run(["bash", ROOT / "scripts" / "setup.sh", *arguments], capture_output=True, text=True)
    assert answer.returncode != 0 and "setup.sh" in answer.stderr


def test_any_other_missing_module_is_one_line_as_well():
    program = LITE.replace('("torch", "torchvision", "safetensors", "onnx")', '("PIL",)')
    answer = run("classify", program=program)
    assert answer.returncode == 1 and len(answer.stderr.splitlines()) == 1 and "PIL" in answer.stderr
