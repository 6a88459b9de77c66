"""Text compared with a file kept beside the tests; PI_DYNN_UPDATE_GOLDEN=1 writes the file anew."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "golden"


def assert_golden(name: str, text: str) -> None:
    """Assert that `text` equals the content of the file `name`."""
    path = FOLDER / name
    if os.environ.get("PI_DYNN_UPDATE_GOLDEN"):
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")
