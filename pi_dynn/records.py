"""Records shared by all rooms, and their base: frozen dataclasses that convert to plain data and back. SI units."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import msgspec

from pi_dynn.errors import PiDynnError

NEVER = 2.0  # a threshold that no score reaches
AnyRecord = TypeVar("AnyRecord", bound="Record")


class Record:
    """Mixin of frozen dataclasses: conversion to plain data and back, by their type hints.

    A record that is saved or printed on its own has a KIND; KIND and SCHEMA are then its first keys.
    """

    KIND: ClassVar[str] = ""
    SCHEMA: ClassVar[int | str] = 1

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, ready for JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self, str_keys=True, enc_hook=_plain)
        return {"kind": self.KIND, "schema": self.SCHEMA} | plain if self.KIND else plain

    @classmethod
    def from_dict(cls: type[AnyRecord], values: Any) -> AnyRecord:
        """The record from the result of `to_dict`; unknown fields are ignored.

        Raises: ValueError for another kind or schema; it names the first field that is missing or of another type.
        Exceptions of the record's own checks pass through.
        """
        if cls.KIND and isinstance(values, dict):
            if kind_of(values) not in ("", cls.KIND):
                raise ValueError(f"it is of the kind {kind_of(values)!r}")
            if values.get("schema", cls.SCHEMA) != cls.SCHEMA:
                raise ValueError(f"it has schema {values['schema']!r}, and this version reads {cls.SCHEMA!r}")
        try:
            return msgspec.convert(values, cls, str_keys=True, dec_hook=_array)
        except msgspec.ValidationError as error:
            raise (error.__cause__ if isinstance(error.__cause__, PiDynnError) else error) from None


def _plain(value: Any) -> Any:
    """Numpy's numbers and arrays as Python's, None for nan in an array; torch's version as a string.

    Raises: TypeError for anything else.
    """
    if isinstance(value, str):
        return str(value)
    if not hasattr(value, "tolist"):
        raise TypeError(f"a {type(value).__name__} is no plain data")
    plain = value.tolist()
    return [None if one != one else one for one in plain] if isinstance(plain, list) else plain  # nan is not JSON


def _array(hint: Any, values: Any) -> Any:
    """`values` as an array of the type in a hint such as `NDArray[np.float64]`. Raises: ValueError, TypeError."""
    import numpy as np  # here, because most records have no arrays and `import pi_dynn` is to stay light

    return np.asarray(values, dtype=get_args(get_args(hint)[1])[0])


# Version 0.1 wrote no kinds. Its records are recognised by sets of keys that no other of them has.
_KEYS_0_1 = {
    "prediction": {"block_index", "latency_s"},
    "watch summary": {"images_per_s", "dropped"},
    "classify summary": {"images_per_s", "exit_counts"},
    "evaluation": {"full_depth_acc1", "loss"},
    "latency": {"median_s", "p90_s", "p99_s"},
    "cold start": {"import_s", "ready_s"},
    "profile": {"steps", "disturbance"},
    "energy run": {"recording", "trace"},
    "calibration record": {"rule", "curve"},
}


def kind_of(values: Any) -> str:
    """The kind of record that parsed JSON holds; "" if it is unknown."""
    if not isinstance(values, dict):
        return ""
    by_keys = (kind for kind, keys in _KEYS_0_1.items() if keys <= values.keys())
    return str(values["kind"]) if "kind" in values else next(by_keys, "")


def parsed_json(text: str) -> Any:
    """What JSON text holds. Raises: ValueError if it is not JSON, or holds a number that is not finite."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def file_kind(path: str | Path) -> str:
    """The kind of record in a JSON file; "" for any other file, or none."""
    try:
        return kind_of(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ""


def read_record(
    record: type[AnyRecord],
    path: str | Path,
    error: type[Exception],
    cure: str,
    unreadable: type[Exception] | None = None,
) -> AnyRecord:
    """The record in a JSON file; `cure` is the advice that ends an error message.

    Raises: `unreadable`, or else `error`, if there is no such file; `error` if it holds something else or is damaged.
    """
    try:
        return record.from_dict(parsed_json(Path(path).read_text(encoding="utf-8")))
    except OSError as problem:
        raise (unreadable or error)(f"{path}: cannot be read ({problem.strerror}); check the path") from problem
    except ValueError as problem:
        reason = " ".join(str(problem).split())
        raise error(f"{path}: no {record.KIND}, or a damaged one ({reason}); {cure}") from problem


@dataclass(frozen=True)
class Prediction(Record):
    """The answer for one image.

    `exit_index` counts the exits from zero, the last answer included; `block_index` is the block after which
    the image left. `score` is the gate score at that exit, 1 for the last answer. `latency_s` covers the
    network alone; in a batch it is the batch's time shared equally. `top` lists the likeliest classes. An image that is
    not `accepted` is none of the classes, and `label` is the nearest; `similarity` (-1..1) is that of its logits to
    the nearest class, None for a bundle that rejects nothing.
    """

    KIND = "prediction"

    label: str
    class_index: int
    probability: float
    exit_index: int
    block_index: int
    score: float
    latency_s: float
    top: list[tuple[str, float]]
    accepted: bool = True
    similarity: float | None = None


@dataclass(frozen=True)
class Finding(Record):
    """The result of one check of `doctor`; `problem` and `cure` are None if there is no problem."""

    KIND = "finding"

    topic: str
    name: str
    value: str
    problem: str | None = None
    cure: str | None = None
