"""Corrupted pictures: noise, blur, weather and digital artefacts at five severities.

The corruptions are those of ImageNet-C, made by the package `imagecorruptions-imaug` (the extra [robustness]). They
were designed for 224 px and are applied to the input of the network, so at 128 px the same severity has more effect.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions (2019), section 4.
"""

from collections.abc import Sequence

import numpy as np

from pi_dynn.errors import InputError, need_extra

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
PUBLISHED = tuple(name for group in ("noise", "blur", "weather", "digital") for name in GROUPS[group])
SEVERITIES = (1, 2, 3, 4, 5)
_SEEDED = ("impulse_noise", "glass_blur")  # these have their own random generator
_LEAST_PX = 32

# Top-1 errors of AlexNet on ImageNet-C, mean over the severities: github.com/hendrycks/robustness
ALEXNET_ERRORS = dict(
    zip(
        PUBLISHED,
        (0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324, 0.564592)
        + (0.853204, 0.646056, 0.717840, 0.606500),
        strict=True,
    )
)


def corruptions_named(names: Sequence[str]) -> list[str]:
    """The corruptions of a list of names: single ones, groups, or "all" for the fifteen published ones, in order.

    Raises: InputError for a name that is not known.
    """
    known = [name for group in GROUPS.values() for name in group]
    corruptions: list[str] = []
    for name in names:
        if name != "all" and name not in GROUPS and name not in known:
            raise InputError(f"no corruption {name!r}: give all, {', '.join(GROUPS)}, or one of {', '.join(known)}")
        corruptions += PUBLISHED if name == "all" else GROUPS.get(name, (name,))
    return list(dict.fromkeys(corruptions))


def check_corruptions() -> None:
    """Raises: InputError if the library that corrupts pictures is missing."""
    with need_extra("robustness", "corrupting images"):
        import imagecorruptions  # noqa: F401


def corrupt_pixels(pixels: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """A picture, uint8 (H, W, 3), corrupted; the same seed gives the same picture.

    Raises: InputError if the library is missing, or the picture is below 32 px.
    """
    with need_extra("robustness", "corrupting images"):
        from imagecorruptions import corrupt
    if min(pixels.shape[:2]) < _LEAST_PX:
        raise InputError(f"corruptions need at least {_LEAST_PX} px, this network sees {min(pixels.shape[:2])}")
    state = np.random.get_state()  # noqa: NPY002 - the library draws from numpy's global generator
    np.random.seed(seed)  # noqa: NPY002
    try:
        own = {"seed": seed} if name in _SEEDED else {}
        return corrupt(np.ascontiguousarray(pixels), severity=severity, corruption_name=name, **own)
    finally:
        np.random.set_state(state)  # noqa: NPY002
