"""Class folders, splits, and the stream of images behind names."""

import io

import pytest
from PIL import Image

from pi_dynn.data import sources
from pi_dynn.data.decode import ImageBytes, decode_image
from pi_dynn.data.folders import load_split, open_image_folder, save_split, stratified_split
from pi_dynn.data.prefetch import prefetch
from pi_dynn.data.sources import named_images
from pi_dynn.errors import DatasetError, InputError


@pytest.fixture
def dataset(tmp_path):
    for label, count in (("forest", 10), ("beach", 20)):
        (tmp_path / label / "deeper").mkdir(parents=True)
        for i in range(count):
            folder = tmp_path / label / ("deeper" if i % 2 else "")
            Image.new("RGB", (4, 4)).save(folder / f"{label}{i:02}.png")
    (tmp_path / "forest" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_classes_are_the_sorted_folders(dataset):
    data = open_image_folder(dataset)
    assert data.classes == ["beach", "forest"]
    assert [data.labels.count(i) for i in (0, 1)] == [20, 10]


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        open_image_folder(tmp_path / "none")
    with pytest.raises(DatasetError, match="no class folders"):
        open_image_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no images"):
        open_image_folder(tmp_path)


def test_split_is_stratified_disjoint_and_written(dataset, tmp_path_factory):
    data = open_image_folder(dataset)
    split = stratified_split(data, {"test": 0.2, "calibrate": 0.1, "train": 0.7}, seed=3)
    assert [len(split[part]) for part in ("test", "calibrate", "train")] == [6, 3, 21]
    assert sorted(sum(split.values(), [])) == sorted(p.relative_to(dataset).as_posix() for p in data.paths)
    assert split == stratified_split(data, {"test": 0.2, "calibrate": 0.1, "train": 0.7}, seed=3)
    assert split != stratified_split(data, {"test": 0.2, "calibrate": 0.1, "train": 0.7}, seed=4)
    path = tmp_path_factory.mktemp("split") / "split.json"
    save_split(path, split, 3)
    parts = load_split(path, data)
    assert [len(parts[part]) for part in parts] == [6, 3, 21]
    assert parts["test"].labels.count(0) == 4
    there = parts["test"].paths[0]
    there.rename(there.with_suffix(".tif"))  # another format of the same image
    assert load_split(path, open_image_folder(dataset))["test"].paths[0].suffix == ".tif"
    there.with_suffix(".tif").rename(there)
    there.with_suffix(".tif").write_bytes(there.read_bytes())  # both: the one that is named
    assert load_split(path, open_image_folder(dataset))["test"].paths[0] == there
    there.with_suffix(".tif").unlink()
    data.paths[data.paths.index(there)].unlink()
    with pytest.raises(DatasetError, match="1 image of the split not found in"):
        load_split(path, open_image_folder(dataset))
    path.write_text("{}")
    with pytest.raises(DatasetError, match="no split, or a damaged one"):
        load_split(path, data)


def test_sources(dataset):
    def names(*arguments, listing=()):
        return [
            (name.rpartition("/")[2], image if isinstance(image, InputError) else None)
            for name, image in named_images(arguments, listing)
        ]

    assert len(names(str(dataset))) == 30
    assert names(f"{dataset}/beach/*0.png") == [("beach00.png", None), ("beach10.png", None)]
    assert names("-", listing=["a.jpg\n", "\n", " b.jpg \n"]) == [("a.jpg", None), ("b.jpg", None)]
    address = "https://example.org/a[1].jpg?size=*"  # no pattern
    assert names(address) == [(address.rpartition("/")[2], None)]
    assert names("missing.jpg") == [("missing.jpg", None)]  # decoding says what is wrong
    (_, problem), *_ = names(str(dataset / ".hidden"))
    assert "holds no images" in str(problem)
    assert "matches no file" in str(names("nothing*.png")[0][1])


PICTURE = Image.new("RGB", (30, 20), "teal")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_an_image_on_stdin_is_told_from_a_list(kind):
    content = io.BytesIO()
    PICTURE.save(content, kind)
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content.getvalue())))
    ((name, image),) = named_images(["-"], stdin)
    assert name == "-" and isinstance(image, ImageBytes) and image.name == "standard input"
    assert decode_image(image).size == (30, 20)


@pytest.mark.parametrize(
    "text", ["", "a.jpg\nb.jpg\n", "BM.bmp", "GIF89a.gif\n", "/tmp/é/ü.jpg", "P6", "http://a/b.jpg\n"]
)
def test_a_list_on_stdin_stays_one(text):
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode())), encoding="utf-8")
    assert [name for name, _ in named_images(["-"], stdin)] == text.split()


def test_too_large_an_image_on_stdin(monkeypatch):
    monkeypatch.setattr(sources, "_MAX_BYTES", 1 << 20)
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(bytes(1 << 21))))
    ((_, problem),) = named_images(["-"], stdin)
    assert isinstance(problem, InputError) and "more than 1 MiB" in str(problem)


def test_prefetch_keeps_order_and_errors_and_stays_lazy():
    listed = []

    def numbers():
        for i in range(1000):
            listed.append(i)
            yield i, i

    def load(i: int) -> int:
        if i % 3 == 2:
            raise InputError(f"bad {i}")
        return 10 * i

    stream = prefetch(numbers(), load, ahead=4)
    first = [next(stream) for _ in range(6)]
    assert [item for item, _ in first] == list(range(6))
    assert [loaded for _, loaded in first if not isinstance(loaded, InputError)] == [0, 10, 30, 40]
    assert [str(loaded) for _, loaded in first if isinstance(loaded, InputError)] == ["bad 2", "bad 5"]
    assert len(listed) <= 10  # a hundred thousand files are not listed, let alone decoded, at once
    stream.close()


def test_prefetch_lets_other_errors_out():
    with pytest.raises(ZeroDivisionError):
        list(prefetch([(1, 1)], lambda image: image / 0))
