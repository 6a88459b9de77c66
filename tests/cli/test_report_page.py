"""`pi-dynn report` on files of every kind: tables, CSV, and a page a browser draws without a network."""

import csv
import json
import re
from dataclasses import asdict

import pytest

from benchmarks.published.make_runs import ROWS, published_run
from pi_dynn.calibrate.records import ExitRow
from pi_dynn.classify.records import ClassifySummary
from pi_dynn.cli.main import main
from pi_dynn.cli.status import ExitStatus
from pi_dynn.energy.results import energy_results
from pi_dynn.energy.runs import save_run
from pi_dynn.evaluate.records import Evaluation
from pi_dynn.latency.records import LatencyRow, Profile, ProfileStep

BLOCKS = [2, 5, 11]
STEPS = [
    ProfileStep("patch embedding", None, 4, 0.004, 0.001, 0.2, 9_000_000, 0, 1_000_000, None),
    ProfileStep("filter", 0, 4, 0.004, 0.001, 0.2, 700_000, 0, 1_000_000, None),
    ProfileStep("MLP", 0, 4, 0.008, 0.002, 0.4, 19_000_000, 19_000_000, 1_000_000, None),
    ProfileStep("final head", 11, 4, 0.004, 0.001, 0.2, 4_000, 0, 20_000, None),
]


@pytest.fixture
def saved(tmp_path):
    """One file of every kind, as the commands write them."""
    files = []

    def keep(name: str, *objects) -> None:
        files.append(tmp_path / name)
        files[-1].write_text("\n".join(json.dumps(entry) for entry in objects))

    for number, row in enumerate(ROWS[:2]):
        measurement = published_run(row)
        files.append(tmp_path / f"energy{number}.json")
        save_run(files[-1], measurement, energy_results(*measurement))
    answers = [{"path": f"{i}.jpg", "block_index": BLOCKS[i % 3], "latency_s": 0.01 * (1 + i % 3)} for i in range(30)]
    summary = ClassifySummary(30, 1, 1.0, 30.0, 0.02, [10, 10, 10], BLOCKS, "fp32", 1, "b" * 64, False)
    keep("photos.json", *answers, {"path": "bad.jpg", "error": "no image"}, {"summary": asdict(summary)})
    exits = [ExitRow(k, block, 10, 1 / 3, 0.9, 10**8) for k, block in enumerate(BLOCKS)]
    keep(
        "eval.json",
        Evaluation("ucm", 30, 0, 0.9, 1.0, 0.3, 0.9, 1e8, 2 * 10**8, exits, [0.5, 0.5], "fp32", "fp32", "b").to_dict(),
    )
    keep("bench.json", LatencyRow("full depth", "none", 1, 50, 0.02, 0.03, 0.04, (0.019, 0.021), 1.0).to_dict())
    keep(
        "profile.json",
        Profile("net", "b", "fp32", "fp32", 1, 4, 0.005, 1.01, (0.99, 1.03), [1, 1, 2], BLOCKS, STEPS, None).to_dict(),
    )
    timing = {"name": "test_full_depth", "stats": {"rounds": 9, "median": 0.02, "iqr": 0.001}}
    extra = {"energy_mj_per_inference": 21.5, "label": "ESTIMATED"}
    keep("pytest.json", {"machine_info": {}, "benchmarks": [timing | {"extra_info": extra}]})
    return files


def report(*arguments) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["report", *map(str, arguments)])
    assert ending.value.code == 0


def test_every_kind_has_its_table(saved, capsys):
    report(*saved)
    text = re.sub(" +", " ", capsys.readouterr().out)
    for line in (
        "distil against base",
        "block 2 10 33.3 % 10.0 ms",
        "* acc@1 90.000",
        "full depth 20.0 ms",
        "block 0 MLP 4",
        "test_full_depth 9",
    ):
        assert line in text, line


def test_the_csv_has_a_row_for_every_figure(saved, tmp_path, capsys):
    report(*saved, "--csv", tmp_path / "figures.csv")
    rows = list(csv.DictReader((tmp_path / "figures.csv").read_text().splitlines()))
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **{"energy": 2, "difference": 1, "evaluation": 1},
        **{"latency": 1, "profile": 4, "benchmark": 1},
    }
    assert float(rows[-1]["net_j"]) == pytest.approx(0.0215)


ANSWER = '{"path": "a.jpg", "block_index": 1, "latency_s": 0.1}'
NO_RUNS = ["not json", "[]", '{"acc1": 1}', '{"format": "pi_dynn.energy/1"}', '{"summary": {}}', ANSWER]


@pytest.mark.parametrize("text", [*NO_RUNS, '{"kind": "energy", "schema": 1}', '{"kind": "evaluation", "schema": 2}'])
def test_a_file_that_is_no_run_is_one_line(tmp_path, capsys, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SystemExit) as ending:
        main(["report", str(tmp_path / "run.json")])
    assert ending.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pi-dynn: error: ") and "run.json" in line


