"""Exits attached to networks that know nothing of them."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pi_dynn
from pi_dynn import attach_exits
from pi_dynn.data.torchvision_ops import torchvision
from pi_dynn.errors import CheckpointError, ModelError
from pi_dynn.models import count_macs, create_model, load_checkpoint
from pi_dynn.models.backbones import TORCHVISION_NAMES, block_names
from tests.networks import small_sequential, tiny_chain, with_trained_norms


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return create_model(name, **({"num_classes": 1000, "image_size": 224} | kwargs))


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_torchvision_networks_by_name(name):
    """Parameters and multiply-adds as torchvision prints them; norms, which it does not count, left out."""
    model = on_meta(name)
    published = torchvision.models.get_model_weights(name).DEFAULT.meta
    assert sum(p.numel() for p in model.parameters()) == published["num_params"]
    table = count_macs(model, 224)
    norms = sum(layer.macs for layer in table.layers if layer.kind == "BatchNorm2d")
    assert (table.total - norms) / 1e9 == pytest.approx(published["_ops"], abs=0.0006)
    assert norms < 0.03 * table.total
    assert name in pi_dynn.list_models()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"])
@torch.inference_mode()
def test_the_backbone_is_not_touched(name):
    torch.manual_seed(0)
    backbone = with_trained_norms(getattr(torchvision.models, name)(num_classes=5)).train()
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    model = attach_exits(backbone, "all", 5, image_size=32)
    assert model.backbone is backbone
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())
    x = torch.randn(2, 3, 32, 32)
    answers = model.eval().forward_exits(x)
    assert [block for block, _, _ in answers] == list(range(model.depth))
    assert_close(answers[-1][1], backbone(x))
    assert_close(model(x), backbone(x), rtol=0, atol=0)
    assert all(logits.shape == (2, 5) and gate.shape == (2,) for _, logits, gate in answers)


@torch.inference_mode()
def test_scripted_equals_eager():
    model = attach_exits(small_sequential(), [1], 5, image_size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    assert_close(torch.jit.script(model)(x), model(x))


def test_widths_of_heads_follow_the_features():
    class Tokens(nn.Module):
        def forward(self, x):
            return x.flatten(2).transpose(1, 2)  # (B, N, C)

    layers = [nn.Conv2d(3, 6, 8, 8), Tokens(), nn.Linear(6, 7), nn.Flatten(), nn.Linear(7 * 16, 9), nn.Linear(9, 4)]
    model = attach_exits(nn.Sequential(*layers), "all", 4, image_size=32).eval()
    assert [head.channels for head in model.intermediate_heads] == [6, 6, 7, 7 * 16, 9]
    assert [logits.shape for _, logits, _ in model.forward_exits(torch.randn(2, 3, 32, 32))] == [(2, 4)] * 6


@pytest.mark.parametrize(
    ("name", "after", "blocks"),
    [
        ("resnet18", ["layer1", "layer3.0"], [1, 4]),
        ("resnet18", [0, "layer2"], [0, 3]),
        ("mobilenet_v3_small", ["features.2"], [1]),
        ("efficientnet_b0", ["features.1", "features.3.1"], [0, 4]),
    ],
)
def test_exits_by_name(name, after, blocks):
    with torch.device("meta"):
        backbone = getattr(torchvision.models, name)(num_classes=5)
        model = attach_exits(backbone, after, 5, image_size=32)
    assert model.exit_blocks == blocks
    assert len(block_names(backbone)) == model.depth


def test_networks_of_this_package_are_chains_too():
    backbone = tiny_chain("recnext_share_channel")
    model = attach_exits(backbone, [0, "stages.3.blocks.1"], 5, image_size=64).eval()
    assert model.exit_blocks == [0, 3]
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert_close(model.forward_exits(x)[-1][1], backbone(x))


def test_a_backbones_own_checkpoint_loads(tmp_path):
    torch.manual_seed(0)
    source = torchvision.models.resnet18(num_classes=5)
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    model = create_model("resnet18", num_classes=5, image_size=32)
    assert load_checkpoint(model, tmp_path / "resnet18.pth").fits
    assert torch.equal(model.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    with_exits = create_model("resnet18", num_classes=5, image_size=32, exits=[1])
    report = load_checkpoint(with_exits, tmp_path / "resnet18.pth", strict=False)
    assert report.missing and all(key.startswith(("intermediate_heads.", "gates.")) for key in report.missing)
    assert not report.unexpected
    assert torch.equal(with_exits.backbone.fc.weight, source.fc.weight)
    with pytest.raises(CheckpointError, match="intermediate_heads.0"):
        load_checkpoint(with_exits, tmp_path / "resnet18.pth")


def test_exits_learn_and_the_backbone_does_too():
    model = attach_exits(small_sequential(), [0, 1], 5, image_size=32).train()
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    answers = model.forward_exits(x)
    sum(nn.functional.cross_entropy(logits, y) for _, logits, _ in answers).backward()
    sum(gate.sum() for _, _, gate in model.forward_exits(x)).backward()
    assert all(p.grad is not None for p in model.parameters())


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("build", "after", "text"),
    [
        (Branching, [0], "Branching is no chain of stages known here"),
        (small_sequential, [4], "after block 4"),
        (small_sequential, ["layer9"], "no block is called 'layer9': choose from 0, 1, 2, 3, 4"),
        (small_sequential, [1, 0], "must rise"),
        (lambda: small_sequential(classes=7), [0], "answers (7,), not 5 classes"),
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Flatten()), [0], "does not run at 32 px"),
    ],
)
def test_what_cannot_be_done_is_said(build, after, text):
    with pytest.raises(ModelError) as caught:
        attach_exits(build(), after, 5, image_size=32)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"distilled": True}, {"exit_heads": "cls+dist", "exits": [0]}])
def test_forms_a_torchvision_network_does_not_have(change):
    with pytest.raises(ModelError):
        on_meta("resnet18", **change)
