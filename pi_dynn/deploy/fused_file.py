"""Published files of fused networks, `*_fused.pt`: TorchScript archives, of which only the weights are used."""

import zipfile
from io import BytesIO
from pathlib import Path

import torch
from torch import nn

from pi_dynn.deploy.fuse import fuse_norms
from pi_dynn.errors import CheckpointError
from pi_dynn.models.registry import create_model
from pi_dynn.runtime.archive import packed, torchscript_files
from pi_dynn.runtime.code_check import check_files


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive, which has code beside its weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


@torch.no_grad()
def fused_network(path: Path, model: str | None, image_size: int | None) -> nn.Module:
    """The network `model` with its norms folded and the weights of a fused file.

    Its code is read before torch loads it, as a bundle's is.

    Raises: CheckpointError for a file that does not fit, or without `model` and `image_size`; BundleError for one whose
    code does more than compute.
    """
    if model is None or image_size is None:
        raise CheckpointError(f"{path} is a fused network and does not tell which: pass --model and --image-size")
    files = torchscript_files(path)
    check_files(files, str(path))
    try:
        state = torch.jit.load(BytesIO(packed(files)), map_location="cpu").state_dict()
    except RuntimeError as error:
        raise CheckpointError(f"{path}: TorchScript cannot read it ({str(error).splitlines()[0]})") from error
    two, three = (fuse_norms(_network(model, classes, image_size)).state_dict() for classes in (2, 3))
    heads = [key for key, value in two.items() if value.shape != three[key].shape]
    classes = state[heads[0]].shape[0] if heads and heads[0] in state else 2
    made = _network(model, classes, image_size)
    network = fuse_norms(made)
    missing, unexpected = sorted(network.state_dict().keys() - state), sorted(state.keys() - network.state_dict())
    wrong = [key for key, value in network.state_dict().items() if key in state and state[key].shape != value.shape]
    if missing or unexpected or wrong:
        parts = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
        told = "; ".join(f"{what}: {', '.join(keys[:3])} ({len(keys)})" for what, keys in parts.items() if keys)
        raise CheckpointError(f"{path} does not fit a fused {model}: {told}")
    network.load_state_dict(state)
    network.name, network.arguments = made.name, made.arguments
    return network


def _network(name: str, classes: int, image_size: int) -> nn.Module:
    return create_model(name, num_classes=classes, image_size=image_size).eval()
