"""Networks with side branches that answer early where the entropy of their answer is low.

`branchynet` is the six-exit CIFAR-10 network of Dynamic-Network-Inference, with its keys and shapes
(shounaknaik/Dynamic-Network-Inference). `b_lenet`, `b_alexnet` and `b_resnet_110` are the three networks of the
BranchyNet paper (arXiv 1709.01686), rebuilt from its Chainer code, of which no weights are published. A block
here is what lies between two branches; images have three channels, grey ones three equal ones.

Shape letters: B batch, C channels, H W feature map.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.exits.scores import EntropyGate
from pi_dynn.models.chain import Chain, ChainNetwork, check_plain
from pi_dynn.models.registry import register_model

BRANCHES = 5
WIDTHS = (32, 32, 64, 64, 128, 128)  # channels of the six convolutions
BRANCH_WIDTH = 16
HIDDEN = 128
SMALLEST_IMAGE = 16


class BranchedNetwork(ChainNetwork):
    """Base of the networks here: exits are branches of their own design, judged by entropy."""

    def add_gates(self) -> None:
        """Give each exit an entropy gate."""
        if self.exit_blocks:
            self.gates = nn.ModuleList(EntropyGate(self.num_classes) for _ in self.exit_blocks)


class Branch(nn.Module):
    """A side branch: (B, C, side, side) -> logits (B, classes)."""

    def __init__(self, channels: int, side: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, BRANCH_WIDTH, 3, stride=2)
        self.relu = nn.ReLU()
        self.bn = nn.BatchNorm2d(BRANCH_WIDTH)
        self.fc = nn.Linear(BRANCH_WIDTH * ((side - 1) // 2) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.relu(self.conv(x))).flatten(1))


class BranchyNet(BranchedNetwork):
    """Six convolutions, three poolings, five linear layers; a branch after each of the first five convolutions.

    Norms come after the ReLU, as published.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        exits: Sequence[int] | str | None = None,
        **form: Any,
    ) -> None:
        """Raises: ModelError for an image size, exits or a `form` the network cannot have, see `check_plain`."""
        super().__init__(num_classes, image_size, BRANCHES + 1, exits)
        check_plain("branchynet", **form)
        if image_size < SMALLEST_IMAGE or image_size % 8:
            raise ModelError(f"image_size={image_size}: branchynet needs a multiple of 8, {SMALLEST_IMAGE} or more")
        before = 3
        for number, width in enumerate(WIDTHS, 1):
            self.add_module(f"conv{number}", nn.Conv2d(before, width, 3, padding=1))
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
            before = width
        self.relu, self.pool, self.flatten = nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        self.dropout1, self.dropout2, self.dropout3 = nn.Dropout(0.2), nn.Dropout(0.3), nn.Dropout(0.4)
        self.fc1 = nn.Linear(before * (image_size // 8) ** 2, HIDDEN)
        self.fc2, self.fc3, self.fc4 = (nn.Linear(HIDDEN, HIDDEN) for _ in range(3))
        self.bn7 = nn.BatchNorm1d(HIDDEN)
        self.dropout4 = nn.Dropout(0.5)
        self.fc5 = nn.Linear(HIDDEN, num_classes)
        sides = [image_size >> (block + 1) // 2 for block in range(BRANCHES)]
        for block in self.exit_blocks:
            self.add_module(f"branch{block + 1}", Branch(WIDTHS[block], sides[block], num_classes))
        self.add_gates()

    def exit_head(self, k: int) -> nn.Module:
        return getattr(self, f"branch{self.exit_blocks[k] + 1}")

    def chain(self) -> Chain:
        fully_connected = [self.fc1, self.relu, self.fc2, self.relu, self.fc3, self.relu, self.fc4, self.relu]
        blocks = [
            [self.conv1, self.relu, self.bn1],
            [self.conv2, self.relu, self.bn2, self.pool, self.dropout1],
            [self.conv3, self.relu, self.bn3],
            [self.conv4, self.relu, self.bn4, self.pool, self.dropout2],
            [self.conv5, self.relu, self.bn5],
            [self.conv6, self.relu, self.bn6, self.pool, self.dropout3, self.flatten]
            + [*fully_connected, self.bn7, self.dropout4],
        ]
        return Chain(nn.Identity(), blocks, self.fc5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.relu(self.conv1(x)))
        x = self.dropout1(self.pool(self.bn2(self.relu(self.conv2(x)))))
        x = self.bn3(self.relu(self.conv3(x)))
        x = self.dropout2(self.pool(self.bn4(self.relu(self.conv4(x)))))
        x = self.bn5(self.relu(self.conv5(x)))
        x = self.flatten(self.dropout3(self.pool(self.bn6(self.relu(self.conv6(x))))))
        x = self.relu(self.fc2(self.relu(self.fc1(x))))
        x = self.relu(self.fc4(self.relu(self.fc3(x))))
        return self.fc5(self.dropout4(self.bn7(x)))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut without parameters: (B, C, H, W) -> (B, C', H/stride, W/stride).

    A wider block's shortcut skips positions and puts the channels it lacks, zero, before those it has.
    """

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        self.stride, self.lacking = stride, out_channels - channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], [0, 0, 0, 0, self.lacking, 0])
        return F.relu(y + shortcut)


class PaperNetwork(BranchedNetwork):
    """A network of the BranchyNet paper: `blocks`, a branch after every block but the last, which answers."""

    def __init__(
        self, name: str, made_for_px: int, blocks: list[nn.Module], branches: list[nn.Module], arguments: dict
    ) -> None:
        """`arguments` are those of `create_model`. Raises: ModelError for those the network cannot have."""
        form = dict(arguments)
        super().__init__(form.pop("num_classes"), form.pop("image_size"), len(blocks), form.pop("exits", None))
        check_plain(name, **form)
        if self.image_size != made_for_px:
            raise ModelError(f"image_size={self.image_size}: {name} is made for {made_for_px} px")
        self.blocks = nn.Sequential(*blocks)
        self.branches = nn.ModuleList(branches[block] for block in self.exit_blocks)
        self.add_gates()

    def exit_head(self, k: int) -> nn.Module:
        return self.branches[k]

    def chain(self) -> Chain:
        return Chain(nn.Identity(), [[block] for block in self.blocks], nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def conv_relu(channels: int, out_channels: int, kernel_size: int = 3) -> list[nn.Module]:
    """A convolution that keeps the size, and its ReLU."""
    return [nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2), nn.ReLU()]


def local_norm() -> nn.Module:
    """Response normalisation over 3 channels; torch divides alpha by their number, the paper's code does not."""
    return nn.LocalResponseNorm(3, alpha=3 * 5e-5, beta=0.75, k=2.0)


def pool(size: int, stride: int = 2) -> nn.Module:
    """Maximum pooling that keeps a window hanging over the edge, as Chainer does."""
    return nn.MaxPool2d(size, stride, ceil_mode=True)


@register_model("b_lenet")
def b_lenet(*, num_classes: int, image_size: int, **kwargs: Any) -> nn.Module:
    """B-LeNet for 28 px: one branch, after the first convolution."""
    classes = num_classes
    blocks = [
        nn.Conv2d(3, 5, 5, padding=3),
        nn.Sequential(
            *(pool(2), nn.ReLU(), nn.Conv2d(5, 10, 5, padding=3)),
            *(pool(2), nn.ReLU(), nn.Conv2d(10, 20, 5, padding=3)),
            *(pool(2), nn.ReLU(), nn.Flatten(), nn.Linear(720, 84), nn.Linear(84, classes)),
        ),
    ]
    branch = nn.Sequential(
        *(pool(2), nn.ReLU(), nn.Conv2d(5, 10, 3, padding=1), pool(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(640, classes)),
    )
    return PaperNetwork("b_lenet", 28, blocks, [branch], {"num_classes": classes, "image_size": image_size, **kwargs})


@register_model("b_alexnet")
def b_alexnet(*, num_classes: int, image_size: int, **kwargs: Any) -> nn.Module:
    """B-AlexNet for 32 px: branches after the second and the third convolution."""
    classes = num_classes
    blocks = [
        nn.Sequential(*conv_relu(3, 32, 5), pool(3), local_norm(), nn.Conv2d(32, 64, 5, padding=2)),
        nn.Sequential(nn.ReLU(), pool(3), local_norm(), nn.Conv2d(64, 96, 3, padding=1)),
        nn.Sequential(
            *(nn.ReLU(), *conv_relu(96, 96), *conv_relu(96, 64), pool(3), nn.Flatten()),
            *(nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(128, classes),
        ),
    ]
    entry = [nn.ReLU, lambda: pool(3), local_norm]
    branches = [
        nn.Sequential(
            *(layer() for layer in entry),
            *(*conv_relu(64, 32), *conv_relu(32, 32), pool(3), nn.Flatten(), nn.Linear(512, classes)),
        ),
        nn.Sequential(
            *(layer() for layer in entry), *conv_relu(96, 32), pool(3), nn.Flatten(), nn.Linear(128, classes)
        ),
    ]
    return PaperNetwork("b_alexnet", 32, blocks, branches, {"num_classes": classes, "image_size": image_size, **kwargs})


@register_model("b_resnet_110")
def b_resnet_110(*, num_classes: int, image_size: int, **kwargs: Any) -> nn.Module:
    """B-ResNet-110 for 32 px: branches after the second and the 38th convolution."""
    classes, repeats = num_classes, 18

    def stage(channels: int, out_channels: int) -> list[nn.Module]:
        first = ResidualBlock(channels, out_channels, stride=2)
        return [first, *(ResidualBlock(out_channels, out_channels) for _ in range(repeats - 1))]

    blocks = [
        nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), ResidualBlock(16, 16)),
        nn.Sequential(*(ResidualBlock(16, 16) for _ in range(repeats))),
        nn.Sequential(*stage(16, 32), *stage(32, 64), nn.AvgPool2d(6, 1), nn.Flatten(), nn.Linear(576, classes)),
    ]
    branches = [
        nn.Sequential(
            *(nn.ReLU(), local_norm(), *conv_relu(16, 32), *conv_relu(32, 32), pool(3)),
            *(nn.Flatten(), nn.Linear(7200, 3600), nn.Linear(3600, classes)),
        ),
        nn.Sequential(ResidualBlock(16, 16), nn.Flatten(), nn.Linear(14400, classes)),
    ]
    settings = {"num_classes": classes, "image_size": image_size, **kwargs}
    return PaperNetwork("b_resnet_110", 32, blocks, branches, settings)


register_model("branchynet")(lambda **kwargs: BranchyNet(**kwargs))
