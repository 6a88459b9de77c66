import json
import math

import pytest
import torch
from torch import nn

from pi_dynn.errors import InputError, ModelError
from pi_dynn.models import MacTable, count_macs, create_model, list_models
from pi_dynn.models.dft import filters_as_matrices
from pi_dynn.models.macs import layer_macs


def on_meta(name, classes, px, **kwargs):
    with torch.device("meta"):
        return create_model(name, num_classes=classes, image_size=px, **kwargs)


@pytest.mark.parametrize(
    ("name", "px", "distilled", "million"),
    [
        ("gfnet_12_384", 128, False, 925),
        ("gfnet_12_384", 224, False, 2832),
        ("gfnet_12_384", 256, False, 3699),
        ("gfnet_12_192", 128, False, 236),
        ("gfnet_12_192", 128, True, 243),
        ("gfnet_12_192", 224, True, 730),
        ("gfnet_12_192", 256, True, 951),
    ],
)
def test_patches_and_mlps(name, px, distilled, million):
    table = count_macs(on_meta(name, 10, px, distilled=distilled), px)
    counted = sum(layer.macs for layer in table.layers if "patch_embed" in layer.name or "mlp" in layer.name)
    assert round(counted / 1e6) == million
    assert counted < table.total < 1.02 * counted  # filters, norms and heads are the small rest


@pytest.mark.parametrize(
    ("name", "published"),
    [("gfnet_ti", 1.3), ("gfnet_xs", 2.85), ("gfnet_s", 4.5), ("gfnet_b", 7.9), ("gfnet_h_ti", 2.0)]
    + [("gfnet_h_s", 4.5), ("gfnet_h_b", 8.4)],
)
def test_imagenet_totals_are_the_published_ones(name, published):
    """As printed, to the digits printed; the pyramids' published figures leave more out, hence 4 %."""
    total = count_macs(on_meta(name, 1000, 224), 224).total / 1e9
    if name.startswith("gfnet_h"):
        assert total == pytest.approx(published, rel=0.04)
    else:
        assert total == pytest.approx(published, abs=0.5 * 10 ** -len(str(published).split(".")[1]))


def test_each_rule_by_hand(tiny):
    """Two blocks' worth of a 16-channel network on 4 tokens as 2 x 2, with 3 classes."""
    table = count_macs(tiny(exits=[0]), 32)
    rows = {layer.name: layer.macs for layer in table.layers}
    assert rows["patch_embed.proj"] == 4 * 16 * 3 * 16 * 16
    assert rows["blocks.0.norm1"] == 2 * 4 * 16
    assert rows["blocks.0.filter"] == 2 * (4 * 16 * math.log2(4)) + 4 * (2 * 2) * 16
    assert rows["blocks.0.mlp.fc1"] == rows["blocks.0.mlp.fc2"] == 4 * 16 * 64
    assert rows["intermediate_heads.0"] == 16 * 3
    assert rows["gates.0"] == 5 * 3 + 4
    block = sum(macs for name, macs in rows.items() if name.startswith("blocks.5."))
    check = 2 * 4 * 16 + 16 * 3 + 19
    first, last = table.exits
    assert (first.block_index, last.block_index) == (0, 11)
    assert first.macs == rows["patch_embed.proj"] + block + check
    assert first.check_macs == check
    assert last.macs == table.total == first.macs + 11 * block + 2 * 4 * 16 + 16 * 3
    assert table.total_without_exits == table.total - check


@pytest.mark.parametrize("form", [{}, {"distilled": True}, {"distilled": True, "exit_heads": "cls+dist"}])
def test_both_filter_forms_cost_the_same(tiny, form):
    model = tiny(image_size=64, exits=[2, 7], **form)
    table = count_macs(model, 64)
    in_matrices = count_macs(filters_as_matrices(model), 64)
    assert in_matrices.exits == table.exits
    assert [layer.macs for layer in in_matrices.layers] == [layer.macs for layer in table.layers]


