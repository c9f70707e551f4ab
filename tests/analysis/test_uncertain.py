"""uncertainty.csv is read whole and of this run alone, or refused in a line; its tables and headlines, by hand."""

import dataclasses
import re

import pandas as pd
import pytest
from fake_runs import EVALUATION, OOD_SETS, tie, uncertainty_rows, with_seeds, write_run, write_runs, write_uncertainty

from ssvi.analysis import collect, tables
from ssvi.analysis.records import UNCERTAINTY_COLUMNS
from ssvi.analysis.report.leading import leading
from ssvi.analysis.stats import interval, with_interval
from ssvi.analysis.uncertain import with_figures
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.evaluated import to_evaluate
from ssvi.runs.spec import RunSpec

SSVI = RunSpec(method="ssvi", density=0.1)
RIGL = RunSpec(method="rigl", density=0.1)
NEEDS = ["uncertainty"]


@pytest.fixture
def two(tmp_path):
    """Two runs with uncertainty.csv, and the file of the first."""
    specs = write_runs(tmp_path, with_seeds(SSVI, 2))
    return specs, tmp_path / "runs" / next(iter(specs)) / files.UNCERTAINTY


def test_every_figure_is_read_and_nothing_where_it_is_not_asked_for(tmp_path, two) -> None:
    specs, _ = two
    frame = collect.load_frames(tmp_path, specs, NEEDS, evaluation=EVALUATION).uncertainty
    assert tuple(frame.columns) == UNCERTAINTY_COLUMNS
    expected = pd.DataFrame([{"run": run, **row} for run in specs for row in uncertainty_rows(SSVI)])
    shown = list(expected.columns)
    pd.testing.assert_frame_equal(frame[shown], expected, check_dtype=False)
    assert frame["bins"].eq(15).all()
    assert frame["samples"].eq(5).all()
    assert len(collect.load_frames(tmp_path, specs).uncertainty) == 0


def test_names_with_commas_and_quotes_are_names(tmp_path, two) -> None:
    specs, path = two
    path.write_text(re.sub(r"^ood,kmnist,", 'ood,"a, ""b""",', path.read_text(), flags=re.M))
    tie(path.parent)
    frame = collect.load_frames(tmp_path, specs, NEEDS).uncertainty
    assert set(frame.loc[frame["part"] == "ood", "name"]) == {'a, "b"', *OOD_SETS}


ANEW = "delete this file to measure it anew."


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("^calibration,raw,,,accuracy,0.9,", "calibration,raw,,,accuracy,1.9,", f"accuracy is 1.9, .* <= 1; {ANEW}"),
        ("^conformal,lac,,0.9,size,1.2,", "conformal,lac,,0.9,size,-1,", f"lac_size is -1, but must be >= 0; {ANEW}"),
        ("^ood,kmnist,entropy,,auroc,[^,]*", "ood,kmnist,entropy,,auroc,x", f"value is 'x', but .* a number; {ANEW}"),
        ("^(conformal,lac,,)0.95(,size,.*)", r"\g<1>0.9\2", "name lac, metric size, level 0.9 is there twice"),
        ("^part,", "share,", "no 'part'; this is ssvi"),
        ("^(risk,.*)", r"\1,1", "a row has 12 cells instead of 11"),
        ("^(.*,)5,15,", r"\g<1>3,15,", "with 3 weight samples .* --suite uncertainty"),
        ("^(.*,)5,15,", r"\g<1>5,9,", "and 9 bins, but the config says"),
        ("^(.*),d{64}", r"\1,other", "other test images than metrics.json; make both .* --suite uncertainty`"),
    ],
)  # fmt: skip
def test_what_is_damaged_or_made_otherwise_is_refused_in_a_line(tmp_path, two, old, new, words) -> None:
    specs, path = two
    assert re.search(old, path.read_text(), flags=re.M)
    path.write_text(re.sub(old, new, path.read_text(), flags=re.M))
    tie(path.parent)
    frames = collect.load_frames(tmp_path, specs, NEEDS, evaluation=EVALUATION)
    refused, other = frames.runs.to_dict("records")
    assert refused["cause"].startswith(f"{path}: ")
    assert re.search(words, refused["cause"])
    assert "\n" not in refused["cause"]
    assert set(frames.uncertainty["run"]) == {other["run"]}
    # where it is only used, the run stays and its figures do not
    frames = collect.load_frames(tmp_path, specs, uses=NEEDS, evaluation=EVALUATION)
    assert (frames.runs["status"] == "complete").all()
    assert frames.left_out == {refused["run"]: refused["cause"]}
    assert set(frames.uncertainty["run"]) == {other["run"]}


