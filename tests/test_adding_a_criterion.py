"""A removal criterion, added to a copy of the project as CONTRIBUTING says: a function, its line, its name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import EVALUATION
from studies import BIN, ROOT, command, config_of, copy_project, environment, write_config

from ssvi import criteria, spec
from ssvi.analysis.figures import style

FUNCTION = '''def bound(mu: Tensor, sigma: Tensor, exp_lambda: float = 1.0) -> Tensor:
    """|mu| + sigma: what the size of a weight hardly exceeds."""
    return mu.double().abs() + sigma.double()


def scores('''
# file: what stands there, and what takes its place. The line is neither the first nor the last.
RECIPE = {
    "ssvi/criteria.py": {
        "def scores(": FUNCTION,
        '    "snr": snr,\n    "e_abs"': '    "bound": bound,\n    "snr": snr,\n    "e_abs"',
    },
    "ssvi/spec.py": {'CRITERIA = ("abs_mu", ': 'CRITERIA = ("abs_mu", "bound", '},
}
SEVEN = ("abs_mu", "bound", *spec.CRITERIA[1:])

GRID = {"method": "ssvi", "density": 0.1, "epochs": 3, "seed": [0, 1]}
EXPERIMENTS = {
    "old": {**GRID, "criterion": list(spec.CRITERIA)},
    "new": {**GRID, "criterion": "bound"},
    "starts": {**GRID, "criterion": ["snr_abs", "bound"], "sigma_init": [0.001, 0.01]},
    "lambdas": {**GRID, "criterion": ["e_exp", "bound"], "exp_lambda": [0.1, 10]},
    "vi": {"method": "vi", "epochs": 3, "sigma_init": [0.001, 0.01]},
}
ALL = list(EXPERIMENTS)
STUDY = {
    "experiments": EXPERIMENTS,
    "quick": [],
    "tables": {"summary": ALL, "choices": ALL, "claims": ALL},
    "figures": {
        "criteria": ["old", "new"],
        "noise_floor": ["old", "new"],
        "iou": ["old", "new"],
        "iou_course": ["old", "new"],
        "figure2_right": ["old", "new", "starts", "vi"],
        "exp_lambda": ["old", "lambdas"],
    },
}

# Finished runs: those of the six criteria as format 1, which knew no other, has them; the others as of now.
WRITING = """
import json, sys
from pathlib import Path
from fake_runs import write_runs
from ssvi.config import study_experiments
for name, runs in study_experiments(json.loads(sys.argv[1]), "tiny").items():
    write_runs(Path("results"), runs.values(), format=1 if name == "old" else 2)
"""


class Project:
    """A folder with results, and beside it the project with one criterion more."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder / "work", config_of("tiny", STUDY, evaluation=EVALUATION)
        self.folder.mkdir()
        self.root = copy_project(folder / "project")
        for name, changes in RECIPE.items():
            text = (self.root / name).read_text()
            for old, new in changes.items():
                assert text.count(old) == 1, old
                text = text.replace(old, new)
            (self.root / name).write_text(text)
        write_config(self.folder, self.config)
        self.python("-c", WRITING, json.dumps(self.config))

    def python(self, *words: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, *words)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess:
        paths = {"PYTHONPATH": f"{self.root}{os.pathsep}{ROOT / 'tests'}"}
        done = subprocess.run(
            words, cwd=self.folder, env=environment(self.root) | paths, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("seventh"))


@pytest.fixture(scope="module")
def report(project: Project) -> Path:
    """The folder of a report of all the results."""
    assert project.run(BIN / "ssvi", "report").stderr == ""
    return project.folder / "reports/tiny/so_far"


def test_the_workflow_plans(project: Project) -> None:
    said = project.run(*command(project.folder, "-n", root=project.root)).stdout
    assert re.search(r"^figure +6$", said, flags=re.MULTILINE), said
    assert re.search(r"^table +3$", said, flags=re.MULTILINE), said


def test_a_report_is_made_of_old_results(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "criterion=bound" in page
    assert "could not be made" not in page


def test_figures_draw_old_records_beside_new_ones(report: Path) -> None:
    import pandas as pd

    drawn = {path.stem: pd.read_csv(path) for path in (report / "figures").glob("*.csv")}
    assert drawn.keys() == STUDY["figures"].keys()
    assert all((report / f"figures/{name}.png").stat().st_size > 5000 for name in drawn)
    first = drawn["iou"][drawn["iou"]["moment"] == "first update"]
    # in made-up runs two criteria agree by how far apart they stood in the list when they were recorded
    pairs = first.groupby(["first", "second"])["n"].sum()
    assert pairs["abs_mu", "snr"] == 7 * 2
    assert pairs["abs_mu", "bound"] == pairs["bound", "snr_exp"] == 1 * 2
    values = first.groupby(["first", "second"])["iou_mean"].agg(["min", "max"])
    agree = 0.6 + 0.3 * 0.75 / 4
    # one place apart in the old records, two in the new ones
    assert values.loc[("abs_mu", "snr")].tolist() == pytest.approx([agree / 3, agree / 2])
    assert values.loc[("e_exp", "snr_exp")].tolist() == pytest.approx([agree / 2, agree / 2])
    assert set(drawn["criteria"]["criterion"].dropna()) == set(SEVEN)
    right = drawn["figure2_right"]
    assert set(right.loc[right["criterion"] == "bound", "sigma_init"]) == {0.0006, 0.001, 0.01}
    # it may have a lambda, so runs of different ones are never averaged
    lambdas = drawn["exp_lambda"]
    assert set(lambdas.loc[lambdas["criterion"] == "bound", "exp_lambda"]) == {0.1, 10}


def test_it_trains_and_its_records_name_it(project: Project) -> None:
    where = ("--data-root=data", "--threads=1", "--device=cpu")
    options = ("--method=ssvi", "--model=mlp", "--epochs=1", "--batch-size=256", "--delta-t=2", "--criterion=bound")
    project.python("-m", "ssvi", "train", *options, "--out=trained", *where)
    project.python("-m", "ssvi", "evaluate", "trained", *where)
    records = [json.loads(line) for line in (project.folder / "trained/topology.jsonl").read_text().splitlines()]
    assert records
    for record in records:
        assert tuple(record["criteria"]) == SEVEN
        assert len(record["iou"]) == len(record["spearman"]) == 7


def test_a_look_is_chosen_or_the_next_one_that_is_free() -> None:
    chosen = {"a": "red", "b": "blue"}
    assert style._completed(chosen, ["b", "c", "a", "d"], ["blue", "green", "red", "grey", "green"]) == {
        **chosen,
        "c": "green",
        "d": "grey",
    }
    assert style._completed(chosen, "cdefg", ["green", "red", "grey"]) == {
        **chosen,
        **dict(zip("cdefg", ["green", "grey", "green", "grey", "green"], strict=True)),
    }
    assert style._completed({"a": "p"}, "abc", ["p"]) == dict.fromkeys("abc", "p")
    for looks in (style.CRITERION_COLOURS, style.CRITERION_MARKERS):
        assert len(set(looks.values())) == len(looks) == len(criteria.CRITERIA)
