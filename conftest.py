"""Which of the two suites runs: the tests by default, the benchmarks with --benchmark-only, never both."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the suite that was not asked for. Files named on the command line are always meant."""
    if any(BENCHMARKS in (path, *path.parents) for path in _named(config)):
        return None
    inside = BENCHMARKS in (collection_path, *collection_path.parents)
    if inside and collection_path.suffix == ".py" and not collection_path.name.startswith(("test_", "conftest")):
        return True  # scripts, which doctest would import
    wanted = bool(config.getoption("benchmark_only", False))
    return True if inside != wanted and collection_path != Path(__file__).parent else None


def _named(config: pytest.Config) -> list[Path]:
    """What the command line names, and not the configuration."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    return [Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args]
