import importlib.util
from pathlib import Path

import pytest

FILL = Path(__file__).parents[1] / "data" / "reference" / "fill.py"


@pytest.fixture(scope="session")
def reference():
    """The module that reads and fills reference cases."""
    spec = importlib.util.spec_from_file_location("reference_fill", FILL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
