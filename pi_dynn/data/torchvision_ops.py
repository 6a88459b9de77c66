"""torchvision, importable even if its compiled extension does not fit the installed torch.

A CUDA build of torchvision beside a CPU build of torch cannot load its extension, and then
`import torchvision` itself fails: it registers meta kernels for operators the extension should have
declared. If their schemas are declared first, transforms, datasets and models can be imported. If the extension
loads, this module does nothing. `torchvision.io.decode_image` is not used: pi_dynn decodes with Pillow.

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

_declared: list[torch.library.Library] = []  # schemas are removed when their library object is collected


def extension_loads() -> bool:
    """Whether torchvision's compiled extension can be loaded beside this torch."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C[._]*"):  # from 0.29 on it is _C_stable.so
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def declare_missing_schemas() -> list[str]:
    """Declare the missing schemas that torchvision's Python code needs; returns their names."""
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
