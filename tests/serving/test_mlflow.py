"""A run's network in MLflow: what is logged predicts as the run does, here and behind a server."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from fake_runs import tie, write_run
from mlflow import MlflowClient
from PIL import Image
from served import answered

import ssvi
from ssvi.analysis import tracking
from ssvi.cli import main
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.runfolder import read_spec
from ssvi.runs.spec import RunSpec


class Logged:
    """A results folder with a mirror of one run, its network included."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.results, self.spec = folder / "results", read_spec(run)
        self.run = run_path(self.spec)
        self.folder = self.results / "runs" / self.run
        self.specs = {self.run: self.spec}
        shutil.copytree(run, self.folder)
        self.done = tracking.mirror(self.results, "study", self.specs, models=True)
        self.client = MlflowClient(tracking_uri=tracking.tracking_uri(self.results))
        self.experiment = self.client.get_experiment_by_name("study").experiment_id

    def models(self) -> list[Any]:
        return list(self.client.search_logged_models([self.experiment]))

    def mirrored(self) -> Any:
        (found,) = self.client.search_runs([self.experiment], "tags.`ssvi.run` != ''")
        return found


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Logged:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Logged(tmp_path_factory.mktemp("logged"), run)


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    return [png(seed) for seed in range(3)]


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def expected(logged: Logged, images: list[bytes], samples: int | None) -> list[dict[str, Any]]:
    rows = ssvi.load(logged.folder).predict(images, samples=samples).rows()
    return [{name: value for name, value in row.items() if name not in ("image", "abstain")} for row in rows]


def test_a_network_is_logged_once_with_its_metrics_and_data(logged: Logged) -> None:
    assert logged.done == tracking.MirrorResult(added=1, models=1)
    (model,) = logged.models()
    run = logged.mirrored()
    assert model.source_run_id == run.info.run_id
    assert model.status == "READY"
    assert run.data.tags["ssvi.model"] == model.model_id
    assert {output.model_id for output in run.outputs.model_outputs} == {model.model_id}
    found = {metric.key: metric for metric in model.metrics}
    assert found["final/accuracy"].value == run.data.metrics["final/accuracy"]
    (data,) = run.inputs.dataset_inputs
    fingerprint = json.loads((logged.folder / files.METRICS).read_text())["test_data"]
    assert data.dataset.name == found["final/accuracy"].dataset_name == "digits"
    assert data.dataset.digest == found["final/accuracy"].dataset_digest == fingerprint[:36]
    assert json.loads(data.dataset.source)["fingerprint"] == fingerprint
    again = tracking.mirror(logged.results, "study", logged.specs, models=True)
    assert again == tracking.MirrorResult(unchanged=1)
    assert len(logged.models()) == 1


