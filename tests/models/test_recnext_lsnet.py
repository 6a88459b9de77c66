"""RecNeXt and LSNet: published sizes, exits, and what their parts promise."""

import pytest
import torch
from torch.testing import assert_close

from pi_dynn.errors import ModelError
from pi_dynn.models import count_macs, create_model
from pi_dynn.models.conv_norm import ConvNorm, MeanOfHeads, NormLinear, ResidualDepthwise
from pi_dynn.models.lsnet import offset_indices
from pi_dynn.models.recnext import BorrowingBlock, LendingBlock
from pi_dynn.models.ska import SmallKernelAggregation
from tests.networks import tiny_chain

FAMILIES = ["recnext", "recnext_share_channel", "lsnet"]
# As published, in millions, of the network with its norms folded; the exact counts follow from keys and shapes.
PUBLISHED = {
    "recnext_t": (12.1, 0.3, 12_729_296),
    "recnext_s": (15.8, 0.7, 16_485_584),
    "recnext_b": (19.2, 1.1, 19_927_632),
    "recnext_t_share_channel": (12.1, 0.3, 12_662_480),
    "recnext_s_share_channel": (15.8, 0.7, 16_403_664),
    "recnext_b_share_channel": (19.2, 1.1, 19_845_712),
    "lsnet_t": (11.4, 0.3, 11_409_832),
    "lsnet_s": (16.1, 0.5, 16_146_304),
    "lsnet_b": (23.2, 1.3, 23_313_608),
}


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return create_model(name, **({"num_classes": 1000, "image_size": 224} | kwargs))


def folded_away(model):
    """Parameters that leave when norms are folded, counted without folding: they are on "meta"."""
    count = 0
    for module in model.modules():
        if isinstance(module, ConvNorm):
            conv, norm = module
            count += 2 * norm.num_features - (norm.num_features if conv.bias is None else 0)
        elif isinstance(module, ResidualDepthwise):
            _, narrow = module
            count += narrow[0].weight.numel() + narrow[1].num_features  # folded itself, then into the wide one
        elif isinstance(module, NormLinear):
            count += 2 * module.channels
        elif isinstance(module, MeanOfHeads):
            count += sum(p.numel() for p in module.head[1].parameters())
    return count


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters_and_multiply_adds(name):
    million, billion, exact = PUBLISHED[name]
    model = on_meta(name)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == exact
    assert (parameters - folded_away(model)) / 1e6 == pytest.approx(million, rel=0.005)
    table = count_macs(model, 224)
    norms = sum(layer.macs for layer in table.layers if layer.kind.startswith("BatchNorm"))
    # The published count takes the aggregation for a convolution in groups, 8 channels in and out.
    aggregation = sum(layer.macs for layer in table.layers if layer.kind == SmallKernelAggregation.__name__)
    assert (table.total - norms + 7 * aggregation) / 1e9 == pytest.approx(billion, abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_exits_leave_the_final_answer_as_it_was(family):
    model = tiny_chain(family, exits="all")
    x = torch.randn(3, 3, 64, 64)
    answers = model.forward_exits(x)
    assert [block for block, _, _ in answers] == list(range(model.depth))
    assert_close(answers[-1][1], model(x))
    for _, logits, gate in answers:
        assert logits.shape == (3, 5)
        assert gate.shape == (3,)
    plain = tiny_chain(family)
    found = plain.load_state_dict(model.state_dict(), strict=False)
    assert not found.missing_keys
    assert all(key.startswith(("intermediate_heads.", "gates.")) for key in found.unexpected_keys)
    assert_close(plain(x), model(x))


@pytest.mark.parametrize("family", ["recnext_share_channel", "lsnet"])
@torch.inference_mode()
def test_scripted_equals_eager(family):
    model = tiny_chain(family, exits=[1])
    x = torch.randn(2, 3, 64, 64)
    assert_close(torch.jit.script(model)(x), model(x), rtol=1e-5, atol=1e-5)


def test_scripts_in_training_mode_with_drop_path():
    with torch.device("meta"):
        model = tiny_chain("recnext_share_channel", drop_path=0.1)
    assert torch.jit.script(model.train()).training


@pytest.mark.parametrize("family", ["recnext", "recnext_share_channel"])
@torch.inference_mode()
def test_answer_is_the_mean_of_both_heads(family):
    model = tiny_chain(family)
    x = torch.randn(2, 3, 64, 64)
    assert_close(model(x), torch.stack(model.forward_heads(x)).mean(0))


@torch.inference_mode()
def test_a_distilled_lsnet_has_two_heads():
    x = torch.randn(2, 3, 64, 64)
    model = tiny_chain("lsnet", distilled=True)
    first, second = model.forward_heads(x)
    assert_close(model(x), (first + second) / 2)
    assert_close(torch.jit.script(model)(x), model(x), rtol=1e-5, atol=1e-5)
    assert {"head_dist.bn.weight", "head_dist.l.bias"} <= set(model.state_dict())
    with pytest.raises(ModelError, match="distilled=True"):
        tiny_chain("lsnet").forward_heads(x)


@torch.inference_mode()
def test_quarters_travel_to_the_block_that_borrows_them():
    model = tiny_chain("recnext_share_channel")
    blocks = list(model.stages[3].blocks)
    assert [type(block).__name__ for block in blocks] == ["LendingBlock"] * 4 + ["BorrowingBlock"] + ["Block"] * 2
    x, dim = torch.randn(2, 32, 2, 2), 32
    quarters = []
    for block in blocks[:4]:
        assert isinstance(block, LendingBlock)
        quarters.append(block.token_mixer(block.rep_mixer(x[:, :dim]))[:, : dim // 4])
        x = block(x)
    assert x.shape[1] == 2 * dim
    assert_close(x[:, dim:], torch.cat(quarters, 1))
    borrower = blocks[4]
    assert isinstance(borrower, BorrowingBlock)
    own = borrower.rep_mixer(x[:, :dim])
    assert_close(borrower(x), own + borrower.channel_mixer(own + torch.cat(quarters, 1)))


def test_offsets_of_a_grid():
    indices = offset_indices(3)
    assert indices.dtype == torch.int64
    assert indices.diagonal().eq(0).all()
    assert torch.equal(indices, indices.T)
    assert indices[0].tolist() == list(range(9))  # the corner sees every offset once
    assert indices[4].tolist() == [4, 3, 4, 1, 0, 1, 4, 3, 4]


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("recnext_t", {"image_size": 100}, "image_size=100"),
        ("recnext_t", {"image_size": 8}, "16 or more"),
        ("recnext_t", {"exits": [19]}, "after block 19"),
        ("recnext_t", {"exit_heads": "cls+dist"}, "pools its features"),
        ("recnext_t", {"kernel": "cosine"}, "kernel='cosine'"),
        ("lsnet_t", {"image_size": 100}, "image_size=100"),
        ("lsnet_t", {"exit_heads": "cls+dist"}, "pools its features"),
        ("lsnet_s", {"exits": [20]}, "choose from 0..19"),
    ],
)
def test_impossible_arguments_are_refused(name, change, text):
    with pytest.raises(ModelError) as caught:
        on_meta(name, **change)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
