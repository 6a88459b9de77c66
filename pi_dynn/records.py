"""What the rooms hand each other: frozen records that turn into plain data and back. SI units throughout."""

from dataclasses import asdict, dataclass, fields
from typing import Any


class Record:
    """Mixin of the frozen dataclasses below: plain dicts out and in."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, ready for JSON."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]):
        """The record from what `to_dict` gave; fields it does not know are ignored."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class Prediction(Record):
    """One answer.

    `exit_index` counts the exits from zero, the last answer included; `block_index` is the block after which
    the image left. `score` is the gate value that let it leave, 1 for the last answer. `latency_s` covers the
    network alone; in a batch it is the batch's time shared equally. `top` lists the likeliest classes.
    """

    label: str
    class_index: int
    probability: float
    exit_index: int
    block_index: int
    score: float
    latency_s: float
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class Finding(Record):
    """One thing `doctor` looked at; `problem` and `cure` are None where all is well."""

    topic: str
    name: str
    value: str
    problem: str | None = None
    cure: str | None = None
