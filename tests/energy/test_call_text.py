"""The energy table after that of pytest-benchmark, and limits on a rise."""

import pytest

from pi_dynn.energy.results import energy_results
from pi_dynn.energy.text import benchmark_table, extra_info, parse_limit
from pi_dynn.errors import InputError
from tests.energy.simulated import Bench
from tests.golden import assert_golden


@pytest.fixture(scope="module")
def results():
    good, cut = Bench(noise_v=0.0), Bench(noise_v=0.0)
    cut.session.on_answer = lambda number: cut.bus.unplug() if number == 210 else None
    return [energy_results(*bench.measure())[0] for bench in (good, cut)]


def test_the_table_is_as_kept(results):
    assert_golden("energy_benchmark.txt", benchmark_table(results))


def test_the_fields_are_in_the_units_of_their_names(results):
    fields = extra_info(results[0])
    assert fields["energy_mj_per_inference"] == pytest.approx(1e3 * results[0].net_j)
    assert fields["energy_ci95_mj"] == [pytest.approx(1e3 * bound) for bound in results[0].net_ci95_j]
    assert (fields["valid"], fields["invalid_reasons"]) == (True, [])
    assert extra_info(results[1])["valid"] is False


@pytest.mark.parametrize(
    ("limit", "now_mj", "broken"),
    [
        ("net:10%", 10.9, False),
        ("net:10%", 11.1, True),
        ("net:0.5", 10.4, False),
        ("net:0.5", 10.6, True),
        ("gross:0%", 20.1, True),
        ("net:10%", 3.0, False),
    ],
)
def test_a_limit_is_broken_from_above_only(limit, now_mj, broken):
    before = {"energy_mj_per_inference": 10.0, "energy_gross_mj": 20.0, "scope": "s", "label": "l", "valid": True}
    now = before | {"energy_mj_per_inference": now_mj, "energy_gross_mj": now_mj}
    assert (parse_limit(limit).broken_by(now, before) is not None) == broken


@pytest.mark.parametrize("change", [{"valid": False}, {"energy_mj_per_inference": None}, {"scope": "other"}])
def test_a_check_that_cannot_be_made_is_not_passed(change):
    before = {"energy_mj_per_inference": 10.0, "scope": "s", "label": "l", "valid": True}
    assert parse_limit("net:10%").broken_by(before | change, before) is not None


@pytest.mark.parametrize("text", ["", "net", "net:", "net:-1%", "net:nan", "power:1%"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(InputError, match="no limit on energy"):
        parse_limit(text)
