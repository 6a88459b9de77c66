"""Named data sets: complete copies open, incomplete ones are refused; CIFAR-10 batches are read as data."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from pi_dynn.data import layouts
from pi_dynn.data.cifar import CLASSES, open_cifar, read_binary_batch, read_python_batch
from pi_dynn.data.folders import load_split, save_split, stratified_split
from pi_dynn.data.layouts import LAYOUTS, Layout, detected_layout, layout_named, open_data, open_images
from pi_dynn.errors import DatasetError

TINY = Layout("tiny", "Tiny Scenes", 2, 6, 2, 8, ("wet land", "dry_land"), ("Images",))


def fill(root, counts, size=8):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (size, size), (i, 0, 0)).save(root / name / f"{i}.png")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(layouts.LAYOUTS, "tiny", TINY)


def test_class_lists_and_published_sizes_fit_together():
    assert {layout.name: layout.num_classes for layout in LAYOUTS.values()} == {
        "nasc-tg2": 10,
        "patternnet": 38,
        "resisc45": 45,
        "ucm": 21,
        "aid": 30,
        "cifar10": 10,
        "imagenet": 1000,
    }
    sizes = {layout.name: (layout.images, layout.image_size) for layout in LAYOUTS.values()}
    assert sizes == {
        "nasc-tg2": (20_000, 128),
        "patternnet": (30_400, 256),
        "resisc45": (31_500, 256),
        "ucm": (2_100, 256),
        "aid": (10_000, 600),
        "cifar10": (60_000, 32),
        "imagenet": (1_331_167, 224),
    }
    assert {name: layout.per_class for name, layout in LAYOUTS.items()} == {
        "nasc-tg2": 2_000,
        "patternnet": 800,
        "resisc45": 700,
        "ucm": 100,
        "aid": None,
        "cifar10": 6_000,
        "imagenet": None,
    }
    for layout in LAYOUTS.values():
        assert len(set(layout.classes)) == len(layout.classes) in (0, layout.num_classes)
        assert list(layout.classes) == sorted(layout.classes)
    for name, held_out in (("nasc-tg2", 4000), ("patternnet", 6080), ("resisc45", 6300), ("ucm", 420), ("aid", 2000)):
        assert LAYOUTS[name].held_out == held_out
        assert LAYOUTS[name].held_out_share == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("NaSC-TG2", "nasc-tg2"),
        ("nasc", "nasc-tg2"),
        ("NWPU-RESISC45", "resisc45"),
        ("nwpu", "resisc45"),
        ("NWPU_RESISC45", "resisc45"),
        ("UC Merced", "ucm"),
        ("ImageNet", "imagenet"),
        ("CIFAR-10", "cifar10"),
    ],
)
def test_names_are_found_however_they_are_spelt(spelling, name):
    assert layout_named(spelling).name == name


@pytest.mark.parametrize("name", ["", "nwp", "landuse"])
def test_a_part_of_a_name_is_none(name):
    with pytest.raises(DatasetError, match="no data set is named"):
        layout_named(name)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(DatasetError, match="'eurosat': choose from nasc-tg2, patternnet"):
        layout_named("eurosat")


@pytest.mark.parametrize("below", ["", "Images"])
def test_a_whole_copy_opens_wherever_its_folders_lie(tiny, tmp_path, below):
    fill(tmp_path / below, {"WetLand": 3, "dryland": 3})
    opened = open_data(tmp_path, "tiny")
    assert (opened.images, opened.held_out, opened.data.classes) == (6, None, ["WetLand", "dryland"])


@pytest.mark.parametrize("name", ["nasc-tg2", "patternnet", "resisc45", "ucm", "aid"])
def test_a_set_is_found_as_it_is_unpacked_without_being_named(tmp_path, name):
    layout = LAYOUTS[name]
    place = tmp_path.joinpath(*layout.folders)
    fill(place, dict.fromkeys(layout.classes, 1))
    (place.parent / "readme.txt").touch()
    assert detected_layout(tmp_path) is layout
    opened, images = open_data(tmp_path), open_images(tmp_path)
    assert opened.data.root == place and opened.data.classes == images.classes == sorted(layout.classes)
    with pytest.raises(DatasetError, match="only 1; expected" if layout.per_class else "of 10,000 images; expected"):
        open_data(tmp_path, name)


def test_images_without_classes_to_measure_with(tmp_path):
    with pytest.raises(DatasetError, match="no images"):
        open_images(tmp_path)
    fill(tmp_path, {"holiday": 2})
    Image.new("RGB", (8, 8)).save(tmp_path / "first.png")
    assert [path.name for path in open_images(tmp_path).paths] == ["first.png", "0.png", "1.png"]
    fill(tmp_path / "train", {"a": 2})
    fill(tmp_path / "val", {"a": 1})
    assert len(open_images(tmp_path)) == 1  # that to judge by


def test_parts_of_a_set_that_brings_its_own(tmp_path):
    fill(tmp_path / "train", {"a": 4, "b": 2})
    fill(tmp_path / "test", {"a": 1, "b": 1})
    opened = open_data(tmp_path)
    assert [len(opened.part(name)) for name in ("train", "test", "calibrate")] == [6, 2, 2]
    save_split(tmp_path / "split.json", stratified_split(opened.data, {"calibrate": 0.5, "train": 0.5}, 0), 0)
    parts = [len(opened.part(name, tmp_path / "split.json")) for name in ("train", "calibrate", "test")]
    assert parts == [3, 3, 2]
    with pytest.raises(DatasetError, match="has no part 'other', only calibrate, train, test"):
        opened.part("other", tmp_path / "split.json")


def test_half_a_copy_says_what_is_missing_and_expected(tiny, tmp_path):
    with pytest.raises(DatasetError, match="no such folder.*expected there Tiny Scenes: 2 class folders, 3 images"):
        open_data(tmp_path / "nowhere", "tiny")
    fill(tmp_path, {"wetland": 3, "dryland": 1})
    with pytest.raises(DatasetError, match=r"has 4 of 6 images, 'dryland' only 1; expected Tiny.*--partial"):
        open_data(tmp_path, "tiny")
    assert open_data(tmp_path, "tiny", partial=True).images == 4
    (tmp_path / "moor").mkdir()
    with pytest.raises(DatasetError, match="moor: the class folder holds no images.*expected Tiny Scenes"):
        open_data(tmp_path, "tiny")


def test_missing_and_strange_classes(tiny, tmp_path):
    fill(tmp_path, {"wetland": 3})
    with pytest.raises(DatasetError, match="lacks 1 classes, first 'dry_land'; expected Tiny Scenes"):
        open_data(tmp_path, "tiny", partial=True)
    (tmp_path / "none" / "moor").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "none" / "moor" / "0.png")
    with pytest.raises(DatasetError, match="lacks 2 classes, first 'wet land'"):
        open_data(tmp_path / "none", "tiny", partial=True)
    fill(tmp_path, {"dryland": 3, "moor": 1})
    with pytest.raises(DatasetError, match="has a strange class 'moor'"):
        open_data(tmp_path, "tiny", partial=True)


def test_train_and_test_folders_stay_apart(tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 2})
    fill(tmp_path / "val", {"a": 1, "b": 1})
    opened = open_data(tmp_path)
    assert (len(opened.data), len(opened.held_out), opened.images) == (5, 2, 7)
    fill(tmp_path / "train" / "c", {"": 1})
    with pytest.raises(DatasetError, match="train and val differ in their classes, first 'c'"):
        open_data(tmp_path)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (7, 3072), dtype=np.uint8), [0, 9, 3, 3, 1, 2, 8]


def python_2_pickle(data, labels):
    """A batch as Python 2 wrote it: raw strings, and NumPy by the names it had then."""
    raw = data.tobytes()
    numbers = b"".join(b"I%d\n" % label for label in labels)
    return (
        b"(dU\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I%d\nI3072\nt"
        % len(data)
        + b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n"
        + b"T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tbsS'labels'\n(l"
        + b"".join(number + b"a" for number in numbers.splitlines(keepends=True))
        + b"s."
    )


def as_pickle_of_python_3(data, labels):
    return pickle.dumps({b"data": data, b"labels": labels}, protocol=2)


@pytest.mark.parametrize("write", [python_2_pickle, as_pickle_of_python_3])
def test_python_batches_are_read(tmp_path, batch, write):
    data, labels = batch
    (tmp_path / "batch").write_bytes(write(data, labels))
    pixels, read = read_python_batch(tmp_path / "batch")
    assert read.tolist() == labels
    assert np.array_equal(pixels, data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def test_binary_batches_are_read(tmp_path, batch):
    data, labels = batch
    (tmp_path / "batch").write_bytes(np.concatenate((np.uint8(labels)[:, None], data), 1).tobytes())
    pixels, read = read_binary_batch(tmp_path / "batch")
    assert read.tolist() == labels and pixels[4, 5, 6, 2] == data[4, 2 * 1024 + 5 * 32 + 6]


class Trap:
    def __reduce__(self):
        return print, ("the trap ran",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({b"data": Trap(), b"labels": [1]}), "refused: it would use builtins.print"),
        (b"cos\nsystem\n(S'echo the trap ran'\ntR.", "refused: it would use os.system"),
        (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [1]}, 2), "no matrix of bytes"),
        (pickle.dumps({b"data": np.zeros((1, 3072), object), b"labels": [1]}, 2), "no matrix of bytes"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, 2), r"\(2, 3072\) pixels and \(1,\)"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, 2), "label 10 is none"),
        (pickle.dumps([1, 2]), "damaged, or no CIFAR-10 batch"),
        (b"Pelsewhere\n.", "refused: it refers to objects outside"),
        (b"", "damaged, or no CIFAR-10 batch"),
        (b"\x80\x02}q\x00(U\x04da", "damaged, or no CIFAR-10 batch"),
    ],
)
def test_a_pickle_is_never_run_and_a_damaged_one_is_one_line(tmp_path, capfd, content, reason):
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(DatasetError, match=f"data_batch_1: .*{reason}") as caught:
        read_python_batch(tmp_path / "data_batch_1")
    assert "\n" not in str(caught.value)
    assert "trap" not in capfd.readouterr().out


@pytest.mark.parametrize(("suffix", "below"), [("", "cifar-10-batches-py"), (".bin", "cifar-10-batches-bin"), ("", "")])
def test_a_set_of_batches_opens_as_train_and_test(tmp_path, batch, suffix, below):
    data, labels = batch
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    content = np.concatenate((np.uint8(labels)[:, None], data), 1).tobytes() if suffix else python_2_pickle(*batch)
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (folder / f"{name}{suffix}").write_bytes(content)
    opened = open_data(tmp_path)
    assert (len(opened.data), len(opened.held_out)) == (35, 7) and opened.data.classes == list(CLASSES)
    with pytest.raises(DatasetError, match="has 42 of 60,000 images; expected CIFAR-10"):
        open_data(tmp_path, "cifar10")
    picture = opened.data.picture(8)  # the second of the second batch
    assert picture.size == (32, 32) and picture.getpixel((0, 0)) == tuple(int(v) for v in data[1, ::1024])
    part = opened.data.subset([8, 3])
    assert part.labels == [9, 3] and np.array_equal(part.pixels[0], np.asarray(picture))
    split = stratified_split(opened.data, {"calibrate": 0.4, "train": 0.6}, 0)
    save_split(tmp_path / "split.json", split, 0)
    parts = load_split(tmp_path / "split.json", opened.data)
    assert {name: len(part) for name, part in parts.items()} == {"calibrate": 14, "train": 21}
    (folder / f"data_batch_4{suffix}").unlink()
    with pytest.raises(DatasetError, match="1 of the 6 files of CIFAR-10 are missing, first data_batch_4"):
        open_cifar(folder)
    with pytest.raises(DatasetError, match=f"2 of the 6 files of CIFAR-10 are missing, first data_batch_4{suffix};"):
        (folder / f"test_batch{suffix}").unlink()
        open_cifar(folder)
