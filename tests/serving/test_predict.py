"""`ssvi predict`: the same numbers in every format, a row for every image, no name that acts."""

import csv
import dataclasses
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hiding import without
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ssvi
from ssvi.cli import main
from ssvi.core.prediction import entropy
from ssvi.machine import extras, process
from ssvi.runs import files
from ssvi.runs.card import Step
from ssvi.serving import progress, rows, sparse
from ssvi.serving.predictor import Predictions

HERE = "--device=cpu"
NONE = "cannot be read as an image (none of PNG, JPEG, BMP, WEBP, GIF, TIFF, PPM); replace or delete it"


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def numbers(table: list[dict[str, str]]) -> np.ndarray:
    """Probabilities [n, classes], NaN where a cell is empty."""
    return np.array([[float(v or "nan") for name, v in row.items() if name.startswith(rows.CLASS)] for row in table])


# Numbers ------------------------------------------------------------------------------------------


def test_files_are_predicted_as_the_evaluation_predicts_the_data_set(run, pictures, predict, digits) -> None:
    code, out, said = predict(run, pictures, "--batch-size", len(digits.test_images))
    assert (code, said) == (0, [])
    found = sorted(table(out), key=lambda row: Path(row["image"]).name)
    assert len(found) == len(digits.test_images)
    kept = np.load(run / files.PREDICTIONS)["probabilities"]
    assert np.abs(numbers(found) - kept).max() < 1e-7
    assert [int(row["class"]) for row in found] == kept.argmax(1).tolist()


@pytest.mark.parametrize("asked", [{}, {"samples": 2, "seed": 3, "coverage": 0.8, "calibrated": True}])
def test_run_file_and_python_give_the_same_numbers(run, pictures, predict, tmp_path, asked) -> None:
    exported = tmp_path / "network.safetensors"
    sparse.write(run, exported)
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in asked.items()]
    outputs = [predict(network, pictures / "first", "--format=jsonl", *flags)[1] for network in (run, exported)]
    assert outputs[0] == outputs[1]
    paths = sorted((pictures / "first").iterdir())
    assert [json.loads(line) for line in outputs[0].splitlines()] == ssvi.load(run).predict(paths, **asked).rows()


def test_batches_are_of_the_same_network(run, pictures, predict) -> None:
    whole, parts = (numbers(table(predict(run, pictures / "first", f"--batch-size={n}")[1])) for n in (40, 7))
    assert np.abs(whole - parts).max() < 1e-6


def test_each_format_holds_the_same(run, pictures, predict, tmp_path) -> None:
    import pyarrow.parquet

    words = (run, pictures / "first", tmp_path / "missing.png", "--coverage=0.5", "--batch-size=16")
    for suffix in rows.FORMATS:
        assert predict(*words, "--out", tmp_path / f"rows.{suffix}")[0] == 3
        assert predict(*words, "--format", suffix)[1] == (tmp_path / f"rows.{suffix}").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    flat = [
        {**{name: line[name] for name in rows.COLUMNS}, **{f"p:{name}": p for name, p in line["probabilities"].items()}}
        for line in lines
    ]
    assert len(flat) == 41
    assert None in flat[-1].values()
    assert pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist() == flat
    cells = [{name: "" if value is None else str(value) for name, value in row.items()} for row in flat]
    assert table((tmp_path / "rows.csv").read_bytes()) == cells


def test_it_abstains_below_the_threshold_that_it_says(run, pictures, predict) -> None:
    card = ssvi.load(run).card
    step = card.calibration.by_coverage(0.8)
    code, out, said = predict(run, pictures, "--coverage=0.8")
    unsure = [row["abstain"] == "True" for row in table(out)]
    assert code == 0
    assert unsure == [bool(p < step.threshold) for p in numbers(table(out)).max(1)]
    assert 0 < sum(unsure) < len(unsure)
    assert said == [
        f"abstains below a probability of {step.threshold:.4g}: of {card.calibration.images} validation images that "
        f"kept {step.coverage:.1%}, of which {step.risk:.2%} were wrong",
        f"abstained on {sum(unsure)} of {len(unsure)} images (kept {1 - sum(unsure) / len(unsure):.1%})",
    ]
    _, calibrated, said = predict(run, pictures, "--coverage=0.8", "--calibrated", "--samples=1")
    assert said[0].endswith(
        "; that is the probability before the temperature; they were predicted with 5 weight samples, not 1"
    )
    of_one = predict(run, pictures, "--coverage=0.8", "--samples=1")[1]
    assert [row["abstain"] for row in table(calibrated)] == [row["abstain"] for row in table(of_one)]
    assert np.abs(numbers(table(calibrated)) - numbers(table(of_one))).max() > 0


