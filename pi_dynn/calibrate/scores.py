"""Exit scores from logits: the confidence of an exit in its answer. All are in 0..1, and higher is surer.

The score of the learned gate is an output of the network and not computed here. Every function takes logits
(K, N, classes) and works exit by exit, so that its memory is that of one exit.

Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pi_dynn.errors import CalibrationError

GATE = "gate"
WITHDRAWN = ("entropy-inverted",)  # in records of release 0.1; benchmarks/published still has it


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities along the last axis."""
    logits = np.asarray(logits)
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = grown / grown.sum(axis=-1, keepdims=True)
    return probabilities


def max_probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of the likeliest class, (K, N)."""
    return np.stack([softmax(one).max(axis=-1) for one in logits])


def margin(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of the likeliest class less that of the second, (K, N)."""
    two = [np.partition(softmax(one), -2, axis=-1)[:, -2:] for one in logits]
    return np.stack([one[:, 1] - one[:, 0] for one in two])


def entropy(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of the probabilities in nats, (K, N): low where the exit is sure."""
    return np.stack([_entropy(softmax(one)) for one in logits])


def entropy_score(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - entropy / ln(classes), (K, N)."""
    scores: NDArray[np.float64] = np.clip(1.0 - entropy(logits) / np.log(np.asarray(logits).shape[-1]), 0.0, 1.0)
    return scores


def patience(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The number of consecutive exits, up to this one, with the same answer, divided by K, (K, N).

    Source: Zhou et al., BERT Loses Patience (2020), whose patience p is here a threshold of p / K.
    """
    answers = np.asarray(logits).argmax(axis=-1)
    run = np.ones(answers.shape)
    for k in range(1, len(answers)):
        run[k] += np.where(answers[k] == answers[k - 1], run[k - 1], 0.0)
    shares: NDArray[np.float64] = run / len(answers)
    return shares


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    nats: NDArray[np.float64] = -(probabilities * logs).sum(axis=-1)
    return nats


SCORES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "max-probability": max_probability,
    "margin": margin,
    "entropy": entropy_score,
    "patience": patience,
}


def exit_scores(name: str, logits: NDArray[np.float64], gate_scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score `name` of every exit, (K, N): "gate" is an output of the network, the others come from logits.

    Raises: CalibrationError for a name that is not known, or logits that are not numbers.
    """
    if name == GATE:
        return np.asarray(gate_scores)
    if name in WITHDRAWN:
        raise CalibrationError(
            f"the score {name!r} of a record made by pi_dynn 0.1 lets the unsure images leave, as a published "
            "program does by mistake: calibrate again without it"
        )
    if name not in SCORES:
        raise CalibrationError(f"no score {name!r}: give one of {', '.join((GATE, *SCORES))}")
    if np.isnan(logits).any():
        raise CalibrationError("some logits are NaN: the network or its inputs are broken")
    return SCORES[name](logits)
