"""How often the intervals cover, on 1,000 simulated runs each; benchmarks/energy_coverage.py prints the table."""

import pytest

from benchmarks.energy_budget import covered, drawn_run
from benchmarks.energy_coverage import NOISES_S, TRIALS, coverage

RUNS = 1000
SEED = 1


@pytest.mark.parametrize("constant_s", NOISES_S)
@pytest.mark.parametrize("trials", TRIALS)
def test_intervals_cover_and_equal_things_are_called_equal(trials, constant_s):
    share = coverage(trials, constant_s, RUNS, SEED)
    assert share.covered >= 0.93
    assert share.paired <= 0.07
    assert share.apart <= 0.07


def test_the_expanded_uncertainty_covers_chips_within_their_data_sheet():
    pairs = [covered(drawn_run(seed)) for seed in range(25)]  # 500 in benchmarks/energy_budget.py
    assert sum(net for net, _ in pairs) >= 23
    assert sum(gross for _, gross in pairs) >= 23