def test_a_network_that_gives_no_numbers_says_so(run, pictures) -> None:
    network = ssvi.load(run)
    with torch.no_grad():
        next(p for p in network.model.parameters() if p.dim() == 1).fill_(torch.nan)
    (row,) = network.predict([pictures / "100.png"]).rows()
    assert row["cause"] == "the network gives no finite numbers for it"
    assert {row["class"], row["probability"], *row["probabilities"].values()} == {None}


# Images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_a_list_on_standard_input_stands_among_the_others(run, pictures, predict, monkeypatch, separator) -> None:
    names = [str(pictures / f"{i}.png") for i in (102, 101)]
    content = "".join(f"{name}{separator}" for name in names)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    code, out, _ = predict(run, pictures / "200.png", "-", pictures / "201.png")
    assert code == 0
    assert [Path(row["image"]).stem for row in table(out)] == ["200", "102", "101", "201"]


def test_what_cannot_be_read_has_its_cause_and_the_rest_its_numbers(run, pictures, predict, tmp_path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("I;16", (8, 8), 4000).save(tmp_path / "deep.png")
    good = [pictures / "100.png", pictures / "101.png"]
    places = [good[0], *(tmp_path / f"{name}.png" for name in ("gone", "bad", "pipe", "deep")), good[1]]
    code, out, said = predict(run, *places, "--coverage=1")
    found = table(out)
    assert code == 3
    assert [row["image"] for row in found] == [str(place) for place in places]
    assert [row["cause"] for row in found] == [
        "",
        "No such file or directory",
        NONE,
        "is not a file",
        "has 12-bit values in 16 bits, and no image of the training says of how many; save it with 8 bits",
        "",
    ]
    assert all({*row.values()} == {row["image"], row["cause"], ""} for row in found[1:5])
    assert np.array_equal(numbers([found[0], found[-1]]), numbers(table(predict(run, *good)[1])))
    assert said[1:] == [
        "abstained on 0 of 2 images (kept 100.0%)",
        f"4 of 6 images could not be read: first {places[1]}: No such file or directory",
    ]


def test_nothing_readable_leaves_no_picture(run, predict, tmp_path) -> None:
    code, out, said = predict(run, tmp_path / "gone.png", "--sheet", tmp_path / "sheet.png")
    assert (code, len(table(out)), len(said)) == (3, 1, 2)
    assert said[0] == f"no {tmp_path}/sheet.png: there is nothing to show"
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["PICTURES/none"], "PICTURES/none: has no images; files that end in .* are read."),
        (["-", "-"], "- is given twice, but standard input has one list."),
        (["-"], "standard input: has no paths of images."),
        (["PICTURES/100.png", "--risk=0"], r"risk is 0, but of the \d+ validation images no confident part .*"),
        (["PICTURES", "--sheet=PICTURES/100.png"], "--sheet is '.*', which is one of the images; name another file."),
    ],
)
def test_a_mistake_is_one_line_and_no_row(run, pictures, predict, monkeypatch, words, line) -> None:
    (pictures / "none").mkdir(exist_ok=True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    if "--risk=0" in words:  # of this network perhaps some are never wrong
        never = (Step(0.9, 0.5, 0.1), Step(0.1, 1.0, 0.2))
        card = ssvi.load(run).card
        card = dataclasses.replace(card, calibration=dataclasses.replace(card.calibration, curve=never))
        monkeypatch.setattr("ssvi.serving.predictor.read_card", lambda folder: card)
    code, out, said = predict(run, *(word.replace("PICTURES", str(pictures)) for word in words))
    (pictures / "none").rmdir()
    assert (out, len(said)) == (b"", 1)
    assert re.fullmatch(f"ssvi: {line}", said[0].replace(str(pictures), "PICTURES")), said
    assert code == said[0]  # which sys.exit prints, and ends with 1


# Names --------------------------------------------------------------------------------------------


def test_no_name_of_a_file_acts_in_a_spreadsheet_or_a_terminal(run, pictures, predict, tmp_path, monkeypatch) -> None:
    odd = ["=1+1.png", "-2+3;=cmd.png", "a\nb.png", "\x1b[31mred.png", "\u202etxt.png", "-1.png"]
    for name in [*odd, os.fsdecode(b"\xff.png")]:
        (tmp_path / name).write_bytes((pictures / "100.png").read_bytes())
    (tmp_path / "@bad\x1b[0m.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    outputs = {form: predict(run, ".", f"--format={form}") for form in rows.FORMATS}
    code, out, said = outputs["csv"]
    assert code == 3
    assert {row["image"] for row in table(out)} == {
        *("'=1+1.png", "'-2+3;'=cmd.png", "a\\nb.png", "\\x1b[31mred.png", "\\u202etxt.png", "'-1.png"),
        *("\\udcff.png", "'@bad\\x1b[0m.png"),
    }
    assert said == [f"1 of 8 images could not be read: first @bad\\x1b[0m.png: {NONE}"]
    lines = [json.loads(line) for line in outputs["jsonl"][1].splitlines()]
    assert {line["image"] for line in lines} == {*odd, "\\udcff.png", "@bad\x1b[0m.png"}
    assert b"\x1b" not in outputs["csv"][1] + outputs["jsonl"][1]
    assert outputs["parquet"][1].startswith(b"PAR1")


CLASSES = ("image", "p:image", "=1+1", "a\nb", "a\\nb", "\ud800", "\\ud800", "cause (2)")


@pytest.mark.parametrize("form", rows.FORMATS)
def test_classes_may_be_called_anything(form) -> None:
    import pyarrow.parquet

    p = torch.arange(1, 9, dtype=torch.float64)[None] / 36
    part = Predictions(("an image",), CLASSES, 5, p, entropy(p), entropy(p), p.max(1).values, (None,))
    content = b"".join(rows.FORMATS[form]([part], CLASSES))
    if form == "jsonl":
        row = json.loads(content)
        found, label = row["probabilities"], row["class"]
    else:
        (row,) = table(content) if form == "csv" else pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
        assert row["image"] == "an image"
        found, label = {name.removeprefix("p:"): p for name, p in row.items() if name not in rows.COLUMNS}, row["class"]
    assert [float(value) for value in found.values()] == p[0].tolist()
    assert label == "cause (2)"
    formula, lines = ("'=1+1", ["a\\nb", "a\\nb (2)"]) if form == "csv" else ("=1+1", ["a\nb", "a\\nb"])
    assert [*found] == ["image", "p:image", formula, *lines, "\\ud800", "\\ud800 (2)", "cause (2)"]


@given(st.lists(st.sampled_from(["a", "a (2)", "a (3)", "a (2) (2)", "b"])))
def test_names_that_look_alike_are_told_apart(names) -> None:
    found = rows.distinct(names)
    assert len({*found}) == len(found) == len(names)
    assert all(own.startswith(name) for own, name in zip(found, names, strict=True))
    if len({*names}) == len(names):
        assert [*found] == names


# What else it is ----------------------------------------------------------------------------------


def test_rows_come_batch_by_batch_until_nobody_reads_on(run, pictures, monkeypatch) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(process.Output(write, "w", closefd=False))))
    seen: list[bytes] = []
    predicted = 0

    def counting(parts, tally, extremes, advance):
        nonlocal predicted
        for part in parts:
            predicted += 1
            yield part
            if predicted == 2:
                seen.append(os.read(read, 1 << 20))
                os.close(read)

    monkeypatch.setattr("ssvi.cli.predict._watched", counting)
    with pytest.raises(SystemExit, match=r"^ssvi: standard output: Broken pipe"):
        main(["predict", str(run), str(pictures), "--batch-size=10", HERE])
    os.close(write)
    assert len(table(seen[0])) == 20
    assert predicted == 3


