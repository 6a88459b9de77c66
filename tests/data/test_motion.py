"""Motion detection: still pictures are skipped whatever noise and light do, and no change is."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pi_dynn.cli.options import sample_folder
from pi_dynn.data import motion
from pi_dynn.data.motion import MotionDetector, relit, thumbnail
from pi_dynn.data.region import Region
from pi_dynn.errors import InputError

SECOND_NS = 10**9
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "still_video.py"


@pytest.fixture(scope="module")
def videos():
    spec = importlib.util.spec_from_file_location("still_video", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def scene() -> np.ndarray:
    return np.random.default_rng(1).integers(40, 200, (24, 32, 3)).repeat(10, 0).repeat(10, 1).astype(np.uint8)


def noisy(scene: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.0, sigma, scene.shape)
    return (scene + noise).clip(0, 255).astype(np.uint8)


def calibrated(scene: np.ndarray, at_least_s: float = 1e6, sigma: float = 0.0) -> MotionDetector:
    """A detector that has seen the scene for twelve seconds."""
    detector = MotionDetector(at_least_s)
    for i in range(12):
        detector.moved(noisy(scene, sigma, i), i * SECOND_NS)
    assert detector.calibrated
    return detector


@pytest.mark.parametrize("name", ["still_scenes", "changing_scenes"])
def test_videos_of_real_pictures(videos, name):
    random = np.random.default_rng(3)
    frames = getattr(videos, name)(videos.pictures(sample_folder()), 600, random)
    counts = videos.count(frames, 60.0, random)
    assert counts.missed == 0 and counts.changes >= 3
    assert counts.skipped / counts.frames >= 0.85 or name == "changing_scenes"


def test_all_are_answered_until_the_noise_is_known(scene):
    detector = MotionDetector(1e6)
    answered = [detector.moved(noisy(scene, 8.0, i), i * SECOND_NS) for i in range(100)]
    first = answered.index(False)
    assert 10 <= first <= 12 and not any(answered[first:])
    assert detector.skipped == 100 - first


def test_the_noise_is_learned_as_quickly_from_many_frames_a_second(scene):
    detector = MotionDetector(1e6)
    answered = [detector.moved(noisy(scene, 4.0, i), i * SECOND_NS // 30) for i in range(200)]
    assert answered.index(False) == 151


def test_a_frame_is_answered_now_and_then_anyway(scene):
    detector = calibrated(scene, at_least_s=30.0)
    answered = [i for i in range(12, 300) if detector.moved(scene, i * SECOND_NS)]
    assert set(np.diff(answered)) == {30}


def test_one_that_is_wanted_is_answered(scene):
    detector = calibrated(scene)
    before = detector.skipped
    assert not detector.moved(scene, 20 * SECOND_NS)
    assert detector.moved(scene, 21 * SECOND_NS, wanted=True)
    assert detector.skipped == before + 1


def test_light_that_fades_is_no_motion_and_a_hand_over_the_lens_is(scene):
    detector = calibrated(scene)
    for i in range(200):
        faded = (scene * (1.0 - i / 400)).astype(np.uint8)
        assert not detector.moved(faded, (20 + i) * SECOND_NS)
    assert detector.moved(np.full_like(scene, 60), 300 * SECOND_NS)
    assert detector.moved(np.full_like(scene, 5), 301 * SECOND_NS)


def test_an_object_that_comes_slowly_is_seen(scene):
    detector = calibrated(scene, sigma=3.0)
    seen = []
    for i in range(60):
        picture = noisy(scene, 3.0, 100 + i)
        picture[80:160, : 4 * i] = 230
        seen.append(detector.moved(picture, (20 + i) * SECOND_NS))
    assert any(seen[:8])  # 28 of 320 pixels wide


def test_noise_that_grows_is_learned_anew(scene):
    detector = calibrated(scene, sigma=2.0)
    answered = [detector.moved(noisy(scene, 13.0, 50 + i), (20 + i) * SECOND_NS) for i in range(300)]
    assert any(answered[:30])
    assert sum(answered[-200:]) == 0


def test_a_picture_that_never_rests_is_always_answered():
    detector = MotionDetector()
    random = np.random.default_rng(0)
    for i in range(300):
        scene = random.integers(0, 255, (6, 8, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
        assert detector.moved(scene, i * SECOND_NS)
    assert not detector.calibrated


def test_thumbnails_of_arrays_and_files_agree(tmp_path):
    for height, width in ((24, 32), (100, 90), (480, 640), (1080, 1920)):
        y, x = np.mgrid[0:height, 0:width]
        image = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=2).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "a.png")
        small = thumbnail(image)
        assert small.shape == (motion.ROWS, motion.COLUMNS, 3)
        np.testing.assert_allclose(small, thumbnail(tmp_path / "a.png"), atol=3.0)


def test_light_is_fitted_within_limits():
    reference = np.random.default_rng(0).uniform(50, 200, (24, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(relit(reference, reference * 1.1 - 5), reference * 1.1 - 5, atol=1e-3)
    dark = np.zeros_like(reference)
    assert relit(reference, dark).mean() > 60
    flat = np.full_like(reference, 100.0)
    np.testing.assert_allclose(relit(flat, flat + 10), flat + 10)


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(InputError, match="not an image"):
        MotionDetector().moved(tmp_path / "a.jpg", 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.25, 0.5, 0.5, 0.5), (25, 75, 40, 80)),
        ((0, 0, 1, 1), (0, 100, 0, 80)),
        ((10, 20, 30, 40), (10, 40, 20, 60)),
        ((90, 70, 30, 40), (90, 100, 70, 80)),  # cut off at the edge
    ],
)
def test_regions_in_shares_and_pixels(values, expected, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (80, 100, 3)).astype(np.uint8)
    left, right, top, bottom = expected
    np.testing.assert_array_equal(Region(*values).of(image), image[top:bottom, left:right])
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(Region(*values).of(tmp_path / "a.png"), image[top:bottom, left:right])


def test_regions_that_are_none():
    for values in ((0, 0, 0, 1), (-0.1, 0, 1, 1), (0, 0, float("nan"), 1)):
        with pytest.raises(InputError, match="is empty"):
            Region(*values)
    with pytest.raises(InputError, match="no pixel of a picture of 100 x 80"):
        Region(200, 10, 20, 20).of(np.zeros((80, 100, 3), np.uint8))


def test_thumbnails_of_a_panorama_look_at_all_of_its_height():
    fine = np.random.default_rng(0).integers(0, 256, (8 * motion.ROWS, 80 * motion.COLUMNS, 3), dtype=np.uint8)
    exact = fine.reshape(motion.ROWS, 8, motion.COLUMNS, 80, 3).mean((1, 3))
    np.testing.assert_allclose(thumbnail(fine), exact, atol=1.01)  # rounded twice


@pytest.mark.parametrize(("cells", "moved"), [(motion.LEAST_CELLS - 1, False), (motion.LEAST_CELLS, True)])
def test_as_many_cells_have_to_differ_as_are_named(scene, cells, moved):
    detector = calibrated(scene)
    changed = scene.copy()
    changed[:10, : 10 * cells] = 250 - changed[:10, : 10 * cells]  # a cell is 10 x 10 pixels
    changed[:10, : 10 * cells] = np.where(changed[:10, : 10 * cells] < 128, 0, 255)
    assert detector.moved(changed, 20 * SECOND_NS) is moved


def test_a_region_in_shares_ends_inside_the_picture():
    for beyond in ((0.5, 0.0, 0.6, 1.0), (0.0, 0.5, 1.0, 0.6)):
        with pytest.raises(InputError, match="reaches beyond the picture"):
            Region(*beyond)
