"""Networks with weights that exercise every path: norms that scale and shift, gates that differ."""

import torch
from torch import nn

from pi_dynn.models import create_model
from pi_dynn.models.lsnet import LSNet, LSNetSize
from pi_dynn.models.recnext import RecNeXt, RecNeXtSize

TINY_RECNEXT = RecNeXtSize((16, 16, 32, 32), (0, 1, 1, 7))  # 9 blocks; five, two of a group left over
TINY_LSNET = LSNetSize((8, 16, 24, 64), (1, 2, 2, 2), heads=2)  # 7 blocks


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


def tiny_chain(family: str, *, seed: int = 0, **kwargs) -> nn.Module:
    """A narrow "recnext", "recnext_share_channel" or "lsnet" for 64 px and 5 classes, its norms far from identity."""
    torch.manual_seed(seed)
    arguments = {"num_classes": 5, "image_size": 64} | kwargs
    if family == "lsnet":
        return with_trained_norms(LSNet(TINY_LSNET, **arguments))
    return with_trained_norms(RecNeXt(TINY_RECNEXT, share_channel=family.endswith("share_channel"), **arguments))


def with_trained_norms(model: nn.Module) -> nn.Module:
    """`model` in eval mode, every batch norm with statistics, scales and shifts as if it had been trained."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
            nn.init.normal_(module.running_mean, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


class Squeezed(nn.Module):
    """A block of MobileNetV3: hard swish, channels weighed by a hard sigmoid of their means, and a sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.swish = nn.Hardswish()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Hardsigmoid()
        )
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.swish(self.depthwise(x))
        return x + self.project(self.weigh(y) * y)


def with_squeezes() -> nn.Sequential:
    """A small MobileNetV3."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Hardswish()),
        Squeezed(8),
        nn.Sequential(Squeezed(8), nn.Conv2d(8, 12, 1), nn.Hardswish()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 16), nn.Hardswish(), nn.Linear(16, 5)),
    )


def small_sequential(classes: int = 5) -> nn.Sequential:
    """A user's own network for 32 px: five blocks, the last of which answers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True)),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)),
    )
