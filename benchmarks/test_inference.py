"""One answer: full depth, all images forced to one exit, the natural mix, and the eager form they all come from.

The same inner function as `pi-dynn benchmark`: variants of a session over inputs in turn.
"""

from itertools import count

import pytest
import torch

from pi_dynn.latency.benchmark import session_variants
from pi_dynn.models import create_model


def named(session, inputs, ending: str):
    """The variant whose name ends so, as a function without arguments that takes the next image at each call."""
    (variant,) = [one for one in session_variants(session, inputs, "", each_exit=True) if one.name.endswith(ending)]
    number = count()
    return lambda: variant.run(next(number))


@pytest.mark.benchmark(group="full depth")
def test_full_depth(energy, session, inputs):
    answer = energy(named(session, inputs, ", full depth"))
    assert answer.exit_index == session.exits


@pytest.mark.benchmark(group="one exit")
def test_forced_exit(energy, session, inputs, exit_index):
    block = session.manifest.blocks[exit_index]
    answer = energy(named(session, inputs, f", block {block}"))
    assert answer.exit_index == exit_index


@pytest.mark.benchmark(group="natural mix")
def test_natural_mix(energy, session, inputs):
    answer = energy(named(session, inputs, ", with exits"))
    assert answer.exit_index <= session.exits


@pytest.mark.benchmark(group="full depth")
def test_baseline(energy, bundle, inputs):
    """The training form in eager PyTorch; what its weights are worth does not change how long they take."""
    model = create_model(bundle.manifest.model, **bundle.manifest.arguments).eval()
    number = count()

    def answer():
        with torch.inference_mode():
            return model(inputs[next(number) % len(inputs)].unsqueeze(0)).argmax(1)

    assert energy(answer).shape == (1,)
