"""Which of the two suites runs: the tests by default, the benchmarks with --benchmark-only, never both."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="Benchmark every engine, not only the one that is chosen.")


COLUMNS = ["min", "median", "iqr", "rounds"]  # of pytest-benchmark's table, which is 240 wide with all


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """With --benchmark-only, and nothing named, the benchmarks are what runs; their table fits a terminal."""
    if not any(str(one).startswith("--benchmark-columns") for one in config.invocation_params.args):
        config.option.benchmark_columns = COLUMNS
    if config.getoption("benchmark_only", False) and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.args = [str(BENCHMARKS)]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the benchmarks out of everything that did not ask for them; their scripts are never collected."""
    if BENCHMARKS not in (collection_path, *collection_path.parents):
        return None
    if collection_path.suffix == ".py" and not collection_path.name.startswith(("test_", "conftest")):
        return True  # doctest would import it
    return None if config.getoption("benchmark_only", False) or _names_benchmarks(config) else True


def _names_benchmarks(config: pytest.Config) -> bool:
    """Whether the command line names a benchmark, and not a folder they happen to be in."""
    named = [
        Path(config.invocation_params.dir, argument.partition("::")[0]).resolve()
        for argument in config.invocation_params.args
        if not str(argument).startswith("-")
    ]
    return any(BENCHMARKS in (path, *path.parents) for path in named)
