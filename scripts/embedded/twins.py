#!/usr/bin/env python3
"""Which test images of UC Merced overlap with a training image, and how a bundle does without them.

    python scripts/embedded/twins.py --data DATA/ucm

UC Merced's tiles were cut from the same aerial photographs, some of them next to each other. Two tiles are twins where
one can be laid over the other so that their fine detail agrees on a sixth of the area or more. The section that says
so is put into the model cards beside the shipped bundles.

Shape letters: N images, S pixels of a side, P of a padded one.
"""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from pi_dynn.calibrate.outcomes import leave_at
from pi_dynn.data.folders import ImageFolder, load_split
from pi_dynn.data.groups import fingerprint, pairs_alike
from pi_dynn.data.layouts import open_data
from pi_dynn.evaluate.outputs import collect_outputs
from pi_dynn.files import write_text
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.session import Session
from pi_dynn.stats import wilson_interval
from pi_dynn.text import percent, table

SIDE = 128
FINE, COARSE = 1, 4  # pixels: detail between these two is compared, as all beaches are bright below
LEAST_OVERLAP = 0.15  # of the area
LEAST_CORRELATION = 0.7  # more than any pair of different classes has
LEAST_VARIANCE = 0.1  # in the overlap, of the whole image's: flat water agrees with all other water
HEADING = "## Twins in the training part"
AFTER = ("## None of these", "## What would help")
COMMAND = "python scripts/embedded/twins.py --data DATA/ucm"
CARDS = {"gfnet": "MODEL_CARD.md", "lite0": "MODEL_CARD_LITE0.md"}  # bundle and its card


@dataclass(frozen=True)
class Twin:
    """A test image and the training image of its class that overlaps with it, by number; how well they agree."""

    test: int
    train: int
    correlation: float


@dataclass(frozen=True)
class Twins:
    """The twins of a test part, what telling them from strangers rests on, and how many a perceptual hash finds."""

    twins: list[Twin]
    images: int
    hashed: int
    strangers: int  # pairs of different classes that were compared as well
    highest: float  # correlation among them


def detail(pictures: Sequence[Image.Image]) -> Tensor:
    """The fine detail (N, S, S) of pictures in grey, with mean square 1."""
    planes = []
    for picture in pictures:
        grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        fine, coarse = (np.asarray(grey.filter(ImageFilter.GaussianBlur(r)), np.float32) for r in (FINE, COARSE))
        planes.append(torch.from_numpy(fine - coarse))
    stacked = torch.stack(planes)
    return stacked / (stacked.square().mean((1, 2), keepdim=True).sqrt() + 1e-3)


def spectrum(images: Tensor) -> Tensor:
    """The spectrum of images (..., S, S), padded so that a shifted one does not come in again on the other side."""
    return torch.fft.rfft2(images, s=(2 * images.shape[-1],) * 2)


def shifted_sums(still: Tensor, moved: Tensor) -> Tensor:
    """Of two spectra: the sum of the images' products over their overlap at every shift, (..., P, P)."""
    return torch.fft.irfft2(moved * still.conj(), s=(still.shape[-2],) * 2)


