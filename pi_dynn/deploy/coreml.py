"""A network at full depth as a Core ML model, for Apple's processors; it is converted anywhere and runs there only.

The model takes an RGB picture and prepares it itself, so that it can be dropped into Xcode's performance report.

Source: suous/RecNeXt, export_coreml.py: norms folded, traced at one size, and converted.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pi_dynn.data.preprocess import Preprocess
from pi_dynn.deploy.builder import deploy_form
from pi_dynn.deploy.network import EarlyExitNetwork
from pi_dynn.deploy.onnx import in_whole_tensors
from pi_dynn.errors import InputError, ModelError, need_extra

FORMS = {".mlpackage": "mlprogram", ".mlmodel": "neuralnetwork"}  # the latter as published for RecNeXt


class PictureNetwork(nn.Module):
    """Pixels (1, 3, H, W) in 0..255 -> logits (1, classes) at full depth."""

    def __init__(self, network: EarlyExitNetwork, preprocess: Preprocess) -> None:
        super().__init__()
        self.layers = nn.Sequential(network.stem, *network.stages, network.last_stage, network.last_head)
        self.register_buffer("mean", 255.0 * torch.tensor(preprocess.mean)[:, None, None])
        self.register_buffer("scale", 1.0 / (255.0 * torch.tensor(preprocess.std)[:, None, None]))

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layers((pixels - self.mean) * self.scale)
        return logits


def picture_network(model: nn.Module, preprocess: Preprocess) -> PictureNetwork:
    """The deploy form of a training form in floats, at full depth. Raises ModelError for a family without one."""
    return PictureNetwork(in_whole_tensors(deploy_form(model.eval(), [], "fp32", None)), preprocess).eval()


@torch.no_grad()
def save_coreml(model: nn.Module, labels: Sequence[str], preprocess: Preprocess, path: Path) -> None:
    """Convert a training form and replace what is at `path`, whose ending says which kind of Core ML file it is.

    Raises: InputError for another ending, or without coremltools; ModelError for a network it cannot convert.
    """
    if path.suffix not in FORMS:
        raise InputError(f"{path}: a Core ML model is a file that ends with {' or '.join(FORMS)}")
    coremltools = _import_coremltools()
    pixels = torch.zeros(1, 3, preprocess.size, preprocess.size)
    # A straight line of operations at one size: there is no branch that a trace could freeze.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes that a trace takes for constants, as they are to be
        traced = torch.jit.trace(picture_network(model, preprocess), pixels)
        try:
            converted = coremltools.convert(
                traced,
                convert_to=FORMS[path.suffix],
                inputs=[coremltools.ImageType(name="image", shape=pixels.shape)],
                classifier_config=coremltools.ClassifierConfig(list(labels)),
            )
        except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"coremltools {coremltools.__version__} cannot convert it ({reason})") from error
    converted.short_description = f"{getattr(model, 'name', 'network')}, by pi_dynn: the centre square of a picture"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made, old = Path(folder) / f"made{path.suffix}", Path(folder) / "old"
        converted.save(str(made))
        if path.exists():
            path.rename(old)  # a package is a folder, which is not replaced in one step
        made.rename(path)


def _import_coremltools() -> ModuleType:
    """coremltools, taught what it lacks. Raises InputError without it."""
    with need_extra("coreml", "a Core ML model"):
        import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

    def addcmul(context: Any, node: Any) -> None:
        """x + value * a * b."""
        x, a, b, value = _get_inputs(context, node, expected=4)
        product = Builder.mul(x=Builder.mul(x=a, y=b), y=float(value.val))
        context.add(Builder.add(x=x, y=product), torch_name=node.name)

    register_torch_op(addcmul, override=True)
    module: ModuleType = coremltools
    return module
