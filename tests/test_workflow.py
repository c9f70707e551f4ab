"""The whole workflow on a tiny study of images: from config to report, again, changed, broken."""

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from fake_runs import tie
from images import make_image_folder
from studies import BIN, ROOT, command, config_of, environment, write_config

from ssvi.runs.config import resolve

CONFIG = config_of(
    "tiny",
    {
        "train": {
            "dataset": "folder:pictures",
            "image_size": 8,
            "model": "resnet8",
            "width": 0.25,
            "epochs": 2,
            "batch_size": 12,
            "delta_t": 2,
        },
        "experiments": {
            "vi": {"method": "vi", "seed": [0, 1]},
            "ssvi": {"method": "ssvi", "density": [0.2, 0.1], "seed": [0, 1]},
            "rigl": {"method": "rigl", "density": [0.2, 0.1]},
            "again": {"method": "ssvi", "density": 0.1, "seed": [0, 1]},
            "children": [
                {"method": "pruned", "parent": "vi", "density": 0.2, "epochs": 0},
                {"method": "ensemble", "parent": "static", "density": 0.2, "members": 2},
            ],
            "broken": {"method": "dense", "model": "mlp", "lr": 1.0e12, "weight_decay": 0.0},
        },
        "quick": ["table1"],
        "tables": {
            "table1": ["vi", "again"],
            "baselines": ["vi", "children"],
            "summary": ["vi", "ssvi", "rigl", "broken"],
            "shift": ["vi"],
        },
        "figures": {
            "figure2_left": ["ssvi", "rigl", "vi"],
            "curves": ["vi", "ssvi"],
            "test_samples": ["vi"],
            "shift": ["vi"],
            "mine": {"of": ["ssvi", "rigl"], "x": "density", "y": "accuracy", "hue": "method"},
        },
    },
)

# Of what other rows of the same test show already, in the quick tests.
MORE = pytest.mark.fault("more of the workflow", quick=0)


def snakemake(folder: Path, *arguments: str, check: bool = True, cores: int = 2) -> subprocess.CompletedProcess:
    words = command(folder, *arguments, cores=cores)
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=folder, timeout=600)
    if check and done.returncode:
        raise AssertionError(f"{done.stdout}\n{done.stderr}")
    return done


