#!/usr/bin/env python3
"""How large the package is and how it is cut: python scripts/structure.py [FOLDER]

Prints files, lines, the median file, rooms with more than 15 files, files over 400 lines, and files under 40 lines that
only one other file imports. FOLDER is another checkout to look at.
"""

import ast
import sys
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

PACKAGE = "pi_dynn"
MOST_FILES, LONG_FILE, SHORT_FILE = 15, 400, 40


def module_of(path: Path) -> str:
    """The dotted name of a file below the folder that holds the package."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, and names that may be modules."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{PACKAGE}."):
            names |= {node.value, node.value.rpartition(":")[0]}  # commands and meters are imported by name
    return {name for name in names if name.startswith(PACKAGE)}


def main(folder: Path) -> None:
    """Print the figures."""
    files = sorted((folder / PACKAGE).rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    importers = defaultdict(set)
    for path in files:
        for name in imported_by(path):
            importers[name].add(path)
    rooms = Counter(path.parent.relative_to(folder).as_posix() for path in files)
    large = [f"{room} {count}" for room, count in rooms.items() if count > MOST_FILES]
    lonely = [
        path.relative_to(folder).as_posix()
        for path in files
        if lines[path] < SHORT_FILE
        and path.stem != "__init__"
        and len(importers[module_of(path.relative_to(folder))] - {path}) == 1
    ]
    print(f"files {len(files)}, lines {sum(lines.values()):,}, median file {median(lines.values()):g} lines")
    print(f"rooms with more than {MOST_FILES} files: {', '.join(large) or 'none'}")
    print(f"files over {LONG_FILE} lines: {[path.name for path in files if lines[path] > LONG_FILE] or 'none'}")
    print(f"files under {SHORT_FILE} lines with one importer: {len(lonely)}")
    for name in lonely:
        print(f"  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])