def test_a_browser_draws_every_plot_and_asks_nobody(saved, tmp_path, capsys, browser):
    Image = pytest.importorskip("PIL.Image")
    pytest.importorskip("jinja2")
    page_path = tmp_path / "report.html"
    report(*saved, "--html", page_path, "--title", "Two <nets>")
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(page_path.as_uri())
    assert page.title() == "Two <nets>"
    assert asked == [page_path.as_uri()] and said == []
    headings = page.locator("h2").all_inner_texts()
    for name in (
        "Accuracy against energy",
        "Latency by exit: photos",
        "Power: energy0",
        "Cost by block: net fp32 fp32",
    ):
        assert name in headings
    assert "Exits: photos" in headings and "Exits: ucm, evaluated" in headings
    assert "not measured by a power meter" in page.locator(".warning").first.inner_text()
    energies = page.locator("table").first
    assert energies.locator("tbody tr").count() == 2
    energies.get_by_role("button", name="energy net").click()
    assert energies.locator("th[aria-sort=ascending]").inner_text().startswith("energy net")
    order = energies.locator("tbody tr td:nth-child(2)").all_inner_texts()
    energies.get_by_role("button", name="energy net").click()
    assert energies.locator("tbody tr td:nth-child(2)").all_inner_texts() == order[::-1] != order
    plots = page.locator("figure.plot")
    assert plots.count() == 7
    for number in range(plots.count()):
        plots.nth(number).screenshot(path=tmp_path / f"{number}.png")
        picture = Image.open(tmp_path / f"{number}.png").convert("RGB")
        colours = {colour for count, colour in picture.getcolors(1 << 24) if count > 20}
        saturated = [c for c in colours if max(c) - min(c) > 60]
        assert len(colours) > 5 and saturated, f"plot {number} has not drawn"


def test_an_invalid_benchmark_of_pytest_is_marked_everywhere(tmp_path, capsys):
    extra = {
        "energy_mj_per_inference": 21.5,
        "energy_ci95_mj": [20.0, 23.0],
        "label": "MEASURED",
        "valid": False,
        "invalid_reasons": ["trial 2: 3 clipped samples: use a smaller shunt or a wider gain"],
    }
    timing = {"name": "test_full_depth", "stats": {"rounds": 9, "median": 0.02, "iqr": 0.001}, "extra_info": extra}
    path, page = tmp_path / "pytest.json", tmp_path / "page.html"
    path.write_text(json.dumps({"machine_info": {}, "benchmarks": [timing]}))
    with pytest.raises(SystemExit) as ending:
        main(["report", str(path), "--html", str(page)])
    out = capsys.readouterr().out
    assert ending.value.code == ExitStatus.MEASUREMENT_INVALID
    assert "20.00 .. 23.00  MEASURED INVALID" in out
    assert "INVALID test_full_depth: trial 2: 3 clipped samples" in out
    assert "INVALID test_full_depth: trial 2: 3 clipped samples" in page.read_text()


def test_the_best_epoch_of_logs_of_training(tmp_path, capsys):
    """As `jq -s "map(.test_acc1) | max"` says it of the published logs."""
    log, folder = tmp_path / "recnext_t_distill_300e.txt", tmp_path / "run"
    rows = [
        {"train_lr": 1e-6, "test_loss": 6.9, "test_acc1": acc, "epoch": k} for k, acc in enumerate((0.2, 76.6, 75.9))
    ]
    log.write_text("\n".join(map(json.dumps, rows)))
    for stage, header in (
        ("bilevel", "epoch,loss,gated_accuracy,mean_accuracy"),
        ("joint", "epoch,loss,joint_accuracy"),
    ):
        (folder / stage).mkdir(parents=True)
        (folder / stage / "log.csv").write_text(f"{header}\n1,0.5,0.91{',0.2' if stage == 'bilevel' else ''}\n")
    with pytest.raises(SystemExit) as ending:
        main(["report", str(log), str(folder)])
    assert ending.value.code == ExitStatus.OK
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == [str(log), "3", "76.60", "%", "test_acc1", "1"]
    assert lines[2:] == [
        [str(folder / "bilevel"), "1", "91.00", "%", "gated_accuracy", "1"],
        [str(folder / "joint"), "1", "91.00", "%", "joint_accuracy", "1"],
    ]
    (folder / "joint" / "log.csv").write_text("epoch,loss\n1,2\n")
    for path, error in ((folder, "no log of `train`, or damaged"), (tmp_path / "none", "cannot read the run")):
        with pytest.raises(SystemExit):
            main(["report", str(path)])
        assert error in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "none")])
    assert "holds no log.csv" in capsys.readouterr().err
