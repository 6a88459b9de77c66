"""`pi-dynn models`."""

import fnmatch
import json
from contextlib import suppress
from importlib import resources
from typing import Any

import click

from pi_dynn.cli.options import json_option
from pi_dynn.cli.progress import progress


@click.command()
@click.argument("pattern", default="*")
@click.option("--presets", "published", is_flag=True, help="List the published networks that `train --preset` trains.")
@click.option("--count", "anew", is_flag=True, help="Build and count the networks now, instead of what is on record.")
@json_option
def command(pattern: str, published: bool, anew: bool, as_json: bool) -> None:
    """List the networks that can be built, with their size at 1,000 classes; PATTERN chooses some by name.

    Exits are the places where there can be one, int8 is the kind that a bundle can have beside that of ONNX. Below are
    the weights that --pretrained starts from. --json adds the parameters of a bundle, whose norms and branches are
    folded.

    \b
    Example:
      pi-dynn models
      pi-dynn models 'recnext*'
      pi-dynn models --presets 'nasc*'
    """
    if published:
        _show_presets(pattern, as_json)
        return
    from pi_dynn.text import table

    entries = [] if anew else [entry for entry in _on_record() if fnmatch.fnmatch(entry["name"], pattern)]
    entries = entries or _counted(pattern)
    if as_json:
        for entry in entries:
            click.echo(json.dumps(entry))
        return
    click.echo(table(("name", "pixels", "params", "mult-adds", "exits", "int8"), map(_row, entries)))
    weights = [_weights_row(entry) for entry in entries if entry["pretrained"]]
    if weights:
        click.echo("\n" + table(("--pretrained", "size", "licence", "source"), weights))


def _on_record() -> list[dict[str, Any]]:
    """The registered networks as --json --count printed them."""
    text = (resources.files("pi_dynn.assets") / "networks.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _counted(pattern: str) -> list[dict[str, Any]]:
    """The registered networks of these names, or the one that the pattern is another name of. Raises: UnknownModel."""
    from pi_dynn.errors import UnknownModel
    from pi_dynn.models import list_models
    from pi_dynn.models.registry import canonical_name
    from pi_dynn.text import names_like

    names = fnmatch.filter(list_models(), pattern)
    with suppress(UnknownModel):  # an alias, or a network of torchvision's
        names = names or [canonical_name(pattern)]
    if not names:
        hint = names_like(pattern, list_models(), "pi-dynn models")
        raise UnknownModel(f"no network is called like {pattern!r}: {hint}")
    entries = []
    with progress("building", total=len(names)) as advance:
        for name in names:
            entries.append(_described(name))
            advance()
    return entries


def _show_presets(pattern: str, as_json: bool) -> None:
    """Print the presets, each with the figures that were published for it."""
    from pi_dynn.errors import UnknownModel
    from pi_dynn.models.presets import presets
    from pi_dynn.text import names_like, significant, table

    chosen = [preset for name, preset in presets().items() if fnmatch.fnmatch(name, pattern)]
    if not chosen:
        hint = names_like(pattern, presets(), "pi-dynn models --presets")
        raise UnknownModel(f"no preset is called like {pattern!r}: {hint}")
    if as_json:
        for preset in chosen:
            click.echo(json.dumps(preset.to_dict() | {"parameters": preset.parameters}))
        return
    boards = list(dict.fromkeys(board for preset in presets().values() for board in preset.boards))
    networks, figures = [], []
    for preset in chosen:
        limits = "-" if not preset.exits else "not published" if preset.thresholds is None else ""
        networks.append(
            (
                preset.name,
                f"{preset.model}{' distilled' if preset.distilled else ''}",
                str(preset.image_size),
                f"{preset.parameters / 1e6:.2f} M",
                f"{100 * preset.accuracy:.2f} %",
                ",".join(map(str, preset.exits)) or "-",
                preset.exit_heads if preset.exits else "-",
                limits or ",".join(f"{value:g}" for value in preset.thresholds or ()),
            )
        )
        pairs = (preset.boards.get(board) for board in boards)
        cells = (f"{significant(one[0], 4)} / {significant(one[1], 4)}" if one else "-" for one in pairs)
        figures.append((preset.name, *cells))
    headers = ("preset", "network", "pixels", "params", "acc@1", "exits", "heads", "threshold")
    click.echo(f"{table(headers, networks)}\n\n{table(('ms / mJ an answer', *boards), figures)}")


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
    return (
        entry["name"],
        str(entry["image_size"]),
        f"{entry['parameters'] / 1e6:.2f} M",
        f"{entry['macs'] / 1e6:,.0f} M",
        str(entry["exits"]),
        ", ".join(kind for kind in entry["int8"] if kind != "onnx") or "-",
    )


def _weights_row(entry: dict[str, Any]) -> tuple[str, ...]:
    weights = entry["pretrained"]
    return entry["name"], f"{weights['megabytes']:.1f} MB", weights["licence"], weights["source"]
