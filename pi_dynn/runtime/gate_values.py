"""The gates of exits in NumPy, for graphs that do without. Imports no torch.

They give the value before the sigmoid of `pi_dynn.exits`'s gates, in float64.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pi_dynn.calibrate.scores import softmax
from pi_dynn.records import Record

_SMALLEST = 1e-12  # keeps logarithms finite, as in torch's gates


@dataclass(frozen=True)
class Gate(Record):
    """The gate of an exit: its kind, what logits are multiplied by first, and the weights of a learned one.

    Those are of the likeliest and the second probability, of the entropy and that of the sharpened probabilities, and
    the bias.
    """

    kind: str
    temperature: float = 1.0
    weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises: ValueError for a gate that is not known."""
        if self.kind not in VALUES or len(self.weights) != (5 if self.kind == LEARNED else 0):
            raise ValueError(f"gate {self.kind!r} with {len(self.weights)} weights is none that is known")

    def value(self, logits: NDArray[np.floating]) -> float:
        """The value for the logits (classes,) of one image."""
        return VALUES[self.kind](logits.astype(np.float64) * self.temperature, self.weights)


def max_probability(z: NDArray[np.float64], weights: list[float]) -> float:
    """The logit of the probability of the likeliest class."""
    if len(z) == 1:
        return math.inf
    best = z.argmax()
    top = float(z[best])
    z[best] = -math.inf
    second = float(z.max())
    return top - second - math.log(float(np.exp(z - second).sum()))


def margin(z: NDArray[np.float64], weights: list[float]) -> float:
    """The logit of the probability of the likeliest class less that of the second."""
    second, first = np.partition(softmax(z), -2)[-2:]
    lead = float(first - second)
    return math.log(max(lead, _SMALLEST)) - math.log(max(1.0 - lead, _SMALLEST))


def entropy(z: NDArray[np.float64], weights: list[float]) -> float:
    """The logit of 1 - H / ln C."""
    nats = _nats(softmax(z))
    return math.log(max(math.log(len(z)) - nats, _SMALLEST)) - math.log(max(nats, _SMALLEST))


def learned(z: NDArray[np.float64], weights: list[float]) -> float:
    """The learned uncertainty gate."""
    p = softmax(z)
    second, first = np.partition(p, -2)[-2:]
    of_first, of_second, of_entropy, of_sharpened, bias = weights
    return float(
        of_first * first + of_second * second + of_entropy * _nats(p) + of_sharpened * _nats(softmax(2.0 * z)) + bias
    )


def _nats(p: NDArray[np.float64]) -> float:
    return -float((p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum())


LEARNED = "learned"
VALUES = {"max-probability": max_probability, "margin": margin, "entropy": entropy, LEARNED: learned}
