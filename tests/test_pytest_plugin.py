"""The `energy` fixture in test suites of their own."""

import json
import sys

import numpy  # noqa: F401 - a suite run in this process must not be the first to import it, it cannot be twice
import pytest

BENCHMARK = """
    def test_sum(energy):
        assert energy(sum, range(100_000)) == 4_999_950_000
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """A suite with one benchmark and its own settings; returns a function that runs it."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # with which benchmarks are left out
    pytester.makepyfile(test_it=BENCHMARK)
    pytester.makeini("[pytest]\n")
    quick = ("--benchmark-max-time=0.01", "--benchmark-min-rounds=2", "-p", "no:cacheprovider")
    return lambda *arguments: pytester.runpytest_inprocess(*quick, *arguments)


FAKE = ("--energy-meter=fake", "--energy-trials=3", "--energy-trial-s=0.3", "--energy-idle-s=0.3")


def test_a_table_follows_the_usual_one(suite):
    result = suite(*FAKE)
    result.assert_outcomes(passed=1)
    text = result.stdout.str()
    assert text.index("benchmark: 1 tests") < text.index("energy per call")
    assert [line for line in text.splitlines() if line.startswith("test_sum ") and "SIMULATED" in line]


def test_the_json_carries_energy_and_what_it_means(suite, pytester):
    suite(*FAKE, "--benchmark-json=out.json").assert_outcomes(passed=1)
    document = json.loads((pytester.path / "out.json").read_text())
    fields = document["benchmarks"][0]["extra_info"]
    assert fields["energy_ci95_mj"][0] <= fields["energy_mj_per_inference"] <= fields["energy_ci95_mj"][1]
    # what one call takes, times what the simulated board draws above idle
    seconds = fields["energy_gross_mj"] / 1e3 / fields["active_power_w"]
    assert fields["energy_mj_per_inference"] == pytest.approx(1e3 * seconds * (3.26 - 2.18), rel=0.1)
    assert fields["idle_power_w"] == pytest.approx(2.18, rel=0.01)
    assert fields["sample_rate_hz"] > 100
    assert (fields["meter"], fields["label"], fields["measured"]) == ("fake", "SIMULATED", False)
    assert fields["scope"] == "simulated board input"
    assert fields["valid"] is True
    assert document["machine_info"]["energy"]["meter"] == "fake"


def test_an_estimate_is_labelled(suite, pytester):
    suite("--energy-meter=estimate", *FAKE[1:3], "--energy-idle-s=0.5", "--benchmark-json=out.json")
    fields = json.loads((pytester.path / "out.json").read_text())["benchmarks"][0]["extra_info"]
    assert (fields["meter"], fields["label"], fields["measured"]) == ("estimate", "ESTIMATED", False)


def test_a_benchmark_made_before_is_not_made_again(pytester, suite):
    pytester.makepyfile(
        test_it="""
        def test_sum(benchmark, energy):
            benchmark.pedantic(sum, (range(100_000),), rounds=3)
            energy(sum, range(100_000))
        """
    )
    suite(*FAKE).assert_outcomes(passed=1)


def test_benchmarks_disabled_call_the_function_once(pytester, suite):
    pytester.makepyfile(
        test_it="""
        calls = []
        def test_once(energy):
            energy(calls.append, 1)
            assert calls == [1]

        def test_after_benchmark(benchmark, energy):
            benchmark(calls.append, 2)
            energy(calls.append, 3)
            assert calls == [1, 2, 3]
        """
    )
    result = suite("--benchmark-disable")
    result.assert_outcomes(passed=2)
    assert "energy per call" not in result.stdout.str()


def test_beside_other_workers_it_measures_nothing(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    pytester.makepyfile(test_it=BENCHMARK)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert "energy per call" not in result.stdout.str()


def test_benchmark_only_keeps_it_and_skip_leaves_it_out(suite):
    suite("--benchmark-only", *FAKE).assert_outcomes(passed=1)
    suite("--benchmark-skip", *FAKE).assert_outcomes(skipped=1)


def test_without_a_meter_named_none_no_energy_is_measured(suite):
    result = suite("--energy-meter=none")
    result.assert_outcomes(passed=1)
    assert "energy per call" not in result.stdout.str()


def test_without_a_meter_that_measures_there_is_no_energy_but_a_line(suite):
    result = suite("--energy-meter=auto", "--energy-i2c-bus=99")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["No power meter answered, so no energy was measured*"])
    assert "energy per call" not in result.stdout.str()


