"""Exits for any network that is a chain of stages, and torchvision's networks by name.

The backbone stays as it is, under the key `backbone.`; every exit pools the features after its block, and its
head is as wide as a dry run finds them. Shape letters: B batch, C channels.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pi_dynn.errors import ModelError
from pi_dynn.models.chain import Chain, ChainNetwork, check_plain
from pi_dynn.models.registry import TORCHVISION, register_model

TORCHVISION_NAMES = (
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet18",
    "resnet34",
    "resnet50",
)


def attach_exits(
    backbone: nn.Module,
    after: Sequence[int | str] | str | None,
    num_classes: int,
    *,
    image_size: int = 224,
) -> nn.Module:
    """`backbone` with an early exit (a head and a gate) after each of the blocks `after`; its weights are not touched.

    A backbone is an `nn.Sequential` whose children are the blocks and whose last child answers, one of
    torchvision's ResNet, MobileNetV2, MobileNetV3 and EfficientNet, or a network of this package. `after` has
    block numbers, or names: "layer2" is the last block of it. "all" means after every block but the last.

    Raises: ModelError for a backbone that is no such chain or answers other than `num_classes` classes, for
    exits at impossible blocks, and for features no head can read.
    """
    network = BackboneWithExits(backbone, after, num_classes, image_size)
    network.name = type(backbone).__name__.lower()
    network.arguments = {"after": network.exit_blocks, "num_classes": num_classes, "image_size": image_size}
    return network


class BackboneWithExits(ChainNetwork):
    """A backbone and its exits. `forward` is that of the backbone alone."""

    def __init__(
        self, backbone: nn.Module, after: Sequence[int | str] | str | None, num_classes: int, image_size: int
    ) -> None:
        """Raises: ModelError, see `attach_exits`."""
        names = block_names(backbone)
        exits = after if after is None or isinstance(after, str) else [block_number(place, names) for place in after]
        super().__init__(num_classes, image_size, len(names), exits)
        self.backbone = backbone
        self.add_exits(self._widths())

    def chain(self) -> Chain:
        return chain_of(self.backbone)

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)

    def _widths(self) -> list[int]:
        """Channels after every block, from one run on an empty image."""
        parameter = next(self.backbone.parameters())
        x = torch.zeros(1, 3, self.image_size, self.image_size, device=parameter.device, dtype=parameter.dtype)
        modes = [(module, module.training) for module in self.backbone.modules()]
        self.backbone.eval()  # a batch norm in training would learn from the empty image
        widths, links = [], self.chain()
        try:
            with torch.no_grad():
                x = links.stem(x)
                for block in links.blocks:
                    for module in block:
                        x = module(x)
                    widths.append(x.shape[-1 if x.dim() == 3 else 1])  # tokens (B, N, C), else (B, C, ...)
                answer = links.head(x)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{_kind(self.backbone)} does not run at {self.image_size} px: {reason}") from error
        finally:
            for module, training in modes:
                module.training = training
        if answer.shape != (1, self.num_classes):
            raise ModelError(
                f"{_kind(self.backbone)} answers {tuple(answer.shape[1:])}, not {self.num_classes} classes: "
                "give it a last layer for them first"
            )
        return widths


def block_number(place: int | str, names: Sequence[str]) -> int:
    """The number of the block called `place`, or of the last one inside it; numbers are returned as they are.

    Raises: ModelError for a name no block has.
    """
    if not isinstance(place, str):
        return place
    inside = [number for number, name in enumerate(names) if name == place or name.startswith(f"{place}.")]
    if not inside:
        raise ModelError(f"no block is called {place!r}: choose from {', '.join(names)}")
    return inside[-1]


def block_names(backbone: nn.Module) -> list[str]:
    """The names of the modules of `backbone` its blocks end with, in order."""
    called = {id(module): name for name, module in backbone.named_modules(remove_duplicate=False)}
    return [called[id(block[-1])] for block in chain_of(backbone).blocks]


def chain_of(backbone: nn.Module) -> Chain:
    """The modules of `backbone` in the order they run. Raises ModelError for one that is no known chain."""
    if isinstance(backbone, ChainNetwork):
        return backbone.chain()
    if isinstance(backbone, nn.Sequential):
        return Chain(nn.Identity(), [[block] for block in backbone], nn.Identity())
    from pi_dynn.data.torchvision_ops import torchvision  # slow to import, so only if one of its networks may be given

    models = torchvision.models
    if isinstance(backbone, models.ResNet):
        b = backbone
        blocks = chain.from_iterable((b.layer1, b.layer2, b.layer3, b.layer4))
        stem, head = (b.conv1, b.bn1, b.relu, b.maxpool), (b.avgpool, nn.Flatten(), b.fc)
    elif isinstance(backbone, models.MobileNetV2):
        first, *blocks = backbone.features
        stem, head = (first,), (nn.AdaptiveAvgPool2d(1), nn.Flatten(), backbone.classifier)
    elif isinstance(backbone, models.MobileNetV3 | models.EfficientNet):
        first, *stages = backbone.features
        if isinstance(backbone, models.EfficientNet):  # its stages are lists of blocks, but for the last
            stages[:-1] = chain.from_iterable(stages[:-1])
        blocks, stem = stages, (first,)
        head = (backbone.avgpool, nn.Flatten(), backbone.classifier)
    else:
        raise ModelError(
            f"{_kind(backbone)} is no chain of stages known here: write it as an nn.Sequential of them, "
            "the last one answering"
        )
    return Chain(nn.Sequential(*stem), [[block] for block in blocks], nn.Sequential(*head))


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def torchvision_network(
    name: str, *, num_classes: int, image_size: int, exits: Sequence[int] | str | None = None, **form: Any
) -> nn.Module:
    """The network torchvision calls `name`, ready for exits; one that is no known chain is returned unchanged.

    Raises: ModelError for a name torchvision does not know, and for exits or a `form` the network cannot have.
    """
    from pi_dynn.data.torchvision_ops import torchvision

    check_plain(name, **form)
    try:
        network = torchvision.models.get_model(name.removeprefix(TORCHVISION), weights=None, num_classes=num_classes)
    except ValueError as error:
        raise ModelError(f"{name}: {error}; see torchvision.models.list_models()") from error
    try:
        chain_of(network)
    except ModelError as error:
        if exits:
            raise ModelError(f"{name} takes no exits: {error}") from error
        return network
    return BackboneWithExits(network, exits, num_classes, image_size)


for _name in TORCHVISION_NAMES:
    register_model(_name, alias=f"{TORCHVISION}{_name}")(partial(torchvision_network, _name))
