"""Training forms: plain, readable PyTorch with the keys of the published checkpoints."""

from pi_dynn.models import gfnet, gfnet_pyramid
from pi_dynn.models.registry import create_model, list_models

__all__ = ["create_model", "gfnet", "gfnet_pyramid", "list_models"]
