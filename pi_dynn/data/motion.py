"""Motion detection on thumbnails: whether a picture differs from the last answered one by more than noise and light.

A thumbnail is a grid of cells, each the mean colour of a part of the picture. The thumbnail of the last answer is
first relit: gain and offset of each channel are fitted to the new one, within limits that a scene does not keep to.
What then differs, in enough cells, by more than the noise of these cells, has moved.

Shape letters: R rows, C columns of cells.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pi_dynn.data.decode import decode_image

ROWS, COLUMNS = 24, 32
LEAST_CELLS = 4  # of 768 that have to differ: half a percent of the picture
SIGMAS = 6.0  # a cell differs by more than so many standard deviations of its noise
# Grey levels of 255. The least covers rounding and compression; what flickers more than the greatest is not noise.
LEAST_NOISE, GREATEST_NOISE, GREATEST_MEDIAN_NOISE = 0.5, 3.0, 2.0
PAIRS = 10  # of frames that noise is estimated from, over at least CALIBRATION_S
CALIBRATION_S = 5.0
GAIN, OFFSET = (0.8, 1.25), 20.0  # limits of a change of light from one frame to the next
FOLLOWED = 0.05  # of the noise: how far each cell of the reference follows the picture with every frame
RECALIBRATE = 60  # frames running that moved: the noise may be another, as at night
_PIXELS_PER_CELL = 8  # along each side; more are not needed for a mean

Thumbnail = NDArray[np.float32]


def thumbnail(image: np.ndarray | Path) -> Thumbnail:
    """The mean colours (R, C, 3) of the parts of uint8 pixels (H, W, 3), or of an image file.

    Raises: InputError for a file that cannot be decoded.
    """
    if isinstance(image, Path):
        small = decode_image(image, draft_px=ROWS * _PIXELS_PER_CELL)
    else:
        step = max(1, min(image.shape[0] // ROWS, image.shape[1] // COLUMNS) // _PIXELS_PER_CELL)
        small = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
    return np.asarray(small.resize((COLUMNS, ROWS), Image.Resampling.BOX), dtype=np.float32)


def relit(reference: Thumbnail, now: Thumbnail) -> Thumbnail:
    """`reference` in the light of `now`: the best gain and offset of each channel, within limits."""
    a, b = reference.reshape(-1, 3), now.reshape(-1, 3)
    mean_a, mean_b = a.mean(0), b.mean(0)
    spread = a - mean_a
    variance = np.einsum("ij,ij->j", spread, spread)
    covariance = np.einsum("ij,ij->j", spread, b - mean_b)
    gain = np.clip(np.where(variance > 0, covariance / np.maximum(variance, 1e-9), 1.0), *GAIN)
    offset = np.clip(mean_b - gain * mean_a, -OFFSET, OFFSET)
    light: Thumbnail = np.clip(reference * gain + offset, 0.0, 255.0).astype(np.float32)
    return light


class MotionDetector:
    """Says which pictures moved. All do until the noise is known, from the first seconds without motion.

    At least every `at_least_s` seconds one is passed as moved, whatever it shows.

    Attributes: skipped (pictures that did not move), calibrated.
    """

    def __init__(self, at_least_s: float = 60.0) -> None:
        self.at_least_s, self.skipped = at_least_s, 0
        self._reference: Thumbnail | None = None  # of the last picture that moved, relit since
        self._last: Thumbnail | None = None
        self._moved_ns, self._running = 0, 0
        self._noise: NDArray[np.float32] | None = None  # (R, C)
        self._restart(0)

    @property
    def calibrated(self) -> bool:
        """Whether the noise is known."""
        return self._noise is not None

    def moved(self, image: np.ndarray | Path, taken_ns: int, wanted: bool = False) -> bool:
        """Whether the picture taken at `taken_ns` is to be answered; always if it is `wanted`.

        Raises: InputError for a file that cannot be decoded.
        """
        now = thumbnail(image)
        still = self._noise is not None and not self._differs(now)
        self._running = 0 if still or self._noise is None else self._running + 1
        if self._running >= RECALIBRATE:
            self._restart(taken_ns)
        if self._noise is None:
            self._calibrate(now, taken_ns)
        self._last = now
        if still and not wanted and taken_ns - self._moved_ns < self.at_least_s * 1e9:
            self.skipped += 1
            return False
        self._reference, self._moved_ns = now, taken_ns
        return True

    def _differs(self, now: Thumbnail) -> bool:
        assert self._reference is not None and self._noise is not None  # both from the calibration on
        light = relit(self._reference, now)
        difference = now - light
        most = np.abs(difference).max(axis=2) / self._noise
        differs = bool(np.partition(most, -LEAST_CELLS, axis=None)[-LEAST_CELLS] > SIGMAS)
        if not differs:
            slow = FOLLOWED * self._noise[:, :, None]
            self._reference = light + np.clip(difference, -slow, slow)
        return differs

    def _restart(self, taken_ns: int) -> None:
        self._noise, self._last, self._running = None, None, 0
        self._differences: list[NDArray[np.float32]] = []
        self._start_ns = taken_ns

    def _calibrate(self, now: Thumbnail, taken_ns: int) -> None:
        """Estimate the noise (R, C) from differences of successive pictures; again if most of the picture moved."""
        if self._last is None:
            self._start_ns = taken_ns
            return
        self._differences.append(np.abs(now - relit(self._last, now)).max(axis=2))
        if len(self._differences) < PAIRS or taken_ns - self._start_ns < CALIBRATION_S * 1e9:
            return
        # A median, which no single event moves; of the greatest of three normal values it is 1.263 deviations.
        noise = np.median(self._differences, axis=0) / 1.263
        median = float(np.median(noise))
        self._differences, self._start_ns = [], taken_ns
        if median <= GREATEST_MEDIAN_NOISE:
            self._noise = np.clip(noise, max(median, LEAST_NOISE), GREATEST_NOISE).astype(np.float32)
