"""Information about a bundle from its manifest, without torch."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pi_dynn.calibrate.records import CalibrationRecord, load_record
from pi_dynn.calibrate.reject import Rejection
from pi_dynn.errors import CalibrationError
from pi_dynn.records import Record, file_kind
from pi_dynn.runtime.archive import bundle_file, verified_manifest
from pi_dynn.runtime.forms import TORCHSCRIPT
from pi_dynn.runtime.records import BundleInfo, CalibrationInfo, ExitInfo, TrainingStage

_NOT_DATA = {"split_sha256", "files_sha256"}  # in the data of a stage, beside the names of data sets


@dataclass(frozen=True)
class _Stage(Record):
    """One stage of training in the notes; `data` names a data set by its root, or several by their hashes."""

    stage: str = "unnamed"
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Notes(Record):
    """The notes that have a field in a BundleInfo. Nothing vouches for their types: a manifest has no hash."""

    parameters: int | None = None
    stages: list[_Stage] = field(default_factory=list)
    licence: str | None = None


@dataclass(frozen=True)
class _PlainManifest(Record):
    """The fields of a Manifest that info shows. A Manifest itself holds a Preprocess, which needs torch."""

    model: str
    labels: list[str]
    preprocess: dict[str, Any]
    depth: int
    exit_blocks: list[int]
    thresholds: list[float]
    macs: list[int]
    precision: str
    packed_engine: str | None
    weights_sha256: str
    pi_dynn_version: str
    torch_version: str
    notes: dict[str, Any] = field(default_factory=dict)
    rejection: Rejection | None = None
    format: str = TORCHSCRIPT


def _read_manifest(values: Any) -> _PlainManifest:
    """The manifest in parsed JSON. Raises: ValueError for another schema, counts that do not fit, or odd notes."""
    manifest = _PlainManifest.from_dict(values)
    if (values.get("kind", "manifest"), values.get("schema", 1)) != ("manifest", 1):
        raise ValueError(f"the manifest has schema {values.get('schema')!r}, and this version reads 1")
    exits = len(manifest.exit_blocks)
    if len(manifest.thresholds) != exits or len(manifest.macs) != exits + 1:
        raise ValueError(f"{exits} exits, {len(manifest.thresholds)} thresholds and {len(manifest.macs)} costs")
    _Notes.from_dict(manifest.notes)
    return manifest


def bundle_info(
    path: str | Path | None, records: Iterable[Path] = (), warn: Callable[[str], object] = lambda text: None
) -> BundleInfo:
    """What the bundle at `path` says of itself, or the embedded one for None; its content is checked by its hash.

    `records` are files and folders with calibration records, of which those for this bundle are listed. `warn` gets a
    line for each record that cannot be read.

    Raises: BundleNotFound, BundleError for a file that is no bundle or a damaged one.
    """
    data, name = bundle_file(path)
    manifest = verified_manifest(data, name, _read_manifest, lambda one: one.weights_sha256)
    sha256 = hashlib.sha256(data).hexdigest()
    notes = _Notes.from_dict(manifest.notes)
    blocks, thresholds = [*manifest.exit_blocks, manifest.depth - 1], [*manifest.thresholds, None]
    rows = enumerate(zip(blocks, thresholds, manifest.macs, strict=True))
    return BundleInfo(
        file=name,
        size_bytes=len(data),
        sha256=sha256,
        format=manifest.format,
        precision=manifest.precision,
        packed_engine=manifest.packed_engine,
        model=manifest.model,
        parameters=notes.parameters,
        depth=manifest.depth,
        preprocess=manifest.preprocess,
        labels=manifest.labels,
        exits=[ExitInfo(k, block, threshold, macs) for k, (block, threshold, macs) in rows],
        training=training_stages(notes.stages),
        rejection=None if manifest.rejection is None else manifest.rejection.alpha,
        licence=notes.licence,
        calibration=[_calibration_info(file, one) for file, one in records_for(sha256, records, warn)],
        pi_dynn_version=manifest.pi_dynn_version,
        torch_version=manifest.torch_version,
        notes={name: value for name, value in manifest.notes.items() if name not in _Notes.__dataclass_fields__},
    )


def training_stages(stages: list[_Stage]) -> list[TrainingStage]:
    """The stages in a manifest's notes in order; equal ones that follow each other are one of several runs."""
    found: list[TrainingStage] = []
    for stage in stages:
        data = stage.data or {}
        # The published model's stages name several data sets by their hashes, those of `train` one by its root.
        sets = [str(data["root"])] if "root" in data else sorted(data.keys() - _NOT_DATA)
        runs = 1
        if found and (found[-1].stage, found[-1].data) == (stage.stage, sets):
            runs += found.pop().runs
        found.append(TrainingStage(stage.stage, runs, sets))
    return found


def records_for(
    sha256: str, places: Iterable[Path], warn: Callable[[str], object]
) -> list[tuple[Path, CalibrationRecord]]:
    """Calibration records for the bundle `sha256` in files and folders, each file once, with their paths."""
    files: dict[Path, Path] = {}
    for place in places:
        for file in sorted(place.glob("*.json")) if place.is_dir() else [place]:
            files.setdefault(file.resolve(), file)
    records = []
    for file in files.values():
        if file_kind(file) == CalibrationRecord.KIND:
            try:
                records.append((file, load_record(file)))
            except CalibrationError as error:
                warn(str(error))
    return [(file, record) for file, record in records if record.bundle == sha256]


def _calibration_info(file: Path, record: CalibrationRecord) -> CalibrationInfo:
    return CalibrationInfo(
        file=str(file),
        rule=record.rule,
        score=record.score,
        accuracy=record.accuracy,
        mean_cost=record.mean_cost,
        cost_unit=record.cost_unit,
        images=record.images,
        dataset=record.dataset,
    )
