"""From a file to the input of the network."""

from itertools import cycle

import pytest

from pi_dynn.data.decode import decode_image


@pytest.fixture
def preprocess(bundle):
    return bundle.manifest.preprocess


@pytest.mark.benchmark(group="images")
def test_decode(energy, photographs, preprocess):
    paths, draft_px = cycle(photographs), round(2 * preprocess.size / preprocess.crop)
    image = energy(lambda: decode_image(next(paths), draft_px=draft_px))
    assert min(image.size) >= preprocess.size


@pytest.mark.benchmark(group="images")
def test_preprocess(energy, photographs, preprocess):
    images = cycle([decode_image(path) for path in photographs])
    x = energy(lambda: preprocess(next(images)))
    assert x.shape == (3, preprocess.size, preprocess.size)
