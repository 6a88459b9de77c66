"""Exit scores from logits: how sure an exit is of its answer. All are in 0..1, and higher is surer.

The learned gate's score is not among them: the network itself gives it. Every function takes logits
(K, N, classes) and works exit by exit, so that its memory is that of one exit.

Shape letters: K exits including the last answer, N samples.
"""

from collections.abc import Callable

import numpy as np

from pi_dynn.errors import CalibrationError

GATE = "gate"
WITHDRAWN = ("entropy-inverted",)  # in records of release 0.1; benchmarks/published still has it


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    logits = np.asarray(logits)
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


def max_probability(logits: np.ndarray) -> np.ndarray:
    """Probability of the likeliest class, (K, N)."""
    return np.stack([softmax(one).max(axis=-1) for one in logits])


def margin(logits: np.ndarray) -> np.ndarray:
    """Probability of the likeliest class less that of the second, (K, N)."""
    two = [np.partition(softmax(one), -2, axis=-1)[:, -2:] for one in logits]
    return np.stack([one[:, 1] - one[:, 0] for one in two])


def entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy of the probabilities in nats, (K, N): this one is low where the exit is sure."""
    return np.stack([_entropy(softmax(one)) for one in logits])


def entropy_score(logits: np.ndarray) -> np.ndarray:
    """1 less the entropy's share of its greatest value, ln classes, (K, N)."""
    return np.clip(1.0 - entropy(logits) / np.log(np.asarray(logits).shape[-1]), 0.0, 1.0)


def patience(logits: np.ndarray) -> np.ndarray:
    """How many exits up to this one gave the same answer in a row, as a share of all K, (K, N).

    Source: Zhou et al., BERT Loses Patience (2020), whose patience p is here a threshold of p / K.
    """
    answers = np.asarray(logits).argmax(axis=-1)
    run = np.ones(answers.shape)
    for k in range(1, len(answers)):
        run[k] += np.where(answers[k] == answers[k - 1], run[k - 1], 0.0)
    return run / len(answers)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    logs = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    return -(probabilities * logs).sum(axis=-1)


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max-probability": max_probability,
    "margin": margin,
    "entropy": entropy_score,
    "patience": patience,
}


def exit_scores(name: str, logits: np.ndarray, gate_scores: np.ndarray) -> np.ndarray:
    """The score `name` of every exit, (K, N): "gate" is what the network gave, the others come from logits.

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
