"""A run's network in MLflow, beside its metrics and ready to be served."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imsave
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    RunTag,
)
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Map

from ssvi import __version__
from ssvi.analysis.records import run_folder
from ssvi.analysis.tracking import experiment as experiments
from ssvi.analysis.tracking.experiment import Experiment, Known
from ssvi.analysis.tracking.options import params_of
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.card import Card, read_card
from ssvi.runs.spec import RunSpec

NAME = "network"
CODE = Path(__file__).with_name("served.py")
# Of a run folder: what `ssvi.load` reads.
NEEDED = (files.SPEC, files.TRAINING, files.METRICS, files.MODEL)
DIGEST_LENGTH = 36  # of a data set, in MLflow


def log_network(experiment: Experiment, results: Path, run: str, spec: RunSpec) -> bool:
    """See to it that a mirrored run's network is in MLflow, with its metrics and data set; returns whether it was not.

    Raises:
        UserError: if the run is not mirrored whole, or there is no network that could be used.
    """
    known = next((known for known in experiment.runs.get(run, []) if known.digest is not None), None)
    folder = run_folder(results, run)
    if known is None:
        raise UserError(f"{folder}: is not finished, so there is no network to log: train and evaluate it first.")
    if known.model is not None:
        return False
    card, client = read_card(folder), experiment.client
    params = {param.key: param.value for param in params_of(spec)}
    model = client.create_logged_model(experiment.id, NAME, known.run_id, {experiments.RUN: run}, params, spec.method)
    with tempfile.TemporaryDirectory() as room:
        _save(Path(room), folder, card, model, known)
        client.log_model_artifacts(model.model_id, str(Path(room) / NAME))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(known.run_id, [LoggedModelOutput(model.model_id, 0)])
    data = _data_set(spec, card)
    if data is not None:
        client.log_inputs(known.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "test")])])
    metrics = _metrics(experiment, known, model, data)
    client.log_batch(known.run_id, metrics=metrics, tags=[RunTag(experiments.MODEL, model.model_id)])
    for other in client.search_logged_models([experiment.id], f"source_run_id = '{known.run_id}'"):
        if other.model_id != model.model_id:  # begun by a call that was cut short, or whose answer was lost
            client.delete_logged_model(other.model_id)
    known.model = model.model_id
    return True


def _save(room: Path, folder: Path, card: Card, model: LoggedModel, known: Known) -> None:
    """The network as MLflow keeps it, in `room`: its files and the code that reads them."""
    from mlflow import pyfunc

    (room / "run").mkdir()
    for name in NEEDED:
        shutil.copyfile(folder / name, room / "run" / name)
    pyfunc.save_model(
        room / NAME,
        python_model=str(CODE),
        artifacts={"run": str(room / "run")},
        signature=signature(card),
        input_example=(pd.DataFrame({"image": [_example(card)]}), {"samples": card.samples}),
        pip_requirements=[f"ssvi=={__version__}"],
        mlflow_model=Model(model.artifact_location, known.run_id, model_uuid=model.model_id, model_id=model.model_id),
    )


def signature(card: Card) -> ModelSignature:
    """What goes into a served network, and what comes out; an image is base64 in JSON."""
    outputs = Schema(
        [
            ColSpec(DataType.string, "class", required=False),
            ColSpec(DataType.double, "probability", required=False),
            ColSpec(DataType.double, "predictive_entropy", required=False),
            ColSpec(DataType.double, "mutual_information", required=False),
            ColSpec(DataType.string, "cause", required=False),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
    )
    params = ParamSchema([ParamSpec("samples", DataType.long, card.samples)])
    return ModelSignature(Schema([ColSpec(DataType.binary, "image")]), outputs, params)


def _example(card: Card) -> bytes:
    """A PNG file of an image from dark to bright."""
    side = card.inputs.image_size
    buffer = io.BytesIO()
    imsave(buffer, np.linspace(0, 1, side * side).reshape(side, side), cmap="gray", format="png")
    return buffer.getvalue()


def _data_set(spec: RunSpec, card: Card) -> Dataset | None:
    """The images that the run was tested on, told by their fingerprint (of versions before, with the training images);
    None of versions that took none."""
    fingerprint: Any = card.provenance.get("test_data") or card.provenance.get("data")
    if fingerprint is None:
        return None
    source = json.dumps({"dataset": spec.dataset, "fingerprint": fingerprint})
    return Dataset(spec.dataset, fingerprint[:DIGEST_LENGTH], "local", source)


def _metrics(experiment: Experiment, known: Known, model: LoggedModel, data: Dataset | None) -> list[Metric]:
    """The run's final metrics as those of the network on the data set."""
    return [
        Metric(
            point.key,
            point.value,
            point.timestamp,
            0,
            model_id=model.model_id,
            dataset_name=data and data.name,
            dataset_digest=data and data.digest,
            run_id=known.run_id,
        )
        for point in experiment.finals(known.run_id)
    ]