def test_what_is_logged_is_code_and_data_and_says_what_it_takes(logged: Logged) -> None:
    (model,) = logged.models()
    place = Path(model.artifact_location.removeprefix("file://"))
    assert {path.name for path in (place / "artifacts/run").iterdir()} == {
        files.SPEC, files.TRAINING, files.METRICS, files.MODEL
    }  # fmt: skip
    assert not [path for path in place.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    signature = mlflow.models.Model.load(str(place)).signature
    assert signature.inputs.to_dict() == [{"type": "binary", "name": "image", "required": True}]
    assert [column.name for column in signature.outputs] == [
        "class", "probability", "predictive_entropy", "mutual_information", "cause", "probabilities"
    ]  # fmt: skip
    assert signature.params.to_dict() == [{"name": "samples", "type": "long", "default": 5, "shape": None}]
    example = json.loads((place / "serving_input_example.json").read_text())["dataframe_split"]["data"][0][0]
    (row,) = ssvi.load(logged.folder).predict(base64.b64decode(example)).rows()
    assert row["cause"] is None


@pytest.mark.parametrize("samples", [None, 1, 3])
def test_the_logged_network_predicts_as_the_run_does(logged: Logged, images: list[bytes], samples: int | None) -> None:
    (model,) = logged.models()
    params = {} if samples is None else {"samples": samples}
    found = mlflow.pyfunc.load_model(model.artifact_location).predict(pd.DataFrame({"image": images}), params=params)
    assert found.to_dict("records") == expected(logged, images, samples)


def test_an_image_that_is_none_has_a_cause_and_the_others_their_numbers(logged: Logged, images: list[bytes]) -> None:
    (model,) = logged.models()
    given = [images[0], b"no image", images[1]]
    found = mlflow.pyfunc.load_model(model.artifact_location).predict(pd.DataFrame({"image": given}))
    causes = found["cause"].tolist()
    assert causes[1]
    assert causes[::2] == [None, None]
    assert found["probability"][[0, 2]].tolist() == [row["probability"] for row in expected(logged, images[:2], None)]


def test_a_begun_model_is_replaced_and_what_was_made_twice_deleted(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", stop)
        with pytest.raises(KeyboardInterrupt):
            Logged(tmp_path, run)
    shutil.rmtree(tmp_path / "results/runs")
    again = Logged(tmp_path, run)
    assert again.done == tracking.MirrorResult(unchanged=1, models=1)
    assert [model.status for model in again.models()] == ["READY"]


def test_a_watcher_logs_the_networks_of_studies_that_ask_for_it(logged: Logged, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("")
    studies = dict.fromkeys(("asks", "does not"), (logged.specs, tmp_path))
    plan = tracking.Plan(logged.results, studies, "asks", ["asks"])
    tracking.Watcher([config], lambda: plan).step()
    for name, count in (("asks", 1), ("does not", 0)):
        experiment = logged.client.get_experiment_by_name(name).experiment_id
        assert len(logged.client.search_logged_models([experiment])) == count


def test_a_run_is_registered_once_under_a_name(logged: Logged) -> None:
    def register(name: str) -> str:
        return tracking.register(logged.results, "study", logged.specs, logged.run, name)

    assert [register("digits net"), register("digits net"), register("other")] == ["1", "1", "1"]
    (version,) = logged.client.search_model_versions("name = 'digits net'")
    (model,) = logged.models()
    assert version.source == model.artifact_location
    assert version.tags["ssvi.model"] == model.model_id
    assert version.run_id == logged.mirrored().info.run_id


def test_what_is_not_mirrored_yet_is_mirrored_when_it_is_registered(logged: Logged) -> None:
    version = tracking.register(logged.results, "new", logged.specs, logged.run, "new")
    assert version == "1"
    experiment = logged.client.get_experiment_by_name("new").experiment_id
    assert len(logged.client.search_logged_models([experiment])) == 1


def alter(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "x" * 101, "'", "a\nb", "\u00e4"])
def test_a_name_that_is_none_is_refused(logged: Logged, name: str) -> None:
    with pytest.raises(UserError, match=r"^the name is .*, but must be of up to 100 letters"):
        tracking.register(logged.results, "study", logged.specs, logged.run, name)


def test_what_has_no_network_is_not_registered(logged: Logged, tmp_path: Path) -> None:
    diverged, waiting = (dataclasses.replace(logged.spec, seed=seed) for seed in (5, 6))
    specs = {run_path(spec): spec for spec in (diverged, waiting)}
    folder = logged.results / "runs" / run_path(diverged)
    shutil.copytree(logged.folder, folder)
    alter(folder / files.SPEC, spec=vars(diverged))
    for name in (files.TRAINING, files.METRICS):
        alter(folder / name, status="diverged", cause="the loss is nan", diverged_epoch=1)
    tie(folder)
    with pytest.raises(UserError, match="diverged in epoch 1, so there is no network to use"):
        tracking.register(logged.results, "study", specs, run_path(diverged), "none")
    with pytest.raises(UserError, match="is not finished, so there is no network to log"):
        tracking.register(logged.results, "study", specs, run_path(waiting), "none")
    with pytest.raises(UserError, match="there is no mirror"):
        tracking.register(tmp_path, "study", specs, run_path(waiting), "none")
    assert not logged.client.search_model_versions("name = 'none'")
    assert tracking.mirror(logged.results, "diverged", specs, models=True).refused.keys() == {run_path(diverged)}


def test_ssvi_register_finds_the_study_of_a_run(logged: Logged, tmp_path: Path, capsys: Any) -> None:
    names = ("dataset", "model", "width", "density", "epochs", "lr", "batch_size", "delta_t")
    names += ("mu_init_sd", "sigma_init", "prior_sigma")
    train = {name: getattr(logged.spec, name) for name in names}
    studies = {"study": {"train": train, "experiments": {"one": {"method": "ssvi", "seed": [0]}}}}
    config = {"study": "study", "results": str(logged.results), "reports": "reports", "data_root": "data"}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({**config, "evaluation": {"samples": 5, "bins": 15}, "studies": studies}))
    main(["register", str(logged.folder), "by command", f"--config={path}"])
    assert capsys.readouterr().out.startswith("ssvi register: by command version 1 (models:/by command/1): ")
    other = RunSpec(epochs=3, seed=9)
    with pytest.raises(SystemExit, match="is a run of no study of this config"):
        main(["register", str(logged.results / "runs" / write_run(logged.results, other)), "x", f"--config={path}"])


@pytest.mark.fault("a network behind MLflow's server", quick=0)
def test_mlflow_serves_a_registered_network(logged: Logged, images: list[bytes], tmp_path: Path) -> None:
    version = tracking.register(logged.results, "study", logged.specs, logged.run, "served")
    found = answered(
        f"models:/served/{version}", tracking.tracking_uri(logged.results), [*images, b"no image"], tmp_path
    )
    *found, last = found
    assert found == expected(logged, images, 3)
    assert all(row["mutual_information"] is not None and row["predictive_entropy"] > 0 for row in found)
    assert last["cause"]
    assert last["probability"] is None
