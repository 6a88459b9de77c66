#!/usr/bin/env python3
"""How much of a still picture the motion detector skips, and whether it misses a change.

    python benchmarks/still_video.py --pictures datasets/ucm

The exit status is 1 where less than 85 % of the still video was skipped, or a change of any.

Videos are made of real pictures, the samples unless a folder is named: one frame a second with the noise of a sensor,
light that doubles and halves in the course of minutes and falls from one side, and JPEG compression.

still      a scene stays for some minutes; now and then a part of another picture visits it for some seconds
windy      the same, and a quarter of each scene sways by up to six pixels all the time
changing   half a minute of one scene, then another with every frame
"""

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageOps

from pi_dynn.cli.options import sample_folder
from pi_dynn.data.motion import MotionDetector
from pi_dynn.text import percent

WIDTH, HEIGHT = 320, 240
NOISE = 6.0  # grey levels of each pixel, as a small sensor has in a room
LIGHT_S = 900.0  # period of the light


@dataclass
class Counts:
    """Frames, how many were skipped, changes of the picture, and how many of them were skipped."""

    frames: int = 0
    skipped: int = 0
    changes: int = 0
    missed: int = 0


def pictures(folder: Path) -> list[np.ndarray]:
    """The pictures in a folder and below as (H, W, 3) floats."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".tif"))
    opened = (Image.open(path).convert("RGB") for path in files)
    return [np.asarray(ImageOps.fit(image, (WIDTH, HEIGHT)), dtype=np.float32) for image in opened]


def filmed(scene: np.ndarray, number: int, random: np.random.Generator) -> np.ndarray:
    """The scene as a camera gives it at second `number`: lit, noisy, compressed."""
    phase = 2 * np.pi * number / LIGHT_S
    side = 1.0 + 0.15 * np.sin(phase / 3) * np.linspace(-1.0, 1.0, WIDTH, dtype=np.float32)[None, :, None]
    lit = scene * (0.75 + 0.25 * np.sin(phase)) * side
    noisy = lit + random.normal(0.0, NOISE, scene.shape).astype(np.float32)
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=80)
    return np.asarray(Image.open(stream))


def still_scenes(
    scenes: list[np.ndarray], frames: int, random: np.random.Generator, lasting_s: tuple[int, int] = (120, 600)
) -> Iterator[tuple[np.ndarray, bool]]:
    """Scenes that last for minutes, with visitors; and whether the picture is another than the one before."""
    numbers = itertools.count()
    for turn in itertools.cycle(range(len(scenes))):
        scene, guest = scenes[turn], scenes[(turn + 7) % len(scenes)]
        length, visit = int(random.integers(*lasting_s)), int(random.integers(5, 20))
        begin = int(random.integers(20, length - 2 * visit))
        side = int(random.integers(40, 90))  # 2 to 11 percent of the picture
        x, y = int(random.integers(0, WIDTH - side)), int(random.integers(0, HEIGHT - side))
        visited = scene.copy()
        visited[y : y + side, x : x + side] = guest[y : y + side, x : x + side]
        for second in range(length):
            if next(numbers) >= frames:
                return
            yield visited if begin <= second < begin + visit else scene, second in (0, begin, begin + visit)


def windy_scenes(
    scenes: list[np.ndarray], frames: int, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, bool]]:
    """Still scenes whose lower half sways on the left; visitors come to the rest of the picture, too."""
    rows, columns = slice(HEIGHT // 2, HEIGHT), slice(0, WIDTH // 2)
    for scene, change in still_scenes(scenes, frames, random, (900, 1800)):
        swaying = scene.copy()
        swaying[rows, columns] = np.roll(scene[rows, columns], random.integers(-6, 7, 2), (0, 1))
        yield swaying, change


def changing_scenes(
    scenes: list[np.ndarray], frames: int, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, bool]]:
    """One scene until the noise is known, then another with every frame."""
    turn = 0
    for number in range(frames):
        if number < 30:
            yield scenes[0], False
            continue
        turn = (turn + int(random.integers(1, len(scenes)))) % len(scenes)
        yield scenes[turn], True


def count(video: Iterator[tuple[np.ndarray, bool]], at_least_s: float, random: np.random.Generator) -> Counts:
    """What the detector does with a video of one frame a second."""
    detector, counts = MotionDetector(at_least_s), Counts()
    for number, (scene, change) in enumerate(video):
        answered = detector.moved(filmed(scene, number, random), number * 10**9)
        counts.frames += 1
        counts.skipped += not answered
        counts.changes += change
        counts.missed += change and not answered
    return counts


@click.command()
@click.option("--pictures", "folder", type=click.Path(path_type=Path), help="A folder of them. [default: the samples]")
@click.option("--frames", default=6000, show_default=True, help="Of each video.")
def main(folder: Path | None, frames: int) -> None:
    """Print what is skipped and missed of both videos."""
    scenes = pictures(folder or sample_folder())
    scenes = scenes[:: max(1, len(scenes) // 200)]
    click.echo(f"{len(scenes)} pictures of {WIDTH} x {HEIGHT}, noise of {NOISE:g} levels, answered every 60 s anyway")
    failed = False
    for name, video in (("still", still_scenes), ("windy", windy_scenes), ("changing", changing_scenes)):
        random = np.random.default_rng(0)
        counts = count(video(scenes, frames, random), 60.0, random)
        share = counts.skipped / counts.frames
        failed |= counts.missed > 0 or name == "still" and share < 0.85
        click.echo(
            f"{name:<9} {counts.frames} frames, {percent(share)} skipped, "
            f"{counts.missed} of {counts.changes} changes missed"
        )
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