@pytest.mark.parametrize("live", [True, False])
def test_a_bar_says_how_many_of_all_are_done(capsys, live: bool) -> None:
    with progress.bar(40, live) as advance:
        advance(16)
        advance(24)
    said = capsys.readouterr()
    assert ("40/40" in said.err) == live
    assert (said.err == "", said.out) == (not live, "")


def test_no_parquet_on_a_terminal(run, pictures, predict, monkeypatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, said = predict(run, pictures, "--format=parquet")
    assert (out, said) == (b"", [code])
    assert code == "ssvi: --format is parquet, which is nothing for a terminal; name a file by --out."


def test_without_pyarrow_parquet_is_one_line(run, pictures, predict, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "rows.parquet"
    out.write_text("old")
    code, _, said = predict(run, pictures, "--out", out)
    assert said == [code]
    assert code == f"ssvi: ssvi predict needs pyarrow, which is not installed here: {extras.install('pipeline')}"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
    assert out.read_text() == "old"


@pytest.mark.fault("predicting without the packages of any extra", quick=0)
def test_it_needs_no_more_than_torch_and_pillow(run, pictures) -> None:
    """In a process of its own, which also shows the exit code."""
    heavy = tuple(name for names in extras.EXTRAS.values() for name in names)
    words = ("predict", str(run), "100.png", "gone.png", "--sheet=../sheet.png", HERE, "--threads=1")
    done = without((*heavy, "scipy", "sklearn", "rich"), "ssvi", *words, folder=pictures)
    assert (done.returncode, done.stderr) == (
        3,
        "1 of 2 images could not be read: first gone.png: No such file or directory\n",
    )
    assert len(done.stdout.splitlines()) == 3
    assert (pictures.parent / "sheet.png").read_bytes().startswith(b"\x89PNG")
