"""How runs were made: what is never averaged, what is only said, and which times are compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import tie, with_seeds, write_run, write_runs

from ssvi.analysis import tables
from ssvi.analysis.collect import Frames, RunFolders, load_frames
from ssvi.analysis.figures import make_figure
from ssvi.analysis.figures.generic import generic
from ssvi.analysis.made import held_up, machines, one_machine, told
from ssvi.analysis.quantities import ACCURACY
from ssvi.analysis.report.beliefs import believe
from ssvi.analysis.tables.evidence import gather, which
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.spec import RunSpec

DIGITS = {"dataset": "digits", "model": "resnet8", "epochs": 12}
VI = RunSpec(method="vi", **DIGITS)
SSVI = RunSpec(density=0.1, **DIGITS)
HERE = {"device": "cpu", "cpu": "A Processor", "threads": 2, "machines": 1}


def remade(results: Path, run: str, **provenance: Any) -> None:
    """Change what spec.json says of how a run was made; what is None, it does not say."""
    path = results / "runs" / run / files.SPEC
    record = json.loads(path.read_text())
    changed = record["provenance"] | provenance
    path.write_text(json.dumps(record | {"provenance": {k: v for k, v in changed.items() if v is not None}}))
    tie(path.parent)


def study(results: Path, *made: dict[str, Any], spec: RunSpec = SSVI, **metrics: Any) -> dict[str, RunSpec]:
    """Runs of one setting, a seed for each way of being made."""
    runs = write_runs(results, with_seeds(spec, len(made)), **metrics)
    for run, provenance in zip(runs, made, strict=True):
        remade(results, run, **provenance)
    return runs


def frames(results: Path, *runs: dict[str, RunSpec], needs: tuple[str, ...] = ()) -> Frames:
    return load_frames(results, {run: spec for some in runs for run, spec in some.items()}, needs)


# What is never averaged


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        ({"computed_precision": "fp32"}, {"computed_precision": "bf16"}, "computed in bf16"),
        ({"numerics": 2}, {"numerics": 1}, "numerics 1"),
        ({"numerics": 2}, {"numerics": None}, "numerics 1"),
    ],
)
def test_other_arithmetic_is_another_row(tmp_path: Path, here: dict, there: dict, words: str) -> None:
    runs = study(tmp_path, here, here, there)
    for name in ("summary", "table1", "table2", "baselines"):
        table = tables.make_table(name, frames(tmp_path, runs))
        rows = dict(zip(table.frame["options"], table.frame["n"], strict=True))
        assert rows["" if name == "table1" else next(o for o in rows if words not in o)] == "2", name
        assert [n for options, n in rows.items() if words in options] == ["1"], name
    lines = make_figure("figure2_left", frames(tmp_path, runs)).data
    assert sorted(lines["n"]) == [1, 2]
    assert sum(words.split()[-1] in line for line in lines["series"]) == 1


@pytest.mark.parametrize(
    ("spec", "device", "precision"),
    [
        (SSVI, "cpu", "fp32"),
        (SSVI, "NVIDIA H100", "bf16"),
        (dataclasses.replace(SSVI, precision="fp32"), "NVIDIA H100", "fp32"),
        (dataclasses.replace(SSVI, precision="bf16"), "cpu", "bf16"),
        (SSVI, None, None),
    ],
)
def test_old_runs_have_the_precision_that_they_were_computed_in(tmp_path: Path, spec, device, precision) -> None:
    found = frames(tmp_path, study(tmp_path, {"device": device}, spec=spec)).runs["computed_precision"].iloc[0]
    assert found == precision if precision else pd.isna(found)


def test_an_unfinished_run_is_no_setting_of_its_own(tmp_path: Path) -> None:
    """Nor one that diverged, whose evaluation took no sample."""
    runs = study(tmp_path, {}, {}, {})
    bad = dataclasses.replace(SSVI, seed=9)
    runs[write_run(tmp_path, bad, diverged="the loss is nan", evaluation={"samples": 0, "bins": 15})] = bad
    runs["digits/not-begun"] = dataclasses.replace(SSVI, seed=8)
    table = tables.make_table("summary", load_frames(tmp_path, runs, partial=True))
    assert table.frame["n"].tolist() == ["3"]


def test_a_claim_says_that_a_setting_was_run_in_another_arithmetic(tmp_path: Path) -> None:
    other = dataclasses.replace(SSVI, density=0.05)
    dense = dataclasses.replace(SSVI, density=0.5)
    runs = study(tmp_path, {"numerics": 2}, {"numerics": 2}) | study(tmp_path, {"numerics": 2}, spec=dense)
    runs |= study(tmp_path, {"numerics": 1}, spec=other)
    evidence, *_ = gather(frames(tmp_path, runs, needs=("overlap",)).runs, pd.DataFrame({"run": []}))
    sample = evidence.sample(ACCURACY, which("ssvi", density=0.05))
    assert sample.problem == "SSVI, density 0.05: run in another arithmetic than the rest"
    assert evidence.sample(ACCURACY, which("ssvi", density=0.2)).problem == "SSVI, density 0.2: not run"


def test_a_figure_of_config_has_a_line_for_each_arithmetic(tmp_path: Path) -> None:
    runs = study(tmp_path, {"numerics": 1}, {"numerics": 2}, {"numerics": 2})
    runs |= study(tmp_path, {"numerics": 2}, spec=dataclasses.replace(SSVI, density=0.05))
    for options in ({}, {"hue": "numerics"}, {"facets": "numerics"}, {"hue": "method"}):
        drawn = generic(frames(tmp_path, runs), "mine", x="density", y="accuracy", **options).data
        assert sorted(drawn["n"]) == [1, 1, 2], options
        assert sorted(map(str, drawn["numerics"])) == ["1", "2", "2"]
    other = dataclasses.replace(SSVI, seed=9)
    runs[write_run(tmp_path, other, evaluation={"samples": 9, "bins": 15})] = other
    with pytest.raises(UserError, match=r"differ in what it does not show \(evaluation_samples: 5 and 9\)"):
        generic(frames(tmp_path, runs), "mine", x="density", y="accuracy", hue="numerics")


# What is only said


def plugin(**files: str) -> dict[str, Any]:
    """A provenance with a plugin and its files."""
    return {"plugins": [{"module": "mine", "version": None, "files": {f"{k}.py": v * 64 for k, v in files.items()}}]}


SAID = [
    ([plugin(mine="a", code="b"), plugin(mine="a"), plugin(mine="a", code="c"), {"plugins": []}, {"plugins": None}],
     "WARNING: trained by different versions of the plugin mine:code.py: "
     f"SHA-256 {'b' * 12} (1 run), SHA-256 {'c' * 12} (1)."),
    ([{"torch": "2.13.0"}] * 5 + [{"torch": "1.0"}], "Made by different versions of torch: 2.13.0 (5 runs), 1.0 (1)."),
    ([{"ssvi": "0.1.0"}, {"ssvi": None}], "Made by different versions of ssvi: 0.1.0 (1 run), not recorded (1)."),
    ([{"commit": "a"}] * 2 + [{"commit": "b" * 40}], f"Made from different commits: a (2 runs), {'b' * 12} (1)."),
    (
        [{"commit": "a" * 40, "dirty": True}] * 2,
        f"Made from different commits: {'a' * 12} with changes that were not committed (2 runs).",
    ),
    (
        [{"device": "cpu"}, {"device": "cpu"}, {"device": "NVIDIA H100", "computed_precision": "fp32"}],
        "Computed on different devices: cpu (2 runs), NVIDIA H100 (1).",
    ),
    ([{"cpu": "A"}, {"cpu": "A"}, {"cpu": None}], "Computed on different processors: A (2 runs), not recorded (1)."),
    ([{"threads": 1}, {"threads": 2}], "Computed with different numbers of threads: 1 thread (1 run), 2 threads (1)."),
    ([{"computed_precision": "fp32"}, {"computed_precision": "bf16"}],
     "Computed in different precision: bf16 (1 run), fp32 (1)."),
    ([{"torch": f"{i}.0"} for i in range(6)],
     "Made by different versions of torch: 0.0 (1 run), 1.0 (1), 2.0 (1), 3.0 (1) and 2 more."),
]  # fmt: skip


@pytest.mark.parametrize(("made", "line"), SAID, ids=[line for _, line in SAID])
def test_what_differs_is_one_line_everywhere(tmp_path: Path, made: list[dict], line: str) -> None:
    made_frames = frames(tmp_path, study(tmp_path, *made), needs=("history",))
    notes = [tables.make_table(name, made_frames).notes for name in ("summary", "choices", "claims")]
    notes += [make_figure(name, made_frames).notes for name in ("figure2_left", "curves")]
    assert all(told.count(line) == 1 for told in notes)


def test_what_is_alike_is_not_said(tmp_path: Path) -> None:
    assert list(told(frames(tmp_path, study(tmp_path, {}, {}, {})).runs)) == []
    # nor what other code of one plugin two runs use
    used = study(tmp_path / "used", plugin(mine="a", code="b"), plugin(mine="a", other="c"))
    assert list(told(frames(tmp_path / "used", used).runs)) == []
    # of a GPU neither the host's processor nor its threads
    on_gpu = [{"device": "NVIDIA H100", "cpu": cpu, "threads": n} for cpu, n in (("A", 1), ("B", 2))]
    gpu = frames(tmp_path / "gpu", study(tmp_path / "gpu", *on_gpu)).runs
    assert list(told(gpu)) == []
    assert one_machine(gpu)


# Machines and times


SESSION = {"from_step": 0, "host": "a", "device": "cpu", "cpu": "A Processor", "threads": 2}


@pytest.mark.parametrize(
    ("sessions", "n"),
    [
        (None, 1),
        ([], 1),
        ("damaged", 1),
        ([SESSION, SESSION], 1),
        ([SESSION, SESSION | {"host": "b"}], 1),
        ([SESSION, SESSION | {"threads": 1}], 2),
        ([SESSION, SESSION | {"cpu": "B"}, SESSION | {"threads": 1}], 3),
        ([SESSION | {"device": "H100"}, SESSION | {"device": "H100", "cpu": "B", "threads": 1}], 1),
        ([{"host": "a"}, {"host": "b"}], 2),
        ([{"host": "a"}, {"host": "a"}], 1),
        ([{"host": "a"}, SESSION], 2),
    ],
)
def test_sessions_are_counted_by_machine(tmp_path: Path, sessions: Any, n: int) -> None:
    runs = frames(tmp_path, study(tmp_path, {}, sessions=sessions)).runs
    assert runs["machines"].tolist() == [n]
    assert one_machine(runs) == (n == 1)
    assert any("gone on with on another processor" in line for line in told(runs)) == (n > 1)


def test_a_host_stands_in_for_a_processor_that_was_not_said(tmp_path: Path) -> None:
    runs = frames(tmp_path, study(tmp_path, {"cpu": None}, {}, sessions=[{"host": "a"}])).runs
    assert runs["cpu"].tolist() == ["of host a", "A Processor"]
    assert not one_machine(runs)


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        ({}, True),
        ({"threads": 1}, False),
        ({"cpu": "B"}, False),
        ({"cpu": None}, False),
        ({"threads": None}, False),
        ({"device": "NVIDIA H100"}, False),
    ],
)
def test_times_have_a_ratio_on_one_machine_alone(tmp_path: Path, other: dict, alike: bool) -> None:
    """Of one run of SSVI among two as of all; in table 1, the report's headlines and its speeds."""
    dense = study(tmp_path, {}, {}, spec=VI, training_seconds=100.0, step_seconds=0.25)
    precision = {"computed_precision": "fp32"}
    sparse = study(tmp_path, precision, precision | other, training_seconds=150.0, step_seconds=0.5)
    table = tables.make_table("table1", frames(tmp_path, dense, sparse))
    first, second = table.numbers.to_dict("records")
    assert (first["step_seconds_ratio_mean"], first["training_seconds_ratio_mean"]) == (1.0, 1.0)
    found = (second["step_seconds_ratio_mean"], second["training_seconds_ratio_mean"])
    assert found == (2.0, 1.5) if alike else all(map(pd.isna, found))
    assert table.frame["median step (× dense BNN)"].tolist() == ["1.00 ± 0.00", "2.00 ± 0.00" if alike else "–"]
    said = [note for note in table.notes if note.startswith("No ratio of measured times")]
    assert len(said) == (not alike)
    assert all("the dense BNN on cpu (A Processor, 2 threads)" in note for note in said)
    summary = tables.make_table("summary", frames(tmp_path, dense, sparse))
    spent = ["training time (s)", "median step (ms)", "peak memory (MB)"]
    assert (summary.frame[spent] != "–").all(axis=1).tolist() == [True, alike]
    assert any("No time or memory in rows" in note for note in summary.notes) == (not alike)
    content = {"tables": {}, "figures": {}}
    believed = believe(
        RunFolders(tmp_path, partial=True), frames(tmp_path, dense, sparse).runs, content, {"all": dense | sparse}
    )
    assert bool(believed["speeds"]) == alike


