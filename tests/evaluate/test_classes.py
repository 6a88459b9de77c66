"""Answers counted class by class, and the wrong pictures put where one can look at them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pi_dynn.calibrate.reject import Rejection
from pi_dynn.data.folders import ImageFolder
from pi_dynn.errors import InputError
from pi_dynn.evaluate.classes import check_wrong_folder, class_result, class_rows, sort_wrong
from pi_dynn.evaluate.outputs import ExitOutputs
from pi_dynn.evaluate.records import ClassResult, WrongImage
from pi_dynn.evaluate.text import class_text
from pi_dynn.runtime.manifest import Manifest

LABELS = ["ant", "bee", "cat", "dog"]
MANIFEST = Manifest(
    *("net", {}, LABELS, {"size": 8}, 3, [0], [0.5], [5, 9], "fp32", None, "ab", "0", "2"),
)
# Six images of ant, bee and cat; number 2 of the data set could not be read.
TRUE = np.array([0, 0, 1, 1, 2, 2])
FIRST = np.array([0, 1, 1, 0, 2, 3])
LAST = np.array([0, 0, 1, 2, 2, 2])
SURE = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
NUMBERS = np.array([0, 1, 3, 4, 5, 6])


def logits_of(answers: np.ndarray, strength: float) -> np.ndarray:
    return strength * np.eye(len(LABELS))[answers]


@pytest.fixture
def data(tmp_path) -> ImageFolder:
    paths = [
        tmp_path / "data" / name
        for name in ("a/0.jpg", "a/x/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg", "c/5.jpg", "c/6.jpg")
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return ImageFolder(tmp_path / "data", LABELS[:3], paths, [0, 0, 0, 1, 1, 2, 2])


@pytest.fixture
def result(data) -> ClassResult:
    outputs = ExitOutputs(
        np.stack([logits_of(FIRST, 2.0), logits_of(LAST, 5.0)]), np.stack([SURE, np.ones(6)]), TRUE, [], numbers=NUMBERS
    )
    return class_result(data, outputs, [0.5], MANIFEST, "ab" * 32)


def test_answers_are_those_of_the_exit_that_was_taken(result, data):
    assert result.matrix == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    surest, *others = [(Path(one.path).name, one.label, one.answer, one.block_index) for one in result.wrong]
    assert surest == ("4.jpg", "bee", "cat", 2)
    assert sorted(others) == [("1.jpg", "ant", "bee", 0), ("6.jpg", "cat", "dog", 0)]
    assert result.wrong[0].probability == pytest.approx(np.exp(5) / (np.exp(5) + 3))
    assert ClassResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_rows_count_what_the_matrix_has(result):
    ant, bee, cat, dog = result.classes
    assert (ant.images, ant.right, ant.accuracy, ant.precision, ant.taken_for, ant.taken_count) == (
        2,
        1,
        0.5,
        1,
        "bee",
        1,
    )
    assert (bee.precision, cat.taken_for) == (0.5, "dog")
    assert (dog.images, dog.accuracy, dog.precision, dog.taken_for) == (0, None, 0.0, None)
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 5, (7, 7))
    rows = class_rows(list("abcdefg"), matrix)
    assert sum(row.right for row in rows) == np.trace(matrix) and sum(row.images for row in rows) == matrix.sum()


def test_rejected_answers_are_counted_by_true_class(data):
    logits = np.stack([logits_of(FIRST, 2.0), logits_of(LAST, 5.0)])
    logits[0, 5] = -logits[0, 5]  # unlike every class; the others point exactly where their class does
    outputs = ExitOutputs(logits, np.stack([SURE, np.ones(6)]), TRUE, [], numbers=NUMBERS)
    rejection = Rejection(0.05, 0.9, 100, np.stack([np.eye(4)] * 2).tolist())
    result = class_result(data, outputs, [0.5], replace(MANIFEST, rejection=rejection), "ab" * 32)
    assert [row.rejected for row in result.classes] == [0, 0, 1, 0]
    lines = class_text(result).splitlines()
    assert "none of these" in lines[0] and lines[3].split()[7] == "1"


def test_text_shows_classes_that_occur(result):
    lines = class_text(result).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["ant", "bee", "cat"] and lines[4] == ""
    assert lines[5].split()[-4:] == ["1", "2", "3", "4"]
    assert lines[8].split() == ["3", "cat", ".", ".", "1", "1"] and lines[9].split() == ["4", "dog", *"...."]


def test_too_many_classes_are_for_a_plot():
    labels = [f"class{k}" for k in range(31)]
    rows = class_rows(labels, np.eye(31, dtype=int))
    many = ClassResult("set", 31, labels, np.eye(31, dtype=int).tolist(), rows, [], [], "ab")
    assert class_text(many).endswith("31 classes is too wide for text: --plot draws it, --json has it")


def test_twenty_one_classes_fit_into_the_figure():
    pytest.importorskip("matplotlib")
    from pi_dynn.evaluate.plots import confusion_figure

    labels = [f"a class with a name of its own {k}" for k in range(21)]
    matrix = (np.eye(21, dtype=int) * 12).tolist()
    figure = confusion_figure(ClassResult("set", 252, labels, matrix, [], [], [], "ab"))
    axes = figure.axes[0]
    figure.canvas.draw()
    assert [text.get_text() for text in axes.get_yticklabels()] == labels and len(axes.texts) == 21
    boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in zip(boxes, boxes[1:], strict=False))


def test_wrong_pictures_are_links_by_class_and_answer(result, tmp_path):
    place = tmp_path / "wrong"
    assert sort_wrong(result.wrong, place) == 0
    links = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.jpg"))
    assert links == ["ant/bee/1.jpg", "bee/cat/4.jpg", "cat/dog/6.jpg"]
    assert all((place / link).is_symlink() and (place / link).read_bytes() for link in links)


def test_copies_where_links_cannot_be_made(result, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    assert sort_wrong(result.wrong, tmp_path / "wrong") == 3
    assert (tmp_path / "wrong/ant/bee/1.jpg").read_bytes() == b"1.jpg"


def test_names_that_meet_or_mean_something_stay_apart(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("1.jpg", "x/1.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    wrong = [WrongImage(str(tmp_path / name), "../up", "a/b", 0.5, 0, 0) for name in ("1.jpg", "x/1.jpg")]
    wrong.append(WrongImage(str(tmp_path / "1.jpg"), "..", "", 0.5, 0, 0))
    sort_wrong(wrong, tmp_path / "wrong")
    assert {path.relative_to(tmp_path / "wrong").as_posix() for path in (tmp_path / "wrong").rglob("*.jpg")} == {
        "_up/a_b/1.jpg",
        "_up/a_b/1-2.jpg",
        "_/_/1.jpg",
    }


def test_a_folder_of_no_use_is_refused_first(tmp_path, data):
    check_wrong_folder(tmp_path / "new", data.root)
    (tmp_path / "empty").mkdir()
    check_wrong_folder(tmp_path / "empty", data.root)
    for folder, reason in (
        (data.root / "wrong", "in the data set"),
        (data.root, "in the data set"),
        (tmp_path, "not empty"),
    ):
        with pytest.raises(InputError, match=reason):
            check_wrong_folder(folder, data.root)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="not empty"):
        check_wrong_folder(tmp_path / "file", data.root)
    with pytest.raises(InputError, match="cannot be put there"):
        sort_wrong([], tmp_path / "file" / "wrong")
