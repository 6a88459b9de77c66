"""What the benchmarks are made on: the embedded bundle, its sample photographs, every engine of this torch."""

import functools

import pytest

from pi_dynn.errors import BundleError, EngineUnavailable


@functools.cache
def embedded():
    """The embedded bundle, or None before it has been trained."""
    from pi_dynn.runtime.bundle import load_bundle

    try:
        return load_bundle()
    except (BundleError, OSError):
        return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`exit_index` goes through every exit, the last answer left out; `engine` with --full through every engine."""
    if "engine" in metafunc.fixturenames:
        from pi_dynn.runtime.engines import available_engines

        precision = {"fp32": "fp32"}
        engines = [*available_engines(), "fp32"] if metafunc.config.getoption("full") else ["auto"]
        metafunc.parametrize("engine", engines, ids=[f"{precision.get(name, 'int8')}-{name}" for name in engines])
    if "exit_index" in metafunc.fixturenames:
        blocks = embedded().manifest.exit_blocks if embedded() is not None else []
        metafunc.parametrize("exit_index", range(len(blocks)), ids=[f"block{block}" for block in blocks])


@pytest.fixture(scope="session")
def bundle():
    if embedded() is None:
        pytest.skip("there is no embedded bundle yet: make one with scripts/embedded")
    return embedded()


@pytest.fixture(scope="session")
def photographs():
    """Paths of the sample photographs."""
    from pi_dynn.cli.options import sample_folder
    from pi_dynn.data.folders import walk_images

    paths = list(walk_images(sample_folder())) if sample_folder().is_dir() else []
    if not paths:
        pytest.skip("there are no sample photographs yet: scripts/embedded/publish.py chooses them")
    return paths


@pytest.fixture(scope="session")
def sessions(bundle):
    """The session of an engine, opened once; skips where the engine does not work."""
    from pi_dynn.runtime.session import Session

    @functools.cache
    def attempt(engine: str):
        try:
            return Session(bundle, engine=engine)
        except (EngineUnavailable, RuntimeError) as error:  # torch 2.13 on ARM offers an engine that only raises
            return error

    def open_session(engine: str):
        session = attempt(engine)
        if isinstance(session, Exception):
            pytest.skip(f"engine {engine} does not work here: {session}")
        return session

    return open_session


@pytest.fixture
def session(sessions, engine):
    return sessions(engine)


@pytest.fixture(scope="session")
def inputs(bundle, photographs):
    """The photographs as input tensors."""

    preprocess = bundle.manifest.preprocess
    return [preprocess(path) for path in photographs]
