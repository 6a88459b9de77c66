"""`pi-dynn models`."""

import fnmatch
import json
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import click

from pi_dynn.cli.options import json_option


@click.command()
@click.argument("pattern", default="*")
@click.option("--presets", "published", is_flag=True, help="List the published networks that `train --preset` trains.")
@json_option
def command(pattern: str, published: bool, as_json: bool) -> None:
    """List the networks that can be built, with their size at 1,000 classes; PATTERN chooses some by name.

    Fused is the number of parameters once norms and branches are folded, as a bundle has them. Then: how many places
    there are for exits, which int8 a bundle can have (onnx: in ONNX only, as all can), and the weights that
    --pretrained starts from, with their source, licence and size.

    \b
    Example:
      pi-dynn models
      pi-dynn models 'recnext*'
      pi-dynn models --presets 'nasc*'
    """
    if published:
        _show_presets(pattern, as_json)
        return
    from pi_dynn.errors import UnknownModel
    from pi_dynn.models import list_models
    from pi_dynn.models.registry import canonical_name
    from pi_dynn.text import table

    names = fnmatch.filter(list_models(), pattern)
    with suppress(UnknownModel):  # an alias, or a network of torchvision's
        names = names or [canonical_name(pattern)]
    if not names:
        near = get_close_matches(pattern, list_models(), cutoff=0.75)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(list_models())}"
        raise UnknownModel(f"no network is called like {pattern!r}: {hint}")
    entries = [_described(name) for name in names]
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry))
        return
    click.echo(
        table(
            ("name", "images", "parameters", "fused", "multiply-adds", "exits", "int8", "pretrained"),
            map(_row, entries),
        )
    )


def _show_presets(pattern: str, as_json: bool) -> None:
    """Print the presets, each with the figures that were published for it."""
    from pi_dynn.errors import UnknownModel
    from pi_dynn.models.presets import presets
    from pi_dynn.text import significant, table

    chosen = [preset for name, preset in presets().items() if fnmatch.fnmatch(name, pattern)]
    if not chosen:
        raise UnknownModel(f"no preset is called like {pattern!r}: choose from {', '.join(presets())}")
    if as_json:
        for preset in chosen:
            click.echo(json.dumps(preset.to_dict() | {"parameters": preset.parameters}))
        return
    boards = list(dict.fromkeys(board for preset in presets().values() for board in preset.boards))
    headers = ("preset", "network", "images", "parameters", "exits", "heads", "threshold", "acc@1", *boards)
    rows = []
    for preset in chosen:
        limits = "-" if not preset.exits else "not published" if preset.thresholds is None else ""
        figures = (preset.boards.get(board) for board in boards)
        rows.append(
            (
                preset.name,
                f"{preset.model}{' distilled' if preset.distilled else ''}",
                f"{preset.image_size} px",
                f"{preset.parameters:,}",
                ",".join(map(str, preset.exits)) or "-",
                preset.exit_heads if preset.exits else "-",
                limits or ",".join(f"{value:g}" for value in preset.thresholds or ()),
                f"{100 * preset.accuracy:.2f} %",
                *(f"{significant(one[0], 4)} ms {significant(one[1], 4)} mJ" if one else "-" for one in figures),
            )
        )
    click.echo(table(headers, rows))


def _described(name: str) -> dict[str, Any]:
    """What there is to know of a network: its size, where exits can stand, its kinds of int8, its weights."""
    import torch

    from pi_dynn.deploy.builder import int8_kinds
    from pi_dynn.deploy.fuse import fuse_norms
    from pi_dynn.models import create_model
    from pi_dynn.models.macs import describe_model
    from pi_dynn.models.pretrained import pretrained_of

    size = describe_model(name)
    with torch.device("meta"):
        model = create_model(name, num_classes=size.num_classes, image_size=size.image_size)
        fused = fuse_norms(model.eval())
    weights = pretrained_of(name)
    return size.to_dict() | {
        "fused_parameters": sum(parameter.numel() for parameter in fused.parameters()),
        "exits": max(0, getattr(model, "depth", 1) - 1),
        "int8": int8_kinds(model),
        "pretrained": None if weights is None else weights.to_dict(),
    }


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    weights = entry["pretrained"]
    known = weights and f"{weights['source']}, {weights['licence']}, {weights['megabytes']:.1f} MB"
    return (
        entry["name"],
        f"{entry['image_size']} px",
        f"{entry['parameters']:,}",
        f"{entry['fused_parameters']:,}",
        f"{entry['macs'] / 1e6:,.0f} M",
        str(entry["exits"]),
        ", ".join(entry["int8"]),
        known or "",
    )
