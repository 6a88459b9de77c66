"""What a folder of photographs holds, and how it is shared out."""

import shutil

import numpy as np
import pytest
from PIL import Image

from pi_dynn.data.folders import open_image_folder
from pi_dynn.data.groups import fingerprint, grouped_split, joined, named_groups, pairs_alike
from pi_dynn.data.look import FolderLook, look_at
from pi_dynn.errors import DatasetError
from tests.learning import coloured_noise


def looked(folder):
    return look_at(open_image_folder(folder))


def test_a_sound_folder_is_used_whole(tmp_path):
    found = looked(coloured_noise(tmp_path, 7))
    assert len(found.data) == 21 and found.look.classes == {"blue": 7, "green": 7, "red": 7}
    assert found.look.left_out == [] and found.look.together == [] and found.look.shorter_side_px == [64, 64, 64]
    assert found.look.advice == [
        "few photographs of blue (7), green (7), red (7): 30 or more of each class would help most"
    ]
    assert FolderLook.from_dict(found.look.to_dict()) == found.look


def test_damaged_files_copies_and_equal_images_of_two_classes_are_left_out(tmp_path):
    coloured_noise(tmp_path, 8)
    (tmp_path / "red" / "0.png").write_bytes((tmp_path / "red" / "0.png").read_bytes()[:200])
    (tmp_path / "red" / "empty.jpg").write_bytes(b"")
    shutil.copy(tmp_path / "blue" / "1.png", tmp_path / "blue" / "again.png")
    shutil.copy(tmp_path / "blue" / "2.png", tmp_path / "green" / "other.png")
    found = looked(tmp_path)
    reasons = {one.path: one.reason for one in found.look.left_out}
    assert set(reasons) == {"red/0.png", "red/empty.jpg", "blue/again.png", "blue/2.png", "green/other.png"}
    assert "damaged or truncated" in reasons["red/0.png"] and reasons["red/empty.jpg"] == "the file is empty"
    assert reasons["blue/again.png"] == "a copy of blue/1.png"
    assert reasons["blue/2.png"] == "the same image is in 'blue' and 'green' (green/other.png)"
    assert found.look.copies == 1 and found.look.classes == {"blue": 7, "green": 8, "red": 7}


def test_pictures_that_look_alike_stay_together(tmp_path):
    coloured_noise(tmp_path, 8)
    smooth = Image.radial_gradient("L").convert("RGB")
    smooth.save(tmp_path / "red" / "a.png")
    smooth.save(tmp_path / "red" / "b.jpg", quality=70)
    found = looked(tmp_path)
    assert found.look.alike == [["red/a.png", "red/b.jpg"]] == found.look.together
    split = grouped_split(found.groups, found.data.labels, {"test": 0.2, "train": 0.8}, seed=1)
    places = [name for name, members in split.items() for i in members if found.data.paths[i].stem in "ab"]
    assert len(set(places)) == 1


@pytest.mark.parametrize(
    ("each", "classes", "reason"), [(8, ("one",), "holds one class"), (3, ("a", "b"), "has 3 usable")]
)
def test_too_little_is_one_clear_line(tmp_path, each, classes, reason):
    with pytest.raises(DatasetError, match=reason):
        looked(coloured_noise(tmp_path, each, classes))


def test_fingerprints_tell_pictures_apart():
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(40)]
    pictures.append(pictures[3].resize((80, 80), Image.Resampling.NEAREST))
    prints = [fingerprint(picture) for picture in pictures]
    assert pairs_alike(*(np.stack(one) for one in zip(*prints, strict=True))) == [(3, 40)]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["a/1.jpg", "a/2.jpg", "b/1.jpg"], ["a", "a", "b"]),
        (["x_1.jpg", "x_2.jpg", "y_1.jpg", "y_2.jpg", "z_1.jpg", "z_2.jpg"], ["x", "x", "y", "y", "z", "z"]),
        (["street3 frame 01.jpg", "street3 frame 02.jpg"], [None, None]),  # one beginning tells nothing
        (["IMG_1.jpg", "IMG_2.jpg", "holiday.jpg"], [None, None, None]),
        ([f"{letter}001.jpg" for letter in "abcdef"], [None] * 6),
    ],
)
def test_names_tell_groups_only_where_they_do(names, groups):
    assert named_groups(names) == groups


def test_a_split_is_stratified_and_keeps_groups(tmp_path):
    labels = [0] * 40 + [1] * 20
    groups = joined(60, [(0, 1), (1, 2), (50, 51)])
    assert sum(map(len, groups)) == 60 and groups[0] == [0, 1, 2]
    shares = {"test": 0.15, "calibrate": 0.15, "train": 0.7}
    split = grouped_split(groups, labels, shares, seed=0)
    assert sorted(sum(split.values(), [])) == list(range(60))
    assert [sum(labels[i] == label for i in split["test"]) for label in (0, 1)] == [6, 3]
    assert split == grouped_split(groups, labels, shares, seed=0) != grouped_split(groups, labels, shares, seed=1)
    few = grouped_split([[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11]], [0] * 12, shares, seed=0)
    assert sorted(map(len, few.values())) == [3, 4, 5] and len(few["test"]) == 3  # whole groups, the smallest first
    assert len(grouped_split([list(range(9))], [0] * 9, shares, seed=0)["train"]) == 9
    for group in groups:
        assert len({name for name, members in split.items() if set(group) & set(members)}) == 1


def test_a_fingerprint_is_64_rises_of_brightness_and_a_thumbnail():
    rising = Image.fromarray(np.tile(np.arange(0, 252, 7, dtype=np.uint8), (36, 1)))
    for picture, rises in ((rising, True), (rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT), False)):
        bits, small = fingerprint(picture.convert("RGB"))
        assert bits.shape == (64,) and small.shape == (192,) and (bits == rises).all()


def test_pairs_are_found_whatever_pieces_they_are_compared_in(monkeypatch):
    monkeypatch.setattr("pi_dynn.data.groups._CHUNK", 2)
    generator = np.random.default_rng(0)
    bits, small = generator.random((7, 64)) < 0.5, generator.integers(0, 256, (7, 192), dtype=np.uint8)
    for copied, to in ((0, 1), (0, 5), (3, 6)):
        bits[to], small[to] = bits[copied], small[copied]
    assert sorted(pairs_alike(bits, small)) == [(0, 1), (0, 5), (1, 5), (3, 6)]


def test_names_with_one_image_each_say_nothing_of_groups():
    assert named_groups(["a_1.png", "b_1.png", "c_1.png"]) == [None] * 3


def test_small_images_are_counted_in_the_advice(tmp_path):
    coloured_noise(tmp_path, 7)
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (63, 80, 3), np.uint8)).save(
            tmp_path / f"red/s{i}.png"
        )
    assert "2 images are smaller than 64 px: what they show may be lost" in looked(tmp_path).look.advice


def test_folders_inside_a_class_stay_together(tmp_path):
    coloured_noise(tmp_path, 8)
    for i in range(8):
        (tmp_path / "red" / f"day{i % 2}").mkdir(exist_ok=True)
        (tmp_path / "red" / f"{i}.png").rename(tmp_path / "red" / f"day{i % 2}" / f"{i}.png")
    assert len([group for group in looked(tmp_path).look.together if group[0].startswith("red/day")]) == 2
