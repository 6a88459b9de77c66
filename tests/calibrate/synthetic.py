"""Outcomes of a simulated network: deeper exits are more accurate, and scores predict whether they are right."""

import numpy as np

from pi_dynn.calibrate.outcomes import ExitOutcomes


def synthetic_outcomes(images: int, exits: int = 5, seed: int = 0) -> ExitOutcomes:
    """`exits` exits including the last answer; the last is right about 95 % of the images.

    An image's hardness decides at which depth it begins to be answered rightly; noise of its own at every exit
    makes early answers help now and then, and scores err on both sides.
    """
    rng = np.random.default_rng(seed)
    hardness = rng.beta(1.0, 2.5, images)
    depth = np.linspace(0.25, 1.0, exits)[:, None]
    margin = 7.0 * (depth - hardness) - 0.5 + 0.8 * rng.standard_normal(images)
    right = rng.random((exits, images)) < 1.0 / (1.0 + np.exp(-margin))
    sticky = rng.random((exits, images)) < 0.8
    for k in range(exits - 2, -1, -1):  # exits mostly agree with those behind them once they are right
        right[k] = np.where(right[k] & sticky[k], right[k + 1], right[k])
    scores = 1.0 / (1.0 + np.exp(-(margin + 0.7 * rng.standard_normal((exits, images)))))
    return ExitOutcomes(scores, right, np.linspace(100.0 / exits, 100.0, exits))


def synthetic_logits(images: int, classes: int, exits: int = 3, seed: int = 0, temperature: float = 1.0):
    """Logits (exits, images, classes) whose softmax after division by `temperature` is calibrated, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((exits, images, classes)) * np.linspace(1.0, 3.0, exits)[:, None, None]
    logits[:] = logits[-1:] * np.linspace(0.4, 1.0, exits)[:, None, None]
    probabilities = np.exp(logits[-1]) / np.exp(logits[-1]).sum(-1, keepdims=True)
    labels = (probabilities.cumsum(-1) > rng.random((images, 1))).argmax(-1)
    return logits * temperature, labels
