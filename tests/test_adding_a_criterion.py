"""A removal criterion of a plugin, from the plan of a study to its trained runs, tables and figures."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_runs import EVALUATION, write_runs
from studies import BIN, command, config_of, environment, write_config

from ssvi.analysis.collect import load_frames
from ssvi.analysis.figures import make_figure, needs, style
from ssvi.registry import CRITERIA, KINDS
from ssvi.runs.config import study_experiments

PLUGIN = """from ssvi.plugins import Plugin

PLUGIN = Plugin(criteria={"bound": "bounds:bound"})
"""
CODE = """def bound(mu, sigma, exp_lambda):
    return mu.abs() + sigma
"""
SEVEN = (*CRITERIA, "bound")

GRID = {"method": "ssvi", "density": 0.1, "epochs": 3, "seed": [0, 1]}
EXPERIMENTS = {
    "old": {**GRID, "criterion": list(CRITERIA)},
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

# The quick tests have a plugin in a workflow in tests/runs/test_plugins.py, a criterion in tests/test_recipes.py.
IN_A_WORKFLOW = pytest.mark.fault("a criterion of one's own in a workflow", quick=0)


class Project:
    """A folder with a plugin, a config and results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "my_bounds.py").write_text(PLUGIN)
        (folder / "bounds.py").write_text(CODE)
        write_config(folder, config_of("tiny", STUDY, evaluation=EVALUATION, plugins=["my_bounds"]))
        # those of the six criteria as format 1, which knew no other, has them; the others as of now
        self.experiments = study_experiments(config_of("tiny", STUDY), "tiny")
        for name, runs in self.experiments.items():
            write_runs(folder / "results", runs.values(), format=1 if name == "old" else 2)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess:
        done = subprocess.run(words, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """With the criterion known by its name here, too; its code is not imported."""
    CRITERIA.add("bound", "bounds:bound", "my_bounds")
    yield Project(tmp_path_factory.mktemp("seventh"))
    del CRITERIA["bound"]


@pytest.fixture(scope="module")
def report(project: Project) -> Path:
    """The folder of a report of all the results."""
    assert project.run(BIN / "ssvi", "report").stderr == ""
    return project.folder / "reports/tiny/so_far"


@IN_A_WORKFLOW
def test_the_workflow_plans(project: Project) -> None:
    said = project.run(*command(project.folder, "-n")).stdout
    assert re.search(r"^figure +6$", said, flags=re.MULTILINE), said
    assert re.search(r"^table +3$", said, flags=re.MULTILINE), said


@IN_A_WORKFLOW
def test_a_report_is_made_of_old_results(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "criterion=bound" in page
    assert "could not be made" not in page
    assert {path.stem for path in (report / "figures").glob("*.csv")} == STUDY["figures"].keys()
    assert all((report / f"figures/{name}.png").stat().st_size > 5000 for name in STUDY["figures"])


def test_figures_draw_old_records_beside_new_ones(project: Project) -> None:
    drawn = {}
    for name, of in STUDY["figures"].items():
        runs = {run: spec for experiment in of for run, spec in project.experiments[experiment].items()}
        drawn[name] = make_figure(name, load_frames(project.folder / "results", runs, needs(name))).data
    first = drawn["iou"][drawn["iou"]["moment"] == "first update"]
    # in made-up runs two criteria agree by how far apart they stood in the list when they were recorded
    pairs = first.groupby(["first", "second"])["n"].sum()
    assert pairs["abs_mu", "snr"] == 7 * 2
    assert pairs["abs_mu", "bound"] == pairs["snr_exp", "bound"] == 1 * 2
    values = first.groupby(["first", "second"])["iou_mean"].agg(["min", "max"])
    agree = 0.6 + 0.3 * 0.75 / 4
    assert values.loc[("abs_mu", "snr")].tolist() == pytest.approx([agree / 2, agree / 2])
    assert values.loc[("abs_mu", "bound")].tolist() == pytest.approx([agree / 7, agree / 7])
    assert set(drawn["criteria"]["criterion"].dropna()) == set(SEVEN)
    right = drawn["figure2_right"]
    assert set(right.loc[right["criterion"] == "bound", "sigma_init"]) == {0.0006, 0.001, 0.01}
    # it may have a lambda, so runs of different ones are never averaged
    lambdas = drawn["exp_lambda"]
    assert set(lambdas.loc[lambdas["criterion"] == "bound", "exp_lambda"]) == {0.1, 10}


@IN_A_WORKFLOW
def test_the_workflow_trains_and_evaluates_it(project: Project) -> None:
    run = "digits/mlp/ssvi/density=0.1/criterion=bound/sigma_init=0.0006/epochs=1+batch_size=256+delta_t=2/seed=0"
    study = {"experiments": {"e": {"method": "ssvi", "criterion": "bound"}}}
    train = {"model": "mlp", "epochs": 1, "batch_size": 256, "delta_t": 2}
    folder = project.folder / "trained"
    folder.mkdir()
    for name in ("my_bounds.py", "bounds.py"):
        (folder / name).write_bytes((project.folder / name).read_bytes())
    write_config(folder, config_of("tiny", {"train": train, **study}, plugins=["my_bounds"]))
    project.run(*command(folder, "--", f"results/runs/{run}/metrics.json"))
    records = [json.loads(line) for line in (folder / "results/runs" / run / "topology.jsonl").read_text().splitlines()]
    assert records
    for record in records:
        assert tuple(record["criteria"]) == SEVEN
        assert len(record["iou"]) == len(record["spearman"]) == 7


def test_a_look_is_chosen_or_the_next_one_that_is_free() -> None:
    chosen, names = {"a": "red", "b": "blue"}, ["b", "c", "a", "d"]
    looks = style.Looks(chosen, names, ["blue", "green", "red", "grey", "green"])
    assert dict(looks) == {**chosen, "c": "green", "d": "grey"}
    # one that comes later
    names.append("e")
    assert looks["e"] == "green"
    several = dict(zip("cdefg", ["green", "grey", "green", "grey", "green"], strict=True))
    assert dict(style.Looks(chosen, "cdefg", ["green", "red", "grey"])) == {**chosen, **several}
    assert dict(style.Looks({"a": "p"}, "abc", ["p"])) == dict.fromkeys("abc", "p")
    for looks in (style.CRITERION_COLOURS, style.CRITERION_MARKERS):
        assert len(set(looks.values())) == len(looks) == len(CRITERIA)
    for looks in (style.COLOURS, style.MARKERS):
        own = [f"own{i}" for i in range(4)]
        seen = dict(style.Looks(looks._chosen, [*KINDS, *own], looks._spare))
        assert len({seen[name] for name in own} - {looks[name] for name in KINDS}) == len(own)