def times(folder: Path, name: str) -> dict[str, int]:
    return {str(p.parent.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob(name))}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The study, run once from nothing."""
    folder = tmp_path_factory.mktemp("study")
    make_image_folder(folder / "pictures", classes=3, train=16, test=6, size=(11, 9))
    write_config(folder, CONFIG)
    done = snakemake(folder)
    assert "ssvi ui" in done.stderr
    return folder


def test_every_run_is_trained_once_and_evaluated(study: Path) -> None:
    assert len(times(study / "results/runs", "metrics.json")) == 2 + 4 + 2 + 1 + 2 + 2
    assert not list(study.rglob("live"))
    for path in (study / "results/runs").rglob("metrics.json"):
        metrics = json.loads(path.read_text())
        if metrics["status"] == "complete":
            assert 0 <= metrics["accuracy"] <= 1
            assert metrics["evaluation"]["samples"] == (1 if "/rigl/" in str(path) or "/static/" in str(path) else 2)


def test_parents_are_trained_first_and_once_and_their_cost_is_shown(study: Path) -> None:
    runs = study / "results/runs"
    made = times(runs, "model.safetensors")
    (pruned,) = (run for run in made if "/pruned/" in run)
    (parent,) = (run for run in made if "/vi/" in run and run.endswith("seed=0"))
    assert made[parent] < made[pruned]
    (ensemble,) = (run for run in made if "/ensemble/" in run)
    members = [run for run in made if "/static/" in run]
    assert len(members) == 2
    assert max(made[run] for run in members) < made[ensemble]
    for child, before in ((pruned, [parent]), (ensemble, members)):
        cost = [json.loads((runs / run / "training.json").read_text()) for run in (child, *before)]
        assert cost[0]["parent_flops"] == sum(c["training_flops"] for c in cost[1:]) > 0
    table = (study / "reports/tiny/tables/baselines.md").read_text()
    assert "of these, its parents'" in table
    assert "pruned BNN" in table
    assert "sparse ensemble" in table


@pytest.mark.fault("NaN or diverging loss")
def test_a_diverged_run_is_named_and_not_averaged(study: Path) -> None:
    text = (study / "reports/tiny/tables/summary.md").read_text()
    assert "diverged" in text
    assert "lr=1000000000000.0" in text
    metrics = json.loads(next((study / "results/runs").rglob("dense/**/metrics.json")).read_text())
    assert metrics["status"] == "diverged"
    assert metrics["accuracy"] is None


def test_tables_are_the_means_of_the_run_folders(study: Path) -> None:
    import pandas as pd

    accuracies = [
        json.loads(path.read_text())["accuracy"]
        for path in (study / "results/runs").rglob("metrics.json")
        if "/vi/" in str(path)
    ]
    mean, sd = 100 * pd.Series(accuracies).mean(), 100 * pd.Series(accuracies).std(ddof=1)
    text = (study / "reports/tiny/tables/table1.md").read_text()
    assert f"{mean:.2f} ± {sd:.2f}" in text
    for extension in ("csv", "md", "html", "tex"):
        assert (study / f"reports/tiny/tables/table1.{extension}").stat().st_size > 100
    for extension in ("csv", "png", "svg", "pdf"):
        assert (study / f"reports/tiny/figures/figure2_left.{extension}").stat().st_size > 200
    assert pd.read_csv(study / "reports/tiny/data/runs.csv")["run"].is_unique
    assert len(pd.read_csv(study / "reports/tiny/data/history.csv")) >= 16


def test_a_figure_described_by_config_alone(study: Path) -> None:
    import pandas as pd

    drawn = pd.read_csv(study / "reports/tiny/figures/mine.csv")
    assert set(drawn["method"]) == {"SSVI", "RigL"}
    assert set(drawn["density"]) == {0.2, 0.1}


def test_weight_samples_are_measured_only_where_a_figure_shows_them(study: Path) -> None:
    found = times(study / "results/runs", "samples.csv")
    assert len(found) == 2
    assert all("/vi/" in run for run in found)


def test_the_suite_is_shown_to_the_runs_that_need_it_and_again_where_they_are_evaluated_again(study: Path) -> None:
    found = times(study / "results/runs", "uncertainty.csv")
    assert len(found) == 2
    assert all("/vi/" in run for run in found)
    # a table and a figure of one name
    assert "corruption error" in (study / "reports/tiny/tables/shift.md").read_text()
    assert (study / "reports/tiny/figures/shift.png").stat().st_size > 200
    # the weight samples are other ones, so are the predictions that the suite begins with
    plan = snakemake(study, "-n", "shift", "--config", "evaluation={samples: 3, bins: 15}").stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", plan, re.M))
    assert {name: counts[name] for name in ("evaluate", "suite", "table", "figure")} == {
        **dict.fromkeys(("evaluate", "suite"), "2"),
        **dict.fromkeys(("table", "figure"), "1"),
    }
    assert "train" not in counts


def test_both_html_reports_hold_tables_and_figures(study: Path) -> None:
    snakemake(study, "--report", "reports/tiny/workflow.html", cores=0)
    for name in ("workflow", "report"):
        html = (study / f"reports/tiny/{name}.html").read_text()
        assert "figure2_left" in html
        assert "cold posterior" in html


@MORE
def test_images_that_changed_are_said_before_anything_is_trained(study: Path, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    train, away = copy / "pictures/train", copy / "away"
    for before, after in (("class0", "aside"), ("class1", "class0"), ("aside", "class1")):
        (train / before).rename(train / after)
    for options in (("-n",), ()):
        done = snakemake(copy, *options, check=False)
        assert done.returncode == 1
        assert "Plan of study" not in done.stdout
        (line,) = [row for row in done.stderr.splitlines() if row.startswith("ssvi: ")]
        assert line.startswith(
            "ssvi: folder:pictures: 13 runs were trained on other training images than are there now (train/class0 has "
            "what was in train/class1, train/class1 has what was in train/class0): folder%3Apictures/"
        )
        assert line.endswith(
            " and 10 more; bring those files back, or move these run folders, in results/runs, away to train on the "
            "present ones."
        )
    # what trains nothing is not refused
    for option in ("--unlock", "--list", "--summary"):
        assert "than are there now" not in snakemake(copy, option).stderr
    (copy / "pictures").rename(away)
    assert re.search(r"in all +13 +13 +0 +0$", snakemake(copy, "-n").stdout, re.M)
    away.rename(copy / "pictures")
    # runs that do not say what they were trained on stay, and what is trained now is of what is recorded
    for spec in (copy / "results/runs").rglob("spec.json"):
        content = json.loads(spec.read_text())
        del content["provenance"]["content"], content["provenance"]["training_content"]
        spec.write_text(json.dumps(content))
    before = times(copy / "results/runs", "model.safetensors")
    config = json.loads(json.dumps(CONFIG))
    config["studies"]["tiny"]["experiments"]["rigl"]["density"] = [0.2, 0.1, 0.05]
    write_config(copy, config)
    (record,) = (copy / "results/data").iterdir()
    old = json.loads(record.read_text())["content"]
    snakemake(copy, "--until", "train")
    after = times(copy / "results/runs", "model.safetensors")
    assert {run: after[run] for run in before} == before
    (new,) = after.keys() - before.keys()
    provenance = json.loads((copy / "results/runs" / new / "spec.json").read_text())["provenance"]
    assert provenance["content"] == json.loads(record.read_text())["content"] != old


def with_another_test_image(study: Path, copy: Path) -> str:
    """A copy of the study in which nothing but the test images changed, and what is said of that."""
    shutil.copytree(study, copy)
    shutil.copy(copy / "pictures/test/class0/000.png", copy / "pictures/test/class1/new.png")
    return (
        "ssvi: folder:pictures: 13 runs are evaluated anew where that is needed, since its test images changed "
        "(test/class1 had 6 images and has 7): folder%3Apictures/"
    )


def test_other_test_images_are_said_and_nothing_is_to_be_trained(study: Path, tmp_path) -> None:
    said = with_another_test_image(study, tmp_path / "copy")
    plan = snakemake(tmp_path / "copy", "-n", "--", "table1", "test_samples")
    assert re.search(r"in all +4 +0 +4 +0\.00$", plan.stdout, re.M)  # no training's hours
    (line,) = [row for row in plan.stderr.splitlines() if row.startswith("ssvi: ")]
    assert line.startswith(said)


@MORE
def test_other_test_images_are_evaluated_on_and_nothing_is_trained(study: Path, tmp_path) -> None:
    copy = tmp_path / "copy"
    said = with_another_test_image(study, copy)
    runs = copy / "results/runs"
    before = {name: times(runs, name) for name in ("model.safetensors", "metrics.json", "samples.csv")}
    assert said in snakemake(copy, "--", "table1", "test_samples").stderr
    after = {name: times(runs, name) for name in before}
    assert after["model.safetensors"] == before["model.safetensors"]
    changed = {name: [run for run in before[name] if after[name][run] != before[name][run]] for name in before}
    assert len(changed["metrics.json"]) == 4
    assert len(changed["samples.csv"]) == 2
    records = [json.loads((runs / run / "metrics.json").read_text()) for run in changed["metrics.json"]]
    assert {metrics["test_images"] for metrics in records} == {19}
    (record,) = (json.loads(path.read_text()) for path in (copy / "results/data").iterdir())
    assert record["test_images"] == 19
    # done is done, and a report does not put what was evaluated on the old ones beside it
    assert "4 runs" not in snakemake(copy, "-n", "--", "table1", "test_samples").stdout
    config = copy / "config.yaml"
    subprocess.run([BIN / "ssvi", "report", "--configfile", config], cwd=copy, env=environment(), check=True)
    page = (copy / "reports/tiny/so_far/report.html").read_text()
    assert "WARNING: folder:pictures: 9 runs were evaluated on other test images than are there now" in page


def test_one_target_makes_one_output_and_only_what_it_needs(study: Path, tmp_path) -> None:
    shutil.copytree(study / "pictures", tmp_path / "pictures")
    write_config(tmp_path, CONFIG)
    plan = snakemake(tmp_path, "-n", "--", "table1").stdout
    assert "Plan of study tiny" in plan
    assert re.search(r"in all +4 +0 +4 +\?$", plan, re.M)
    assert re.search(r"table1 +4 +0 +4 +\?$", plan, re.M)
    snakemake(tmp_path, "--", "quick")
    assert len(times(tmp_path / "results/runs", "metrics.json")) == 4
    assert [p.name for p in (tmp_path / "reports/tiny").rglob("*.md")] == ["table1.md"]
    assert re.search(r"table1 +4 +4 +0 +0$", snakemake(tmp_path, "-n").stdout, re.M)


@pytest.mark.fault("a workflow is killed")
def test_a_killed_workflow_goes_on_where_it_was(study: Path, tmp_path) -> None:
    """Killed without a word in the middle of the trainings: what was finished stays, the rest is made as it was."""
    shutil.copytree(study / "pictures", tmp_path / "pictures")
    write_config(tmp_path, CONFIG)
    # every run, and none of the tables and figures, which have nothing to resume
    with subprocess.Popen(
        command(tmp_path, "--", "collect"), env=environment(), cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as process:
        while len(times(tmp_path, "metrics.json")) < 3:
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    done = times(tmp_path, "metrics.json")
    snakemake(tmp_path, "--unlock")
    snakemake(tmp_path, "--", "collect")
    after = times(tmp_path, "metrics.json")
    # One that was being written at the moment may be made anew, finished ones may not.
    assert sum(after[run] == time for run, time in done.items()) >= len(done) - 2
    for path in (study / "results/runs").rglob("model.safetensors"):
        assert (tmp_path / path.relative_to(study)).read_bytes() == path.read_bytes()


def test_a_failed_run_leaves_a_report_of_the_rest_and_its_cause(study: Path, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    folder = next((copy / "results/runs").rglob("vi/**/seed=1"))
    for path in folder.iterdir():
        path.unlink()
    (folder / "live").mkdir()
    (folder / "live/checkpoint.pt").write_bytes(b"damaged")
    shutil.rmtree(copy / "reports")
    done = snakemake(copy, "--", "mine", "table1", check=False)
    assert done.returncode != 0
    assert "12 of 13 runs are trained" in done.stderr
    assert (copy / "reports/tiny/figures/mine.png").exists()
    assert not (copy / "reports/tiny/tables/table1.md").exists()
    report = subprocess.run([BIN / "ssvi", "report"], cwd=copy, capture_output=True, text=True, env=environment())
    assert report.returncode == 0, report.stderr
    page = (copy / "reports/tiny/so_far/report.html").read_text()
    assert "checkpoint.pt" in page
    assert "Left out, failed" in (copy / "reports/tiny/so_far/tables/table1.md").read_text()
    assert not (copy / "reports/tiny/tables/table1.md").exists()


def test_a_second_run_has_nothing_to_do(study: Path) -> None:
    before = times(study, "*")
    assert "Nothing to be done" in snakemake(study).stderr
    assert times(study, "metrics.json") == {k: v for k, v in times(study, "metrics.json").items() if k in before}


@pytest.mark.fault("config changed under finished results")
def test_a_changed_grid_trains_only_what_is_new_and_a_changed_evaluation_trains_nothing(study: Path, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    config = json.loads(json.dumps(CONFIG))
    config["studies"]["tiny"]["experiments"]["rigl"]["density"] = [0.2, 0.1, 0.05]
    write_config(copy, config)
    before = times(copy / "results/runs", "model.safetensors")
    # all runs; that tables and figures follow their files is seen where these change by themselves
    snakemake(copy, "--", "collect")
    after = times(copy / "results/runs", "model.safetensors")
    assert {k: after[k] for k in before} == before
    assert [k for k in after if k not in before] == [k for k in after if "rigl/density=0.05" in k]
    assert len(after) == len(before) + 1

    config["evaluation"]["samples"] = 3
    write_config(copy, config)
    snakemake(copy, "--", "collect")
    assert times(copy / "results/runs", "model.safetensors") == after
    found = {json.loads(p.read_text())["evaluation"]["samples"] for p in copy.rglob("ssvi/**/metrics.json")}
    assert found == {3}


@MORE
def test_what_was_evaluated_by_hand_otherwise_is_evaluated_anew_where_it_is_needed(study: Path, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    # RigL's only network is the same however many samples are asked for
    vi, rigl = (next((copy / "results/runs").rglob(f"{method}/**/metrics.json")) for method in ("vi", "rigl"))
    before = vi.read_text()
    for path in (vi, rigl):
        subprocess.run([BIN / "ssvi", "evaluate", path.parent, "--samples=7"], cwd=copy, env=environment(), check=True)
    trained, made = times(copy, "model.safetensors"), times(copy, "metrics.json")
    dry = snakemake(copy, "-n")
    assert times(copy, "metrics.json") == made
    assert re.search(r"^evaluate +1$", dry.stdout, re.M)
    assert re.search(r"^suite +1$", dry.stdout, re.M)  # which begins with the predictions of that evaluation
    assert re.search(r"in all +13 +12 +1 +0.00$", dry.stdout, re.M)
    said = [line for line in dry.stderr.splitlines() if line.startswith("ssvi: ")]
    assert len(said) == 1
    assert "2 in all: " in said[0]
    assert "was evaluated with 7 weight samples and 15 bins, but the config says 2 samples and 15 bins;" in said[0]
    assert not re.search(r"^evaluate +", snakemake(copy, "-n", "--", "mine").stdout, re.M)
    snakemake(copy, "--", "table1")
    assert times(copy, "model.safetensors") == trained
    names = ("accuracy", "nll", "ece", "brier", "evaluation")
    now, then = json.loads(vi.read_text()), json.loads(before)
    assert [now[name] for name in names] == [then[name] for name in names]
    assert "ssvi: " not in snakemake(copy, "-n").stderr


def test_moved_data_retrain_nothing(study: Path, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    write_config(copy, {**CONFIG, "data_root": "elsewhere"})
    before = times(copy / "results/runs", "model.safetensors")
    snakemake(copy)
    assert times(copy / "results/runs", "model.safetensors") == before
    assert (copy / "elsewhere/cache").is_dir()


def test_other_runs_per_gpu_and_checkpoints_retrain_nothing(study: Path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    other = ("runs_per_gpu=3", "checkpoint_seconds=5", "threads=2")
    assert "Nothing to be done" in snakemake(study, "-n", "--config", *other).stdout


def test_the_config_says_how_many_threads_a_training_has(tmp_path) -> None:
    """Whatever the cores, and not fewer in silence where there are not as many."""
    write_config(tmp_path, CONFIG | {"threads": 3})
    planned = snakemake(tmp_path, "-n", "-p", "--quiet", "host", cores=16).stdout
    assert set(re.findall(r"--threads (\d+)", planned)) == {"3"}
    refused = snakemake(tmp_path, check=False, cores=2)
    assert refused.returncode == 1
    assert "ssvi: threads is 3 in the config, but --cores is 2; give as many cores or more." in refused.stderr
    assert not (tmp_path / "results/runs").exists()


# In place of `ssvi`: a training waits until `places` have begun, notes begin and end, and fails.
STUB = """#!/bin/sh
[ "$1" = train ] || exit 0
echo begin >> trainings
for _ in $(seq 100); do
    [ $(grep -c begin trainings) -lt {places} ] || break
    sleep 0.1
