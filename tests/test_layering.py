"""The import rules between rooms, checked on the syntax trees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pi_dynn

ROOT = Path(pi_dynn.__file__).parent
# From the ground up; a room imports rooms of lower floors only.
FLOORS = [
    ("errors",),
    ("assets", "clock", "records", "files", "text", "stats"),
    ("figures", "board", "torch_build"),
    ("exits", "data", "power", "calibrate"),
    ("models", "runtime"),
    ("deploy",),
    ("energy", "latency"),
    ("evaluate",),
    ("classify", "train"),
    ("report",),
    ("doctor", "web", "pytest_plugin"),
    ("cli",),
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SAME_FLOOR = {("models", "exits")}
NEVER = {("runtime", "models"), ("report", "train"), ("report", "runtime")}
NO_TORCH = {room for floor in FLOORS[:3] for room in floor} | {"power", "calibrate", "report", "doctor"}
NO_TORCH_FILES = {"records", "text"}
TORCHSCRIPT_ROOMS = {"deploy", "runtime"}
SHOW_HELP = "from pi_dynn.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass"
EXTRAS = {
    *("jinja2", "starlette", "uvicorn", "prometheus_client", "cv2", "watchdog", "sdnotify", "paho", "distributed"),
    *("onnx", "onnxruntime", "ai_edge_litert", "tensorboard", "imagecorruptions", "smbus2", "ina219"),
}


def room_of(path: Path) -> str:
    """The room a file is in; a file beside the rooms is one of its own."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Modules a file imports anywhere, with the line."""
    imports = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imports += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imports += [(node.module, node.lineno)]
            imports += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return imports


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} is no room of the house"
    for module, line in imports_of(path):
        where = f"{path.name}:{line} imports {module}"
        if room in NO_TORCH or path.stem in NO_TORCH_FILES:
            assert module.split(".")[0] not in ("torch", "torchvision"), where
        if not module.startswith("pi_dynn."):
            continue
        other = room_of(ROOT / (module.split(".")[1] + ".py"))
        if other == room or other not in FLOOR:  # a public name of the package itself
            continue
        assert FLOOR[other] < FLOOR[room] or (room, other) in SAME_FLOOR, where
        assert (room, other) not in NEVER, where


def test_every_room_is_on_a_floor():
    rooms = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in ROOT.glob("*.py")} - {"__init__"}
    assert rooms | files == set(FLOOR)


@pytest.mark.parametrize("name", sorted(NO_TORCH_FILES))
def test_records_and_texts_import_no_torch_in_passing(name):
    for path in ROOT.rglob(f"{name}.py"):
        module = ".".join(("pi_dynn", *path.relative_to(ROOT).with_suffix("").parts))
        assert not {"torch"} & modules_after(f"import {module}"), module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_torchscript_and_torch_ao_stay_where_they_belong(path):
    if room_of(path) in TORCHSCRIPT_ROOMS:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("jit", "ao"), f"{path.name}:{node.lineno} names torch.{node.attr}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_command_line_prints(path):
    if room_of(path) in ("cli", "train"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path.name}:{node.lineno} prints"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_clock_knows_the_time(path):
    if path.name == "clock.py" or room_of(path) in ("cli", "train"):
        return
    assert not [line for module, line in imports_of(path) if module.split(".")[0] == "time"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_one_idea_per_file(path):
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in ("utils", "helpers", "common", "manager", "misc")


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import pi_dynn", {"torch", "numpy", "PIL", "click"}),
        (
            "from pi_dynn.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
            {"torch", "matplotlib"} | EXTRAS,
        ),
        ("import pi_dynn.cli.classify, pi_dynn.classify.run, pi_dynn.runtime.session", {"matplotlib"} | EXTRAS),
        ("import pi_dynn.power, pi_dynn.board", {"torch", "smbus2", "ina219"}),
        ("import pi_dynn.runtime.session", {"pi_dynn.models", "pi_dynn.deploy", "pi_dynn.train", "torchvision"}),
    ],
)
def test_nothing_heavy_is_imported_in_passing(statement, absent):
    assert not absent & modules_after(statement)


def test_openmp_waits_passively_unless_the_user_sets_a_policy():
    program = "import pi_dynn, os; print(os.environ['OMP_WAIT_POLICY'])"
    for policy, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {"PATH": ""} | ({"OMP_WAIT_POLICY": policy} if policy else {})
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert run.stdout.strip() == expected


def test_public_names_are_there():
    for name in pi_dynn.__all__:
        assert getattr(pi_dynn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pi_dynn.nonsense  # noqa: B018
