"""A small set of real photographs: tiles of the samples that ship with the embedded model."""

from pathlib import Path

from PIL import Image

from pi_dynn.cli.options import sample_folder
from pi_dynn.data.folders import walk_images


def tiles_of_samples(folder: Path, classes: int = 3, side: int = 64) -> Path:
    """A folder per photograph, with its tiles of `side` pixels."""
    for path in list(walk_images(sample_folder()))[:classes]:
        place = folder / path.stem
        place.mkdir(parents=True)
        with Image.open(path) as image:
            for top in range(0, image.height - side + 1, side):
                for left in range(0, image.width - side + 1, side):
                    image.crop((left, top, left + side, top + side)).save(place / f"{top}_{left}.png")
    return folder
