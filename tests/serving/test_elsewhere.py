"""A trained network on other images than its own: the same figures of the same images, and none that is not said."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ssvi
from ssvi.cli import main
from ssvi.core.calibration import at_temperature
from ssvi.core.metrics import METRICS, evaluate_all
from ssvi.data import prepare
from ssvi.data.pixels import coloured, resized
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.card import Calibration, Inputs, Step
from ssvi.runs.identity import EVALUATED_ON
from ssvi.runs.records import read_json
from ssvi.runs.ties import check_ties
from ssvi.serving import elsewhere, sparse
from ssvi.training.measure import UNCERTAINTY

FIGURES = (*METRICS, *UNCERTAINTY)


def as_folder(data, place: Path, kind: str = "L") -> Path:
    """Test images as files in class folders."""
    for i, (image, label) in enumerate(zip(data.test_images, data.test_labels, strict=True)):
        path = place / data.classes[label] / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).convert(kind).save(path)
    return place


@pytest.fixture(scope="session")
def pictures(digits, tmp_path_factory) -> Path:
    """The test images of digits as files; no test changes them."""
    return as_folder(digits, tmp_path_factory.mktemp("pictures") / "digits")


def found(run: Path, dataset: str, part: str | None = None, root: Path = Path(), samples: int | None = None):
    predictor = ssvi.load(run)
    return elsewhere.evaluate_on(predictor, elsewhere.gather(dataset, part, predictor.card.inputs, root), samples)


def test_on_its_own_test_images_a_network_has_its_own_figures(run, data_root) -> None:
    own, record = read_json(run / files.METRICS), found(run, "digits", root=data_root)
    assert {name: record[name] for name in FIGURES} == {name: own[name] for name in FIGURES}
    for name in ("test_data", "test_images", "evaluation", "evaluation_numerics"):
        assert record[name] == own[name]
    assert "test_data" in EVALUATED_ON
    assert record["temperature"] == own["calibration"]["temperature"]
    trained = found(run, "digits", "train", data_root, samples=1)
    assert trained["test_images"] == 1437
    assert trained["evaluation"] == {"samples": 1, "bins": 15, "asked": 1}


@pytest.mark.parametrize("parted", [False, True])
def test_files_of_the_same_images_have_the_same_figures(run, pictures, tmp_path, parted) -> None:
    """Grey files of a grey network, read as colours and made grey again."""
    if parted:
        shutil.copytree(pictures, tmp_path / "all" / "test")
        shutil.copytree(pictures / "0", tmp_path / "all" / "train" / "0")
    record = found(run, f"folder:{tmp_path / 'all' if parted else pictures}")
    own = read_json(run / files.METRICS)
    assert record["part"] == ("test" if parted else None)
    assert record["test_images"] == own["test_images"]
    for name in FIGURES:
        assert record[name] == pytest.approx(own[name], rel=1e-9, abs=1e-12)


def test_classes_are_matched_by_name_and_what_is_left_out_is_said(run, pictures, tmp_path, capsys) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(pictures, folder)
    shutil.rmtree(folder / "0")  # every other class has another index than the network's
    (folder / "4").rename(folder / "four")
    (folder / "empty").mkdir()
    (folder / "7" / "notes.txt").write_text("")
    broken = sorted((folder / "2").iterdir())[0]
    broken.write_bytes(b"no image")
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    main(["evaluate", str(copy), "--on", f"folder:{folder}", "--device=cpu"])
    said = capsys.readouterr()
    (path,) = (copy / "on").iterdir()
    record = read_json(path)
    kept = np.load(run / files.PREDICTIONS)
    labels = kept["labels"]
    right = kept["probabilities"].argmax(1) == labels
    numbers = np.bincount(labels, minlength=10)
    for name in "12356789":
        known = record["by_class"][name]
        assert known["images"] == numbers[int(name)] - (name == "2")
        if name != "2":
            assert known["accuracy"] == pytest.approx(right[labels == int(name)].mean())
    assert record["test_images"] == sum(one["images"] for one in record["by_class"].values())
    assert record["accuracy"] == pytest.approx(
        sum(one["images"] * one["accuracy"] for one in record["by_class"].values()) / record["test_images"]
    )
    there = ~np.isin(labels, (0, 4)) & (np.arange(len(labels)) != int(broken.stem))
    likelihoods = kept["probabilities"][there, labels[there]]
    assert record["nll"] == pytest.approx(-np.log(likelihoods).mean(), rel=1e-6)
    assert record["classes_without_images"] == ["0", "4"]
    assert record["unknown_classes"] == {"empty": 0, "four": int(numbers[4])}
    assert record["unread_images"]["number"] == 1
    assert record["unread_images"]["first"].startswith(f"{broken}: cannot be read as an image")
    assert record["left_out"] == {".txt": 1}
    for line in (
        f"left out: {numbers[4]} images of classes that the network does not know: 'empty', 'four'",
        "no images of 2 classes of the network: '0', '4'",
        f"left out: 1 images that cannot be read, the first: {broken}: cannot",
        "left out: 1 .txt",
    ):
        assert f"note: folder:{folder}: {line}" in said.err
    assert said.out.splitlines()[-1].startswith(f"accuracy {record['accuracy']:.4f}  nll {record['nll']:.4f}")
    # the run's own files are as they were
    for name in (files.METRICS, files.PREDICTIONS, files.MODEL_CARD):
        assert (copy / name).read_bytes() == (run / name).read_bytes()


def test_a_network_with_held_out_images_is_scaled_by_their_temperature(run, data_root) -> None:
    predictor = ssvi.load(run)
    others = elsewhere.gather("digits", None, predictor.card.inputs, data_root)
    predictor.card = dataclasses.replace(predictor.card, calibration=None)
    assert elsewhere.evaluate_on(predictor, others, samples=1)["temperature"] is None
    calibration = Calibration(100, 5, 0.5, (Step(0.9, 1.0, 0.1),))
    predictor.card = dataclasses.replace(predictor.card, calibration=calibration)
    record = elsewhere.evaluate_on(predictor, others, samples=2)
    known = evaluate_all(at_temperature(predictor.average(others.images, 2).probabilities, 0.5), others.labels, 15)
    assert record["temperature"] == 0.5
    assert {name: record[f"{name}_scaled"] for name in files.CALIBRATED} == {
        name: known[name] for name in METRICS if name != "accuracy"
    }


def test_the_record_is_of_one_network_and_goes_with_it(run, pictures, tmp_path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = found(copy, f"folder:{pictures}", samples=1)
    path = elsewhere.write_on(copy, record)
    name = str(path.relative_to(copy))
    assert name == files.on_other(f"folder:{pictures}", None)
    assert check_ties(copy, name)
    elsewhere.write_on(copy, record)
    whole = read_json(path)
    path.write_text(json.dumps(whole | {"accuracy": 1.0}))
    with pytest.raises(UserError, match=r"was changed since it was written; .*delete this file and let `ssvi evaluate"):
        check_ties(copy, name)
    path.write_text(json.dumps(whole | {"files": whole["files"] | {files.MODEL: "0" * 64}}))
    with pytest.raises(UserError, match=r"was made with another model\.safetensors than lies beside it"):
        check_ties(copy, name)
    # a training in this folder deletes what is of the one before, and nothing of somebody else's
    (copy / "on" / "notes.json").write_text('{"mine": 1}')
    files.remove_outdated(copy)
    assert [one.name for one in (copy / "on").iterdir()] == ["notes.json"]
    (copy / "on" / "notes.json").rename(path)
    with pytest.raises(UserError, match="holds something else than such a record"):
        elsewhere.write_on(copy, record)
    path.unlink()
    files.remove_outdated(copy)
    assert not (copy / "on").exists()


def test_an_exported_network_says_the_same_and_writes_nothing(run, data_root, tmp_path, capsys) -> None:
    path, copy = tmp_path / "network.safetensors", tmp_path / "run"
    sparse.write(run, path)
    shutil.copytree(run, copy)
    lines = []
    for place in (copy, path):
        main(["evaluate", str(place), "--on=digits", f"--data-root={data_root}", "--device=cpu", "--samples=2"])
        lines.append(capsys.readouterr().out.splitlines()[-1])
    assert lines[0] == lines[1]
    assert [one.name for one in tmp_path.iterdir() if one not in (path, copy)] == []


def test_a_folder_is_asked_for_a_level_deeper(run, pictures, tmp_path) -> None:
    shutil.copytree(pictures, tmp_path / "all" / "scans")
    deeper = re.escape(str(tmp_path / "all" / "scans"))
    with pytest.raises(UserError, match=rf"none of these, only .*; these are folders in {deeper}: give that one\.$"):
        found(run, f"folder:{tmp_path / 'all'}")


def test_a_network_of_colours_takes_grey_images_three_times(tmp_path) -> None:
    inputs = Inputs(("9", "0"), 3, 8, (0.5,) * 3, (0.5,) * 3)
    grey = prepare("digits", tmp_path)
    others = elsewhere.gather("digits", None, inputs, tmp_path)
    kept = (grey.test_labels == 0) | (grey.test_labels == 9)
    assert torch.equal(others.images, grey.test_images[kept].expand(-1, 3, -1, -1))
    assert torch.equal(others.labels, (grey.test_labels[kept] == 0).long())
    assert others.unknown == {str(i): int((grey.test_labels == i).sum()) for i in range(1, 9)}


def test_grey_is_the_luma_that_pil_takes() -> None:
    colours = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    known = [np.array(Image.fromarray(one.permute(1, 2, 0).numpy()).convert("L")) for one in colours]
    assert torch.equal(coloured(colours, 1)[:, 0], torch.from_numpy(np.stack(known)))
    assert coloured(colours, 3) is colours


def test_images_of_another_size_are_resized_as_files_are(digits, data_root) -> None:
    inputs = Inputs(digits.classes, 3, 4, (0.5,) * 3, (0.5,) * 3)
    found = elsewhere.gather("digits", None, inputs, data_root)
    assert found.images.equal(coloured(resized(digits.test_images, 4), 3))


NAMES = st.one_of(st.sampled_from(["digits", "folder:a", "folder:a@test", "folder:../..", "folder:."]), st.text())


@given(NAMES, st.sampled_from([None, "train", "test"]), NAMES, st.sampled_from([None, "train", "test"]))
def test_each_data_set_and_part_has_a_file_of_its_own(one, part, other, another) -> None:
    a, b = files.on_other(one, part), files.on_other(other, another)
    assert (a == b) == ((one, part) == (other, another))
    assert re.fullmatch(r"on/[A-Za-z0-9%._~@-]{,200}\.json", a)
