"""torchvision, importable even where its compiled extension does not fit the installed torch.

A CUDA build of torchvision beside a CPU build of torch cannot load its extension, and then
`import torchvision` itself fails: it registers meta kernels for operators the extension should have
declared. Declaring their schemas first lets transforms, datasets and models import. Nothing here runs
where the extension loads. `torchvision.io.decode_image` stays out of reach either way: pi_dynn decodes
with Pillow.

Use: `from pi_dynn.data.torchvision_ops import torchvision`
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_declared: list[torch.library.Library] = []  # a library object takes its schemas along when collected


def extension_loads() -> bool:
    """Whether torchvision's compiled extension can be loaded beside this torch."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def declare_missing_schemas() -> list[str]:
    """Declare the schemas torchvision's Python code needs and nobody has declared; their names."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    names = []
    for schema in SCHEMAS:
        name = schema.partition("(")[0]
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
            names.append(name)
    _declared.append(library)
    return names


def import_torchvision() -> ModuleType:
    """The torchvision package with `ops` and `transforms.v2`. Raises ImportError if it is not installed."""
    if "torchvision" not in sys.modules and not extension_loads():
        declare_missing_schemas()
    package = importlib.import_module("torchvision")
    for part in ("torchvision.ops", "torchvision.transforms.v2"):
        importlib.import_module(part)
    return package


torchvision = import_torchvision()
