import pytest
import torch
from torch.testing import assert_close

from pi_dynn.errors import ModelError
from pi_dynn.models import create_model
from pi_dynn.models.dft import filters_as_matrices
from pi_dynn.models.gfnet_pyramid import SIZES, DownLayer, GFNetPyramid, PyramidSize

SIZE = {"num_classes": 5, "image_size": 64}


def test_down_layer_merges_neighbours_of_the_image():
    layer = DownLayer(4, 1, 1)
    with torch.no_grad():
        layer.proj.weight.fill_(0.25)
        layer.proj.bias.zero_()
        tokens = torch.arange(16.0).view(1, 16, 1)
        expected = [(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4, (8 + 9 + 12 + 13) / 4, (10 + 11 + 14 + 15) / 4]
        assert_close(layer(tokens).flatten(), torch.tensor(expected))


def test_exits_stand_after_their_blocks_in_the_width_of_their_stage(tiny_pyramid):
    model = tiny_pyramid(exits=[0, 2, 3])
    after = []
    for block in (model.blocks[0][0], model.blocks[2][0], model.blocks[2][1]):
        block.register_forward_hook(lambda _, __, tokens: after.append(tokens))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        answers = model.forward_exits(x)
        assert [block for block, _, _ in answers] == [0, 2, 3, 4]
        assert [list(tokens.shape) for tokens in after] == [[2, 256, 8], [2, 16, 24], [2, 16, 24]]
        for k, tokens in enumerate(after):
            assert_close(answers[k][1], model.exit_logits(tokens, k), rtol=0, atol=1e-6)
            assert_close(answers[k][2], torch.sigmoid(model.gates[k](answers[k][1])), rtol=0, atol=1e-6)
        assert_close(answers[-1][1], model(x), rtol=0, atol=1e-6)


def test_layer_scale_starts_as_published():
    assert [SIZES[name].layer_scale for name in ("gfnet_h_ti", "gfnet_h_s", "gfnet_h_b")] == [1e-3, 1e-5, 1e-6]
    size = PyramidSize((8, 8, 8, 8), (1, 1, 1, 1), layer_scale=1e-3, drop_path=0.1)
    assert GFNetPyramid(size, **SIZE).blocks[1][0].gamma.tolist() == pytest.approx([1e-3] * 8)


def test_gamma_scales_the_branch(tiny_pyramid):
    block, x = tiny_pyramid().blocks[0][0], torch.randn(1, 256, 8)
    scale = torch.linspace(-1, 1, 8)
    with torch.inference_mode():
        branch = block.mlp(block.norm2(block.filter(block.norm1(x))))
        block.gamma.copy_(scale)
        assert_close(block(x), x + scale * branch, rtol=0, atol=1e-6)


def test_matrix_form_agrees(tiny_pyramid):
    model, x = tiny_pyramid(), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = model(x)
        assert_close(filters_as_matrices(model)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("px", [0, 16, 48, 225])
def test_image_sizes_are_multiples_of_32(px):
    with pytest.raises(ModelError, match=f"image_size={px}: a pyramid GFNet needs a multiple of 32"):
        create_model("gfnet_h_s", num_classes=5, image_size=px)


def test_there_is_no_distilled_pyramid():
    with pytest.raises(ModelError, match="has no distilled form"):
        create_model("gfnet_h_b", **SIZE, distilled=True)
    with pytest.raises(ModelError, match="needs a distilled network"):
        create_model("gfnet_h_b", **SIZE, exit_heads="cls+dist")
