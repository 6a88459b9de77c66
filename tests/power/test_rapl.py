"""RAPL counters: units, wrap-around, nested domains, permissions."""

from pathlib import Path

import pytest

from pi_dynn.errors import MeterDenied, MeterNotFound, TraceInvalid
from pi_dynn.power import open_meter

RANGE_UJ = 262143328850


def set_uj(root, value, zone="intel-rapl:0"):
    (root / f"sys/class/powercap/{zone}/energy_uj").write_text(f"{value}\n")


def test_only_packages_are_counted(lay_out, clock):
    root = lay_out("laptop")
    meter = open_meter("rapl", root=root, clock=clock)
    assert (meter.info.rails, meter.info.scope, meter.info.kind) == (("package-0",), "CPU package", "counter")
    assert meter.info.resolution_w == pytest.approx(1e-6 / 0.02)  # a step of a microjoule in a period
    set_uj(root, 262143000000 + 200_000)
    set_uj(root, 77_000_000, zone="intel-rapl:1")  # psys lies around the package
    set_uj(root, 77_000_000, zone="intel-rapl:0:0")  # core lies inside it
    assert meter.read().energy_j == pytest.approx(0.2)  # microjoules


def test_the_counter_wraps(lay_out, clock, sample):
    root = lay_out("laptop")
    meter = open_meter("rapl", root=root, clock=clock)
    set_uj(root, 262143100000)
    assert meter.read().energy_j == pytest.approx(0.1)
    set_uj(root, 50_000_000)
    assert meter.read().energy_j == pytest.approx((RANGE_UJ - 262143000000 + 50_000_000) * 1e-6)


def test_two_sockets_are_added_and_wrap_apart(lay_out, clock):
    root = lay_out("laptop")
    second = root / "sys/class/powercap/intel-rapl:2"
    second.mkdir()
    for name, text in (("name", "package-1"), ("energy_uj", "1000000"), ("max_energy_range_uj", "65532610987")):
        (second / name).write_text(text + "\n")
    meter = open_meter("rapl", root=root, clock=clock)
    assert meter.info.rails == ("package-0", "package-1")
    set_uj(root, 1_000_000)
    set_uj(root, 4_000_000, zone="intel-rapl:2")
    assert meter.read().energy_j == pytest.approx((RANGE_UJ - 262143000000 + 1_000_000) * 1e-6 + 3.0)


def test_a_domain_without_a_range_is_left_out_not_counted_as_zero(lay_out, clock):
    root = lay_out("laptop")
    second = root / "sys/class/powercap/intel-rapl:2"
    second.mkdir()
    (second / "name").write_text("package-1\n")
    (second / "energy_uj").write_text("5\n")
    meter = open_meter("rapl", root=root, clock=clock)
    assert meter.info.rails == ("package-0",)
    assert "package-1 left out" in meter.info.notes[0]
    (root / "sys/class/powercap/intel-rapl:0/max_energy_range_uj").unlink()
    with pytest.raises(MeterNotFound, match="max_energy_range_uj"):
        open_meter("rapl", root=root)


def test_a_reading_beyond_the_range_is_refused(lay_out, clock):
    root = lay_out("laptop")
    meter = open_meter("rapl", root=root, clock=clock)
    set_uj(root, RANGE_UJ + 1)
    with pytest.raises(TraceInvalid, match="range"):
        meter.read()


def test_only_root_may_read_it(lay_out, monkeypatch):
    root = lay_out("laptop")
    readable = Path.read_text

    def read_text(path, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return readable(path, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(MeterDenied, match="energy_uj: sudo chmod"):
        open_meter("rapl", root=root)


def test_no_rapl_on_a_pi(lay_out):
    with pytest.raises(MeterNotFound, match="not an x86 machine"):
        open_meter("rapl", root=lay_out("pi4"))


def test_joules_over_a_wrap_in_a_trace(lay_out, clock, sample, monkeypatch):
    root = lay_out("laptop")
    start_uj = RANGE_UJ - 5_000_000
    set_uj(root, start_uj)
    monkeypatch.setattr(  # 20 W from now on
        "pi_dynn.power.rapl.read_int",
        lambda path: (start_uj + clock.now_ns() // 1000 * 20) % RANGE_UJ if path.name == "energy_uj" else RANGE_UJ,
    )
    trace = sample(open_meter("rapl", root=root, clock=clock), 1.0)
    assert trace.cumulative.between(100_000_000, 900_000_000) == pytest.approx(0.8 * 20, rel=1e-6)
