"""A real scheduler and worker processes of its own."""

import io
import os
import re
import shutil
from pathlib import Path

import distributed
import numpy as np
import pytest
from PIL import Image

from pi_dynn.classify.cluster import ClusterSession, ClusterSettings
from pi_dynn.classify.run import Tally
from pi_dynn.clock import PerfClock
from pi_dynn.data.cifar import ArrayImages
from pi_dynn.data.decode import ImageBytes
from pi_dynn.data.folders import open_image_folder
from pi_dynn.errors import ClusterError, InputError
from pi_dynn.evaluate.outputs import collect_outputs
from pi_dynn.runtime.session import Session
from tests.image_server import image_server, jpeg

# Pillow is made to kill the process that opens an image: whenever its name says so, or once if a file beside it does.
DEADLY, ONCE = "deadly", ".once"
PRELOAD = f"""
import os
import signal
from pathlib import Path
from PIL import Image

def deadly_open(source, *arguments, open_image=Image.open, **options):
    once = Path(str(source) + {ONCE!r})
    if {DEADLY!r} in str(source) or once.exists():
        once.unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return open_image(source, *arguments, **options)

Image.open = deadly_open
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler with three worker processes of one thread, which are started again when they die."""
    preload = tmp_path_factory.mktemp("preload") / "deadly_images.py"
    preload.write_text(PRELOAD)
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0", preload=str(preload)
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return Session(tiny_bundle, threads=1, engine="fp32")


def on(cluster, bundle, **settings) -> ClusterSession:
    return ClusterSession(cluster.scheduler_address, bundle, "fp32", 1, settings=ClusterSettings(**settings))


def untimed(answers) -> list[tuple]:
    """Answers without their latency."""
    return [(path, str(a) if isinstance(a, InputError) else a.to_dict() | {"latency_s": 0}) for path, a in answers]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[tuple[str, str]]:
    """Sixty different photographs."""
    folder = tmp_path_factory.mktemp("sixty")
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:02}.png" for i in range(60)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return [(str(path), str(path)) for path in paths]


def bundles_on(cluster) -> dict[str, list[str]]:
    """Names of the bundles on each worker."""
    with distributed.Client(cluster) as client:
        return client.run(lambda dask_worker: [name for name in dask_worker.plugins if name.startswith("pi-dynn")])


def run(session, sources, **options):
    return session.answer_stream(sources, **options)


def named(path) -> tuple[str, str]:
    return str(path), str(path)


@pytest.fixture(scope="module")
def expected(session, sources):
    return untimed(run(session, sources, top=2))


def test_the_answers_are_those_of_one_machine(cluster, tiny_bundle, sources, expected):
    with on(cluster, tiny_bundle) as workers:
        tally = Tally(workers, PerfClock())
        assert untimed(tally.count(run(workers, sources, top=2))) == expected
        summary = tally.summary()
    assert summary.images == len(sources) and summary.failed == 0 and summary.bundle == tiny_bundle.sha256
    assert summary.engine == "fp32" and summary.threads == len(workers.workers) > 1


