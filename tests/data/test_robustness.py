"""Copies of ImageNet-C, -A, -R and -Sketch, and the classes of a network among theirs."""

import dataclasses

import pytest
from PIL import Image

from pi_dynn.data import robustness
from pi_dynn.data.robustness import open_hard_images, read_wnids, wnids_of
from pi_dynn.errors import DatasetError

WNIDS = ["n01440764", "n01443537", "n01484850"]
LABELS = ["tench", "goldfish", "shark"]


def fill(folder, wnids, images=1):
    for wnid in wnids:
        (folder / wnid).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (8, 8)).save(folder / wnid / f"{i}.png")


def test_a_subset_of_the_classes_is_named_by_the_networks_labels(tmp_path):
    fill(tmp_path, [WNIDS[2], WNIDS[0]])
    (part,) = open_hard_images(tmp_path, "imagenet-r", LABELS, WNIDS, partial=True)
    assert part.data.classes == ["tench", "shark"] and (part.corruption, part.severity) == (None, None)
    assert [part.data.classes[label] for label in part.data.labels] == ["tench", "shark"]


@pytest.mark.parametrize("below", ["", "noise"])
def test_imagenet_c_in_groups_or_not(tmp_path, below):
    for severity in (1, 5):
        fill(tmp_path / below / "shot_noise" / str(severity), WNIDS)
    parts = open_hard_images(tmp_path, "imagenet-c", LABELS, WNIDS, partial=True)
    assert [(part.corruption, part.severity) for part in parts] == [("shot_noise", 1), ("shot_noise", 5)]
    assert parts[0].data.classes == LABELS


def test_what_is_missing_or_strange_is_said(tmp_path):
    fill(tmp_path / "a", WNIDS)
    with pytest.raises(DatasetError, match="has 3 images of 3 classes, ImageNet-A has 7,500 of 200"):
        open_hard_images(tmp_path / "a", "imagenet-a", LABELS, WNIDS)
    with pytest.raises(DatasetError, match="'n01484850' is none of the network's 2 WordNet ids"):
        open_hard_images(tmp_path / "a", "imagenet-a", LABELS[:2], WNIDS[:2], partial=True)
    with pytest.raises(DatasetError, match="no folder <corruption>/<severity>/<class>"):
        open_hard_images(tmp_path / "a", "imagenet-c", LABELS, WNIDS)
    with pytest.raises(DatasetError, match="no robustness set is named 'imagenet-z'"):
        open_hard_images(tmp_path, "imagenet-z", LABELS, WNIDS)
    with pytest.raises(DatasetError, match="no such folder; expected a copy of ImageNet-Sketch"):
        open_hard_images(tmp_path / "none", "imagenet-sketch", LABELS, WNIDS)


def test_wnids_come_from_labels_or_a_file(tmp_path):
    assert wnids_of(["n01440764 tench", "n01443537"]) == WNIDS[:2]
    with pytest.raises(DatasetError, match="class 'tench' does not begin with a WordNet id"):
        wnids_of(LABELS)
    path = tmp_path / "synset_words.txt"
    path.write_text("n01440764 tench\nn01443537 goldfish\n")
    assert read_wnids(path, 2) == WNIDS[:2]
    with pytest.raises(DatasetError, match="has 2 lines for the bundle's 3 classes"):
        read_wnids(path, 3)
    with pytest.raises(DatasetError, match="has 2 lines for the bundle's 1 classes"):
        read_wnids(path, 1)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_wnids(tmp_path / "none", 3)


def test_a_whole_copy_needs_no_permission_and_the_published_sizes_are_known(tmp_path, monkeypatch):
    sizes = {name: (layout.num_classes, layout.images) for name, layout in robustness.LAYOUTS.items()}
    assert sizes == {
        "imagenet-c": (1000, 50_000),
        "imagenet-a": (200, 7_500),
        "imagenet-r": (200, 30_000),
        "imagenet-sketch": (1000, 50_889),
    }
    small = dataclasses.replace(robustness.LAYOUTS["imagenet-r"], num_classes=3, images=6)
    monkeypatch.setitem(robustness.LAYOUTS, "imagenet-r", small)
    fill(tmp_path, WNIDS, 2)
    (part,) = open_hard_images(tmp_path, "imagenet-r", LABELS, WNIDS)
    assert len(part.data) == 6
