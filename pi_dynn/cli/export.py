"""`pi-dynn export`."""

from pathlib import Path

import click

from pi_dynn.cli.options import BLOCKS, NUMBERS, threshold_option, thresholds_option
from pi_dynn.runtime.forms import FORM_NAMES, ONNX, form_of_file
from pi_dynn.text import counted


@click.command()
@click.argument("source", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="BUNDLE", help="File to write.")
@click.option(
    "--format",
    "form",
    type=click.Choice([*FORM_NAMES, "coreml"]),
    help="onnx: a graph per stage and one of the full depth, for ONNX Runtime; litert: a TFLite graph per stage, "
    "static int8 or fp32; coreml: the full depth, .mlpackage. [default: by the ending of BUNDLE, or torchscript]",
)
@click.option("--model", metavar="NAME", help="Network the weights belong to. [default: from the file]")
@click.option(
    "--exits", type=BLOCKS, metavar="B1,B2,...", help="Blocks to keep exits after. [default: all in the checkpoint]"
)
@threshold_option
@thresholds_option
@click.option("--labels", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Class names, one a line.")
@click.option("--image-size", type=click.IntRange(16), help="Image size in pixels. [default: from the weights]")
@click.option("--crop", type=click.FloatRange(0.1, 1.0), help="Centre share to keep. [default: all]")
@click.option("--mean", type=NUMBERS, metavar="R,G,B", help="Mean of the pixels, of 1. [default: ImageNet's]")
@click.option(
    "--std", type=NUMBERS, metavar="R,G,B", help="Standard deviation of the pixels, of 1. [default: ImageNet's]"
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "int8-static", "fp32"]),
    help="int8-static: ranges set by --data, any network. [default: int8, or that of the bundle]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Class folders with images to set the ranges of static int8 with.",
)
@click.option("--no-full-depth", is_flag=True, help="In ONNX without the graph for other programs, half the file.")
def command(
    source: Path | None,
    output: Path,
    form: str | None,
    model: str | None,
    exits: list[int] | None,
    threshold: float | None,
    thresholds: list[float] | None,
    labels: Path | None,
    image_size: int | None,
    crop: float | None,
    mean: list[float] | None,
    std: list[float] | None,
    precision: str | None,
    data: Path | None,
    no_full_depth: bool,
) -> None:
    """Make a bundle, the one file a Pi needs, from a PyTorch or safetensors checkpoint.

    SOURCE may also be a bundle, or left out for the embedded one, to put it into ONNX, LiteRT or Core ML. Without a
    threshold the exits answer at a gate of 0.9; `pi-dynn evaluate` shows what that gives.

    \b
    Examples:
      pi-dynn export gfnet-xs.pth -o gfnet-xs.pt --labels imagenet.txt --crop 0.875
      pi-dynn export gfnet-xs.pt -o gfnet-xs.onnx.zip
      pi-dynn export mine.pt -o mine.tflite.zip
      pi-dynn export cifar.safetensors -o cifar.pt --precision int8-static --data photos
      pi-dynn export recnext_t.pth --model recnext_t --image-size 224 -o recnext_t.mlpackage
    """
    if form is None:
        form = "coreml" if output.suffix == ".mlpackage" else form_of_file(output.name)
    if threshold is not None and thresholds is not None:
        raise click.UsageError("give only one of --threshold and --thresholds")
    if no_full_depth and form != ONNX:
        raise click.UsageError("--no-full-depth is for --format onnx")
    pixels = {"mean": mean, "std": std}
    for name, values in pixels.items():
        if values is not None and len(values) != 3:
            raise click.UsageError(f"--{name} needs three numbers, one for each colour")

    from pi_dynn.deploy.export import UNCHOSEN, ExportSettings, export, export_coreml
    from pi_dynn.deploy.onnx import without_full_depth

    settings = ExportSettings(
        model=model,
        exits=exits,
        thresholds=threshold if thresholds is None else thresholds,
        labels=None if labels is None else labels.read_text(encoding="utf-8").splitlines(),
        image_size=image_size,
        crop=crop,
        precision=precision,
        data=data,
        **{name: None if values is None else tuple(values) for name, values in pixels.items()},
    )
    if form == "coreml":
        click.echo(f"{output}: {export_coreml(source, settings, output)}")
        return
    bundle = export(source, settings, form)
    if no_full_depth:
        bundle = without_full_depth(bundle)
    bundle.save(output)
    manifest = bundle.manifest
    click.echo(
        f"{output}: {manifest.model} {manifest.precision}, {counted(len(manifest.labels), 'class')}, "
        f"{counted(len(manifest.exit_blocks), 'exit')}, {manifest.format}, {len(bundle.data) / 1e6:.1f} MB"
    )
    if manifest.exit_blocks and manifest.notes.get("thresholds_chosen") == UNCHOSEN:
        click.echo(f"Note: thresholds {UNCHOSEN}: choose them by images with `pi-dynn calibrate`", err=True)
