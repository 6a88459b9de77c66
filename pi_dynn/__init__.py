"""pi_dynn: early-exit image classification on a Raspberry Pi, with the energy of every answer measured."""

import importlib
import os

# Two OpenMP threads that spin while they wait collapse as soon as another process is busy, and on a Pi one
# always is. libgomp reads this when torch loads it, so it must be set before; a user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.2.0"

# Public names and where they live: importing pi_dynn imports neither torch nor anything heavy.
_PUBLIC = {
    "list_models": "pi_dynn.models",
    "create_model": "pi_dynn.models",
    "attach_exits": "pi_dynn.models.backbones",
    "load_checkpoint": "pi_dynn.models.checkpoint",
    "count_macs": "pi_dynn.models.macs",
    "build_bundle": "pi_dynn.deploy.builder",
    "load_bundle": "pi_dynn.runtime.bundle",
    "Bundle": "pi_dynn.runtime.bundle",
    "Session": "pi_dynn.runtime.session",
    "Prediction": "pi_dynn.records",
    "Preprocess": "pi_dynn.data.preprocess",
    "EnergyMeter": "pi_dynn.power",
    "open_meter": "pi_dynn.power",
    "PiDynnError": "pi_dynn.errors",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pi_dynn' has no attribute {name!r}")
    importlib.import_module("pi_dynn.torch_build").check_torch()
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
