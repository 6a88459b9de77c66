"""What the rooms hand each other: frozen records that turn into plain data and back. SI units throughout."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import msgspec

from pi_dynn.errors import PiDynnError

NEVER = 2.0  # a threshold that no score reaches
AnyRecord = TypeVar("AnyRecord", bound="Record")


class Record:
    """Mixin of frozen dataclasses: plain data out and in, by their type hints.

    A record that is saved on its own says what it is: its KIND and the number of its SCHEMA are written first.
    """

    KIND: ClassVar[str] = ""
    SCHEMA: ClassVar[int] = 1

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, ready for JSON."""
        plain = msgspec.to_builtins(self, str_keys=True, enc_hook=_plain)
        return {"kind": self.KIND, "schema": self.SCHEMA} | plain if self.KIND else plain

    @classmethod
    def from_dict(cls: type[AnyRecord], values: Any) -> AnyRecord:
        """The record from what `to_dict` gave; fields it does not know are ignored.

        Raises: ValueError that names the first field which is missing or of another type, or what the record's own
        check raises.
        """
        try:
            return msgspec.convert(values, cls, str_keys=True)
        except msgspec.ValidationError as error:
            raise (error.__cause__ if isinstance(error.__cause__, PiDynnError) else error) from None


def _plain(value: Any) -> Any:
    """A number of numpy's, or of a subclass such as torch's version, as Python's own. Raises: TypeError."""
    for kind in (str, float, int):
        if isinstance(value, kind):
            return kind(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no plain data")


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
