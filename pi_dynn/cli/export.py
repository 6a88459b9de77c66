"""`pi-dynn export`."""

from pathlib import Path

import click

from pi_dynn.cli.options import chosen_thresholds, threshold_option, thresholds_option


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="BUNDLE", help="File to write.")
@click.option("--model", metavar="NAME", help="Network the weights belong to. [default: told by their shapes]")
@click.option("--exits", metavar="B1,B2,...", help="Blocks to keep exits after. [default: all in the checkpoint]")
@threshold_option
@thresholds_option
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Class names, one a line.")
@click.option("--image-size", type=click.IntRange(16), help="Image size in pixels. [default: told by the weights]")
@click.option("--crop", type=click.FloatRange(0.1, 1.0), default=1.0, show_default=True, help="Centre share to keep.")
@click.option("--precision", type=click.Choice(["int8", "fp32"]), default="int8", show_default=True)
def command(checkpoint, output, model, exits, threshold, thresholds, labels, image_size, crop, precision) -> None:
    """Make a bundle, the one file a Pi needs, from a PyTorch or safetensors checkpoint.

    Without a threshold the exits answer at a gate of 0.9; `pi-dynn evaluate` shows what that gives.

    \b
    Example:
      pi-dynn export gfnet-xs.pth -o gfnet-xs.pt --labels imagenet.txt --crop 0.875
    """
    limits = chosen_thresholds(threshold, thresholds, False)
    try:
        blocks = None if exits is None else [int(block) for block in exits.split(",") if block.strip()]
    except ValueError:
        raise click.UsageError(f"--exits {exits!r}: expected block indices separated by commas") from None

    from pi_dynn.jobs.export import ExportSettings, export_checkpoint

    settings = ExportSettings(
        model=model,
        exits=blocks,
        thresholds=0.9 if limits is None else limits,
        labels=None if labels is None else labels.read_text(encoding="utf-8").splitlines(),
        image_size=image_size,
        crop=crop,
        precision=precision,
    )
    bundle = export_checkpoint(checkpoint, settings)
    bundle.save(output)
    manifest = bundle.manifest
    click.echo(
        f"{output}: {manifest.model} {manifest.precision}, {len(manifest.labels)} classes, "
        f"{len(manifest.exit_blocks)} exits, {len(bundle.data) / 1e6:.1f} MB"
    )
