"""Networks with weights that exercise every path: norms that scale and shift, gates that differ."""

import torch
from torch import nn

from pi_dynn.models import create_model


def random_gfnet(
    name: str = "gfnet_12_192", *, image_size: int, num_classes: int, exits, seed: int = 0, **kwargs
) -> nn.Module:
    """A network in eval mode whose affine parts, layer scales and gates are far from their initial values."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = create_model(name, num_classes=num_classes, image_size=image_size, exits=exits, **kwargs).eval()

    def normal(parameter: nn.Parameter, mean: float, std: float) -> None:
        parameter.data.copy_(mean + std * torch.randn(parameter.shape, generator=generator))

    for key, parameter in model.named_parameters():
        if "norm" in key:
            normal(parameter, 1.0 if key.endswith("weight") else 0.0, 0.2)
        elif key.endswith("gamma"):
            normal(parameter, 0.5, 0.2)
        elif "gates" in key:
            normal(parameter, 0.0, 1.0)
        elif "head" in key:
            normal(parameter, 0.0, 0.2)
    return model
