"""Attention with positive kernels: recorded values, both orders of the products, the published similarities."""

import runpy
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from pi_dynn.errors import ModelError
from pi_dynn.models import linear_attention
from pi_dynn.models.linear_attention import KERNELS, KernelAttention, LinearAttention

SCRIPT = Path(__file__).parents[2] / "scripts" / "attention_similarity.py"
PUBLISHED = {"softplus": 0.996636, "elu": 0.995216, "relu": 0.994811}


@pytest.mark.parametrize("kernel", KERNELS)
def test_recorded_outputs(kernel, reference):
    case = reference.load_case("linear_attention_kernels")
    model = LinearAttention(case["config"]["dim"], grouped=False, kernel=kernel, norm=False).eval()
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == dict(case["state_dict"])
    reference.fill(model)
    with torch.inference_mode():
        output = model(reference.case_input(case))
    assert_close(output.flatten(), torch.tensor(case["outputs"][kernel]).flatten(), rtol=0, atol=1e-5)


@settings(max_examples=30)
@given(st.sampled_from(["elu", "relu", "softplus"]), *[st.integers(1, 9)] * 2, st.integers(1, 40), st.integers(0))
def test_both_orders_of_the_products_agree(kernel, D, C, N, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    q, k, v = (torch.rand(2, width, N, generator=generator) + 0.1 for width in (D, D, C))
    attend = KernelAttention(kernel)
    answers = []
    for quadratic in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear_attention, "quadratic_is_cheaper", lambda D, C, N, chosen=quadratic: chosen)
            answers.append(attend(q, k, v))
    assert_close(*answers, rtol=1e-4, atol=1e-5)
    assert_close(attend(q, k, v), answers[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("N", "grouped"), [(4, True), (64, False)])
def test_scripted_equals_eager(N, grouped):
    model = LinearAttention(8, grouped=grouped).eval()
    x = torch.randn(2, 8, N // 2, 2)
    assert_close(torch.jit.script(model)(x), model(x))


def test_weights_of_constant_queries_and_keys_give_the_mean_value():
    v = torch.randn(1, 3, 10)
    out = KernelAttention("elu")(torch.ones(1, 2, 10), torch.ones(1, 2, 10), v)
    assert_close(out, v.mean(2, keepdim=True).expand(1, 3, 10), rtol=1e-4, atol=1e-5)


def test_an_unknown_kernel():
    with pytest.raises(ModelError, match=r"kernel='gelu' is not known: choose from elu, relu, softplus, softmax"):
        LinearAttention(8, grouped=True, kernel="gelu")


def test_script_prints_the_published_similarities():
    result = CliRunner().invoke(runpy.run_path(str(SCRIPT))["main"], [])
    assert result.exit_code == 0, result.output
    rows = dict(line.split()[:2] for line in result.output.splitlines()[1:])
    assert {kernel: float(value) for kernel, value in rows.items()} == pytest.approx(PUBLISHED, abs=5e-6)


@pytest.mark.parametrize("kernel", PUBLISHED)
def test_script_prints_the_published_line_for_one_kernel(kernel):
    arguments = ["--seed", "42", "--resolution", "8,8", "--batch-size", "16", "--kernel", kernel]
    result = CliRunner().invoke(runpy.run_path(str(SCRIPT))["main"], arguments)
    assert result.exit_code == 0, result.output
    name, value = result.output.split(": ")
    assert name == "Cosine Similarity" and float(value) == pytest.approx(PUBLISHED[kernel], abs=5e-6)


def test_script_says_what_a_resolution_is():
    result = CliRunner().invoke(runpy.run_path(str(SCRIPT))["main"], ["--resolution", "8"])
    assert result.exit_code == 2 and "give height and width, as 8,8" in result.output