def test_one_of_another_training_or_changed_is_refused_and_due(tmp_path, two) -> None:
    specs, path = two
    path.write_text(path.read_text().replace(",0.3,", ",0.2,", 1))
    cause = collect.load_frames(tmp_path, specs, NEEDS).runs["cause"][0]
    assert re.search(r"uncertainty\.csv: was measured on another model.* or changed since; delete", cause)
    first, second = specs
    due = to_evaluate(tmp_path, specs, {files.UNCERTAINTY: specs}, EVALUATION)
    assert list(due) == [(first, files.UNCERTAINTY)]
    assert to_evaluate(tmp_path, specs, {files.UNCERTAINTY: [second]}, EVALUATION) == {}
    due = to_evaluate(tmp_path, specs, {files.UNCERTAINTY: [second]}, EVALUATION | {"samples": 7})
    assert list(due) == [(first, files.METRICS), (second, files.METRICS), (second, files.UNCERTAINTY)]


def test_one_that_is_missing_is_made_by_a_command_but_of_what_diverged(tmp_path) -> None:
    specs = write_runs(tmp_path, [SSVI]) | {write_run(tmp_path, RIGL, diverged="the loss is not finite"): RIGL}
    ssvi, rigl = specs
    folder = tmp_path / "runs" / ssvi
    for run in specs:
        (tmp_path / "runs" / run / files.UNCERTAINTY).unlink()
    runs = collect.load_frames(tmp_path, specs, NEEDS).runs.set_index("run")
    command = f"ssvi evaluate {folder} --suite uncertainty"
    assert runs.loc[ssvi, "cause"] == f"{folder / files.UNCERTAINTY}: no such file; make it: {command}"
    assert runs.loc[rigl, "status"] == "diverged"
    assert (collect.load_frames(tmp_path, specs, uses=NEEDS).runs["status"] != "refused").all()
    write_uncertainty(tmp_path, RIGL)  # a file without rows
    assert collect.load_frames(tmp_path, specs, NEEDS).runs.set_index("run").loc[rigl, "status"] == "diverged"


def study(tmp_path, *settings):
    """Two seeds of each setting and the changed figures of its suite, the second seed 0.01 above the first."""
    specs = {}
    for options, changed in settings:
        for spec in with_seeds(RunSpec(**options), 2):
            figures = {name: value and value + 0.01 * spec.seed for name, value in changed.items()}
            metrics = {name.removeprefix("run_"): value for name, value in figures.items() if name.startswith("run_")}
            specs[write_run(tmp_path, spec, **metrics)] = spec
            write_uncertainty(tmp_path, spec, **{k: v for k, v in figures.items() if not k.startswith("run_")})
    return collect.load_frames(tmp_path, specs, NEEDS)


def test_tables_have_means_over_seeds_corruptions_and_severities(tmp_path) -> None:
    frames = study(tmp_path, ({"method": "ssvi", "density": 0.1}, {"ood_auroc": 0.8}), ({"method": "dense"}, {}))
    made = {name: tables.make_table(name, frames) for name in ("uncertainty", "shift", "ood", "selective")}
    rows = {name: table.numbers.set_index("method").loc["ssvi"] for name, table in made.items()}
    assert all((table.numbers["n"] == 2).all() for table in made.values())
    shift = rows["shift"]
    assert shift["shift_accuracy_0_percent_mean"] == pytest.approx(90)
    assert shift["shift_accuracy_5_percent_mean"] == pytest.approx(85)
    assert shift["shift_ece_mean"] == pytest.approx(0.04 + 0.03)  # over severities 1 to 5
    assert shift["shift_lac_coverage_3_percent_mean"] == pytest.approx(75)
    assert shift["corruption_error_percent_mean"] == pytest.approx(13)
    assert rows["selective"]["accuracy_at_coverage_80_percent_mean"] == pytest.approx(92)
    assert rows["selective"]["aps_size_90_mean"] == pytest.approx(1.6)
    assert rows["uncertainty"]["ece_scaled_mean"] == pytest.approx(0.02)
    assert rows["uncertainty"]["disagreement_percent_mean"] == pytest.approx(4)
    ood = made["ood"].frame
    assert ood[["OOD set", "distance"]].to_numpy().tolist() == [["held out", "near"], ["kmnist", "far"]] * 2
    dense = made["ood"].numbers.query("method == 'dense' and ood_set == 'kmnist'").iloc[0]
    assert dense["auroc_energy_percent_mean"] == pytest.approx(91)
    assert pd.isna(dense["auroc_mutual_information_percent_mean"])
    # bold within a set, over the noise: 81 [75, 87] of near ones is less than 84, of far ones than 94
    strong = {(place, heading) for place, heading in made["ood"].strong if heading == "AUROC by entropy (%)"}
    assert strong <= {(0, "AUROC by entropy (%)"), (1, "AUROC by entropy (%)")}
    assert ood.loc[1, "AUROC by entropy (%)"] == "94.0 ± 0.0"