def test_a_killed_worker_loses_nothing_and_repeats_nothing(cluster, tiny_bundle, sources, expected):
    with on(cluster, tiny_bundle, images_per_task=2) as workers, distributed.Client(cluster) as client:
        pids = client.run(os.getpid)
        once = Path(sources[len(sources) // 2][0] + ONCE)
        once.touch()
        assert untimed(run(workers, sources, top=2)) == expected
        assert not once.exists()
        client.wait_for_workers(3)
        assert set(client.run(os.getpid).values()) != set(pids.values())
        assert all(len(names) == 1 for names in bundles_on(cluster).values())  # the new process has it, too
    assert not any(bundles_on(cluster).values())


@pytest.mark.parametrize("ship", [False, True], ids=["by path", "by bytes"])
def test_poisoned_images_fail_alone(cluster, tiny_bundle, sources, expected, tmp_path, ship):
    damaged, nowhere = tmp_path / "damaged.png", tmp_path / "nowhere.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n but no more of it")
    pattern = "*.gif", InputError("*.gif: the pattern matches no file")
    mixed = [sources[0], named(damaged), sources[1], named(nowhere), pattern, sources[2]]
    with on(cluster, tiny_bundle, ship=ship) as workers:
        answers = untimed(run(workers, mixed, top=2))
    assert [answers[k] for k in (0, 2, 5)] == expected[:3]
    assert answers[1][1].startswith(f"{damaged}: ") and answers[3][1].startswith(f"{nowhere}: ")
    assert ("--ship" in answers[3][1]) is not ship
    assert answers[4][1] == str(pattern[1])


def test_an_image_that_kills_its_worker_fails_alone(cluster, tiny_bundle, sources, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)  # 3 as it is: four workers die before Dask gives up
    deadly = shutil.copy(sources[3][0], tmp_path / f"{DEADLY}.png")
    with on(cluster, tiny_bundle, images_per_task=3) as workers:
        answers = untimed(run(workers, [*sources[:2], named(deadly), *sources[2:4]], top=2))
    assert answers[:2] + answers[3:] == expected[:4]
    assert re.match(rf"{deadly}: no worker could answer \(.*workers died", answers[2][1])


def test_shipped_files_need_not_be_on_the_worker(cluster, tiny_bundle, sources, expected, tmp_path, monkeypatch):
    shutil.copy(sources[0][0], tmp_path / "only_here.png")
    monkeypatch.chdir(tmp_path)  # the workers run in another folder
    with on(cluster, tiny_bundle, ship=True) as workers:
        ((_, answer),) = run(workers, [named("only_here.png")], top=2)
    assert answer.to_dict() | {"latency_s": 0} == expected[0][1]


def test_large_files_fill_a_task_early(cluster, tiny_bundle, tmp_path):
    pixels = np.zeros((1900, 1900, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "bmp")
    path = tmp_path / "large.bmp"
    path.write_bytes(stream.getvalue())
    assert path.stat().st_size > 10e6  # from where on Dask warns of large graphs
    with on(cluster, tiny_bundle, ship=True) as workers:
        answers = list(run(workers, [named(path)] * 2))
    assert len(answers) == 2 and all(answer.label for _, answer in answers)


def test_evaluation_outputs_are_those_of_one_machine(cluster, tiny_bundle, session, sources, tmp_path):
    for i, source in enumerate(sources[:9]):
        folder = tmp_path / "abc"[i % 3]
        folder.mkdir(exist_ok=True)
        shutil.copy(source[0], folder)
    (tmp_path / "b" / "damaged.png").write_bytes(b"not a picture")
    data = open_image_folder(tmp_path)
    here = collect_outputs(session, data, all_views=True)
    with on(cluster, tiny_bundle, images_per_task=2) as workers:
        there = collect_outputs(workers, data, all_views=True)
    for name in ("logits", "scores", "labels", "groups"):
        assert (getattr(here, name) == getattr(there, name)).all(), name
    assert here.logits.shape == (4, 9 * 8, 5)
    assert [str(error) for error in here.failed] == [str(error) for error in there.failed]


def test_images_without_files_of_their_own_are_sent_along(cluster, tiny_bundle, session):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), np.uint8)
    labels = [i % 3 for i in range(6)]
    data = ArrayImages(Path("batch"), ["a", "b", "c"], [Path(f"batch/{i}") for i in range(6)], labels, pixels)
    expected = collect_outputs(session, data)
    with on(cluster, tiny_bundle) as remote:
        outputs = collect_outputs(remote, data)
    assert outputs.failed == [] and np.array_equal(outputs.logits, expected.logits)


def test_a_worker_that_cannot_use_the_bundle_says_so(cluster, tiny_bundle, sources):
    with (
        ClusterSession(cluster.scheduler_address, tiny_bundle, "onnxruntime") as workers,
        pytest.raises(ClusterError, match=r"worker tcp://.* cannot answer: .*onnx"),
    ):
        list(run(workers, sources))


def test_no_scheduler_at_the_address(tiny_bundle):
    with pytest.raises(ClusterError, match=r"no scheduler at tcp://127.0.0.1:1 .*dask scheduler"):
        ClusterSession("tcp://127.0.0.1:1", tiny_bundle, settings=ClusterSettings(wait_s=0.5)).__enter__()


def test_what_does_not_fit_is_refused_before_anything_is_sent(tiny_bundle):
    with pytest.raises(InputError, match="the bundle has exits after blocks"):
        ClusterSession("tcp://127.0.0.1:1", tiny_bundle, exits=[7])


def test_an_image_in_memory_is_sent_and_an_address_fetched_by_the_worker(cluster, session, tiny_bundle, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with image_server() as server, on(cluster, tiny_bundle) as remote:
        address, gone = f"{server}/photo.jpg", f"{server}/none.jpg"
        images = [("-", ImageBytes(jpeg(), "standard input")), (address, address), (gone, gone)]
        held, fetched, missing = run(remote, images)
        assert held[1].label == fetched[1].label == session.classify(ImageBytes(jpeg(), "")).label
        assert str(missing[1]).startswith(f"{gone}: the server answers 404")
