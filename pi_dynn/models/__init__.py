"""Training forms: plain, readable PyTorch with the keys of the published checkpoints."""

from pi_dynn.models import backbones, branchynet, efficientnet_lite, gfnet, gfnet_pyramid, lsnet, recnext
from pi_dynn.models.backbones import attach_exits
from pi_dynn.models.checkpoint import LoadReport, load_checkpoint
from pi_dynn.models.mac_table import MacTable
from pi_dynn.models.macs import count_macs
from pi_dynn.models.registry import create_model, list_models

__all__ = [
    "LoadReport",
    "MacTable",
    "attach_exits",
    "backbones",
    "branchynet",
    "count_macs",
    "create_model",
    "efficientnet_lite",
    "gfnet",
    "gfnet_pyramid",
    "list_models",
    "load_checkpoint",
    "lsnet",
    "recnext",
]
