"""Every way to predict says the same of the same images, within what the table of docs/using.md says."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from places import ROOT
from served import answered

import ssvi
from ssvi.analysis import tracking
from ssvi.cli import main
from ssvi.runs import files
from ssvi.runs.paths import run_path
from ssvi.runs.runfolder import read_spec

SAMPLES = 5
TABLE = re.compile(r"^\| (.+?) \| (0|1e-\d) \|$", re.MULTILINE)
TOLERANCES = {way: float(bound) for way, bound in TABLE.findall((ROOT / "docs/using.md").read_text())}
SLOW = {"MLflow over HTTP"}


class Case:
    """A trained run, the test images of its data set as pixels and as files, and what is expected of them."""

    def __init__(self, run: Path, pixels: torch.Tensor, room: Path) -> None:
        self.run, self.pixels, self.room = run, pixels, room
        self.paths = []
        for i, one in enumerate(pixels):
            self.paths.append(room / f"{i:03d}.png")
            Image.fromarray(one[0].numpy()).save(self.paths[-1])
        self.expected = ssvi.load(run).predict(pixels).probabilities.numpy()

    def exported(self, name: str, *flags: str) -> Path:
        main(["export", str(self.run), f"--to={self.room / name}", *flags])
        return self.room / name


def of_rows(rows: list[dict]) -> np.ndarray:
    return np.array([list(row["probabilities"].values()) for row in rows])


def predicted(case: Case, network: Path) -> np.ndarray:
    out = case.room / "rows.jsonl"
    main(["predict", str(network), *map(str, case.paths), f"--out={out}"])
    return of_rows([json.loads(line) for line in out.read_text().splitlines()])


def of_onnx(case: Case, *flags: str) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(case.exported("graph.onnx", f"--samples={SAMPLES}", *flags)))
    return session.run(["probabilities"], {"images": case.pixels.numpy()})[0]


def of_export(case: Case) -> np.ndarray:
    graph = torch.export.load(case.exported("graph.pt2", f"--samples={SAMPLES}")).module()
    return graph(case.pixels)["probabilities"].numpy()


def mirrored(case: Case) -> tuple[Path, str]:
    results, spec = case.room / "results", read_spec(case.run)
    if not results.exists():
        shutil.copytree(case.run, results / "runs" / run_path(spec))
        tracking.mirror(results, "study", {run_path(spec): spec}, models=True)
    return results, run_path(spec)


def of_pyfunc(case: Case) -> np.ndarray:
    results, _ = mirrored(case)
    client = MlflowClient(tracking_uri=tracking.tracking_uri(results))
    (model,) = client.search_logged_models([client.get_experiment_by_name("study").experiment_id])
    images = pd.DataFrame({"image": [path.read_bytes() for path in case.paths]})
    found = mlflow.pyfunc.load_model(model.artifact_location).predict(images, params={"samples": SAMPLES})
    return of_rows(found.to_dict("records"))


def over_http(case: Case) -> np.ndarray:
    results, run = mirrored(case)
    spec = read_spec(case.run)
    version = tracking.register(results, "study", {run: spec}, run, "agreement")
    images = [path.read_bytes() for path in case.paths]
    store = tracking.tracking_uri(results)
    return of_rows(answered(f"models:/agreement/{version}", store, images, case.room, SAMPLES))


def one_by_one(case: Case) -> np.ndarray:
    network = ssvi.load(case.run)
    return np.concatenate([network.predict(path).probabilities.numpy() for path in case.paths])


def of_file(case: Case, *flags: str) -> np.ndarray:
    network = ssvi.load(case.exported("network.safetensors", *flags))
    return network.predict(case.pixels).probabilities.numpy()


WAYS: dict[str, Callable[[Case], np.ndarray]] = {
    "`predictions.npz` of the run's evaluation (float32)": lambda case: np.load(case.run / files.PREDICTIONS)[
        "probabilities"
    ][: len(case.paths)],
    "`ssvi predict RUN`": lambda case: predicted(case, case.run),
    "`ssvi predict FILE.safetensors`": lambda case: predicted(case, case.exported("network.safetensors")),
    "`ssvi.load(FILE.safetensors)`": of_file,
    "`ssvi.load(RUN)`, an image at a time": one_by_one,
    "σ in bfloat16": lambda case: of_file(case, "--sigma=bfloat16"),
    "MLflow, `pyfunc.load_model`": of_pyfunc,
    "MLflow over HTTP": over_http,
    "ONNX, five samples": of_onnx,
    "`torch.export`, five samples": of_export,
    "ONNX, five samples, `--compress`": lambda case: of_onnx(case, "--compress"),
}


@pytest.fixture(scope="module")
def case(run: Path, digits, tmp_path_factory: pytest.TempPathFactory) -> Case:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Case(run, digits.test_images[:40], tmp_path_factory.mktemp("agreement"))


def test_the_table_has_every_way() -> None:
    assert list(TOLERANCES) == list(WAYS)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in SLOW])
def test_it_says_the_same(case: Case, way: str) -> None:
    found = WAYS[way](case)
    assert found.shape == case.expected.shape
    assert np.abs(found - case.expected).max() <= TOLERANCES[way]


@pytest.mark.fault("predictions over HTTP", quick=0)
@pytest.mark.parametrize("way", sorted(SLOW))
def test_it_says_the_same_when_it_is_served(case: Case, way: str) -> None:
    test_it_says_the_same(case, way)


def test_the_images_tell_networks_apart(case: Case) -> None:
    """With other weight samples, and of another class: the bounds above mean something."""
    network = ssvi.load(case.run)
    other = network.predict(case.pixels, seed=1).probabilities.numpy()
    assert np.abs(other - case.expected).max() > 1e-4
    buffer = io.BytesIO()
    Image.fromarray(255 - case.pixels[0, 0].numpy()).save(buffer, "PNG")
    assert np.abs(network.predict(buffer.getvalue()).probabilities.numpy() - case.expected[0]).max() > 1e-2
