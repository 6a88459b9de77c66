"""The networks of ncnn's published table, which is benchmark/README.md there, with random weights.

Most are torchvision's. The others are written here from their papers and the shapes that ncnn's files have.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.data.torchvision_ops import torchvision


def layer(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, norm and ReLU."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


def mobilenet_v1() -> nn.Module:
    """MobileNet (Howard et al., 2017)."""
    wider = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    layers, channels = [layer(3, 32, 3, 2)], 32
    for out, stride in wider:
        layers += [layer(channels, channels, 3, stride, channels), layer(channels, out, 1)]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class BlazeBlock(nn.Module):
    """A depthwise and a pointwise convolution beside a shortcut, which gets channels of zeros where there are more."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, out - channels
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, 1 if stride == 1 else 0, groups=channels)
        self.pointwise = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut, y = x, x
        if self.stride == 2:
            shortcut, y = F.max_pool2d(x, 2), F.pad(x, (0, 2, 0, 2))
        if self.more > 0:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.more))
        return F.relu(self.pointwise(self.depthwise(y)) + shortcut)


class Blazeface(nn.Module):
    """The trunk of BlazeFace (Bazarevsky et al., 2019), which is all that ncnn times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, 2)
        wider = [(24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1), (72, 1), (80, 1), (88, 1)]
        blocks, channels = [], 24
        for out, stride in [*wider, (96, 2), *[(96, 1)] * 4]:
            blocks.append(BlazeBlock(channels, out, stride))
            channels = out
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.stem(F.pad(x, (1, 2, 1, 2)))))


class FastestDet(nn.Module):
    """FastestDet (Xuehao Ma, 2022): half of a ShuffleNetV2, three of its sizes in one, and three small heads."""

    def __init__(self) -> None:
        super().__init__()
        trunk = torchvision.models.shufflenet_v2_x0_5()
        self.stem = nn.Sequential(trunk.conv1, trunk.maxpool)
        self.stages = nn.ModuleList([trunk.stage2, trunk.stage3, trunk.stage4])
        self.joined = layer(48 + 96 + 192, 96, 1)
        self.paths = nn.ModuleList(nn.Sequential(*(layer(96, 96, 5, 1, 96) for _ in range(n))) for n in (1, 2, 3))
        self.mixed = nn.Sequential(nn.Conv2d(3 * 96, 96, 1, bias=False), nn.BatchNorm2d(96))
        self.shared = layer(96, 96, 1)
        heads = (nn.Sequential(layer(96, 96, 5, 1, 96), nn.Conv2d(96, out, 1)) for out in (1, 4, 80))
        self.certain, self.box, self.classes = heads

    def forward(self, x: Tensor) -> Tensor:
        large, middle, small = (x := stage(x if k else self.stem(x)) for k, stage in enumerate(self.stages))
        sizes = [F.avg_pool2d(large, 3, 2, 1), middle, F.interpolate(small, scale_factor=2.0)]
        x = self.joined(torch.cat(sizes, 1))
        x = self.shared(F.relu(x + self.mixed(torch.cat([path(x) for path in self.paths], 1))))
        return torch.cat([self.certain(x).sigmoid(), self.box(x), self.classes(x).softmax(1)], 1)


NETWORKS = {
    "squeezenet": torchvision.models.squeezenet1_1,
    "mobilenet": mobilenet_v1,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "mobilenet_v3": torchvision.models.mobilenet_v3_large,
    "shufflenet_v2": torchvision.models.shufflenet_v2_x1_0,
    "mnasnet": torchvision.models.mnasnet1_0,
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "regnety_400m": torchvision.models.regnet_y_400mf,
    "blazeface": Blazeface,
    "resnet18": torchvision.models.resnet18,
    "alexnet": torchvision.models.alexnet,
    "fastestdet": FastestDet,
}
