"""What was evaluated with other samples or bins than the config says is told from the files, and not averaged."""

import importlib
import json
import re

import pytest
from fake_runs import EVALUATION, tie, write_run
from hypothesis import given
from hypothesis import strategies as st

from ssvi.analysis import collect
from ssvi.methods.chain import Chain
from ssvi.registry import KINDS
from ssvi.runs import files
from ssvi.runs.evaluated import evaluated_otherwise, to_evaluate
from ssvi.runs.spec import RunSpec, make_spec

PARENT = {"pruned": "vi", "ensemble": "rigl"}
SPECS = {name: make_spec({"method": name, **({"parent": PARENT[name]} if name in PARENT else {})}) for name in KINDS}
KEPT = 3
counts = st.integers(1, 9)


def used(spec: RunSpec, asked: int) -> int:
    """The samples that a method predicts with: as many as asked for, the states it has kept, its members, or one."""
    if spec.method == "ensemble":
        return spec.members
    code = getattr(importlib.import_module(f"ssvi.methods.{KINDS[spec.method].code.split(':')[0].split('.')[-1]}"),
                   KINDS[spec.method].code.split(":")[1])  # fmt: skip
    if issubclass(code, Chain):
        return min(asked, KEPT)
    return asked if KINDS[spec.method].posterior else 1


@given(st.sampled_from(sorted(SPECS)), counts, counts, counts, counts, st.booleans())
def test_it_is_told_whether_another_evaluation_would_give_other_numbers(
    method, asked, bins, wanted, wanted_bins, old
) -> None:
    """Never called right where it would not; called wrong without need only where chains kept fewer than either."""
    spec, evaluation = SPECS[method], {"samples": wanted, "bins": wanted_bins}
    found = {"samples": used(spec, asked), "bins": bins} | ({} if old else {"asked": asked})
    cause = evaluated_otherwise({"evaluation": found}, spec, evaluation)
    same = used(spec, wanted) == used(spec, asked) and bins == wanted_bins
    if cause is None and not (old and KINDS[method].chain):
        assert same
    if cause is not None and not (KINDS[method].chain and asked != wanted):
        assert not same
    if cause is not None:
        assert f"{bins} bins" in cause
        assert f"the config says {wanted} samples and {wanted_bins} bins" in cause
        assert ("weight samples" in cause) == KINDS[method].posterior
    if old and KINDS[method].chain and bins == wanted_bins and used(spec, asked) <= wanted:
        assert cause is None


@pytest.mark.parametrize(
    "metrics", [{}, {"evaluation": None}, {"evaluation": {}}, {"evaluation": {"samples": "x", "bins": []}},
                {"evaluation": {"samples": 0, "bins": 3, "asked": 9}}],
)  # fmt: skip
def test_what_is_not_said_and_what_diverged_is_as_it_is(metrics: dict) -> None:
    assert evaluated_otherwise(metrics, SPECS["vi"], {"samples": 5, "bins": 15}) is None


def test_a_run_evaluated_otherwise_is_left_out_with_the_command_that_evaluates_it_anew(tmp_path) -> None:
    specs = {write_run(tmp_path, spec): spec for spec in (SPECS["vi"], SPECS["dense"], SPECS["ssvi"])}
    vi, dense, ssvi = specs
    path = tmp_path / "runs" / vi / files.METRICS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"evaluation": {"samples": 50, "bins": 15}}))
    tie(path.parent)
    assert (collect.load_frames(tmp_path, specs).runs["status"] == "complete").all()
    line = (
        f"{path}: was evaluated with 50 weight samples and 15 bins, but the config says 5 samples and 15 bins; "
        f"evaluate it anew: ssvi evaluate {path.parent} --samples 5 --bins 15"
    )
    read = collect.load_frames(tmp_path, specs, evaluation=EVALUATION).runs.set_index("run")
    assert read["status"].to_dict() == {vi: "refused", dense: "complete", ssvi: "complete"}
    assert read.loc[vi, "cause"] == line
    assert to_evaluate(tmp_path, specs, {files.SAMPLES: specs}, EVALUATION) == {
        (vi, files.METRICS): line.split(": ")[1].split(";")[0]
    }


def test_samples_measured_otherwise_are_refused_where_they_are_read(tmp_path) -> None:
    specs = {write_run(tmp_path, spec): spec for spec in (SPECS["vi"], SPECS["dense"])}
    vi, _ = specs
    fewer = EVALUATION | {"most_samples": 7}
    assert len(collect.load_frames(tmp_path, specs, evaluation=fewer).runs) == 2
    frames = collect.load_frames(tmp_path, specs, ["samples"], evaluation=fewer)
    cause = frames.runs.set_index("run").loc[vi, "cause"]
    assert re.search(r"samples\.csv: was evaluated with 50 weight samples, but .*--samples 7", cause)
    assert set(frames.samples["run"]) == set(specs) - {vi}
    assert len(collect.load_frames(tmp_path, specs, ["samples"], evaluation=EVALUATION).samples) == 6
    assert list(to_evaluate(tmp_path, specs, {}, fewer)) == []
    assert list(to_evaluate(tmp_path, specs, {files.SAMPLES: [vi]}, fewer)) == [(vi, files.SAMPLES)]


def test_what_cannot_be_read_is_left_to_the_job_that_needs_it(tmp_path) -> None:
    specs = {write_run(tmp_path, spec): spec for spec in (SPECS["vi"], SPECS["ssvi"])}
    one, other = (tmp_path / "runs" / run for run in specs)
    (one / files.METRICS).write_text("{")
    (other / files.METRICS).unlink()
    (one / files.SAMPLES).write_text("samples\nmany\n")
    (other / files.SAMPLES).write_bytes(b"\xff")
    assert to_evaluate(tmp_path, specs, {files.SAMPLES: specs}, {"samples": 1, "bins": 1}) == {}
