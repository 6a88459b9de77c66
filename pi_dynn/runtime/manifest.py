"""What a bundle says about itself."""

from dataclasses import asdict, dataclass, field, fields

from pi_dynn.errors import BundleError

SCHEMA = 1
INT8_STATIC = "int8-static"  # int8 with ranges found beforehand, on images


@dataclass(frozen=True)
class Manifest:
    """The JSON inside a bundle: everything needed to use it, and where it came from.

    `exit_blocks` are the blocks after which an early exit stands; `thresholds` has one value for each of
    them and the answer after the last block (`depth` - 1) needs none. `macs` are multiply-adds to leave at
    each exit, the last one included, with all exit checks on the way. `self_test` holds the logits of each exit for
    the picture of noise that engines are tested with, where the network cannot compute in floats: convolutions in
    int8-static.
    """

    model: str
    arguments: dict
    labels: list[str]
    preprocess: dict
    depth: int
    exit_blocks: list[int]
    thresholds: list[float]
    macs: list[int]
    precision: str
    packed_engine: str | None
    weights_sha256: str
    pi_dynn_version: str
    torch_version: str
    notes: dict = field(default_factory=dict)
    format: str = "torchscript"  # or "onnx"
    self_test: list[list[float]] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def has_floats(self) -> bool:
        """Whether the network can also compute in floats, which is what engines are tested against."""
        return not self.self_test

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> "Manifest":
        """The manifest from parsed JSON. Raises BundleError for another schema or a missing field."""
        if not isinstance(values, dict):
            raise BundleError("the manifest is not a JSON object")
        if values.get("schema") != SCHEMA:
            raise BundleError(
                f"the bundle has schema {values.get('schema')!r} and this pi_dynn reads {SCHEMA}; "
                "export it again with this version"
            )
        known = {f.name for f in fields(cls)}
        missing = sorted(known - set(values) - {"notes", "format", "self_test"})
        if missing:
            raise BundleError(f"the manifest lacks {', '.join(missing)}; export the bundle again")
        manifest = cls(**{name: value for name, value in values.items() if name in known})
        manifest._check()
        return manifest

    def _check(self) -> None:
        exits = len(self.exit_blocks)
        if len(self.thresholds) != exits or len(self.macs) != exits + 1:
            raise BundleError(
                f"the manifest has {exits} exits, {len(self.thresholds)} thresholds and {len(self.macs)} costs; "
                "export the bundle again"
            )

    @property
    def blocks(self) -> list[int]:
        """The block each exit stands after, the last answer included."""
        return [*self.exit_blocks, self.depth - 1]
