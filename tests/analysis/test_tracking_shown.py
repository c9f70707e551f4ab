"""What people see in MLflow: names that fit, views of what is compared, means over seeds, a picture a run."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runs import tie, with_seeds, write_run, write_runs, write_uncertainty
from mlflow import MlflowClient
from places import ROOT

from ssvi.analysis import tracking
from ssvi.analysis.tracking import names, pictures, views
from ssvi.analysis.tracking.means import AVERAGED, SUITE
from ssvi.core.calibration import ece
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.config import load_config, study_runs
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

T_OF_3_SEEDS = 4.302652729911275  # Student's t with 2 degrees of freedom, two-sided 95 %


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def client(results: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.tracking_uri(results))


def runs(results: Path, study: str, condition: str = "") -> list[Any]:
    found = client(results)
    return list(found.search_runs([found.get_experiment_by_name(study).experiment_id], condition))


def means(results: Path, study: str) -> list[Any]:
    return runs(results, study, "tags.`ssvi.kind` = 'setting'")


# Names --------------------------------------------------------------------------------------------


def named(*specs: RunSpec) -> list[str]:
    return list(names.run_names({run_path(spec): spec for spec in specs}).values())


def test_all_names_of_a_study_are_distinct_and_fit() -> None:
    specs = study_runs(load_config(ROOT / "config.yaml"), "digits")
    found = names.run_names(specs)
    assert found.keys() == specs.keys()
    assert len(set(found.values())) == len(specs) > 400
    assert max(map(len, found.values())) <= 30
    assert all(name.split()[-1] == f"s{specs[run].seed}" for run, name in found.items())
    assert sum("~" in name for name in found.values()) < len(specs) / 100
    # the runs of one setting, and no others, differ in the last word alone
    settings = {run.rpartition("/seed=")[0] for run in specs}
    assert len({name.rpartition(" ")[0] for name in found.values()}) == len(settings)
    assert {"ssvi 0.05 snr_exp s0", "ssvi 0.1 official s0", "rigl 0.05 s2", "ssvi 0.1 delta_t=5 s1"} <= set(
        found.values()
    )


def test_a_name_says_what_differs_and_no_more() -> None:
    ssvi = RunSpec()
    assert named(ssvi, dataclasses.replace(ssvi, seed=3)) == ["ssvi s0", "ssvi s3"]
    assert named(*(dataclasses.replace(ssvi, density=d) for d in (0.1, 0.05))) == ["ssvi 0.1 s0", "ssvi 0.05 s0"]
    two = [
        dataclasses.replace(ssvi, model=model, dataset=data)
        for model, data in (("mlp", "digits"), ("resnet8", "cifar10"))
    ]
    assert named(*two) == ["ssvi digits mlp s0", "ssvi cifar10 resnet8 s0"]
    assert named(ssvi, dataclasses.replace(ssvi, kl_warmup=False))[1] == "ssvi no_kl_warmup s0"
    assert named(ssvi, dataclasses.replace(ssvi, dataset="folder:/a b/pet s/"))[1] == "ssvi pet_s s0"
    constant = dataclasses.replace(ssvi, grow_sigma="constant", grow_sigma_value=0.5)
    assert named(ssvi, constant)[1] == "ssvi grow_sigma_value=0.5 s0"


def test_a_name_says_nothing_that_has_no_effect() -> None:
    rate, ivon = RunSpec(method="vi", sigma_lr=10.0), RunSpec(method="vi", posterior_optimizer="ivon")
    faster = dataclasses.replace(ivon, ivon_lr=0.2)
    curved = dataclasses.replace(ivon, curvature_init=2.0)
    rates = [dataclasses.replace(rate, epochs=epochs) for epochs in (1, 2, 3, 4)]
    # most runs are by SGD at another rate, which the others have not
    assert named(*rates, faster, curved)[-2:] == ["vi ivon_lr=0.2 s0", "vi curvature_init=2 s0"]
    assert named(*rates, ivon)[-1] == "vi posterior_optimizer=ivon s0"


def test_where_words_do_not_do_a_hash_tells_runs_apart() -> None:
    shared = {"sigma_init": 0.123456789, "prior_sigma": 0.123456789}
    one, other = (RunSpec(**shared, lr=lr) for lr in (0.0123456789, 0.0123456788))
    found = named(RunSpec(), RunSpec(seed=1), RunSpec(seed=2), one, other)
    assert len(set(found)) == 5
    assert all(len(name) <= 30 for name in found)
    assert all(name.startswith("ssvi") and "~" in name and name.endswith(" s0") for name in found[3:])
    # two folders of one name
    folders = [RunSpec(dataset=f"folder:/{place}/pets") for place in "ab"]
    assert len(set(named(*folders))) == 2


# Views --------------------------------------------------------------------------------------------


def test_the_table_opens_with_columns_that_its_runs_have(store: Path) -> None:
    specs = [
        RunSpec(epochs=3, density=density, method=method) for density in (0.1, 0.05) for method in ("ssvi", "rigl")
    ]
    specs += [dataclasses.replace(spec, seed=1) for spec in specs]
    tracking.mirror(store, "views", write_runs(store, specs))
    experiment = client(store).get_experiment_by_name("views")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    prefix = "mlflow.sharedViewState."
    found = {
        name.removeprefix(prefix): json.loads(tag) for name, tag in experiment.tags.items() if name.startswith(prefix)
    }
    assert "viewStateShareKey=ssvi-runs" in views.address("http://there", experiment.experiment_id)
    assert {"ssvi-runs", "ssvi-settings", "ssvi-density-0.05", "ssvi-density-0.1", "ssvi-method-ssvi"} <= found.keys()
    assert found["ssvi-density-0.05"]["name"] == "Density 0.05 (95 % sparse)"
    counts = {}
    for key, view in found.items():
        state = json.loads(view["state"])
        shown = runs(store, "views", state["searchFilter"])
        counts[key] = len(shown)
        first, *_ = client(store).search_runs(
            [experiment.experiment_id], state["searchFilter"], order_by=[f"{state['orderByKey']} DESC"]
        )
        held = {f"metrics.`{name}`" for name in first.data.metrics} | {f"params.`{name}`" for name in first.data.params}
        assert set(state["selectedColumns"]) - {"params.`criterion`"} <= held
        assert set(state["selectedColumns"]) < set(state["columnOrder"]) == set(state["columnWidths"])
    assert counts["ssvi-settings"] == 4
    assert counts["ssvi-density-0.05"] == 4 + 2  # with their means
    best = runs(store, "views", "params.density = '0.05' and params.method = 'ssvi' and metrics.`final/accuracy` > 0")
    assert {run.info.run_name for run in best} == {"ssvi 0.05 s0", "ssvi 0.05 s1"}


def test_views_are_made_once_and_those_of_people_stay(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = write_runs(store, [RunSpec(epochs=3, lr=0.11)])
    tracking.mirror(store, "made once", specs)
    there = client(store)
    experiment = there.get_experiment_by_name("made once").experiment_id
    there.set_experiment_tag(experiment, "mlflow.sharedViewState.mine", "{}")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_experiment_tag", lambda *_: pytest.fail("set again"))
        tracking.mirror(store, "made once", specs)
    assert there.get_experiment(experiment).tags["mlflow.sharedViewState.mine"] == "{}"


def test_numbers_are_compared_as_numbers(store: Path) -> None:
    specs = [RunSpec(epochs=3, lr=0.12, density=density) for density in (0.5, 0.05, 0.2)]
    specs.append(RunSpec(epochs=3, lr=0.12, method="dense"))
    tracking.mirror(store, "numbers", write_runs(store, specs))
    seeds = "tags.`ssvi.run` != ''"
    sparse = runs(store, "numbers", f"metrics.`options/density` < 0.4 and {seeds}")
    assert sorted(run.data.params["density"] for run in sparse) == ["0.05", "0.2"]
    assert len(runs(store, "numbers", f"metrics.`options/density` = 1 and {seeds}")) == 1
    assert len(runs(store, "numbers", f"metrics.`options/lr` = 0.12 and metrics.`options/epochs` = 3 and {seeds}")) == 4
    assert not any("options/kl_warmup" in run.data.metrics for run in sparse)


def test_options_without_effect_are_not_told(store: Path) -> None:
    ivon = RunSpec(epochs=3, lr=0.19, posterior_optimizer="ivon", curvature_init=2.0)
    tracking.mirror(store, "effects", write_runs(store, [RunSpec(epochs=3, lr=0.19), ivon]))
    by_sgd, by_ivon = (
        runs(store, "effects", f"params.posterior_optimizer = '{how}' and tags.`ssvi.run` != ''")[0]
        for how in ("sgd", "ivon")
    )
    for told in (lambda run: {*run.data.params}, lambda run: {*run.data.metrics}):
        assert any("sigma_lr" in name for name in told(by_sgd))
        assert any("sigma_init" in name for name in told(by_sgd))
        assert not any("curvature" in name or "ivon_lr" in name for name in told(by_sgd))
        assert any("curvature_init" in name for name in told(by_ivon))
        assert not any("sigma_lr" in name or "sigma_init" in name for name in told(by_ivon))


# Means --------------------------------------------------------------------------------------------


def test_a_setting_carries_mean_interval_and_n_of_its_seeds(store: Path) -> None:
    spec, accuracies = RunSpec(epochs=3, lr=0.13), [0.9, 0.94, 0.95]
    specs = {}
    for one, accuracy in zip(with_seeds(spec, 3), accuracies, strict=True):
        specs[write_run(store, one, accuracy=accuracy)] = one
    first = dict(list(specs.items())[:2])
    tracking.mirror(store, "means", first)
    (two,) = means(store, "means")
    assert two.data.metrics["mean/accuracy"] == pytest.approx(0.92)
    client(store).set_tag(two.info.run_id, "mlflow.note.content", "for the talk")
    tracking.mirror(store, "means", specs)
    (three,) = means(store, "means")
    half = T_OF_3_SEEDS * statistics.stdev(accuracies) / 3**0.5
    found = three.data.metrics
    assert found["mean/accuracy"] == pytest.approx(statistics.mean(accuracies))
    assert found["low/accuracy"] == pytest.approx(statistics.mean(accuracies) - half)
    assert found["high/accuracy"] == pytest.approx(statistics.mean(accuracies) + half)
    assert found["n/accuracy"] == 3
    assert not any("seconds" in name for name in found if not name.startswith("options/"))
    assert three.info.run_name == "ssvi mean"
    assert three.data.tags["mlflow.note.content"] == "for the talk"
    assert three.data.tags["ssvi.seeds"] == "0, 1, 2"
    assert "seed" not in three.data.params
    assert "ssvi.left_out" not in three.data.tags
    children = runs(store, "means", f"tags.`mlflow.parentRunId` = '{three.info.run_id}'")
    assert {run.data.tags["ssvi.run"] for run in children} == specs.keys()
    assert all(name in children[0].data.metrics for name in map("final/{}".format, ("accuracy", "nll", "density")))
    assert tracking.mirror(store, "means", specs) == tracking.MirrorResult(unchanged=3)
    assert [run.info.run_id for run in means(store, "means")] == [three.info.run_id]
    assert {*AVERAGED.values(), *SUITE} >= {name.partition("/")[2] for name in found if name.startswith("mean/")}


def test_figures_of_the_suite_are_averaged_where_there_are_any(store: Path) -> None:
    specs = write_runs(store, with_seeds(RunSpec(epochs=3, lr=0.17), 2), accuracy=0.9)
    for run in specs:
        (store / "runs" / run / "uncertainty.csv").unlink()
    tracking.mirror(store, "suites", specs)
    (before,) = means(store, "suites")
    assert not any("shift" in name for name in before.data.metrics)
    for spec, accuracy in zip(specs.values(), (0.5, 0.7), strict=True):
        write_uncertainty(store, spec, shift_accuracy=accuracy)
    tracking.mirror(store, "suites", specs)
    (after,) = means(store, "suites")
    assert after.data.metrics["mean/shift_accuracy"] == pytest.approx(0.6)
    assert after.data.metrics["n/shift_accuracy"] == 2


def test_a_seed_made_anew_is_averaged_anew(store: Path) -> None:
    specs = write_runs(store, with_seeds(RunSpec(epochs=3, lr=0.14), 2), accuracy=0.9, nll=0.3)
    for number, run in enumerate(specs):
        write_run(store, specs[run], nll=0.3 + number)
    tracking.mirror(store, "anew", specs)
    changed = next(iter(specs))
    write_run(store, specs[changed], accuracy=0.5)
    assert tracking.mirror(store, "anew", specs) == tracking.MirrorResult(updated=1, unchanged=1)
    (mean,) = means(store, "anew")
    children = runs(store, "anew", f"tags.`mlflow.parentRunId` = '{mean.info.run_id}'")
    assert len(children) == 2
    finals = [run.data.metrics["final/accuracy"] for run in children]
    assert 0.5 in finals
    assert mean.data.metrics["mean/accuracy"] == pytest.approx(statistics.mean(finals))


def test_a_diverged_seed_is_named_and_not_averaged(store: Path) -> None:
    one, two, three = with_seeds(RunSpec(epochs=3, lr=0.15), 3)
    specs = {write_run(store, spec, accuracy=accuracy): spec for spec, accuracy in ((one, 0.9), (two, 0.8))}
    specs[write_run(store, three, diverged="the loss is nan at epoch 2")] = three
    tracking.mirror(store, "diverged", specs)
    (mean,) = means(store, "diverged")
    assert mean.data.metrics["n/accuracy"] == 2
    assert mean.data.metrics["mean/accuracy"] == pytest.approx(0.85)
    assert mean.data.tags["ssvi.left_out"] == "seed 2: diverged (the loss is nan at epoch 2)"
    assert mean.info.status == "FINISHED"


def test_of_a_setting_without_a_seed_that_is_complete_there_is_no_mean(store: Path) -> None:
    spec = RunSpec(epochs=3, lr=0.16)
    tracking.mirror(store, "all diverged", {write_run(store, spec, diverged="the loss is nan"): spec})
    (mean,) = means(store, "all diverged")
    assert mean.info.status == "FAILED"
    assert not any(name.startswith(("mean/", "low/", "high/")) for name in mean.data.metrics)
    assert mean.data.metrics["n/accuracy"] == 0
    assert mean.data.tags["ssvi.left_out"] == "seed 0: diverged (the loss is nan)"


def test_seeds_of_different_arithmetic_are_not_averaged(store: Path) -> None:
    specs = with_seeds(RunSpec(epochs=3, lr=0.17), 3)
    paths = {write_run(store, spec): spec for spec in specs}
    last = store / "runs" / run_path(specs[2])
    record = json.loads((last / files.SPEC).read_text())
    record["provenance"]["numerics"] = 7
    (last / files.SPEC).write_text(json.dumps(record))
    tie(last)
    tracking.mirror(store, "arithmetic", paths)
    found = {run.data.tags["ssvi.seeds"]: run for run in means(store, "arithmetic")}
    assert found.keys() == {"0, 1", "2"}
    assert found["0, 1"].data.tags["ssvi.left_out"] == "seed 2: made by another arithmetic"
    assert found["2"].data.tags["ssvi.numerics"] == "7"


def test_the_live_mirror_keeps_means_and_names(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("")
    one, two, three = with_seeds(RunSpec(epochs=3, lr=0.23), 3)
    specs = {run_path(spec): spec for spec in (one, two)}
    watcher = tracking.Watcher([config], lambda: tracking.Plan(store, {"live": (specs, tmp_path)}, "live"))
    write_run(store, one)
    watcher.step()
    assert [run.data.metrics["n/accuracy"] for run in means(store, "live")] == [1]
    write_run(store, two)
    watcher.step()
    (mean,) = means(store, "live")
    assert mean.data.metrics["n/accuracy"] == 2
    # the config has another seed and another density
    specs = write_runs(store, [one, two, three, dataclasses.replace(one, density=0.5)])
    config.write_text("changed")
    watcher.step()
    found = {run.info.run_name: run for run in runs(store, "live")}
    assert found.keys() == {
        "ssvi 0.1 s0",
        "ssvi 0.1 s1",
        "ssvi 0.1 s2",
        "ssvi 0.5 s0",
        "ssvi 0.1 mean",
        "ssvi 0.5 mean",
    }
    assert found["ssvi 0.1 mean"].data.metrics["n/accuracy"] == 3


CRASHES = ("create_run", "log_batch", "set_tag", "set_terminated", "delete_run")


@pytest.mark.fault("crash while means over seeds are made", quick=1, whole=len(CRASHES))
def test_means_that_were_cut_short_are_made_whole(store: Path, monkeypatch: pytest.MonkeyPatch, trial: int) -> None:
    crash = CRASHES[trial]
    specs = write_runs(store, with_seeds(RunSpec(epochs=3, lr=0.18), 3))
    tracking.mirror(store, crash, dict(list(specs.items())[:2]))
    real, calls = getattr(MlflowClient, crash), []

    def stop_after(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) > (crash != "delete_run"):
            real(self, *args, **kwargs)
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, crash, stop_after)
        with pytest.raises(KeyboardInterrupt):
            tracking.mirror(store, crash, specs)
    tracking.mirror(store, crash, specs)
    (mean,) = means(store, crash)
    assert mean.data.metrics["n/accuracy"] == 3
    assert len(runs(store, crash, f"tags.`mlflow.parentRunId` = '{mean.info.run_id}'")) == 3


# Stores of earlier versions -----------------------------------------------------------------------


def test_a_run_that_an_earlier_version_mirrored_is_completed_with_its_notes(store: Path) -> None:
    spec, other = with_seeds(RunSpec(epochs=3, lr=0.19), 2)
    specs = write_runs(store, [spec, other])
    tracking.mirror(store, "earlier", specs)
    there = client(store)
    for run in runs(store, "earlier", "tags.`ssvi.run` != ''"):
        for tag in ("ssvi.form", "ssvi.name"):
            there.delete_tag(run.info.run_id, tag)
        mine = run.data.tags["ssvi.run"] == run_path(spec)
        there.update_run(run.info.run_id, name="the best one" if mine else run.data.tags["ssvi.run"].split("/", 2)[2])
        there.set_tag(run.info.run_id, "mlflow.note.content", "note")
    before = {run.info.run_id for run in runs(store, "earlier", "tags.`ssvi.run` != ''")}
    assert tracking.mirror(store, "earlier", specs) == tracking.MirrorResult(updated=2)
    after = runs(store, "earlier", "tags.`ssvi.run` != ''")
    assert {run.info.run_id for run in after} == before
    assert {run.info.run_name for run in after} == {"the best one", "ssvi s1"}
    assert all(run.data.tags["mlflow.note.content"] == "note" for run in after)
    assert tracking.mirror(store, "earlier", specs) == tracking.MirrorResult(unchanged=2)


def test_names_follow_the_study_but_not_where_people_chose_one(store: Path) -> None:
    one, two = (RunSpec(epochs=3, lr=0.21, seed=seed) for seed in (0, 1))
    specs = write_runs(store, [one, two])
    tracking.mirror(store, "follow", specs)
    chosen = next(run for run in runs(store, "follow") if run.data.tags.get("ssvi.run") == run_path(two))
    client(store).update_run(chosen.info.run_id, name="mine")
    denser = dataclasses.replace(one, density=0.5)
    tracking.mirror(store, "follow", {**specs, **write_runs(store, [denser])})
    found = {run.data.tags["ssvi.run"]: run.info.run_name for run in runs(store, "follow", "tags.`ssvi.run` != ''")}
    assert found == {run_path(one): "ssvi 0.1 s0", run_path(two): "mine", run_path(denser): "ssvi 0.5 s0"}


# Pictures -----------------------------------------------------------------------------------------


def test_every_run_has_its_picture(store: Path) -> None:
    specs = [RunSpec(epochs=3, lr=0.22), RunSpec(epochs=3, lr=0.22, method="dense")]
    tracking.mirror(store, "pictures", write_runs(store, specs))
    for run in runs(store, "pictures", "tags.`ssvi.run` != ''"):
        (file,) = (one for one in client(store).list_artifacts(run.info.run_id) if one.path == "figures.png")
        assert 1_000 < file.file_size < 100_000


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_gaps_of_a_reliability_diagram_add_up_to_the_calibration_error(bins: int) -> None:
    drawn = np.random.default_rng(bins).dirichlet([0.3] * 4, 500)
    labels = np.random.default_rng(0).integers(0, 4, 500)
    found = pictures.reliability(drawn, labels, bins)
    assert found["share"].sum() == pytest.approx(1)
    gap = (found["share"] * (found["accuracy"] - found["confidence"]).abs()).sum()
    assert gap == pytest.approx(ece(torch.tensor(drawn), torch.tensor(labels), bins))


@pytest.mark.parametrize("content", [b"PK damaged", b""])
def test_predictions_that_are_none_are_named(tmp_path: Path, content: bytes) -> None:
    spec = RunSpec(epochs=3)
    run = write_run(tmp_path, spec)
    (tmp_path / "runs" / run / files.PREDICTIONS).write_bytes(content)
    with pytest.raises(UserError, match=r"predictions\.npz: not a file of predictions"):
        pictures.picture(tmp_path, run, spec, [], 15)
