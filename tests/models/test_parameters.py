"""Parameter counts and keys of every published network. Weights are on "meta": shapes without memory."""

import pytest
import torch

from pi_dynn.models import create_model

# data set: classes, px, then plain / all exits, then distilled plain / cls exits / cls+dist exits
TRANSFERRED = {
    "NaSC": (10, 128, 14_890_378, 14_932_783, 3_927_380, 3_948_665, 3_969_895),
    "PatternNet": (38, 256, 15_933_350, 16_094_335, 4_564_876, 4_645_605, 4_726_279),
    "RESISC45": (45, 256, 15_936_045, 16_126_675, 4_567_578, 4_663_168, 4_758_703),
    "UCM": (21, 256, 15_926_805, 16_015_795, 4_558_314, 4_602_952, 4_647_535),
    "CIFAR-10": (10, 224, 15_604_618, 15_647_023, 4_256_852, 4_278_137, 4_299_367),
}
ISOTROPIC = {"gfnet_ti": 7_511_784, "gfnet_xs": 15_985_768, "gfnet_s": 24_869_608, "gfnet_b": 43_120_616}
# Published as 15M, 32M and 54M; to the last digit they follow from the published keys and shapes.
PYRAMID = {"gfnet_h_ti": 15_085_096, "gfnet_h_s": 32_162_632, "gfnet_h_b": 53_744_200}


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return create_model(name, **kwargs)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("data", TRANSFERRED)
def test_transferred_networks(data):
    classes, px, *counts = TRANSFERRED[data]
    size = {"num_classes": classes, "image_size": px}
    built = [
        on_meta("gfnet_12_384", **size),
        on_meta("gfnet_12_384", **size, exits="all"),
        on_meta("gfnet_12_192", **size, distilled=True),
        on_meta("gfnet_12_192", **size, distilled=True, exits="all"),
        on_meta("gfnet_12_192", **size, distilled=True, exits="all", exit_heads="cls+dist"),
    ]
    assert [parameters(model) for model in built] == counts


@pytest.mark.parametrize(("name", "count"), [*ISOTROPIC.items(), *PYRAMID.items()])
def test_imagenet_networks(name, count):
    assert parameters(on_meta(name, num_classes=1000, image_size=224)) == count


@pytest.mark.parametrize(("px", "grid"), [(128, (11, 6)), (224, (11, 18)), (256, (43, 6))])
def test_distilled_grid_has_the_largest_prime_factor_first(px, grid):
    model = on_meta("gfnet_12_192", num_classes=10, image_size=px, distilled=True)
    assert model.grid == grid
    assert model.blocks[0].filter.complex_weight.shape == (grid[0], grid[1] // 2 + 1, 192, 2)


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_keys_of_a_distilled_network_with_both_exit_heads():
    shape_of = shapes(
        on_meta("gfnet_12_192", num_classes=45, image_size=256, distilled=True, exits=[2, 7], exit_heads="cls+dist")
    )
    assert shape_of["cls_token"] == shape_of["dist_token"] == (1, 1, 192)
    assert shape_of["pos_embed"] == (1, 258, 192)
    assert shape_of["head_dist.weight"] == (45, 192)
    exits = {key: shape for key, shape in shape_of.items() if key.startswith(("intermediate", "gates"))}
    assert exits == {
        f"{kind}.{k}.{name}": shape
        for k in (0, 1)
        for kind, name, shape in [
            ("intermediate_heads", "weight", (45, 192)),
            ("intermediate_heads", "bias", (45,)),
            ("intermediate_heads_dist", "weight", (45, 192)),
            ("intermediate_heads_dist", "bias", (45,)),
            ("gates", "linear.weight", (1, 4)),
            ("gates", "linear.bias", (1,)),
        ]
    }


def test_keys_of_a_pyramid():
    shape_of = shapes(on_meta("gfnet_h_ti", num_classes=1000, image_size=224, exits=[2, 15]))
    expected = {
        "pos_embed": (1, 3136, 64),
        "patch_embed.0.proj.weight": (64, 3, 4, 4),
        "patch_embed.1.proj.weight": (128, 64, 2, 2),
        "patch_embed.3.proj.bias": (512,),
        "blocks.0.0.gamma": (64,),
        "blocks.0.2.filter.complex_weight": (56, 29, 64, 2),
        "blocks.2.9.mlp.fc1.weight": (1024, 256),
        "blocks.3.2.filter.complex_weight": (7, 4, 512, 2),
        "norm.weight": (512,),
        "head.weight": (1000, 512),
        "intermediate_norms.0.weight": (64,),
        "intermediate_norms.1.bias": (256,),
        "intermediate_heads.0.weight": (1000, 64),
        "intermediate_heads.1.weight": (1000, 256),
        "gates.1.linear.weight": (1, 4),
    }
    assert {key: shape_of.get(key) for key in expected} == expected
    assert not any(key.startswith("blocks.0.3") or key.startswith("patch_embed.4") for key in shape_of)