def test_how_long_it_will_take_is_said_before(suite):
    result = suite("--energy-meter=estimate", *FAKE[1:])
    result.stdout.fnmatch_lines(["energy of 1 benchmark: about 0 min 6 s more (3 trials of 0.3 s each*"])


def test_the_options_of_the_meter_are_not_dropped(suite):
    result = suite("--energy-meter=auto", "--energy-shunt-ohm=0.02", "--energy-i2c-address=0x41")
    result.stdout.fnmatch_lines(["No power meter answered*"])  # and no estimate, which would know no shunt
    suite("--energy-meter=estimate", "--energy-shunt-ohm=0.02").assert_outcomes(failed=1)


def test_a_meter_that_is_not_there_fails_the_test_in_one_line(suite, tmp_path):
    result = suite(f"--energy-meter=replay:{tmp_path / 'none.json'}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*none.json: cannot be read*check the path*"])


def saved_with(pytester, change) -> None:
    """Change the energy of the saved run."""
    (path,) = pytester.path.glob(".benchmarks/*/*.json")
    document = json.loads(path.read_text())
    change(document["benchmarks"][0]["extra_info"])
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        (lambda info: None, 0, None),
        (lambda info: info.update(energy_mj_per_inference=info["energy_mj_per_inference"] / 100), 1, "net energy"),
        (lambda info: info.update(scope="CPU package"), 1, "scope differs"),
        (lambda info: info.update(label="MEASURED"), 1, "label differs"),
        (lambda info: info.update(shunt_ohm=0.02), 1, "shunt_ohm differs"),
        (lambda info: info.update(gain=1.01), 1, "gain differs"),
        (lambda info: info.update(meter="hwmon"), 1, "meter differs"),
        (lambda info: info.update(valid=False), 1, "the run before has no valid net energy"),
    ],
)
def test_energy_that_rises_fails_the_run(suite, pytester, change, status, text):
    suite(*FAKE, "--benchmark-save=before").assert_outcomes(passed=1)
    saved_with(pytester, change)
    # the time of a call may double between two runs on a busy machine
    result = suite(*FAKE, "--benchmark-compare", "--energy-compare-fail=net:1000%")
    assert result.ret == status
    assert text is None or text in result.stdout.str()


def test_comparing_needs_something_to_compare_with(suite):
    result = suite("--energy-compare-fail=net:10%")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*needs a run to compare with*"])


@pytest.mark.parametrize("limit", ["net", "net:x%", "power:5%", "net:-1%"])
def test_a_limit_that_is_none_is_refused(suite, limit):
    result = suite(f"--energy-compare-fail={limit}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is no limit on energy*"])


def test_without_pytest_benchmark_it_skips_and_says_why(suite):
    result = suite("-p", "no:benchmark", "-rs")
    assert result.ret == pytest.ExitCode.USAGE_ERROR  # the options of pytest-benchmark are gone
    result.stderr.fnmatch_lines(["*unrecognized arguments*"])


def test_without_pytest_benchmark_the_fixture_skips(pytester):
    pytester.makepyfile(test_it=BENCHMARK)
    pytester.makeini("[pytest]\n")
    result = pytester.runpytest_inprocess("-p", "no:benchmark", "-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*needs pytest-benchmark*"])


def test_idle_it_imports_nothing_heavy(pytester):
    pytester.makepyfile(
        test_it="""
        import sys
        def test_light():
            assert not {"torch", "matplotlib", "numpy", "pi_dynn.power"} & set(sys.modules)
        """
    )
    pytester.makeini("[pytest]\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_it_is_installed_as_a_plugin():
    from importlib.metadata import entry_points

    assert "pi_dynn.pytest_plugin" in {entry.value for entry in entry_points(group="pytest11")}
    assert "pi_dynn.pytest_plugin" in sys.modules
