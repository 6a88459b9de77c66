"""Figures of published logs, remade by the rules of the counter that printed them."""

import pytest
import torch

from benchmarks.published.op_counter import published_table
from pi_dynn.errors import ModelError
from pi_dynn.models import count_macs, create_model

# Plain 12-384 with exits after blocks 0-10: data set, classes, px, threshold -> printed total in millions and how
# many test images left after which block.
LOGS = {
    ("NWPU", 45, 256, 0.50): (217.8188934, {2: 540, 3: 101, 4: 779, 5: 1968, 6: 848, 7: 1427, 8: 637}),
    ("NWPU", 45, 256, 0.55): (220.0375061, {2: 431, 3: 54, 4: 658, 5: 1936, 6: 762, 7: 1716, 8: 740, 9: 3}),
    ("UCM", 21, 256, 0.75): (234.1775513, {6: 112, 7: 200, 8: 71, 9: 37}),
    ("UCM", 21, 256, 0.80): (247.0016937, {7: 140, 8: 67, 9: 154, 10: 55, 11: 4}),
    ("CIFAR10", 10, 224, 0.75): (187.9891052, {5: 1800, 6: 444, 7: 1598, 8: 3120, 9: 2347, 10: 691}),
    ("CIFAR10", 10, 224, 0.80): (193.6015015, {5: 529, 6: 191, 7: 1292, 8: 3523, 9: 3170, 10: 1295}),
}
# Distilled 12-192 at 224 px, exits after blocks 0-10 that read both tokens: millions at each exit.
STUDENT_EXITS = [63.0247, 68.2466, 73.4685, 78.6904, 83.9123, 89.1342, 94.3561, 99.5780, 104.7999, 110.0218, 115.2437]
STUDENT_TOTAL = 120.5606


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return create_model(name, exits="all", **kwargs)


@pytest.mark.parametrize("log", LOGS)
def test_mean_over_a_test_set(log):
    _, classes, px, _ = log
    printed, left = LOGS[log]
    table = published_table(on_meta("gfnet_12_384", num_classes=classes, image_size=px))
    assert table.mean([left.get(block, 0) for block in range(12)]) / 1e6 == pytest.approx(printed, abs=1e-4)


def test_cost_at_every_exit():
    model = on_meta("gfnet_12_192", num_classes=10, image_size=224, distilled=True, exit_heads="cls+dist")
    table = published_table(model)
    macs = [answer.macs / 1e6 for answer in table.exits]
    assert macs == pytest.approx([*STUDENT_EXITS, STUDENT_TOTAL], abs=1e-4)
    assert table.rule == "published op counter"


def test_it_misjudges_what_matters():
    """Why it is no guide to choose a network by: four times the tokens cost four times the multiply-adds."""
    small, large = (on_meta("gfnet_12_384", num_classes=10, image_size=px) for px in (128, 256))
    true = count_macs(large, 256).total / count_macs(small, 128).total
    published = published_table(large).total / published_table(small).total
    assert true == pytest.approx(4.0, abs=0.02)
    assert published < 3.2


def test_only_the_networks_it_was_made_for():
    with pytest.raises(ModelError, match="knows no GFNetPyramid"):
        published_table(on_meta("gfnet_h_ti", num_classes=10, image_size=32))
