"""`pi-dynn energy` from end to end, on a small bundle."""

import json

import pytest
from click.testing import CliRunner

from pi_dynn.cli.energy import command
from pi_dynn.cli.main import main
from pi_dynn.cli.status import ExitStatus


@pytest.fixture
def energy(tiny_bundle_path, photographs, capsys):
    """Run `pi-dynn energy` on the tiny bundle; returns the status, stdout and stderr."""

    def run(*arguments: str, bundle: bool = True) -> tuple[int, str, str]:
        chosen = ["--bundle", str(tiny_bundle_path), "--data", str(photographs)] if bundle else []
        with pytest.raises(SystemExit) as ending:
            main(["energy", *chosen, *arguments])
        return ending.value.code, *capsys.readouterr()

    return run


def test_a_rehearsal_is_simulated_in_every_row(energy):
    status, out, err = energy("--meter", "fake", "--n", "50", "--trials", "2")
    assert status == ExitStatus.OK
    table = out.partition("\n\ngfnet_12_192 int8:")[0]
    rows = [line for line in table.splitlines() if " ms" in line or "block" in line]
    assert len(rows) == 5
    assert all("SIMULATED" in line for line in rows)
    assert "SIMULATED" in err


def test_an_estimate_says_so_in_every_row(energy):
    status, out, err = energy("--meter", "estimate", "--n", "30", "--trials", "2", "--idle-s", "1")
    table = out.partition("\n\ngfnet_12_192 int8:")[0]
    rows = [line for line in table.splitlines() if " ms" in line or "block" in line]
    assert len(rows) == 5
    assert all("ESTIMATED" in line for line in rows)
    assert "only a model of the processor" in err
    # On a machine so busy that the sampler starves the run is invalid, and then it must say that too.
    assert status == (ExitStatus.MEASUREMENT_INVALID if "INVALID" in out else ExitStatus.OK)


@pytest.mark.parametrize("meter", ["fake", "estimate", "pmic"])
def test_a_required_meter_that_does_not_measure_is_status_3(energy, meter):
    status, out, err = energy("--meter", meter, "--require-meter")
    assert status == ExitStatus.HARDWARE_UNAVAILABLE
    assert out == ""
    assert err.startswith("pi-dynn: error: ")
    assert len(err.splitlines()) == 1


def test_a_saved_run_replays_to_the_same_text(energy, tmp_path):
    path = tmp_path / "run.json"
    _, first, _ = energy("--meter", "fake", "--n", "40", "--trials", "2", "--each-exit", "--save", str(path))
    status, again, _ = energy("--meter", f"replay:{path}", bundle=False)
    assert status == ExitStatus.OK
    assert again == first
    assert "share-weighted sum" in again


def test_json_is_one_object_a_subject_and_nothing_else(energy, tiny_bundle_path):
    arguments = (
        "--meter",
        "fake",
        "--n",
        "40",
        "--exact-n",
        "--trials",
        "2",
        "--json",
        "--baseline",
        str(tiny_bundle_path),
    )
    status, out, _ = energy(*arguments)
    assert status == ExitStatus.OK
    base, other = [json.loads(line) for line in out.splitlines()]
    keys = {
        "net_j", "net_ci95_j", "gross_j", "latency_s", "idle_power_w", "active_power_w", "n", "trials", "exits",
        "sample_rate_hz", "largest_gap_s", "valid", "invalid_reasons", "board", "bundle", "measured", "meter", "scope",
    }  # fmt: skip
    assert keys <= set(base)
    assert (other["measured"], other["meter"], other["n"], other["trials"]) == (False, "fake", 40, 2)
    assert {"block_index", "share", "accuracy", "latency_s", "net_j"} <= set(other["exits"][0])
    assert base["improvement"] is None
    assert abs(other["improvement"]) < 0.9


