"""Every number that an option may have: it is refused in one line, or the run ends and says how it went."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ssvi.data import Data
from ssvi.errors import UserError
from ssvi.registry import KINDS, using
from ssvi.runs import files
from ssvi.runs.options import FIELDS, options_of
from ssvi.runs.parents import parents_of
from ssvi.runs.paths import run_path
from ssvi.runs.records import read_jsonl
from ssvi.runs.runfolder import read_spec, read_training
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.runs.values import LARGEST, SMALLEST, validate
from ssvi.training.evaluate import evaluate
from ssvi.training.progress import Lines
from ssvi.training.step import Machine
from ssvi.training.trainer import Settings, Trainer

CPU = torch.device("cpu")
# Two steps, each of which may change the subspace, the masks or the gates.
TINY = {"model": "mlp", "width": 0.1, "epochs": 1, "batch_size": 600, "delta_t": 1, "mask_period": 1}
PARENTS = {"pruned": "vi", "sbp": "dense", "ensemble": "static"}
NATURAL = ("ivon_lr", "curvature_memory", "curvature_beta", "curvature_init", "step_clip")
# What an option does nothing without.
WITH = {
    "exp_lambda": {"criterion": "e_exp"},
    "grow_sigma_value": {"grow_sigma": "constant"},
    "addition_samples": {"addition": "mcK"},
    **{name: {"posterior_optimizer": "ivon"} for name in NATURAL},
}
# What makes a network larger, or a training longer, and is no number that anything is computed with.
SIZES = {"seed", "width", "image_size", "epochs", "batch_size", "members", "addition_samples", "widening"}
NUMERIC = [name for name, field in FIELDS.items() if type(field.default) in (int, float)]


def ends(name: str, whole: bool) -> list[float]:
    """The numbers at the ends of an option's range, and the least that float32 holds; on the whole, also those that
    it holds and whose squares it does not."""
    meta, kind = FIELDS[name].metadata, type(FIELDS[name].default)
    low = LARGEST[kind] * -1 if meta["low"] is None else meta["low"]
    high = LARGEST[kind] if meta["high"] is None else meta["high"]
    between = [SMALLEST, *([1e-20, 1e20] if whole else [])] if kind is float else []
    inside = [v for v in dict.fromkeys([low, *between, high]) if low <= v <= high]
    return [kind(v) for v in inside if not (meta["open_low"] and v == low)]


def spec_of(method: str, **options: object) -> RunSpec:
    parent = PARENTS.get(method)
    given = {**TINY, "method": method, **({"parent": f"{parent},batch_size=700,epochs=1"} if parent else {}), **options}
    return make_spec({name: value for name, value in given.items() if name in options_of(method)})


def cases(method: str, whole: bool) -> Iterator[tuple[str, float]]:
    """The options and values to try with a method: each option with the first method that uses it and with ssvi, or, on
    the whole, with all."""
    for name in sorted(set(NUMERIC) & options_of(method) - SIZES):
        if whole or method in (using(name)[0], "ssvi"):
            yield from ((name, value) for value in ends(name, whole))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def trained(spec: RunSpec, digits: Data, results: Path) -> Path:
    folder = results / run_path(spec)
    if not files.is_trained(folder):
        lineage = [trained(parent, digits, results) for parent in parents_of(spec)]
        Trainer(spec, digits, folder, Settings(Machine(CPU), 1e9), Lines(), lineage).run()
    return folder


@pytest.mark.fault("extreme numbers")
@pytest.mark.parametrize("method", KINDS)
def test_a_run_of_extreme_numbers_is_refused_or_ends(method, digits, results, request, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody pulls the plug, and waiting for disks is most of the time
    refused: list[tuple[str, str]] = []
    for name, value in cases(method, request.config.getoption("--all-trials")):
        try:
            spec = spec_of(method, **WITH.get(name, {}), **{name: value})
            folder = trained(spec, digits, results)
        except UserError as error:
            refused.append((name, str(error)))
            continue
        assert read_spec(folder) == spec
        training = read_training(folder)
        assert (training["status"] == "complete") == (training["cause"] is None), (name, value)
        metrics = evaluate(spec, digits, folder, CPU, 1, 15)
        assert metrics["status"] == "diverged" or math.isfinite(metrics["nll"])
    assert all(name in line and len(line.splitlines()) == 1 for name, line in refused)


def test_every_numeric_option_is_tried() -> None:
    tried = {name for method in KINDS for name, _ in cases(method, whole=False)}
    assert tried | SIZES == set(NUMERIC)
    assert not tried & SIZES


@pytest.mark.parametrize("name", NUMERIC)
def test_what_no_machine_number_can_be_is_refused_in_one_line(name: str) -> None:
    """Beyond what float32 and counters hold, and between 0 and what float32 holds."""
    kind = type(FIELDS[name].default)
    beyond = [LARGEST[kind] * 2, -LARGEST[kind] * 2, 10**400, -(10**400), 10**5000]
    if kind is float:
        small = [math.nextafter(SMALLEST, 0), 1e-40, 1e-300, 5e-324]
        beyond += [math.nan, math.inf, -math.inf, 1e300, *small, *(-value for value in small)]
    for value in beyond:
        with pytest.raises(UserError, match=rf"^here: {name} is .*, but must be ") as caught:
            validate({name: value}, "here")
        assert len(str(caught.value)) < 200
    for value in ends(name, whole=True):
        validate({name: value}, "here")


def test_minus_zero_is_zero() -> None:
    spec = make_spec({"method": "dense", "weight_decay": -0.0})
    assert math.copysign(1, spec.weight_decay) == 1
    assert run_path(spec) == run_path(make_spec({"method": "dense", "weight_decay": 0}))


def test_the_members_of_an_ensemble_have_a_density_too() -> None:
    with pytest.raises(UserError, match=r"^here: density is 1.2e-38, too small for the shares"):
        make_spec({"method": "ensemble", "density": 1.2e-38, "members": 3, "parent": "static"}, "here")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_record_that_is_not_finite_ends_the_run_as_diverged(value: float, digits, tmp_path, monkeypatch) -> None:
    trainer = Trainer(spec_of("ssvi"), digits, tmp_path, Settings(Machine(CPU), 1e9), Lines())
    monkeypatch.setattr(trainer.method, "after_step", lambda *_: {"step": 1, "layers": [{"snr": {"q50": value}}]})
    assert trainer.run()["cause"] == "a figure of the subspace update of step 1 is not finite"
    assert read_training(tmp_path)["status"] == "diverged"
    assert read_jsonl(tmp_path / files.TOPOLOGY) == []