class Tiles:
    """Images (N, S, S) to be laid over others: what of each alone enters its correlation with any other."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.spectrum = images, spectrum(images)
        whole = spectrum(torch.ones_like(images[0]))
        pixels = shifted_sums(whole, whole).round()
        self.enough, self.pixels = pixels >= LEAST_OVERLAP * images[0].numel(), pixels.clamp(min=1)
        self.mean = shifted_sums(whole, self.spectrum) / self.pixels
        self.variance = shifted_sums(whole, spectrum(images.square())) / self.pixels - self.mean.square()

    def correlations(self, image: Tensor) -> Tensor:
        """For each tile the best correlation (N,) with `image` (S, S) over all shifts that overlap enough.

        Source: normalised cross-correlation under masks, Padfield, CVPR 2010.
        """
        whole, own = spectrum(torch.ones_like(image)), spectrum(image)
        mean = shifted_sums(own, whole) / self.pixels
        variance = shifted_sums(spectrum(image.square()), whole) / self.pixels - mean.square()
        textured = self.enough & (variance > LEAST_VARIANCE) & (self.variance > LEAST_VARIANCE)
        covariance = shifted_sums(own, self.spectrum) / self.pixels - mean * self.mean
        correlation = covariance / (variance * self.variance).clamp(min=LEAST_VARIANCE**2).sqrt()
        return torch.where(textured, correlation, -1.0).flatten(1).amax(1)


def pictures_of(data: ImageFolder) -> list[Image.Image]:
    return [data.picture(index).convert("RGB") for index in range(len(data))]


def hashed_alike(test: list[Image.Image], train: list[Image.Image]) -> int:
    """How many test images a perceptual hash finds again in training."""
    bits, thumbnails = zip(*(fingerprint(picture) for picture in test + train), strict=True)
    pairs = pairs_alike(np.stack(bits), np.stack(thumbnails))
    return len({i for i, j in pairs if i < len(test) <= j})


@torch.inference_mode()
def find_twins(test: ImageFolder, train: ImageFolder, seed: int = 0) -> Twins:
    """Compare every test image with the training images of its class, and with as many strangers of other classes."""
    pictures = {"test": pictures_of(test), "train": pictures_of(train)}
    mine, theirs = detail(pictures["test"]), detail(pictures["train"])
    asked, labels, draw = np.asarray(test.labels), np.asarray(train.labels), np.random.default_rng(seed)
    twins, strangers, highest = [], 0, -1.0
    for label in np.unique(asked):
        same, different = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        chosen = draw.choice(different, min(len(same), len(different)), replace=False)
        tiles, strange = Tiles(theirs[torch.from_numpy(same)]), Tiles(theirs[torch.from_numpy(chosen)])
        for index in np.flatnonzero(asked == label).tolist():
            correlations = tiles.correlations(mine[index])
            nearest = int(correlations.argmax())
            if correlations[nearest] >= LEAST_CORRELATION:
                twins.append(Twin(index, int(same[nearest]), float(correlations[nearest])))
            highest = max(highest, float(strange.correlations(mine[index]).max()))
            strangers += len(chosen)
    hashed = hashed_alike(pictures["test"], pictures["train"])
    return Twins(twins, len(test), hashed, strangers, highest)


def twin_section(twins: Twins, session: Session, test: ImageFolder) -> str:
    """The section of a model card: the twins, and what the bundle answers with and without them."""
    outputs = collect_outputs(session, test)
    exits = leave_at(outputs.scores, session.manifest.thresholds)
    right = outputs.right[exits, np.arange(len(exits))]
    names = [test.paths[twin.test].stem for twin in twins.twins]
    return section(twins, right, outputs.right[-1], names)


def section(twins: Twins, right: NDArray[np.bool_], deepest: NDArray[np.bool_], names: Sequence[str]) -> str:
    """`right` and `deepest` (N,) say which test images the exits and the full depth answer right."""
    paired = np.zeros(twins.images, dtype=bool)
    paired[[twin.test for twin in twins.twins]] = True
    rows = []
    for what, part in (("all", np.ones_like(paired)), ("with a twin", paired), ("without", ~paired)):
        if count := int(part.sum()):
            low, high = wilson_interval(int(right[part].sum()), count)
            interval = f"{percent(low)} .. {percent(high)}"
            rows.append((what, str(count), percent(right[part].mean(), 2), interval, percent(deepest[part].mean(), 2)))
    head = ("test images", "images", "acc@1 with exits", "95 % interval", "acc@1 full depth")
    text = (
        f"UC Merced's tiles are cut from larger photographs, and some overlap. Of {twins.images} test images "
        f"{len(twins.twins)} show {percent(LEAST_OVERLAP, 0)} or more of a training image of their class: laid over "
        f"each other, their fine detail correlates by {LEAST_CORRELATION:g} or more. Of {twins.strangers:,} pairs of "
        f"different classes none exceeds {twins.highest:.2f}. A perceptual hash, for which whole pictures have to be "
        f"alike, finds {twins.hashed}."
    )
    with_twin = textwrap.fill(f"With a twin: {', '.join(names) or 'none'}.", 120)
    return (
        "\n\n".join(
            (HEADING, textwrap.fill(text, 120), table(head, rows, markdown=True), with_twin, f"Made by `{COMMAND}`.")
        )
        + "\n"
    )


def with_section(card: str, text: str) -> str:
    """A card with the section, in place of the one it has, else before the first of the headings AFTER it."""
    if HEADING in card:
        before, _, rest = card.partition(HEADING)
        _, heading, after = rest.partition("\n## ")
        return before + text + heading + after
    place = next(card.index(heading) for heading in AFTER if heading in card)
    return card[:place] + text + "\n" + card[place:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="UC Merced, one folder a class")
    parser.add_argument("--split", type=Path, default=Path("calibration/ucm_split.json"))
    parser.add_argument("--assets", type=Path, default=Path("pi_dynn/assets"), help="where the cards are")
    arguments = parser.parse_args()
    parts = load_split(arguments.split, open_data(arguments.data).data)
    twins = find_twins(parts["test"], parts["train"])
    for name, file in CARDS.items():
        text = twin_section(twins, Session(load_bundle(name)), parts["test"])
        card = arguments.assets / file
        write_text(card, with_section(card.read_text(), text))
        print(f"{card}\n{text}")


if __name__ == "__main__":
    main()