@pytest.mark.parametrize(
    ("method", "said", "share", "marked"),
    [
        ("ssvi", {}, 0.009, True),
        ("ssvi", {}, 0.011, False),
        ("ssvi", {"run_point_posterior": True}, 0.2, True),
        ("ssvi", {"run_point_posterior": False}, 0.001, False),
        ("rigl", {}, 0.001, False),
    ],
)
def test_a_posterior_that_is_practically_a_point_is_marked_in_every_table(
    tmp_path, method, said, share, marked
) -> None:
    """As metrics.json says or, where it is of a version that did not, by the bound."""
    spec = RunSpec(method=method, density=0.1)
    metrics = {name.removeprefix("run_"): value for name, value in said.items()}
    specs = {write_run(tmp_path, spec, mutual_information_share=share, **metrics): spec}
    frames = collect.load_frames(tmp_path, specs, NEEDS)
    for name in ("summary", "baselines", "uncertainty", "ood", *(["table2"] if method == "ssvi" else [])):
        table = tables.make_table(name, frames)
        assert table.frame["method"].str.endswith(" †").all() == marked, name
        assert any("under 1 % of the predictive entropy" in note for note in table.notes) == marked
        assert ("point_posterior" in table.numbers) == marked


def test_the_mean_over_sets_is_of_those_that_all_runs_have(tmp_path) -> None:
    frames = study(tmp_path, ({"method": "ssvi"}, {}), ({"method": "vi"}, {}))
    run = frames.runs["run"].iloc[0]
    fewer = frames.uncertainty[(frames.uncertainty["run"] != run) | (frames.uncertainty["name"] != "kmnist")]
    assert with_figures(frames)["ood_auroc"].to_numpy() == pytest.approx([0.89] * 4)
    fewer = dataclasses.replace(frames, uncertainty=fewer)
    assert with_figures(fewer)["ood_auroc"].to_numpy() == pytest.approx([0.84] * 4)


def test_a_mean_over_severities_takes_all_of_them(tmp_path) -> None:
    frames = study(tmp_path, ({"method": "ssvi"}, {}))
    lacking = frames.uncertainty[~((frames.uncertainty["part"] == "shift") & (frames.uncertainty["level"] == 5))]
    runs = with_figures(dataclasses.replace(frames, uncertainty=lacking))
    assert runs["shift_accuracy"].isna().all()
    assert runs["shift_accuracy_4"].tolist() == pytest.approx([0.86] * 2)


def test_without_any_other_set_there_is_no_table_of_them(tmp_path) -> None:
    frames = study(tmp_path, ({"method": "ssvi"}, {}))
    bare = frames.uncertainty[frames.uncertainty["part"] != "ood"]
    with pytest.raises(UserError, match="ood: needs a run that was tried on another set"):
        tables.make_table("ood", dataclasses.replace(frames, uncertainty=bare))


def test_the_best_sparse_bnn_stands_beside_temperature_scaled_rigl_of_its_density(tmp_path) -> None:
    frames = study(
        tmp_path,
        ({"method": "vi"}, {"run_nll": 0.1}),  # not sparse
        ({"method": "ssvi", "density": 0.1}, {"run_nll": 0.4, "run_ece": 0.05, "ood_auroc": 0.8}),
        ({"method": "ssvi", "density": 0.05}, {"run_nll": 0.6}),
        ({"method": "rigl", "density": 0.05}, {"calibration_nll": 0.1}),  # of another density
        ({"method": "rigl", "density": 0.1}, {"calibration_nll": 0.3, "run_nll": 0.9}),
        ({"method": "rigl", "density": 0.1, "lr": 0.03}, {"calibration_nll": 0.35}),
    )

    def shown(*values, style=".4f"):
        return with_interval(interval(pd.Series(values)), style)

    ours, scaled, theirs = leading(frames)
    assert (scaled["name"], scaled["chosen"]) == ("SSVI at 90 % sparsity, temperature-scaled", "the same")
    assert (ours["name"], ours["n"], ours["chosen"]) == ("SSVI at 90 % sparsity", "2", "the best of 2")
    assert ours["figures"][1:4] == [shown(0.4, 0.41), "0.0550 [0.0000, 0.1185]", shown(80, 81, style=".1f")]
    assert (theirs["name"], theirs["chosen"]) == ("RigL at 90 % sparsity, temperature-scaled", "the best of 2")
    assert theirs["figures"][1:3] == [shown(0.3, 0.31), shown(0.02, 0.02)]
    assert leading(dataclasses.replace(frames, uncertainty=frames.uncertainty.iloc[:0])) == []


def test_what_leads_says_which_task_it_is_of(tmp_path) -> None:
    methods = ({"method": "ssvi", "density": 0.1}, {"method": "rigl", "density": 0.1})
    whole, parts = ([(one | task, {}) for one in methods] for task in ({}, {"held_out_classes": "4+6"}))
    names = [row["name"] for row in leading(study(tmp_path, *whole, *parts))]
    assert names[0] == "SSVI at 90 % sparsity"
    assert names[2] == "RigL at 90 % sparsity, temperature-scaled"
    assert all("held_out_classes 4+6" in name for name in names[3:])
    assert len(names) == 6


def test_the_range_of_temperatures_is_that_in_which_they_are_looked_for() -> None:
    from ssvi.analysis.tables.uncertainty import COLDEST, HOTTEST
    from ssvi.core.calibration import TEMPERATURES

    assert (COLDEST, HOTTEST) == TEMPERATURES