# One of every family; the other sizes differ in numbers only.
FAMILIES = [name for name in list_models() if name.startswith("gfnet")] + ["recnext_t_share_channel", "lsnet_t"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_network_costs_more_the_deeper_it_answers(name):
    model = on_meta(name, 5, 32, exits="all")
    table = count_macs(model, 32)
    assert [answer.block_index for answer in table.exits] == list(range(model.depth))
    costs = [answer.macs for answer in table.exits]
    assert costs == sorted(set(costs))
    assert all(answer.check_macs > 0 for answer in table.exits[:-1])
    assert table.exits[-1].check_macs == 0


def test_keeping_some_exits_is_like_building_with_them(tiny, tiny_pyramid):
    for build, px in ((tiny, 32), (tiny_pyramid, 64)):
        table = count_macs(build(exits="all"), px).keeping([1, 3])
        assert table.exits == count_macs(build(exits=[1, 3]), px).exits
        plain = count_macs(build(), px)
        assert table.keeping([]).exits == plain.exits
        assert table.total_without_exits == plain.total
    with pytest.raises(InputError, match=r"no exit stands after block 2: choose from \[1, 3\]"):
        table.keeping([2])


def test_mean_is_weighted_by_where_images_leave(tiny):
    table = count_macs(tiny(exits=[2, 7]), 32)
    first, second, last = (answer.macs for answer in table.exits)
    assert table.mean([0, 0, 5]) == table.total
    assert table.mean([0.5, 0.25, 0.25]) == pytest.approx(0.5 * first + 0.25 * second + 0.25 * last)
    assert table.mean([20, 10, 10]) == pytest.approx(table.mean([0.5, 0.25, 0.25]))
    for counts in ([1, 2], [0, 0, 0], [1, -1, 1]):
        with pytest.raises(InputError, match="3 numbers"):
            table.mean(counts)


def test_table_is_plain_data(tiny):
    table = count_macs(tiny(exits=[2]), 32)
    data = json.loads(json.dumps(table.to_dict()))
    assert MacTable.from_dict(data) == table
    assert data["rule"] == "multiply-adds"
    assert data["exits"][0] == {
        "block_index": 2,
        "macs": table.exits[0].macs,
        "check_macs": table.exits[0].check_macs,
    }
    assert data["layers"][0]["name"] == "patch_embed.proj"


def test_counting_leaves_the_network_as_it_was(tiny):
    model = tiny(exits=[2]).train()
    model.norm.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    count_macs(model, 32)
    assert model.training
    assert not model.norm.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_another_image_size_is_an_error(tiny):
    with pytest.raises(ModelError, match="image_size=64 does not suit a network built for 32 px"):
        count_macs(tiny(), 64)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 2, 3, stride=2, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2 * 2 * 2, 5)

    def forward(self, x):
        return self.fc(self.norm(torch.relu(self.conv(x))).flatten(1))


class Chain(nn.Module):
    """A convolutional network without gate modules: its exits are sure by entropy."""

    def __init__(self, layer=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.layer = layer or nn.Identity()
        self.branch = Branch()
        self.deep = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.deep(self.layer(self.stem(x))).mean((2, 3)))

    def forward_exits(self, x):
        x = self.layer(self.stem(x))
        early = self.branch(x)
        sure = 1 - torch.special.entr(early.softmax(1)).sum(1)
        return [(0, early, sure), (1, self.head(self.deep(x).mean((2, 3))), torch.ones(len(x)))]


def test_any_network_with_exits_can_be_counted():
    table = count_macs(Chain(), 8)
    rows = {layer.name: (layer.macs, layer.exit_index, layer.is_check) for layer in table.layers}
    assert rows == {
        "stem": (16 * 4 * 3 * 9, 0, False),
        "branch.conv": (4 * 2 * 2 * 9, 0, True),
        "branch.norm": (8, 0, True),
        "branch.fc": (8 * 5, 0, True),
        "deep": (16 * 4 * 4, 1, False),
        "head": (4 * 5, 1, False),
    }
    assert [answer.macs for answer in table.exits] == [1728 + 192, 1728 + 192 + 276]


def test_batch_norms_learn_nothing_from_being_counted():
    model = Chain().train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    count_macs(model, 8)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_layer_without_a_rule_is_an_error_until_it_has_one():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.factor

    with pytest.raises(ModelError, match=r"no rule counts layer \(Scale\)"):
        count_macs(Chain(Scale()), 8)
    layer_macs.register(Scale, lambda module, call: math.prod(call.input_shapes[0]))
    rows = {layer.name: layer.macs for layer in count_macs(Chain(Scale()), 8).layers}
    assert rows["layer"] == 4 * 16


def test_networks_that_cannot_be_counted_say_why():
    class Outside(Chain):
        def forward_exits(self, x):
            (block, early, sure), last = super().forward_exits(x)
            return [(block, early / 2, sure), last]

    class Other(Chain):
        def forward(self, x):
            return self.head(self.deep(self.deep(self.stem(x))).mean((2, 3)))

    with pytest.raises(ModelError, match="no module makes or reads the logits of the exit after block 0"):
        count_macs(Outside(), 8)
    with pytest.raises(ModelError, match="do not run the same layers"):
        count_macs(Other(), 8)
    with pytest.raises(ModelError, match="has no forward_exits"):
        count_macs(nn.Linear(3, 3), 8)
