"""Another bundle in a running watch: taken over whole, or refused in one line."""

import threading

import numpy as np
import pytest

from pi_dynn import Preprocess, build_bundle
from pi_dynn.classify.run import Tally
from pi_dynn.classify.swap import LOOK_S, SwappingSession, check_session
from pi_dynn.clock import FakeClock
from pi_dynn.errors import BundleError
from pi_dynn.runtime.bundle import load_bundle
from pi_dynn.runtime.engines import available_engines
from pi_dynn.runtime.session import Session
from tests.mosquitto import wait_until
from tests.networks import random_gfnet

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def other_bundle():
    """A bundle with other exits and classes."""
    network = random_gfnet(image_size=32, num_classes=3, exits=[2, 6], seed=1)
    return build_bundle(
        network, exits=[2, 6], thresholds=[0.5] * 2, labels=["x", "y", "z"], preprocess=Preprocess(size=32)
    )


class Swapping:
    """A session on a file in a folder; `round` is one round of a watch."""

    def __init__(self, bundle, folder) -> None:
        self.path, self.clock, self.said = folder / "bundle.pt", FakeClock(), []
        bundle.save(self.path)
        self.session = SwappingSession(self.open(), self.path, self.open, self.clock, self.said.append)
        self.tally = Tally(self.session, self.clock)

    def open(self) -> Session:
        return Session(load_bundle(self.path), threads=1, engine="fp32")

    def round(self) -> str:
        self.session.poll()
        self.clock.advance(LOOK_S)
        ((_, answer),) = self.tally.count([(0, self.session.classify(PICTURE))])
        return answer.label

    def until_decided(self) -> None:
        before = self.session.swaps + self.session.refused
        wait_until(lambda: self.round() and self.session.swaps + self.session.refused > before)


@pytest.fixture
def swapping(tiny_bundle, tmp_path):
    return Swapping(tiny_bundle, tmp_path)


def test_another_bundle_takes_over(swapping, other_bundle):
    assert swapping.round() in "abcde"
    told = []
    swapping.session.on_swap = told.append
    other_bundle.save(swapping.path)
    swapping.until_decided()
    assert swapping.round() in "xyz" and swapping.session.swaps == 1
    assert swapping.session.manifest.labels == ["x", "y", "z"] and told == [swapping.session.session]
    assert len(swapping.said) == 1 and "with other classes" in swapping.said[0]
    summary = swapping.tally.summary()
    assert summary.images == sum(summary.exit_counts) and summary.bundle == other_bundle.sha256
    assert set(summary.exit_blocks) >= {2, 6, 11}


def test_every_image_is_answered_meanwhile(swapping, other_bundle):
    swapping.round()
    going = threading.Event()
    first, open_session = swapping.session.session, swapping.session._open
    swapping.session._open = lambda: going.wait() and open_session()
    other_bundle.save(swapping.path)
    for _ in range(20):
        assert swapping.round() in "abcde"
    assert swapping.session.session is first
    going.set()
    swapping.until_decided()
    assert swapping.round() in "xyz"


def test_a_damaged_bundle_is_refused_once_and_the_next_one_is_taken(swapping, other_bundle, tmp_path):
    swapping.round()
    content = bytearray(other_bundle.data)
    content[len(content) // 2] ^= 255
    swapping.path.write_bytes(content)
    swapping.until_decided()
    for _ in range(5):
        assert swapping.round() in "abcde"
    assert (swapping.session.swaps, swapping.session.refused, len(swapping.said)) == (0, 1, 1)
    assert "refused, the bundle in use stays" in swapping.said[0] and "\n" not in swapping.said[0]
    other_bundle.save(swapping.path)
    swapping.until_decided()
    assert swapping.round() in "xyz"


@pytest.mark.parametrize("part", ["head", "gates"])
def test_a_bundle_whose_answers_are_no_numbers_is_refused(swapping, part):
    network = random_gfnet(image_size=32, num_classes=5, exits=[1, 4, 8])
    for name, parameter in network.named_parameters():
        if part in name:
            parameter.data.fill_(float("nan"))
    bad = build_bundle(
        network,
        exits=[1, 4, 8],
        thresholds=[0.5] * 3,
        labels=list("abcde"),
        preprocess=Preprocess(size=32),
        precision="fp32",
    )
    with pytest.raises(BundleError, match="finite"):
        check_session(Session(bad, threads=1), PICTURE)
    swapping.round()
    bad.save(swapping.path)
    swapping.until_decided()
    assert swapping.session.refused == 1 and "finite" in swapping.said[0]


def test_a_picture_that_is_gone_by_now_is_no_fault_of_the_bundle(tiny_bundle, tmp_path):
    check_session(Session(tiny_bundle, threads=1, engine="fp32"), tmp_path / "gone.jpg")


def test_a_file_that_is_gone_changes_nothing(swapping):
    swapping.round()
    swapping.path.unlink()
    for _ in range(5):
        assert swapping.round() in "abcde"
    assert swapping.said == []


def test_it_is_loaded_anew_when_asked(swapping):
    swapping.round()
    swapping.session.ask()
    swapping.until_decided()
    assert swapping.session.swaps == 1 and "with the same classes" in swapping.said[0]


def test_a_file_that_stays_is_left_alone(swapping):
    first = swapping.session.session
    for _ in range(10):
        swapping.round()
    assert swapping.session.session is first


@pytest.mark.skipif(not available_engines(), reason="no int8 engine in this torch")
def test_loading_beside_it_does_not_change_the_answers_of_an_int8_network(tiny_bundle):
    """Loading sets torch's engine for the whole process; networks that are packed already do not mind."""
    engines = available_engines()
    running = Session(tiny_bundle, threads=1, engine=engines[0])
    expected = running.classify(PICTURE, thresholds=2.0)
    loading = threading.Thread(
        target=lambda: [Session(tiny_bundle, threads=1, engine=engine) for engine in (*engines, "fp32") * 2]
    )
    loading.start()
    answers = 0
    while loading.is_alive() or answers < 3:
        answer = running.classify(PICTURE, thresholds=2.0)
        assert (answer.label, answer.probability) == (expected.label, expected.probability)
        answers += 1
    loading.join()
