"""Every recorded case of the public code, computed by FFT and by matrix products."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from pi_dynn.models import create_model
from pi_dynn.models.dft import filters_as_matrices

CASES = {
    "gfnet_xs_224_1000": "gfnet_xs",
    "gfnet_12_384_128_10": "gfnet_12_384",
    "gfnet_12_384_256_38": "gfnet_12_384",
    "gfnet_12_384_128_10_exits11": "gfnet_12_384",
    "gfnet_12_384_128_10_exits4": "gfnet_12_384",
    "gfnet_12_192_distil_128_10_exits11": "gfnet_12_192",
}


@pytest.fixture(scope="module", params=CASES)
def case(request, reference):
    """A recorded case with the network that is filled like it and its answers under both forms of filter."""
    case = reference.load_case(request.param)
    config = case["config"]
    with torch.device("meta"):  # the fill replaces every weight, so none needs a start value
        model = create_model(
            CASES[request.param],
            num_classes=config["num_classes"],
            image_size=config["img_size"],
            exits=config.get("exit_blocks"),
            distilled="grid" in config,
        )
    model = model.to_empty(device="cpu").eval()
    reference.fill(model)
    x = reference.case_input(case)
    with torch.inference_mode():
        logits = model(x)
        answers = {"fft": model.forward_exits(x)}
        answers["matrices"] = filters_as_matrices(model).forward_exits(x)
        heads = model.forward_heads(x) if model.distilled else None
    return SimpleNamespace(expected=case, model=model, logits=logits, answers=answers, heads=heads)


@pytest.fixture
def close(reference):
    def check(actual, expected):
        assert_close(actual, torch.tensor(expected), rtol=0, atol=reference.ATOL)

    return check


def test_keys_shapes_and_fill(case, reference):
    shapes = {key: list(value.shape) for key, value in case.model.state_dict().items()}
    assert shapes == dict(case.expected["state_dict"])
    assert sum(p.numel() for p in case.model.parameters()) == case.expected["parameters"]
    assert reference.digest(case.model, [key for key, _ in case.expected["state_dict"]]) == case.expected["sha256"]


def test_logits(case, close):
    close(case.logits, case.expected["logits"])


@pytest.mark.parametrize("form", ["fft", "matrices"])
def test_answers(case, form, close):
    exits, recorded = case.answers[form], case.expected.get("exits", [])
    assert [block for block, _, _ in exits] == [exit["block"] for exit in recorded] + [case.model.depth - 1]
    for (_, exit_logits, gate), exit in zip(exits, recorded, strict=False):
        close(exit_logits, exit["logits"])
        close(gate, exit["gate"])
    close(exits[-1][1], case.expected["logits"])
    assert torch.equal(exits[-1][2], torch.ones(2))


@pytest.mark.parametrize("form", ["fft", "matrices"])
def test_the_block_each_sample_leaves_after(case, form):
    gates = {block: gate.tolist() for block, _, gate in case.answers[form]}
    checked = 0
    for positions, by_threshold in case.expected.get("exit_block_at_threshold", {}).items():
        blocks = [int(block) for block in positions.split(",")]
        for threshold, expected in by_threshold.items():
            left = [
                next((block for block in blocks if gates[block][sample] >= float(threshold)), case.model.depth - 1)
                for sample in range(2)
            ]
            assert left == expected, (positions, threshold)
            checked += 1
    assert bool(checked) == bool(case.model.exit_blocks)


def test_both_heads_of_a_distilled_network(case, close):
    assert (case.heads is None) == ("head_logits" not in case.expected)
    for logits, name in zip(case.heads or [], ("head_logits", "head_dist_logits"), strict=False):
        close(logits, case.expected[name])
