"""docs/recipes.md, done as it stands to a copy of the project: what each recipe adds is in the report of its study."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from documented import make_changes, sections, write_files
from studies import command, copy_project, environment

from ssvi.registry import CRITERIA
from ssvi.runs import files
from ssvi.runs.records import read_jsonl

RECIPES = sections("recipes.md")
STUDY = RECIPES.pop("The study")
RUNS = "results/runs/quadrants/logistic"
# One dense layer from 8 x 8 pixels to 4 classes.
WEIGHTS, BIASES = 64 * 4, 4


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after all recipes; each touches at most two files beside those that recipes before it wrote."""
    code = copy_project(tmp_path_factory.mktemp("recipes") / "code")
    own: set[str] = set()
    for name, text in RECIPES.items():
        written, changed = write_files(text, code), make_changes(text, code)
        assert 0 < len({*written, *changed} - own) <= 2, (name, written, changed)
        own |= {*written}
    assert write_files(STUDY, code) == ["config.yaml"]
    return code


@pytest.fixture(scope="module")
def reports(project: Path) -> Path:
    """The folder of its study's tables, figures and report."""
    words = command(project, "--", "reports/recipes/report.html", cores=1, root=project)
    done = subprocess.run(words, capture_output=True, text=True, env=environment(project), cwd=project, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "reports/recipes"


def run_of(reports: Path, pattern: str) -> Path:
    (found,) = (reports.parent.parent / RUNS).glob(f"{pattern}/seed=0")
    return found


def test_the_data_set_is_made_and_learned(reports: Path) -> None:
    found = [json.loads(path.read_text()) for path in (reports.parent.parent / RUNS).rglob(files.METRICS)]
    assert [metrics["status"] for metrics in found] == ["complete"] * 3
    assert [metrics["test_images"] for metrics in found] == [120] * 3
    # 360 images, a tenth of them held out, 20 a step: 17 steps in each of 4 epochs
    assert [metrics["steps"] for metrics in found] == [17 * 4] * 3
    assert [metrics["accuracy"] for metrics in found] == [1.0] * 3


def test_the_criterion_removes_what_it_says(reports: Path) -> None:
    by, default = (
        read_jsonl(run_of(reports, f"ssvi/*/criterion={name}/*/*") / files.TOPOLOGY)
        for name in ("certainty", "snr_abs")
    )
    for record in (*by, *default):
        assert record["criteria"] == [*CRITERIA, "certainty"]
        assert len(record["iou"]) == len(record["spearman"]) == len(CRITERIA) + 1
    # the two are one training until the first update, at which no other choice lowers the mean sigma as far
    assert by[0]["iou"] == default[0]["iou"]
    (first,), (other,) = by[0]["layers"], default[0]["layers"]
    assert first["removed"] == other["removed"] > 0
    assert first["sigma_drift_topology"] < other["sigma_drift_topology"]


def test_the_table_counts_the_network(reports: Path) -> None:
    table = pd.read_csv(reports / "tables/footprint.csv").set_index("options")
    dense = table[table["method"] == "linear"].iloc[0]
    assert (dense["sparsity_percent_mean"], dense["stored_numbers_mean"]) == (0, WEIGHTS + BIASES)
    for criterion in ("snr_abs", "certainty"):
        (row,) = (row for _, row in table[table["criterion"] == criterion].iterrows())
        assert row["sparsity_percent_mean"] == 75
        assert row["stored_numbers_mean"] == 2 * WEIGHTS / 4 + BIASES


def test_the_option_is_in_the_path_and_in_the_learning_rates(reports: Path) -> None:
    history = pd.read_csv(run_of(reports, "linear/lr=0.1/*lr_end=0.5*") / files.HISTORY)
    assert history["lr"].tolist() == pytest.approx([0.1, 0.0875, 0.075, 0.0625])


def test_the_figure_has_a_point_a_setting(reports: Path) -> None:
    drawn = pd.read_csv(reports / "figures/calibration.csv").set_index("series")
    metrics = json.loads((run_of(reports, "linear/*/*") / files.METRICS).read_text())
    assert len(drawn) == 3
    assert drawn.loc["linear rate", "mean"] == metrics["ece"]
    assert (reports / "figures/calibration.png").stat().st_size > 5000


def test_the_claim_has_its_verdict(reports: Path) -> None:
    (claim,) = (row for _, row in pd.read_csv(reports / "tables/claims.csv").iterrows() if row["claim"] == "C10")
    flops = [
        json.loads((run_of(reports, f"ssvi/*/criterion={name}/*/*") / files.TRAINING).read_text())["training_flops"]
        for name in ("certainty", "snr_abs")
    ]
    assert claim["value"] == pytest.approx(flops[0] / flops[1])
    assert (claim["dataset"], claim["model"], claim["verdict"]) == ("quadrants", "logistic", "holds")


def test_the_report_shows_them_all(reports: Path) -> None:
    page = (reports / "report.html").read_text()
    assert "could not be made" not in page
    for shown in (
        "on quadrants with logistic",
        '<td class="setting">linear rate</td>',
        '<td class="setting">criterion certainty</td>',
        "What is kept of each network.",
        "ECE against test accuracy.",
        "the criterion does not change what a training costs",
        '"lr_end":[0.0,',
    ):
        assert shown in page, shown