def test_runs_without_step_times_have_none(tmp_path: Path) -> None:
    """Those of an earlier version: an empty cell, and what else was measured stays."""
    runs = study(tmp_path, {}, spec=VI, step_seconds=None) | study(tmp_path, {}, {}, step_seconds=None)
    table = tables.make_table("table1", frames(tmp_path, runs))
    assert table.frame["median step (× dense BNN)"].tolist() == ["–", "–"]
    assert table.frame["training time (× dense BNN)"].tolist() == ["1.00", "1.00 ± 0.00"]
    assert not held_up(frames(tmp_path, runs).runs).any()


@pytest.mark.parametrize(
    ("seconds", "steps", "held"), [(100.0, 100, 0), (151.0, 100, 1), (149.0, 100, 0), (5.5, 3, 0), (6.5, 3, 1)]
)
def test_a_training_that_took_much_longer_than_its_steps_was_held_up(tmp_path: Path, seconds, steps, held) -> None:
    """More than half as long again, and three seconds; without its parents'."""
    times = {"training_seconds": seconds + 500, "parent_seconds": 500.0, "steps": steps, "step_seconds": 1.0}
    runs = frames(tmp_path, study(tmp_path, {}, **times)).runs
    assert int(held_up(runs).sum()) == held
    assert sum("held up" in line for line in told(runs)) == held