def test_interrupted_it_prints_what_there_is(energy, monkeypatch, tmp_path):
    from pi_dynn.energy.rehearsal import RehearsedSession

    plain = RehearsedSession.classify
    answered = []

    def classify(self, x, thresholds=None):
        answered.append(x)
        if len(answered) == 120:
            raise KeyboardInterrupt
        return plain(self, x, thresholds)

    monkeypatch.setattr(RehearsedSession, "classify", classify)
    path = tmp_path / "run.json"
    status, out, _ = energy("--meter", "fake", "--n", "30", "--trials", "4", "--save", str(path))
    assert status == ExitStatus.INTERRUPTED
    assert "SIMULATED INVALID" in out
    assert "INVALID gfnet_12_192 int8: interrupted" in out
    status, again, _ = energy("--meter", f"replay:{path}", bundle=False)
    assert (status, again) == (ExitStatus.INTERRUPTED, out)


def test_an_invalid_measurement_is_status_4(energy, monkeypatch):
    from pi_dynn.board import Board

    bits = iter([0x0] * 3 + [0x50005] * 1000)
    monkeypatch.setattr(Board, "throttle_bits", lambda self: next(bits))
    status, out, _ = energy("--meter", "fake", "--n", "30", "--trials", "2")
    assert status == ExitStatus.MEASUREMENT_INVALID
    assert "INVALID gfnet_12_192 int8: " in out
    assert "throttle" in out


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--meter", "sundial"), ExitStatus.ERROR, "no meter is called 'sundial'"),
        (("--meter", "replay:none.json"), ExitStatus.HARDWARE_UNAVAILABLE, "none.json"),
        (("--meter", "ina219", "--i2c-address", "forty"), ExitStatus.USAGE, "--i2c-address 'forty'"),
        (("--n", "0"), ExitStatus.USAGE, "--n"),
        (("--meter", "fake", "--data", "nowhere"), ExitStatus.ERROR, "nowhere"),
    ],
)
def test_mistakes_are_told(energy, arguments, status, text):
    found, out, err = energy(*arguments)
    assert (found, out) == (status, "")
    assert text in err


def test_help_has_an_example():
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "pi-dynn energy --n 4000" in result.output


def test_a_run_with_an_instrument_of_its_own_clock_is_joined(energy, tmp_path):
    run, table = tmp_path / "run.json", tmp_path / "trace.csv"
    options = ("--meter", "external", "--n", "400", "--trials", "3", "--idle-s", "0.6", "--save", str(run))
    status, out, err = energy(*options)
    assert (status, out) == (ExitStatus.OK, "")
    assert "now --join it" in err
    document = json.loads(run.read_text())
    spans, trials = document["trace"]["spans"], [one["span"] for one in document["recording"]["trials"]]
    first_ns = min(span[0] for span in spans) - 2_000_000_000
    rows = ["Timestamp(ms),Current(uA)"]
    for t_ns in range(first_ns, max(span[1] for span in spans) + 1_000_000_000, 1_000_000):
        works = any(spans[place][0] <= t_ns < spans[place][1] for place in trials)
        rows.append(f"{(t_ns - first_ns) / 1e6},{650_000 if works else 430_000}")
    table.write_text("\n".join(rows))
    joining = ("--join", str(run), "--trace", str(table), "--instrument", "PPK2 no. 1")
    status, out, _ = energy(*joining, "--trace-volts", "5.0", "--json", bundle=False)
    result = json.loads(out)
    assert (result["meter"], result["label"], result["trials"]) == ("PPK2 no. 1", "MEASURED", 3)
    mean_s = sum((spans[place][1] - spans[place][0]) * 1e-9 for place in trials) / len(trials)
    assert result["net_j"] == pytest.approx(5.0 * 0.22 * mean_s / result["n"], rel=0.02)
    status, _, err = energy(*joining, bundle=False)
    assert status == ExitStatus.ERROR and "--trace-volts" in err


def test_an_external_meter_needs_a_file_and_a_join_all_its_parts(energy, tmp_path):
    status, _, err = energy("--meter", "external")
    assert status == ExitStatus.USAGE and "--save" in err
    status, _, err = energy("--join", str(tmp_path / "run.json"), bundle=False)
    assert status == ExitStatus.USAGE and "--instrument NAME together" in err
