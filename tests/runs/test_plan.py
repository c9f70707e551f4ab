"""The plan of a dry run: what is done, what is to do, and how long it will take."""

import dataclasses
from pathlib import Path

import pytest
from fake_runs import with_seeds, write_run

from ssvi.runs.paths import run_path
from ssvi.runs.plan import make_plan, to_text
from ssvi.runs.spec import RunSpec

SSVI = RunSpec(method="ssvi", epochs=10)
VI = RunSpec(method="vi", epochs=20)


def test_counts_and_hours(tmp_path: Path) -> None:
    specs = {run_path(s): s for s in [*with_seeds(SSVI), *with_seeds(VI), dataclasses.replace(SSVI, model="mlp")]}
    ssvi, vi, mlp = list(specs)[:3], list(specs)[3:6], list(specs)[6:]
    for seed, seconds in enumerate((100.0, 300.0)):
        write_run(tmp_path, with_seeds(SSVI)[seed], epochs=10, training_seconds=seconds)
    due = [ssvi[2], *vi, *mlp]
    whole, first, second, third = make_plan(tmp_path, {"a": ssvi, "b": [*ssvi, *vi], "c": mlp}, specs, due, due)
    assert (whole.name, whole.runs, whole.done, whole.to_do) == ("in all", 7, 2, 5)
    assert whole.hours is None
    assert (first.to_do, first.hours) == (1, pytest.approx(10 * 20 / 3600))
    # No VI run is done yet: its epochs are taken to cost what the other runs' of the network do.
    assert (second.to_do, second.hours) == (4, pytest.approx((10 + 3 * 20) * 20 / 3600))
    assert (third.to_do, third.hours) == (1, None)
    # one that is only to be evaluated anew takes no training
    (again, *_) = make_plan(tmp_path, {}, {run: specs[run] for run in ssvi[:2]}, (), ssvi[:1])
    assert (again.done, again.to_do, again.hours) == (1, 1, 0)
    text = to_text("digits", [whole, first, second, third])
    assert "in all     7     2      5      ?" in text


def test_a_damaged_folder_does_not_stop_the_plan(tmp_path: Path) -> None:
    run = write_run(tmp_path, SSVI)
    (tmp_path / "runs" / run / "training.json").write_text("{")
    (item,) = make_plan(tmp_path, {}, {run: SSVI}, (), ())
    assert (item.done, item.to_do, item.hours) == (1, 0, 0)
