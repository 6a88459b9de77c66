"""Networks by name."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from pi_dynn.errors import ModelError, UnknownModel
from pi_dynn.text import names_like

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}
_ALIASES: dict[str, str] = {}
TORCHVISION = "torchvision:"  # before the name of any network of torchvision's


def register_model(name: str, *, alias: str | None = None) -> Callable:
    """Register the decorated builder under `name`; a second registration of a name is an error."""

    def register(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        for key in filter(None, (name, alias)):
            if key in _BUILDERS or key in _ALIASES:
                raise ModelError(f"a model is already registered as {key!r}")
        _BUILDERS[name] = builder
        if alias:
            _ALIASES[alias] = name
        return builder

    return register


def list_models() -> list[str]:
    """Names that `create_model` knows, sorted, aliases left out."""
    return sorted(_BUILDERS)


def canonical_name(name: str) -> str:
    """The registered name behind `name`, which may be an alias; torchvision:NAME stays. Raises UnknownModel."""
    name = _ALIASES.get(name, name)
    if name not in _BUILDERS and not name.startswith(TORCHVISION):
        raise UnknownModel(f"no model is named {name!r}: {names_like(name, list_models(), 'pi-dynn models')}")
    return name


def create_model(
    name: str,
    *,
    num_classes: int,
    image_size: int,
    exits: Sequence[int] | str | None = None,
    distilled: bool = False,
    exit_heads: str = "cls",
    **kwargs: Any,
) -> nn.Module:
    """A network in its training form, freshly initialised.

    `model(x)` maps (B, 3, H, W) float32 to logits (B, num_classes); `model.forward_exits(x)` gives a
    list of (block_index, logits, gate), the final answer last with a gate of one. "torchvision:NAME" is any network
    of torchvision's; one that is no chain of stages known here has no `forward_exits`.

    Raises: UnknownModel, ModelError for sizes or exits the network cannot have.
    """
    if num_classes < 2:
        raise ModelError(f"num_classes={num_classes}: a classifier needs at least 2")
    arguments = {
        "num_classes": num_classes,
        "image_size": image_size,
        "exits": list(exits) if isinstance(exits, tuple | range) else exits,
        "distilled": distilled,
        "exit_heads": exit_heads,
        **kwargs,
    }
    name = canonical_name(name)
    if name in _BUILDERS:
        model = _BUILDERS[name](**arguments)
    else:
        from pi_dynn.models.backbones import torchvision_network  # which registers some of its networks here

        model = torchvision_network(name, **arguments)
    # How the network can be built again; a bundle's manifest records both.
    model.name, model.arguments = name, arguments
    return model
