"""Fixtures of more than one room."""

import importlib.util
import os
import shutil
import signal
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import settings
from PIL import Image

# A shared or slow machine makes single examples late, which says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# A shell that runs the tests in its background has interrupts ignored, and every process they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

REFERENCE_FILL = Path(__file__).parent / "data" / "reference" / "fill.py"


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Remembered engine choices of the person who runs the tests stay out of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("PI_DYNN_ENGINE", raising=False)


@pytest.fixture(autouse=True)
def no_columns(monkeypatch):
    """The terminal of the person who runs the tests does not shape what is printed."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def reference():
    """The module that reads and fills reference cases."""
    spec = importlib.util.spec_from_file_location("reference_fill", REFERENCE_FILL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_model():
    """A gfnet_12_192 for 32 px and 5 classes with exits after blocks 1, 4 and 8, its weights made by hand."""
    from tests.networks import random_gfnet

    return random_gfnet(image_size=32, num_classes=5, exits=[1, 4, 8])


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model):
    """The int8 bundle of `tiny_model`: labels a to e, thresholds 0.5."""
    from pi_dynn import Preprocess, build_bundle

    return build_bundle(
        tiny_model, exits=[1, 4, 8], thresholds=[0.5] * 3, labels=list("abcde"), preprocess=Preprocess(size=32)
    )


@pytest.fixture(scope="session")
def tiny_bundle_path(tiny_bundle, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny.pt"
    tiny_bundle.save(path)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> Path:
    """A folder with six small, different photographs."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(6):
        gradient = Image.linear_gradient("L").resize((80, 60)).rotate(40 * i)
        Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.FLIP_LEFT_RIGHT), gradient)).save(
            folder / f"photograph{i}.jpg"
        )
    return folder


@pytest.fixture(scope="session")
def browser():
    """A real headless Chromium, of the system or of playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium here: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()
