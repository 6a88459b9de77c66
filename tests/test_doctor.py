"""What the doctor finds on simulated machines, and what it advises."""

import configparser
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pi_dynn.clock import FakeClock
from pi_dynn.doctor import EXTRAS, Probes, check_up
from pi_dynn.errors import MeterBusError, MeterDenied, MeterNotFound
from pi_dynn.power.ina.i2c_scan import I2cBus
from pi_dynn.records import Finding
from pi_dynn.runtime.engine_choice import engine_findings
from tests.energy.simulated import SimulatedBoard

TORCH = '{"version": "2.9.1+cpu", "cuda": null, "threads": 4, "engines": ["qnnpack", "none", "onednn"]}\n'


def torch_answer(returncode: int = 0, stdout: str = TORCH, stderr: str = ""):
    return lambda: subprocess.CompletedProcess([], returncode, stdout, stderr)


class Ina219Only:
    """`open_meter` on a board with an INA219 and nothing else."""

    def __init__(self, error=None) -> None:
        self.error = error

    def __call__(self, name, root):
        if name != "ina219":
            raise MeterNotFound(f"there is no {name}: buy one")
        if self.error is not None:
            raise self.error
        return self

    def __enter__(self):
        return SimpleNamespace(info=SimpleNamespace(scope="board input"))

    def __exit__(self, *_):
        return None


def healthy_pi(**changes) -> Probes:
    probes = Probes(
        engines=lambda: [Finding("engines", "onednn", "works"), Finding("engines", "selected", "onednn (remembered)")],
        environ={"OMP_WAIT_POLICY": "PASSIVE"},
        torch=torch_answer(),
        onnxruntime=lambda: "1.23.2",
        snapshot=SimulatedBoard().snapshot,
        scan=lambda root: [I2cBus(1, (0x40,), {}, None)],
        open_meter=Ina219Only(),
        page_bytes=4096,
        python=(3, 11, 2),
        machine="aarch64",
        installed=lambda module: module != "onnx",
    )
    return replace(probes, **changes)


def problems(probes: Probes) -> dict[str, str]:
    """Cures by problem."""
    return {finding.problem: finding.cure for finding in check_up(probes) if finding.problem is not None}


def test_the_extras_are_those_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert {name for name, _, _ in EXTRAS} <= set(setup["options.extras_require"])
    found = {one.name: one.value for one in check_up(healthy_pi()) if one.topic == "extras"}
    assert found["onnx"] == "not installed: making bundles in ONNX" and found["watch"].startswith("installed: ")


def test_a_healthy_pi_has_no_problem():
    assert problems(healthy_pi()) == {}


