import pytest
import torch

from pi_dynn.errors import ModelError, UnknownModel
from pi_dynn.models import create_model, list_models
from pi_dynn.models.registry import canonical_name, register_model

SIZE = {"num_classes": 5, "image_size": 32}


def test_names_are_sorted_and_without_aliases():
    names = list_models()
    assert names == sorted(names)
    assert {
        "gfnet_12_192",
        "gfnet_ti",
        "gfnet_xs",
        "gfnet_s",
        "gfnet_b",
        "gfnet_h_ti",
        "gfnet_h_s",
        "gfnet_h_b",
    } <= set(names)
    assert "gfnet_12_384" not in names
    assert canonical_name("gfnet_12_384") == "gfnet_xs"


@pytest.mark.parametrize("name", ["gfnet_xs", "gfnet_12_384"])
def test_a_name_or_alias_is_registered_once(name):
    with pytest.raises(ModelError, match=f"already registered as '{name}'"):
        register_model("brand_new", alias=name)(lambda **kwargs: None)
    assert "brand_new" not in list_models()


def test_an_unknown_name_gets_similar_ones_or_says_where_all_are():
    with pytest.raises(UnknownModel, match="no model is named 'gfnet_xl': did you mean gfnet_xs or "):
        create_model("gfnet_xl", **SIZE)
    with pytest.raises(UnknownModel, match="no model is named 'zzz': `pi-dynn models` lists the names"):
        create_model("zzz", **SIZE)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_classes": 1}, "num_classes=1"),
        ({"image_size": 40}, "image_size=40"),
        ({"image_size": 0}, "image_size=0"),
        ({"exits": [11]}, "after block 11"),
        ({"exits": 3}, "exits=3"),
        ({"exit_heads": "both"}, "exit_heads='both'"),
        ({"exit_heads": "cls+dist"}, "needs a distilled network"),
        ({"grid": (3, 3)}, "does not hold the 4 tokens"),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(change, text):
    with pytest.raises(ModelError) as caught:
        create_model("gfnet_12_192", **(SIZE | change))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_can_be_built_again_from_what_it_remembers():
    with torch.device("meta"):
        model = create_model("gfnet_12_384", **SIZE, exits=(2, 5))
        again = create_model(model.name, **model.arguments)
    assert model.name == "gfnet_xs"
    assert again.exit_blocks == model.exit_blocks == [2, 5]


def test_networks_of_torchvision_by_their_own_names():
    with torch.device("meta"):
        known, chain, other = (
            create_model(f"torchvision:{name}", **SIZE) for name in ("mobilenet_v3_small", "resnet101", "squeezenet1_1")
        )
    assert known.name == "mobilenet_v3_small" and known.exit_blocks == []
    assert chain.name == "torchvision:resnet101" and chain.depth == 33
    assert not hasattr(other, "forward_exits") and other.arguments["image_size"] == 32
    with pytest.raises(ModelError, match="torchvision:squeezenet1_1 takes no exits"):
        create_model("torchvision:squeezenet1_1", **SIZE, exits=[0])
    with pytest.raises(ModelError, match="torchvision:giant: Unknown model giant"):
        create_model("torchvision:giant", **SIZE)