done
sleep 0.3
echo end >> trainings
exit 1
"""


@pytest.mark.parametrize(
    ("runs_per_gpu", "cores", "places"),
    [(2, 6, 3), pytest.param(None, 16, 2, marks=MORE), pytest.param(2, 16, 4, marks=MORE)],
)
def test_gpus_and_cores_limit_what_runs_at_once(tmp_path, monkeypatch, runs_per_gpu, cores: int, places: int) -> None:
    """Two GPUs that are only named, and a place on them for one or two runs each; a run takes two cores."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    stub = tmp_path / "stub"
    stub.write_text(STUB.format(places=places))
    stub.chmod(0o755)
    # read by every Python that starts
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if sys.orig_argv[1:3] == ['-m', 'ssvi']:\n"
        f"    os.execv({str(stub)!r}, [{str(stub)!r}, *sys.orig_argv[3:]])\n"
    )
    write_config(tmp_path, CONFIG | ({"runs_per_gpu": runs_per_gpu} if runs_per_gpu else {}))
    words = command(tmp_path, "--retries", "0", cores=cores)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    subprocess.run(words, capture_output=True, env=environment() | path, cwd=tmp_path, timeout=300)
    noted = (tmp_path / "trainings").read_text().split()
    at_once = itertools.accumulate(1 if line == "begin" else -1 for line in noted)
    assert max(at_once) == places
    # every training fails here, so no child is started
    assert len(noted) == 2 * 11


