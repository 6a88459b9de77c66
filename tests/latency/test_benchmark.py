"""Interleaved variants, peers with given exits, and fresh processes."""

import pytest
import torch

from pi_dynn import Session
from pi_dynn.clock import FakeClock, PerfClock
from pi_dynn.errors import EngineUnavailable, ModelError, PiDynnError
from pi_dynn.latency.benchmark import (
    Variant,
    measure,
    measure_cold_start,
    natural_exits,
    peer_variants,
    session_variants,
)
from pi_dynn.latency.peers import eager_peer, peers_of, session_peer, training_stages
from pi_dynn.latency.text import cold_start_table, latency_table
from tests.networks import tiny_chain


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return Session(tiny_bundle, threads=1, engine="fp32")


@pytest.fixture(scope="module")
def inputs():
    return list(torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def test_rows_are_exact_on_a_fake_clock():
    clock, order = FakeClock(), []

    def taking(name, *durations_s):
        def run(i):
            order.append(name)
            clock.advance(durations_s[i % len(durations_s)])

        return Variant(name, "", run)

    rows = measure([taking("slow", 0.2, 0.4), taking("fast", 0.1, 0.2)], 6, 1, clock, warm_up=1)
    assert order[2:] == ["slow", "fast"] * 6
    assert (rows[0].median_s, rows[0].mean_s, rows[0].speedup) == pytest.approx((0.3, 0.3, 1.0))
    assert rows[1].speedup == pytest.approx(2.0) and rows[1].speedup_ci95 == pytest.approx((2.0, 2.0))
    assert "2.00x" in latency_table(rows) and "2.00 .. 2.00" in latency_table(rows)


def test_each_variant_runs_on_its_threads():
    order = []
    variants = [Variant(str(n), "", lambda i: order.append(torch.get_num_threads()), threads=n) for n in (1, 2)]
    rows = measure(variants, 2, 1, PerfClock(), warm_up=1)
    torch.set_num_threads(1)
    assert order == [1, 2, 1, 2, 1, 2] and [row.threads for row in rows] == [1, 2]


def test_session_variants(session, inputs):
    variants = session_variants(session, inputs, "n", each_exit=True)
    assert [variant.block_index for variant in variants] == [11, 1, 4, 8, None]
    names = [variant.name for variant in variants]
    assert names == ["n, full depth", "n, block 1", "n, block 4", "n, block 8", "n, with exits"]


def test_eager_peer_gives_the_exits_and_logits_of_the_network(tiny_model, session, inputs):
    peer = eager_peer(tiny_model, [1, 4, 8])
    x = inputs[0][None]
    for k in range(4):
        assert peer.answer(x, session.forced_thresholds(k)) == k
    stages, features = training_stages(tiny_model, [1, 4, 8]), x
    with torch.inference_mode():
        for stage, (_, want, _) in zip(stages, tiny_model.forward_exits(x), strict=True):
            features, logits = (None, *stage(features))[-2:]
            assert torch.allclose(logits, want, atol=1e-5)
    limits = session.manifest.thresholds
    assert [peer.answer(x[None], limits) for x in inputs] == natural_exits(session, inputs)


def test_a_chain_is_cut_with_some_of_its_exits():
    model = tiny_chain("lsnet", exits=[1, 3])
    x = torch.randn(1, 3, 64, 64)
    peer = eager_peer(model, [3])
    assert (peer.answer(x, [0.0]), peer.answer(x, [2.0])) == (0, 1)


def test_a_network_without_a_chain_of_blocks_is_refused():
    with pytest.raises(ModelError, match="cannot be divided"):
        training_stages(torch.nn.Linear(2, 2), [])


def test_peers_leave_where_the_session_does(session, inputs):
    order = []
    peer = session_peer("ours", session)
    spy = type(peer)("spy", lambda x, limits: order.append(peer.answer(x, limits)), peer.exits)
    full, mixed = peer_variants(spy, inputs, [2, 0, 1], "t, ")
    assert (full.name, mixed.name) == ("t, spy, full depth", "t, spy, with exits")
    for i in range(4):
        mixed.run(i)
    full.run(0)
    assert order == [2, 0, 1, 2, 3]
    assert [variant.name for variant in peer_variants(spy, inputs, None)] == ["spy, full depth"]


def test_unknown_peers_and_missing_packages(tiny_model, tiny_bundle, monkeypatch):
    with pytest.raises(EngineUnavailable, match="no peer 'tvm'"):
        peers_of("tvm", tiny_model, tiny_bundle, 1)
    monkeypatch.setitem(__import__("sys").modules, "executorch", None)
    with pytest.raises(EngineUnavailable, match=r"pip install .*\[executorch\]'"):
        peers_of("executorch", tiny_model, tiny_bundle, 1)


def test_a_fresh_process_reports_its_parts_and_its_memory(tiny_bundle_path, photographs):
    start = measure_cold_start(tiny_bundle_path, "fp32", 1, photographs / "photograph0.jpg", processes=1)
    assert min(start.import_s, start.read_s, start.ready_s, start.first_s) > 0
    assert 50e6 < start.peak_bytes < 4e9 and (start.engine, start.threads) == ("fp32", 1)
    assert "fp32, 1 thread" in cold_start_table([start])
    with pytest.raises(PiDynnError, match="could not answer"):
        measure_cold_start(tiny_bundle_path, "fp32", 1, photographs / "none.jpg", processes=1)