def test_figures_draw_no_time_over_two_machines(tmp_path: Path) -> None:
    weight = dataclasses.replace(SSVI, sampling="weight")
    runs = study(tmp_path, {}, {}) | study(tmp_path, {}, {"threads": 1}, spec=weight)
    drawn = make_figure("sampling", frames(tmp_path, runs))
    assert "training_seconds" not in set(drawn.data["quantity"])
    mine = generic(frames(tmp_path, runs), "mine", x="sampling", y="training_seconds")
    assert mine.data["sampling"].tolist() == ["local"]
    assert "Left out: points whose runs were computed on different machines." in mine.notes
    assert generic(frames(tmp_path, runs), "mine", x="sampling", y="accuracy").data["n"].tolist() == [2, 2]


def test_machines_in_words() -> None:
    rows = [HERE, HERE | {"threads": 1}, HERE | {"device": "NVIDIA H100"}, HERE | {"cpu": None}, HERE | {"machines": 2}]
    assert machines(pd.DataFrame(rows)) == [
        "2 machines in turn",
        "NVIDIA H100",
        "cpu (A Processor, 1 thread)",
        "cpu (A Processor, 2 threads)",
        "cpu (not recorded, 2 threads)",
    ]


def test_what_has_nothing_to_compare_says_so(tmp_path: Path) -> None:
    """A split may leave settings alone: a criterion without the default one, sigmas without a criterion."""
    other = dataclasses.replace(SSVI, criterion="abs_mu")
    apart = study(tmp_path, *[{"numerics": 2}] * 4) | study(tmp_path, *[{"numerics": 1}] * 4, spec=other)
    for name in ("criteria", "noise_floor"):
        drawn = make_figure(name, frames(tmp_path, apart))
        assert "difference_percent_points" not in set(drawn.data["quantity"])
        assert any(note.startswith("No difference is shown: ") for note in drawn.notes)
    warm = dataclasses.replace(VI, sigma_init=0.01)
    dense = study(tmp_path, {}, {}, spec=VI) | study(tmp_path, {}, {}, spec=warm)
    assert make_figure("figure2_right", frames(tmp_path, dense)).data["method"].dropna().unique().tolist() == ["vi"]
    alone = tables.make_table("choices", frames(tmp_path, study(tmp_path, {}, {}, spec=VI)))
    assert "Nothing to compare: of no method was a second setting run." in alone.notes
    assert not any("by chance" in note for note in alone.notes)


def test_the_report_averages_and_pairs_runs_of_one_arithmetic(tmp_path: Path) -> None:
    """The drift of sigma, and the criteria that order alike."""
    snr = dataclasses.replace(SSVI, criterion="snr")
    runs = study(tmp_path, {"numerics": 2}, {"numerics": 1}) | study(tmp_path, *[{"numerics": 2}] * 2, spec=snr)
    content = {"tables": {}, "figures": {"sigma_drift": ["all"]}}
    found = believe(RunFolders(tmp_path, partial=True), frames(tmp_path, runs).runs, content, {"all": runs})
    drifts = [(drift.setting.rpartition(", ")[2], drift.runs) for drift in found["drift"]]
    assert sorted(drifts) == [("numerics 1", 1), ("numerics 2", 1), ("numerics 2", 2)]
    assert [n for _, n in found["twins"].values()] == [1]
    caption = make_figure("sigma_drift", frames(tmp_path, runs, needs=("updates", "history"))).caption
    assert "(n = 1 to 2)" in caption
