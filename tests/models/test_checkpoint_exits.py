"""Exits of a file land after the blocks they were trained after, however either side numbers them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from pi_dynn.errors import CheckpointError
from pi_dynn.models import load_checkpoint

PUBLISHED = [3, 5, 7, 9]


@pytest.fixture
def file_with(tiny, tmp_path):
    """Writes a file of a network whose exit after block b is recognisable: its head's bias is b."""

    def write(exits, **beside):
        model = tiny(exits=exits)
        with torch.no_grad():
            for k, block in enumerate(model.exit_blocks):
                model.intermediate_heads[k].bias.fill_(block)
                model.gates[k].linear.bias.fill_(block)
        torch.save({"model": model.state_dict()} | beside, tmp_path / "x.pth")
        return tmp_path / "x.pth"

    return write


def blocks_marked_in(model):
    heads = [int(head.bias[0]) for head in model.intermediate_heads]
    assert heads == [int(gate.linear.bias) for gate in model.gates]
    return heads


@pytest.mark.parametrize(
    ("in_file", "in_model"),
    [
        ("all", "all"),
        ("all", PUBLISHED),
        ("all", [10]),
        (PUBLISHED, PUBLISHED),
        (PUBLISHED, [5, 9]),
        (PUBLISHED, [7]),
        ([1, 4, 9], [1, 4, 9]),
        ([2, 4, 6, 8, 10], [2, 4, 6, 8, 10]),
    ],
)
def test_exits_are_matched_by_block(tiny, file_with, in_file, in_model):
    model = tiny(exits=in_model)
    report = load_checkpoint(model, file_with(in_file))
    assert report.fits
    assert blocks_marked_in(model) == model.exit_blocks
    exits_in_file = 11 if in_file == "all" else len(in_file)
    assert len(report.left_out) == 4 * (exits_in_file - len(model.exit_blocks))


def test_exits_the_file_lacks_are_named(tiny, file_with):
    model = tiny(exits="all")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, file_with(PUBLISHED))
    text = str(caught.value)
    for block in (0, 1, 2, 4, 6, 8, 10):
        assert f"intermediate_heads.{block}.weight" in text
        assert f"gates.{block}.linear.bias" in text
    assert "intermediate_heads.3." not in text
    assert "no whole exit after blocks [0, 1, 2, 4, 6, 8, 10]" in text
    load_checkpoint(model, file_with(PUBLISHED), strict=False)
    assert [int(model.intermediate_heads[block].bias[0]) for block in PUBLISHED] == PUBLISHED


def test_a_network_without_exits_leaves_them_out(tiny, file_with):
    report = load_checkpoint(tiny(), file_with([1, 6]))
    assert report.fits
    assert len(report.left_out) == 8


def test_numbers_with_gaps_are_blocks(tiny, tmp_path):
    """A file that kept only some exits of a network with all of them."""
    source = tiny(exits="all")
    state = {
        key: value
        for key, value in source.state_dict().items()
        if not key.startswith(("intermediate", "gates")) or key.split(".")[1] in ("4", "7")
    }
    torch.save(state, tmp_path / "x.pth")
    model = tiny(exits=[4, 7])
    load_checkpoint(model, tmp_path / "x.pth")
    assert torch.equal(model.intermediate_heads[1].weight, source.intermediate_heads[7].weight)


def test_what_cannot_be_known_is_asked_for(tiny, file_with):
    path = file_with([1, 4, 9])
    with pytest.raises(CheckpointError, match=r"has 3 exits, this network 1: .*file_exits=\[...\]"):
        load_checkpoint(tiny(exits=[4]), path)
    model = tiny(exits=[4])
    load_checkpoint(model, path, file_exits=[1, 4, 9])
    assert blocks_marked_in(model) == [4]
    with pytest.raises(CheckpointError, match=r"file_exits=\[4\] cannot be right"):
        load_checkpoint(model, path, file_exits=[4])


def test_four_exits_elsewhere_are_not_taken_for_the_published_ones(tiny, file_with):
    path, model = file_with([2, 4, 7, 9]), tiny(exits=[2, 4, 7, 9])
    with pytest.raises(CheckpointError, match=r"after blocks \[3, 5, 7, 9\] in published files"):
        load_checkpoint(model, path)
    load_checkpoint(model, path, file_exits=[2, 4, 7, 9])
    assert blocks_marked_in(model) == [2, 4, 7, 9]


def test_a_file_may_say_where_its_exits_stand(tiny, file_with, tmp_path):
    model = tiny(exits=[4])
    load_checkpoint(model, file_with([1, 4, 9], exit_blocks=[1, 4, 9]))
    assert blocks_marked_in(model) == [4]
    state = torch.load(tmp_path / "x.pth")["model"]
    save_file(state, tmp_path / "x.safetensors", metadata={"exit_blocks": json.dumps([1, 4, 9])})
    model = tiny(exits=[9])
    load_checkpoint(model, tmp_path / "x.safetensors")
    assert blocks_marked_in(model) == [9]
    with pytest.raises(CheckpointError, match="says exit_blocks='1,4,9'"):
        load_checkpoint(model, file_with([1, 4, 9], exit_blocks="1,4,9"))


def test_pyramid_exits_keep_their_norms(tiny_pyramid, tmp_path):
    source, model = tiny_pyramid(exits="all"), tiny_pyramid(exits=[2])
    torch.nn.init.normal_(source.intermediate_norms[2].weight)
    torch.save(source.state_dict(), tmp_path / "x.pth")
    load_checkpoint(model, tmp_path / "x.pth")
    assert torch.equal(model.intermediate_norms[0].weight, source.intermediate_norms[2].weight)
    assert torch.equal(model.intermediate_heads[0].weight, source.intermediate_heads[2].weight)
