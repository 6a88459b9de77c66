"""The `energy` fixture for pytest: the energy of a benchmarked function, measured in a separate pass.

    def test_full_depth(energy):
        energy(session.classify, image)

It builds on pytest-benchmark and needs it. Nothing is imported and no meter is opened until a test uses it.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import pytest

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from pi_dynn.energy.protocol import EnergyParts, EnergySettings
    from pi_dynn.energy.records import EnergyResult
    from pi_dynn.energy.text import EnergyLimit

P = ParamSpec("P")
T = TypeVar("T")
_QUICK = {"trials": 3, "trial_s": 1.0, "idle_s": 1.0}
"""Where nothing is measured: an estimate gains nothing from long windows."""
_CAREFUL = {"trials": 3, "trial_s": 5.0, "idle_s": 5.0}
_SETTLING_S = 1.0  # before each idle window, about
_METER_OPTIONS = {  # of the command line, as `pi-dynn energy` has them -> of the meter
    "shunt-ohm": ("shunt_ohm", float),
    "max-current": ("max_current_a", float),
    "i2c-bus": ("bus", int),
    "i2c-address": ("address", lambda text: int(text, 0)),
    "shunt-certificate": ("certificate", str),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("energy", "energy of benchmarks (pi_dynn)")
    group.addoption(
        "--energy-meter",
        default="auto",
        metavar="NAME",
        help="Power meter: ina219, hwmon, rapl, pmic, estimate, fake, ... or auto: the first that measures, and no "
        "energy without one. 'none' leaves energy out.",
    )
    for name, (_, kind) in _METER_OPTIONS.items():
        group.addoption(f"--energy-{name}", type=kind, metavar="X", help=f"As --{name} of `pi-dynn energy`.")
    group.addoption("--energy-trials", type=int, metavar="N", help="Trials per benchmark (3).")
    group.addoption("--energy-trial-s", type=float, metavar="S", help="Seconds per trial (5; 1 if not measured).")
    group.addoption("--energy-idle-s", type=float, metavar="S", help="Idle seconds before and after a trial (5; 1).")
    group.addoption(
        "--energy-compare-fail",
        action="append",
        default=[],
        type=_limit,
        metavar="EXPR",
        help="Fail if energy has risen since the run of --benchmark-compare: net:10%%, gross:5%%, net:0.5 (mJ).",
    )


def _limit(text: str) -> "EnergyLimit":
    from pi_dynn.energy.text import parse_limit
    from pi_dynn.errors import InputError

    try:
        return parse_limit(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        config.pluginmanager.register(WithoutBenchmark(), "pi_dynn_energy_session")
        return
    if config.getoption("energy_compare_fail") and not config.getoption("benchmark_compare"):
        raise pytest.UsageError("--energy-compare-fail needs a run to compare with: add --benchmark-compare")
    config.pluginmanager.register(WithBenchmark(config), "pi_dynn_energy_session")


class WithoutBenchmark:
    """The plugin without pytest-benchmark: tests that use the fixture are skipped."""

    @pytest.fixture
    def energy(self) -> NoReturn:
        pytest.skip("the energy fixture needs pytest-benchmark: pip install 'pi_dynn[bench]'")


class WithBenchmark:
    """One session's meter, and the energies measured in it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._parts: EnergyParts | None = None
        self._meter_stack = ExitStack()
        self._measured: list[tuple[str, dict[str, Any]]] = []
        self._results: list[EnergyResult] = []
        self._failures: list[str] = []
        self._missing: str | None = None  # why `auto` has no meter

    @pytest.fixture
    def energy(self, benchmark: "BenchmarkFixture", request: pytest.FixtureRequest) -> "EnergyFixture":
        """Call it with a function and its arguments, as `benchmark`; it returns what the function returned."""
        return EnergyFixture(self, benchmark, request.node)

    def measure(self, call: Callable[[], object], benchmark: "BenchmarkFixture", node: pytest.Item) -> None:
        """Measure `call` and keep the figures with the benchmark."""
        from pi_dynn.energy.protocol import measure_call
        from pi_dynn.energy.results import energy_results
        from pi_dynn.energy.text import extra_info
        from pi_dynn.errors import MeterNotFound, PowerError

        try:
            parts = self._open()
        except MeterNotFound as error:
            if self._name != "auto":
                pytest.fail(str(error), pytrace=False)
            self._missing = str(error)
            return
        except PowerError as error:
            pytest.fail(str(error), pytrace=False)
        if self._name == "fake":
            from pi_dynn.energy.rehearsal import rehearsed_call

            call = rehearsed_call(call, parts.clock)
        (result,) = energy_results(*measure_call(parts, call, node.name, self._settings(parts.meter.info.measured)))
        self._results.append(result)
        benchmark.extra_info.update(extra_info(result))  # a new dictionary put in its place would be lost
        self._measured.append((node.nodeid, extra_info(result)))

    @property
    def _name(self) -> str:
        return str(self._config.getoption("energy_meter"))

    def _open(self) -> "EnergyParts":
        """The parts of a measurement, opened once a session. Raises: PowerError."""
        if self._parts is None:
            from pi_dynn.board import Board
            from pi_dynn.clock import PerfClock
            from pi_dynn.energy.protocol import EnergyParts
            from pi_dynn.energy.rehearsal import rehearsal_parts
            from pi_dynn.errors import MeterNotFound
            from pi_dynn.power import open_meter

            if self._missing is not None:
                raise MeterNotFound(self._missing)
            if self._name == "fake":
                self._parts = self._meter_stack.enter_context(rehearsal_parts(Board()))
            else:
                given = {of: self._config.getoption(f"energy_{name.replace('-', '_')}") for name, (of, _) in
                         _METER_OPTIONS.items()}  # fmt: skip
                options = {name: value for name, value in given.items() if value is not None}
                clock = PerfClock()
                meter = open_meter(self._name, clock=clock, require=self._name == "auto", **options)
                self._parts = EnergyParts(self._meter_stack.enter_context(meter), clock, Board())
        return self._parts

    def _settings(self, measured: bool) -> "EnergySettings":
        from pi_dynn.energy.protocol import EnergySettings

        settings: dict[str, Any] = dict(_CAREFUL if measured else _QUICK)
        for name in settings:
            option = self._config.getoption(f"energy_{name}")
            if option is not None:
                settings[name] = option
        return EnergySettings(**settings, exact_n=self._config.getoption("energy_trial_s") is not None)

    @property
    def enabled(self) -> bool:
        """Whether energy is to be measured at all."""
        return bool(self._config.getoption("energy_meter") != "none")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Say how long the energies will take, which may be minutes."""
        count = sum("energy" in getattr(item, "fixturenames", ()) for item in session.items)
        runs_none = any(self._config.getoption(name) for name in ("benchmark_skip", "benchmark_disable", "collectonly"))
        if not count or not self.enabled or runs_none or hasattr(self._config, "workerinput"):
            return
        try:
            measured = self._open().meter.info.measured
        except Exception:  # whatever it is, the first test that uses the fixture says it
            return
        one = self._settings(measured)
        each_s = one.trials * one.trial_s + (one.trials + 1) * (one.idle_s + _SETTLING_S)
        if self._name != "fake":  # which does not wait
            reporter = self._config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                from pi_dynn.text import counted

                minutes, seconds = divmod(round(count * each_s), 60)
                reporter.write_line(
                    f"energy of {counted(count, 'benchmark')}: about {minutes} min {seconds} s more "
                    f"({counted(one.trials, 'trial')} of {one.trial_s:g} s each, idle power between them)"
                )

    @pytest.hookimpl(optionalhook=True)
    def pytest_benchmark_update_machine_info(self, config: pytest.Config, machine_info: dict[str, Any]) -> None:
        """Add what is the same in every run; the rest is in `extra_info`."""
        from pi_dynn.board import take_snapshot

        board = take_snapshot(utilisation_percent=lambda: 0.0)
        machine_info["energy"] = {
            "board": board.model,
            "cores": board.cores,
            "governor": board.governor,
            "meter": config.getoption("energy_meter"),
        }

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._meter_stack.close()
        limits = self._config.getoption("energy_compare_fail")
        saved = getattr(getattr(self._config, "_benchmarksession", None), "compared_mapping", None) or {}
        for benchmarks in saved.values() if limits else ():
            for name, now in self._measured:
                before = benchmarks[name]["extra_info"] if name in benchmarks else {}
                reasons = [limit.broken_by(now, before) for limit in limits] if before else []
                self._failures += [f"{name}: {reason}" for reason in reasons if reason is not None]
        if limits and not saved:
            self._failures.append("--energy-compare-fail found no saved run to compare with: save one first")
        if self._failures and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._results:
            from pi_dynn.energy.text import benchmark_table

            terminalreporter.section("energy")
            terminalreporter.write_line(benchmark_table(self._results))
        elif self._missing is not None:
            terminalreporter.section("energy")
            terminalreporter.write_line(
                "No power meter answered, so no energy was measured: `pi-dynn doctor` says why."
            )
            terminalreporter.write_line("--energy-meter=estimate shows a model of the processor instead.")
        if self._failures:
            terminalreporter.section("energy has risen", red=True)
            for failure in self._failures:
                terminalreporter.write_line(failure, red=True)


class EnergyFixture:
    """Benchmarks a function unless the test has already done so, then measures its energy."""

    def __init__(self, plugin: WithBenchmark, benchmark: "BenchmarkFixture", node: pytest.Item) -> None:
        self._plugin, self._benchmark, self._node = plugin, benchmark, node

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        benchmark = self._benchmark
        if benchmark.disabled:  # --benchmark-disable, or several workers that would disturb each other
            return self._call_once(function, *args, **kwargs)
        answer: T | None = None
        if benchmark.stats is None:
            answer = benchmark(function, *args, **kwargs)
        if self._plugin.enabled:
            self._plugin.measure(lambda: function(*args, **kwargs), benchmark, self._node)
        return answer

    def _call_once(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        from pytest_benchmark.fixture import FixtureAlreadyUsed

        try:
            answer: T = self._benchmark(function, *args, **kwargs)
            return answer
        except FixtureAlreadyUsed:
            return function(*args, **kwargs)