@pytest.mark.parametrize(
    ("changes", "problem", "cure"),
    [
        ({"python": (3, 14, 0)}, "Python 3.14.0 cannot run TorchScript", "3.10 to 3.13"),
        ({"machine": "armv7l"}, "32-bit", "64-bit Raspberry Pi OS"),
        ({"page_bytes": 16384, "environ": {"LD_PRELOAD": "libjemalloc.so.2"}}, "jemalloc", "unset LD_PRELOAD"),
        ({"environ": {"OMP_WAIT_POLICY": "active"}}, "spin", "unset OMP_WAIT_POLICY"),
        ({"torch": torch_answer(-signal.SIGILL)}, "illegal instruction", "torch>=2.7,<2.10"),
        ({"torch": torch_answer(1, "", "x\nImportError: no libgomp")}, "no libgomp", "pip install"),
        ({"torch": torch_answer(0, TORCH.replace("null", '"13.0"'))}, "CUDA build", "torch>=2.7,<2.10"),
        ({"torch": torch_answer(0, TORCH.replace("qnnpack", "none").replace("onednn", "none"))}, "no int8", "build"),
        ({"snapshot": SimulatedBoard(governor="ondemand").snapshot}, "governor is ondemand", "cpufreq-set"),
        ({"snapshot": SimulatedBoard(bits=0x1).snapshot}, "under-voltage", "5.1 V supply"),
        ({"open_meter": Ina219Only(MeterDenied("no right: join i2c"))}, "no right", "join i2c"),
        ({"open_meter": Ina219Only(MeterBusError("held: use hwmon"))}, "held", "use hwmon"),
        ({"open_meter": Ina219Only(MeterNotFound("none: look"))}, "no power meter", "scripts/setup_pi.sh"),
        ({"scan": lambda root: [I2cBus(1, (), {}, MeterDenied("closed: open it"))]}, "closed", "open it"),
    ],
)
def test_each_problem_comes_with_its_cure(changes, problem, cure):
    cures = problems(healthy_pi(**changes))
    assert any(problem in what and cure in how for what, how in cures.items()), cures


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ("fp asimd evtstrm crc32 cpuid", "torch 2.10.0+cpu dies with an illegal instruction on this processor"),
        ("fp asimd evtstrm aes crc32 atomics cpuid", None),  # a Pi 5 runs it
    ],
)
def test_torch_2_10_is_broken_on_a_pi_4_only(features, problem, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nFeatures\t: {features}\n")
    answer = torch_answer(0, TORCH.replace("2.9.1", "2.10.0"))
    cures = problems(healthy_pi(torch=answer, root=tmp_path))
    assert cures == ({} if problem is None else {problem: "pip install 'torch>=2.7,<2.10'"})


def test_engines_are_not_asked_where_torch_does_not_run():
    def engines():
        raise AssertionError("importing torch here would end the program")

    check_up(healthy_pi(engines=engines, torch=torch_answer(-signal.SIGILL)))


def test_a_torch_that_hangs_is_reported():
    def hangs():
        raise subprocess.TimeoutExpired("python", 1.0)

    assert "importing torch does not end" in problems(healthy_pi(torch=hangs))


def test_the_kernel_that_holds_a_chip_is_named():
    held = I2cBus(1, (0x40,), {0x40: "ina2xx"}, None)
    values = [finding.value for finding in check_up(healthy_pi(scan=lambda root: [held]))]
    assert "0x40 (held by the kernel's ina2xx)" in values


def test_engines_are_tried_on_the_bundle(tiny_bundle_path):
    findings = engine_findings(tiny_bundle_path, FakeClock(tick_ns=1000))
    assert "works" in {finding.value for finding in findings}
    assert findings[-1].name == "selected"
    again = engine_findings(tiny_bundle_path, FakeClock(tick_ns=1000))
    assert again[-1].value == findings[-1].value.replace("timed just now", "remembered")


def test_an_engine_asked_for_that_is_not_there(tiny_bundle_path, monkeypatch):
    monkeypatch.setenv("PI_DYNN_ENGINE", "abacus")
    assert engine_findings(tiny_bundle_path, FakeClock(tick_ns=1000))[-1].cure == "unset PI_DYNN_ENGINE"


def test_no_bundle_no_engine(tmp_path):
    (finding,) = engine_findings(tmp_path / "none.pt", FakeClock())
    assert "no bundle to test engines on" in finding.problem


def test_without_torch_onnx_bundles_run():
    gone = torch_answer(returncode=1, stderr="Traceback\nModuleNotFoundError: No module named 'torch'")
    findings = check_up(healthy_pi(torch=gone, onnxruntime=lambda: None))
    values = {finding.name: finding.value for finding in findings}
    assert values["build"] == "not installed: ONNX and LiteRT run, training and export do not"
    assert values["onnxruntime"].startswith("not installed")
    assert not [finding for finding in findings if finding.topic in ("torch", "onnx") and finding.problem]


def test_a_meter_on_another_bus_says_how_to_name_it():
    adapter = I2cBus(20, (0x40,), {}, None, "MCP2221 usb-i2c bridge")
    empty = I2cBus(11, (), {}, None, "i915 gmbus dpa")
    findings = check_up(healthy_pi(scan=lambda root: [adapter, empty]))
    values = {finding.name: finding.value for finding in findings if finding.topic == "i2c"}
    assert values["/dev/i2c-20"] == "0x40 (MCP2221 usb-i2c bridge: --i2c-bus 20)"
    assert values["/dev/i2c-11"] == "no meter answers at 0x40 to 0x4f (i915 gmbus dpa)"