def test_the_mirror_holds_every_run_and_ui_notes_stay(study: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    import mlflow

    from ssvi.analysis.tracking import tracking_uri

    client = mlflow.MlflowClient(tracking_uri(study / "results"))
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert len([r for r in runs if "ssvi.run" in r.data.tags]) == 13


@pytest.mark.fault("config changed under finished results", quick=0)
def test_results_made_under_other_defaults_are_refused_in_one_line(study: Path, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    path = next((copy / "results/runs").rglob("ssvi/**/spec.json"))
    stored = json.loads(path.read_text())
    stored["spec"]["momentum"] = 0.8
    path.write_text(json.dumps(stored))
    tie(path.parent)
    done = snakemake(copy, "--forcerun", "table", "collect")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("  refused: ")]
    assert "momentum was 0.8 and is now 0.9" in line
    tables = [path.read_text() for path in (copy / "reports/tiny/tables").glob("*.md")]
    assert any("momentum was 0.8 and is now 0.9" in text for text in tables)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c["studies"]["tiny"]["train"].update(epoch=3), "option 'epoch' is unknown, did you mean 'epochs'?"),
        (lambda c: c["studies"]["tiny"]["experiments"]["vi"].update(density=0.1), "'vi' does not use density"),
        (lambda c: c["studies"]["tiny"]["experiments"]["ssvi"].update(density=[0]), "density is 0, but must be > 0"),
        (lambda c: c["studies"]["tiny"]["tables"].update(table9=["vi"]), "table 'table9' is unknown"),
    ],
)
def test_a_bad_config_stops_before_anything_is_written(tmp_path, change, line: str) -> None:
    config = json.loads(json.dumps(CONFIG))
    change(config)
    write_config(tmp_path, config)
    done = snakemake(tmp_path, check=False)
    assert done.returncode == 1
    said = [row for row in done.stderr.splitlines() if row.startswith("ssvi: ")]
    assert len(said) == 1
    assert line in said[0]
    assert "config.yaml" in said[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        pytest.param(lambda p: shutil.rmtree(p / "test"), "test", marks=MORE),
        pytest.param(lambda p: [x.unlink() for x in (p / "train/class0").iterdir()], "class0", marks=MORE),
        (lambda p: next((p / "train/class1").iterdir()).write_bytes(b"not an image"), "class1"),
    ],
)
def test_a_bad_image_folder_is_one_line_and_trains_nothing(tmp_path, spoil, line: str) -> None:
    make_image_folder(tmp_path / "pictures", classes=2, train=12, test=4)
    spoil(tmp_path / "pictures")
    write_config(tmp_path, CONFIG)
    done = snakemake(tmp_path, "--retries", "0", check=False)
    assert done.returncode != 0
    said = [row for row in done.stderr.splitlines() if row.startswith("ssvi: ")]
    assert said
    assert line in said[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results/runs").exists()


@pytest.mark.fault("the paper's network, with a hundred classes", quick=0)
def test_the_papers_network_goes_through_with_a_hundred_classes(tmp_path) -> None:
    """Two trainings of the study `paper` as it is, but on a few images of 100 classes and for one epoch."""
    make_image_folder(tmp_path / "pictures", classes=100, train=1, test=1, size=(32, 32))
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["evaluation"]["samples"] = 2
    paper = resolve(config, "paper")
    few = {
        "dense": {"method": "vi"},
        "sparse": {"method": "ssvi", "density": 0.1},
    }
    config["studies"]["tiny"] = {
        "like": "paper",
        "train": {"dataset": "folder:pictures", "image_size": 32, "epochs": 1, "batch_size": 50, "delta_t": 1},
        "experiments": dict.fromkeys(paper["experiments"]) | few,
        "tables": dict.fromkeys(paper["tables"]) | {"summary": list(few)},
        "figures": dict.fromkeys(paper["figures"]),
        "quick": [],
    }
    write_config(tmp_path, {**config, "study": "tiny"})
    snakemake(tmp_path, "--", "summary")
    found = [json.loads(path.read_text()) for path in (tmp_path / "results/runs").rglob("metrics.json")]
    assert sorted(m["active_weights"] for m in found) == [1_122_608, 11_220_132 - 9_600 - 100]
    assert all(m["status"] == "complete" and m["test_images"] == 100 for m in found)


def test_the_example_of_the_readme_runs(tmp_path) -> None:
    """The study of one's own that README shows, on small pictures, for one epoch and with two seeds."""
    block = (ROOT / "README.md").read_text().split("```yaml\n")[1].split("```")[0].replace("[0, 1, 2]", "[0, 1]")
    make_image_folder(tmp_path / "images/pets", classes=3, train=8, test=4, size=(9, 9))
    small = {"image_size": 8, "model": "resnet8", "width": 0.25, "epochs": 1, "batch_size": 6, "delta_t": 1}
    studies = {**yaml.safe_load(block), "small": {"like": "pets", "train": small}}
    write_config(tmp_path, {**CONFIG, "study": "small", "studies": studies})
    snakemake(tmp_path)
    reports = tmp_path / "reports/small"
    assert (reports / "figures/my_prior.pdf").stat().st_size > 1000
    assert "preset official" in (reports / "tables/summary.md").read_text()
    assert "my_prior" in (reports / "report.html").read_text()


@MORE
def test_without_an_activated_environment_it_works_and_names_commands_that_work(tmp_path) -> None:
    """From cron, on a config file of one's own, from another folder; the commands are pasted as they are printed."""
    train = {"dataset": "digits", "model": "mlp", "width": 0.1, "epochs": 1, "batch_size": 256}
    study = {"train": train, "experiments": {"vi": {"method": "vi"}}, "tables": {"summary": ["vi"]}}
    there = tmp_path / "a folder"
    there.mkdir()
    write_config(there, config_of("tiny", study))
    (there / "my own.yaml").write_text("studies:\n  mine: {like: tiny, train: {width: 0.2}}\n")
    bare = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [BIN / "snakemake", "--cores=1", "--snakefile", ROOT / "Snakefile", "--directory", there]
    words += [
        "--configfile",
        there / "my own.yaml",
        "--config",
        "study=mine",
        "evaluation={samples: 3}",
        "data_root=~/d",
    ]
    done = subprocess.run(
        [*words, "--", "summary"], capture_output=True, text=True, cwd=tmp_path, env=bare, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d").is_dir()
    assert not list(tmp_path.rglob("~"))
    (command,) = re.findall(r"report so far +(.*)", done.stderr)
    pasted = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=bare, timeout=300)
    assert pasted.returncode == 0, pasted.stderr
    assert (there / "reports/mine/so_far/report.html").exists()
    made = json.loads(next((there / "results/runs").rglob("metrics.json")).read_text())
    assert made["evaluation"]["samples"] == 3


def test_an_address_where_no_mirror_can_be_is_said_before_anything_is_trained(study: Path, tmp_path) -> None:
    write_config(tmp_path, CONFIG)
    shutil.copytree(study / "pictures", tmp_path / "pictures")

    def with_folder(*arguments: str) -> subprocess.CompletedProcess:
        env = environment() | {"MLFLOW_TRACKING_URI": "./mlruns"}
        words = command(tmp_path, *arguments)
        return subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=120)

    done = with_folder()
    assert done.returncode == 1
    assert done.stderr.count("ssvi: MLFLOW_TRACKING_URI: './mlruns' is a folder") == 1
    assert not (tmp_path / "results").exists()
    for fine in (["--unlock"], ["--list"]):
        assert with_folder(*fine).returncode == 0
