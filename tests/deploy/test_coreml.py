"""A network as a Core ML model: what is converted answers like the network, and the file has what Xcode shows."""

import sys

import pytest
import torch
from torch.testing import assert_close

from pi_dynn import Preprocess
from pi_dynn.deploy.coreml import picture_network, save_coreml
from pi_dynn.errors import InputError
from pi_dynn.models import create_model
from tests.cli import conftest
from tests.networks import with_trained_norms

pi_dynn = conftest.pi_dynn  # which pytest shows to the tests beside it only
LABELS = ["ant", "bee", "cat"]


def network(name: str, size: int = 32):
    torch.manual_seed(0)
    return with_trained_norms(create_model(name, num_classes=3, image_size=size)).eval()


@pytest.mark.parametrize(
    ("name", "size"), [("gfnet_12_192", 32), ("branchynet", 32), ("recnext_t", 64), ("lsnet_t", 64)]
)
@torch.inference_mode()
def test_what_is_converted_answers_like_the_network(name, size):
    model, preprocess = network(name, size), Preprocess(size)
    pixels = torch.randint(0, 256, (1, 3, size, size))
    x = preprocess.tensor(pixels[0].permute(1, 2, 0).byte().numpy()).unsqueeze(0)
    assert_close(picture_network(model, preprocess)(pixels.float()), model(x), rtol=1e-3, atol=1e-4)


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"net.pt: a Core ML model is a file that ends with .mlpackage or .mlmodel"):
        save_coreml(network("branchynet"), LABELS, Preprocess(32), tmp_path / "net.pt")


def test_without_coremltools_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(InputError, match=r"a Core ML model needs coremltools.*pip install.*\[coreml\]"):
        save_coreml(network("branchynet"), LABELS, Preprocess(32), tmp_path / "net.mlpackage")


@pytest.mark.parametrize("name", ["gfnet_12_192", "lsnet_t", "recnext_t_share_channel"])
@pytest.mark.filterwarnings("ignore")  # of coremltools about torch and numpy
def test_converted(name, tmp_path):
    coremltools = pytest.importorskip("coremltools")
    path = tmp_path / "net.mlpackage"
    for _ in range(2):  # the second replaces the first
        save_coreml(network(name, 64), LABELS, Preprocess(64), path)
    spec = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    (image,) = spec.description.input
    assert (image.name, image.type.imageType.width) == ("image", 64)
    assert spec.description.predictedFeatureName == "classLabel"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.mlpackage"]


def test_command(pi_dynn, tmp_path):
    torch.save(network("branchynet").state_dict(), tmp_path / "net.pth")
    export = ("export", tmp_path / "net.pth", "--model", "branchynet", "--image-size", 32, "--format", "coreml")
    outcome = pi_dynn(*export, "-o", tmp_path / "net.mlpackage", "--precision", "int8")
    assert outcome.status == 1 and "has the full depth in floats" in outcome.err
    outcome = pi_dynn(*export, "-o", tmp_path / "net.pt")
    assert outcome.status == 1 and "ends with .mlpackage" in outcome.err
