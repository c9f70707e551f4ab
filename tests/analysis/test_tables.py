"""Tables from made-up runs with hand-computed answers, against SciPy where intervals are concerned."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import tie, with_seeds, write_run, write_runs
from scipy import stats as scipy_stats

from ssvi.analysis import tables
from ssvi.analysis.collect import Frames, load_frames
from ssvi.analysis.figures import FIGURES, make_figure
from ssvi.analysis.settings import caveats
from ssvi.analysis.stats import Estimate, difference, interval, seed_differences
from ssvi.analysis.tables.format import (
    NO_ROWS,
    format_difference,
    format_mean_sd,
    format_signed,
    from_html,
    to_fragment,
)
from ssvi.analysis.tables.published import published, published_rows
from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.options import PRESETS
from ssvi.runs.spec import RunSpec

DIGITS = {"dataset": "digits", "model": "resnet8", "epochs": 3}
SSVI = RunSpec(method="ssvi", **DIGITS)
VI = RunSpec(method="vi", **DIGITS)
PAPER_SSVI = RunSpec(method="ssvi", dataset="cifar10", validation=0.0)
PAPER_VI = RunSpec(method="vi", dataset="cifar10", validation=0.0)
# Tables of the paper's own data, and of learning by the natural gradient.
APART = ("_paper", "learning_claims")


def write(results: Path, spec: RunSpec, **metrics: Sequence[float]) -> dict[str, RunSpec]:
    """A run for each value of the metrics, under the seeds 0, 1, 2, ..."""
    n = len(next(iter(metrics.values())))
    found = {}
    for i, seeded in enumerate(with_seeds(spec, n)):
        found[write_run(results, seeded, **{name: values[i] for name, values in metrics.items()})] = seeded
    return found


def frames(results: Path, *parts: dict[str, RunSpec], partial: bool = False) -> Frames:
    return load_frames(results, {run: spec for part in parts for run, spec in part.items()}, partial=partial)


def bold(table: tables.Table) -> set[tuple[str, str]]:
    """The bold cells as heading and text."""
    return {(heading, table.frame[heading].iloc[row]) for row, heading in table.strong}


# Cells


@pytest.mark.parametrize(
    ("mean", "sd", "style", "text"),
    [
        (95.0, 1.0, ".2f", "95.00 ± 1.00"),
        (95.0, math.nan, ".2f", "95.00"),
        (math.nan, math.nan, ".2f", "–"),
        (9.996e15, 2e13, "big", "(10.00 ± 0.02)e15"),
        (2.5e15, math.nan, "big", "2.50e15"),
        (12345.4, math.nan, "big", "12,345"),
        (1.14e16, math.nan, "exact", "1.14e16"),
    ],
)
def test_means(mean: float, sd: float, style: str, text: str) -> None:
    assert format_mean_sd(mean, sd, style) == text


def test_differences() -> None:
    assert format_signed(0.284, ".2f") == "+0.28"
    assert format_signed(-0.284, ".2f") == "−0.28"
    assert format_signed(-0.001, ".2f") == "0.00"
    assert format_signed(math.nan, ".2f") == "–"
    assert format_difference(Estimate(0.5, -0.25, 1.25, 3), ".2f") == "+0.50 [−0.25, +1.25]"
    assert format_difference(Estimate(0.5, math.nan, math.nan, 1), ".2f") == "+0.50"


# Intervals


def test_paired_interval_is_scipys_over_the_common_seeds() -> None:
    a, b = pd.Series([1.0, 2.5, 2.0, 7.0]), pd.Series([0.5, 1.0, 1.75], index=[0, 1, 2])
    estimate = difference(a, b)
    expected = scipy_stats.ttest_rel(a[:3], b).confidence_interval(0.95)
    assert estimate.n == 3
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_without_common_seeds_the_interval_is_welchs() -> None:
    a, b = pd.Series([1.0, 2.5, 2.0]), pd.Series([0.5, 1.0, 1.75], index=[7, 8, 9])
    expected = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    estimate = difference(a, b)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_a_single_common_seed_does_not_throw_the_others_away() -> None:
    a, b = pd.Series([1.0, 2.5, 2.0]), pd.Series([0.5, 1.0, 1.75, None], index=[2, 8, 9, 0])
    expected = scipy_stats.ttest_ind(a, b.dropna(), equal_var=False).confidence_interval(0.95)
    estimate = difference(a, b)
    assert seed_differences(a, b).empty
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    # Of a single value, one in common is all there can be.
    assert difference(a, b[:1]) == Estimate(1.5, *[pytest.approx(math.nan, nan_ok=True)] * 2, 1)
    assert seed_differences(a, b[:1]).to_dict() == {2: 1.5}
    assert difference(a, b[:0]).n == 0


def test_equal_differences_are_no_certainty() -> None:
    """Three seeds one image apart: the interval is at least what rounding makes it."""
    a, b = pd.Series([2.0, 3.0, 5.0]), pd.Series([1.0, 2.0, 4.0])
    assert difference(a, b).low == difference(a, b).high == 1.0
    half = scipy_stats.t.ppf(0.975, 2) * math.sqrt(2 / 12) / math.sqrt(3)
    estimate = difference(a, b, resolution=1.0)
    assert (estimate.low, estimate.high) == pytest.approx((1 - half, 1 + half))
    assert estimate.above(0) is None
    assert math.isnan(difference(a[:1], b[:1], resolution=1.0).low)
    four = difference(a, b, resolution=1.0, roundings=4)
    assert (four.high - four.low) / (estimate.high - estimate.low) == pytest.approx(math.sqrt(2))


def test_what_is_counted_has_no_interval() -> None:
    values = pd.Series([0.1] * 3)
    assert values.std() > 0
    assert interval(values).low == interval(values).high


def test_rounding_without_common_seeds() -> None:
    """Welch's interval of two groups, each with the variance that rounding has: 1/12 over 3 and over 2 values."""
    a, b = pd.Series([2.0, 2.0, 2.0]), pd.Series([1.0, 1.0], index=[7, 8])
    assert (difference(a, b).low, difference(a, b).high) == (1, 1)
    va, vb = 1 / 36, 1 / 24
    freedom = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 1)
    half = scipy_stats.t.ppf(0.975, freedom) * math.sqrt(va + vb)
    estimate = difference(a, b, resolution=1.0)
    assert (estimate.mean, estimate.low, estimate.high, estimate.n) == pytest.approx((1, 1 - half, 1 + half, 2))


# Table 2 and bold


def test_table2_sets_bold_only_what_is_outside_the_noise(tmp_path: Path) -> None:
    dense = write(tmp_path, VI, accuracy=[0.99, 0.99])
    ten = write(tmp_path, SSVI, accuracy=[0.950, 0.951, 0.952], nll=[0.10, 0.20, 0.30])
    five = write(
        tmp_path, dataclasses.replace(SSVI, density=0.05), accuracy=[0.900, 0.901, 0.903], nll=[0.12, 0.18, 0.33]
    )
    table = tables.make_table("table2", frames(tmp_path, dense, ten, five))
    assert table.frame["density"].tolist() == ["0.1", "0.05"]
    assert ("accuracy (%)", "95.10 ± 0.10") in bold(table)
    assert "NLL" not in {heading for heading, _ in bold(table)}
    assert ("sparsity (%)", "95.00") in bold(table)
    assert table.numbers["accuracy_percent_mean"].tolist() == pytest.approx([95.1, 90.4 - 0.4 / 1.5], abs=1e-3)
    assert "**95.10 ± 0.10**" in tables.to_markdown(table)
    assert "<strong>95.10 ± 0.10</strong>" in tables.to_html(table)
    assert r"\textbf{\boldmath 95.10 $\pm$ 0.10}" in tables.to_latex(table)


@pytest.mark.parametrize("n", [1, 3])
def test_a_row_alone_and_a_single_seed_are_never_bold(tmp_path: Path, n: int) -> None:
    only = write(tmp_path, SSVI, accuracy=[0.9, 0.91, 0.92][:n])
    assert not tables.make_table("table2", frames(tmp_path, only)).strong
    other = write(tmp_path, dataclasses.replace(SSVI, density=0.05), accuracy=[0.5])
    assert not tables.make_table("table2", frames(tmp_path, only, other)).strong


def test_the_best_is_found_in_each_data_set(tmp_path: Path) -> None:
    parts = []
    for dataset, best in (("digits", 0.1), ("cifar10", 0.05)):
        for density in (0.1, 0.05):
            spec = RunSpec(dataset=dataset, model="resnet8", epochs=3, density=density)
            high = 0.9 if density == best else 0.8
            parts.append(write(tmp_path, spec, accuracy=[high, high + 0.001, high + 0.002]))
    table = tables.make_table("table2", frames(tmp_path, *parts))
    found = {(table.frame["data set"][row], table.frame["density"][row]) for row, h in table.strong if "acc" in h}
    assert found == {("digits", "0.1"), ("cifar10", "0.05")}


def test_other_sparse_bayesian_methods_stand_beside_ours_and_point_methods_do_not(tmp_path: Path) -> None:
    ours = write(tmp_path, SSVI, accuracy=[0.9, 0.91])
    theirs = write(tmp_path, RunSpec(method="vd", **DIGITS), accuracy=[0.8, 0.81], sparsity=[0.7, 0.72])
    point = write(tmp_path, RunSpec(method="rigl", **DIGITS), accuracy=[0.8, 0.81], sparsity=[0.7, 0.72])
    table = tables.make_table("table2", frames(tmp_path, ours, theirs, point))
    assert table.frame[["method", "density", "n"]].values.tolist() == [["VD", "", "2"], ["SSVI", "0.1", "2"]]
    assert table.frame["sparsity (%)"][0] == "71.00 ± 1.41"
    assert any("VD 12 M, dense to the end; SSVI 12 M × density" in note for note in table.notes)


def test_the_share_of_parents_is_shown_where_there_are_any(tmp_path: Path) -> None:
    child = RunSpec(method="sbp", parent="dense,epochs=3", **DIGITS)
    runs = write(tmp_path, child, accuracy=[0.9, 0.91], sparsity=[0.7, 0.7], training_flops=[5e12, 5e12],
                 parent_flops=[2e12, 2e12])  # fmt: skip
    table = tables.make_table("table2", frames(tmp_path, runs)).frame
    assert table["of these, its parents'"].tolist() == ["2.00 × 10¹²"] or "2" in table["of these, its parents'"][0]
    alone = tables.make_table("table2", frames(tmp_path, write(tmp_path, SSVI, accuracy=[0.9]))).frame
    assert "of these, its parents'" not in alone


def test_scaled_metrics_stand_beside_the_unscaled_ones(tmp_path: Path) -> None:
    point = write(tmp_path, RunSpec(method="rigl", **DIGITS), accuracy=[0.8, 0.8], nll=[0.9, 0.9],
                  nll_scaled=[0.5, 0.7], temperature=[1.5, 2.5])  # fmt: skip
    bayes = write(tmp_path, SSVI, accuracy=[0.9, 0.91])
    table = tables.make_table("baselines", frames(tmp_path, point, bayes)).frame.set_index("method")
    assert table.loc["RigL", "NLL"] == "0.9000 ± 0.0000"
    assert table.loc["RigL", "NLL, scaled"] == "0.6000 ± 0.1414"
    assert table.loc["RigL", "temperature"] == "2.00 ± 0.71"
    assert table.loc["SSVI", "NLL, scaled"] == "–"


def test_table2_needs_a_sparse_bayesian_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a run of a sparse Bayesian method"):
        tables.make_table("table2", frames(tmp_path, write(tmp_path, VI, accuracy=[0.9])))


# Missing and diverged runs


def test_missing_runs_belong_to_their_setting_and_are_named(tmp_path: Path) -> None:
    done = write(tmp_path, SSVI, accuracy=[0.9, 0.92])
    planned = {
        run.replace("seed=0", f"seed={s}"): dataclasses.replace(SSVI, seed=s) for run in list(done)[:1] for s in (7, 8)
    }
    diverged = dataclasses.replace(SSVI, seed=9)
    bad = {write_run(tmp_path, diverged, diverged="the loss is nan"): diverged}
    table = tables.make_table("summary", frames(tmp_path, done, planned, bad, partial=True))
    assert table.frame["n"].tolist() == ["2"]
    assert table.numbers["accuracy_percent_mean"].tolist() == pytest.approx([91])
    assert f"Left out, missing: {', '.join(planned)}." in table.notes
    assert f"Left out, diverged: {next(iter(bad))} (the loss is nan)." in table.notes


def test_many_missing_runs_are_counted(tmp_path: Path) -> None:
    runs = frames(tmp_path, {f"digits/seed={s}": dataclasses.replace(SSVI, seed=s) for s in range(12)}, partial=True)
    (note,) = caveats(runs.runs)
    assert note == "Left out, missing: digits/seed=0, digits/seed=1, digits/seed=2 and 9 more."
    assert tables.make_table("summary", runs).frame["accuracy (%)"].tolist() == ["–"]


def told_of_two_versions(notes: Sequence[str], kind: str) -> bool:
    words = rf"^WARNING: these runs were {kind} by different versions .* \(numerics: \d by 1, 1 by 7\)"
    return sum(bool(re.search(words, note)) for note in notes) == 1


def accuracies(data: pd.DataFrame) -> list[float]:
    """The mean accuracies (%) of the numbers of a table or figure."""
    found = list(data.get("accuracy_percent_mean", []))
    for kind in {"quantity", "metric"} & set(data) if "mean" in data else ():
        means = data[data[kind].isin(["accuracy_percent", "accuracy"])]["mean"]
        found += [100 * mean if mean < 1 else mean for mean in means]
    return [mean for mean in found if not math.isnan(mean)]


def test_runs_of_two_versions_of_the_arithmetic_are_never_averaged(tmp_path: Path) -> None:
    """In no table and no figure, and each says it; a run that does not say is of the first."""
    specs = [x for method in ("vi", "ssvi") for x in with_seeds(RunSpec(method=method, **DIGITS), 3)]
    runs = write_runs(tmp_path, specs)
    assert not any("arithmetic" in note for note in tables.make_table("summary", frames(tmp_path, runs)).notes)
    folder = tmp_path / "runs" / list(runs)[-1]  # of SSVI, which each of them shows
    for path, part, key in ((folder / files.SPEC, "provenance", "numerics"), (folder / files.METRICS, None, None)):
        record = json.loads(path.read_text())
        (record[part] if part else record)[key or "evaluation_numerics"] = 7
        if part is None:
            record["accuracy"] = 0.1  # all others have 90 % and more
        path.write_text(json.dumps(record))
    tie(folder)
    mixed = load_frames(tmp_path, runs, ("history", "updates", "overlap", "samples", "uncertainty"))
    made = {name: tables.make_table(name, mixed) for name in tables.TABLES if not name.endswith(APART)}
    means = {name: accuracies(table.numbers) for name, table in made.items()}
    for name in FIGURES:
        # a figure of something that these runs do not vary, or vary too little for its axes
        with contextlib.suppress(UserError, UserWarning):
            made[name] = make_figure(name, mixed)
            means[name] = accuracies(made[name].data)
    assert len(made) > 12
    for name, table_or_figure in made.items():
        assert told_of_two_versions(table_or_figure.notes, "trained"), name
        assert told_of_two_versions(table_or_figure.notes, "evaluated"), name
    assert len([found for found in means.values() if any(mean > 80 for mean in found)]) > 5
    assert {name for name, found in means.items() if any(20 < mean < 80 for mean in found)} == set()


def test_two_data_sets_may_be_of_two_versions_of_the_arithmetic(tmp_path: Path) -> None:
    """How images of folder:PATH are read concerns no digits; two runs of one data set are still told apart."""
    runs = write_runs(tmp_path, [*with_seeds(SSVI, 2), *with_seeds(dataclasses.replace(SSVI, dataset="folder:x"), 2)])

    def notes_with(versions: dict[str, int]) -> str:
        for run, version in versions.items():
            path = tmp_path / "runs" / run / files.SPEC
            record = json.loads(path.read_text())
            record["provenance"]["numerics"] = version
            path.write_text(json.dumps(record))
            tie(path.parent)
        return " ".join(tables.make_table("summary", frames(tmp_path, runs)).notes)

    of_pets = [run for run, spec in runs.items() if spec.dataset == "folder:x"]
    assert "arithmetic" not in notes_with(dict.fromkeys(of_pets, 3))
    assert "(numerics: 1 by 3, 1 by 7)" in notes_with({of_pets[0]: 7})


def test_samples_of_two_versions_are_told(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, with_seeds(SSVI, 3))
    path = tmp_path / "runs" / next(iter(runs)) / files.SAMPLES
    stored = pd.read_csv(path).assign(numerics=7)
    stored.drop(columns="seal").to_csv(path, index=False)
    tie(path.parent)
    (note,) = [n for n in make_figure("test_samples", load_frames(tmp_path, runs, ("samples",))).notes if "arith" in n]
    assert "sampled" in note
    assert "(numerics: 2 by 1, 1 by 7)" in note


# Summary


def test_summary_names_what_departs_plain_rows_first(tmp_path: Path) -> None:
    preset = dataclasses.replace(SSVI, **(PRESETS["official"] | {"addition_average": "absolute"}))
    specs = [
        preset,
        dataclasses.replace(SSVI, alpha=0.5),
        dataclasses.replace(SSVI, grow_sigma="constant"),
        SSVI,
        dataclasses.replace(SSVI, lr=0.1),
        dataclasses.replace(SSVI, density=0.05),
        VI,
        RunSpec(method="dense", **DIGITS),
    ]
    table = tables.make_table("summary", frames(tmp_path, write_runs(tmp_path, specs)))
    assert table.frame["method"].tolist() == ["dense network", "dense BNN", *["SSVI"] * 6]
    options = table.frame["options"].tolist()
    assert options[:3] == ["", "", ""]
    assert set(options[3:6]) == {"alpha 0.5", "lr 0.1", "grow_sigma constant, grow_sigma_value 1e-06"}
    assert options[6:] == ["preset official", ""]
    assert list(table.numbers.columns[:4]) == ["dataset", "method", "density", "lr"]
    needed = {"accuracy_percent_mean", "accuracy_percent_sd", "nll_mean", "ece_mean", "complexity_mean", "n"}
    assert needed <= set(table.numbers.columns)
    assert "±" not in table.frame["accuracy (%)"].iloc[0]


def test_the_preset_with_what_the_study_holds_out_is_still_the_preset(tmp_path: Path) -> None:
    """Most settings hold out a tenth; beside the preset that can be kept, or set to something else."""
    preset = dataclasses.replace(SSVI, **(PRESETS["official"] | {"addition_average": "absolute"}))
    plain = [SSVI, *(dataclasses.replace(SSVI, **{name: v}) for name, v in (("alpha", 0.1), ("delta_t", 50)))]
    plain += [dataclasses.replace(SSVI, alpha=0.5)]
    specs = [*plain, *(dataclasses.replace(preset, validation=v) for v in (0.1, 0.2))]
    # Not all of what makes the preset what it is.
    specs += [dataclasses.replace(preset, validation=0.1, update_step="take")]
    table = tables.make_table("choices", frames(tmp_path, write_runs(tmp_path, specs)))
    words = (
        "precision fp32, record_best_test true, score_arithmetic naive, addition_gradient total, grow_sigma mean_rho"
    )
    assert {text.lower() for text in table.frame["options"]} == {
        *("alpha 0.1", "alpha 0.5", "delta_t 50", "preset official", "preset official, validation 0.2", words)
    }


def test_a_mean_rho_alone_is_not_the_preset(tmp_path: Path) -> None:
    specs = [SSVI, dataclasses.replace(SSVI, grow_sigma="mean_rho"), dataclasses.replace(SSVI, alpha=0.1)]
    table = tables.make_table("summary", frames(tmp_path, write_runs(tmp_path, specs)))
    assert set(table.frame["options"]) == {"", "grow_sigma mean_rho", "alpha 0.1"}


def test_what_learned_its_posterior_otherwise_says_so_and_nothing_that_has_no_effect(tmp_path: Path) -> None:
    ivon = dataclasses.replace(SSVI, posterior_optimizer="ivon")
    specs = [
        SSVI,
        dataclasses.replace(SSVI, density=0.05),
        dataclasses.replace(SSVI, sigma_lr=10.0),
        ivon,
        dataclasses.replace(ivon, ivon_lr=0.2),
        dataclasses.replace(ivon, curvature_beta=0.9),
        dataclasses.replace(ivon, curvature_init=2.0, mean_init="fan_in"),
    ]
    table = tables.make_table("summary", frames(tmp_path, write_runs(tmp_path, specs)))
    numbers = table.numbers.set_index("options")
    assert set(numbers.index) == {
        "",
        "sigma_lr 10",
        "natural gradient (IVON)",
        "natural gradient (IVON), ivon_lr 0.2",
        "natural gradient (IVON), curvature_beta 0.9",
        "mean_init fan_in, natural gradient (IVON), curvature_init 2",
    }
    assert numbers.loc["sigma_lr 10", ["sigma_lr", "ivon_lr"]].fillna(-1).tolist() == [10, -1]
    assert numbers.loc["natural gradient (IVON), ivon_lr 0.2", ["sigma_lr", "ivon_lr"]].fillna(-1).tolist() == [-1, 0.2]
    assert "The posterior of 4 of 7 runs was learned by natural gradient (IVON), not as published." in table.notes
    assert table.notes[0] == "Where a row says nothing else: epochs 3, and the defaults of ssvi train."


@pytest.mark.parametrize("name", ["table1", "table2", "baselines", "summary"])
def test_where_all_learned_their_posterior_otherwise_every_row_says_so(tmp_path: Path, name: str) -> None:
    changed = {"posterior_optimizer": "ivon", "ivon_lr": 0.2}
    specs = [dataclasses.replace(one, **changed) for one in (VI, SSVI, dataclasses.replace(SSVI, density=0.05))]
    table = tables.make_table(name, frames(tmp_path, write_runs(tmp_path, specs)))
    assert set(table.frame["options"]) == {"natural gradient (IVON)"}
    if name == "summary":
        assert table.notes[0] == "Where a row says nothing else: epochs 3, ivon_lr 0.2, and the defaults of ssvi train."


def test_beside_the_papers_numbers_other_learning_is_named(tmp_path: Path) -> None:
    specs = [dataclasses.replace(one, posterior_optimizer="ivon") for one in (PAPER_VI, PAPER_SSVI)]
    table = tables.make_table("table1_paper", frames(tmp_path, write_runs(tmp_path, specs)))
    assert set(table.frame["options"]) == {"natural gradient (IVON)"}


def test_a_choice_of_learning_is_one_choice(tmp_path: Path) -> None:
    """Whichever of the two is the default; numbers of the other way that are usual go without saying."""
    ivon = dataclasses.replace(SSVI, posterior_optimizer="ivon")
    more = [dataclasses.replace(SSVI, alpha=0.1), dataclasses.replace(SSVI, alpha=0.5), ivon]
    table = tables.make_table("choices", frames(tmp_path / "a", write_runs(tmp_path / "a", [SSVI, *more])))
    assert table.frame["options"].tolist() == ["natural gradient (IVON)", "alpha 0.1", "alpha 0.5"]
    more = [dataclasses.replace(ivon, curvature_memory=m) for m in (0.5, 1.0)]
    specs = [ivon, *more, dataclasses.replace(ivon, curvature_beta=0.9), SSVI]
    table = tables.make_table("choices", frames(tmp_path / "b", write_runs(tmp_path / "b", specs)))
    assert table.frame["options"].tolist() == [
        "posterior_optimizer sgd",
        "curvature_memory 0.5",
        "curvature_memory 1",
        "curvature_beta 0.9",
    ]
    assert table.notes[0].startswith("Default, digits, resnet8, SSVI (epochs 3, natural gradient (IVON), density 0.1):")


def test_cost_is_relative_to_a_dense_network_that_learns_alike(tmp_path: Path) -> None:
    ivon = {"posterior_optimizer": "ivon"}
    settings = [(VI, {}, 10.0), (SSVI, {}, 5.0), (VI, ivon, 20.0), (SSVI, ivon, 5.0)]
    parts = [
        write(tmp_path, dataclasses.replace(spec, **options), training_seconds=[seconds] * 2)
        for spec, options, seconds in settings
    ]
    numbers = tables.make_table("table1", frames(tmp_path, *parts)).numbers
    sparse = numbers[numbers["method"] == "ssvi"].set_index("options")
    (ratio,) = (name for name in numbers.columns if name.startswith("training_seconds") and name.endswith("ratio_mean"))
    assert sparse[ratio].to_dict() == pytest.approx({"": 0.5, "natural gradient (IVON)": 0.25})


def test_a_marginal_ece_of_exactly_zero_is_explained(tmp_path: Path) -> None:
    zero = frames(tmp_path / "a", write(tmp_path / "a", SSVI, ece_marginal=[0.0, 0.0]))
    some = frames(tmp_path / "b", write(tmp_path / "b", SSVI, ece_marginal=[0.1, 0.2]))
    assert any("cut at 0" in note for note in tables.make_table("summary", zero).notes)
    assert not any("cut at 0" in note for note in tables.make_table("summary", some).notes)


# Beside the paper


def test_paper_tables_by_hand(tmp_path: Path) -> None:
    dense = write(tmp_path, PAPER_VI, accuracy=[0.94, 0.95, 0.96], training_flops=[2e17] * 3)
    sparse = write(
        tmp_path, dataclasses.replace(PAPER_SSVI, density=0.05), accuracy=[0.93, 0.94, 0.95], training_flops=[2e16] * 3
    )
    made = frames(tmp_path, dense, sparse)
    numbers = tables.make_table("table1_paper", made).numbers
    row = numbers[(numbers["method"] == "vi") & (numbers["quantity"] == "accuracy (%)")].iloc[0]
    half = scipy_stats.t.ppf(0.975, 2) * 1.0 / math.sqrt(3)
    assert (row["paper"], row["ours"], row["n"]) == (95.13, pytest.approx(95), 3)
    assert (row["ours_low"], row["ours_high"]) == pytest.approx((95 - half, 95 + half))
    assert row["difference"] == pytest.approx(-0.13)
    ratio = numbers[numbers["quantity"] == "training FLOPs (× dense BNN)"].iloc[0]
    assert (ratio["paper"], ratio["ours"]) == (0.05, pytest.approx(0.1))
    second = tables.make_table("table2_paper", made)
    assert set(second.numbers["method"]) == {"ssvi"}
    units = second.frame[second.frame["quantity"].str.contains("paper's units")].iloc[0]
    assert units[["paper", "ours", "95 % interval", "n", "ours − paper [95 % interval]"]].tolist() == [
        *("5.7", "5.7", "–", "–", "–")
    ]
    same = second.numbers[second.numbers["quantity"].str.contains("paper's units")].iloc[0]
    assert same[["ours_low", "ours_high", "difference", "difference_low", "difference_high", "n"]].isna().all()
    sparsity = numbers[numbers["quantity"] == "sparsity (%)"]
    assert sparsity["paper"].tolist() == [0, 95]
    assert second.numbers.iloc[0]["paper"] == 93.74
    assert any("93.69 in Table 1" in note for note in second.notes)


@pytest.mark.parametrize("name", ["table1_paper", "table2_paper"])
def test_nothing_stands_beside_the_paper_that_is_not_comparable(tmp_path: Path, name: str) -> None:
    others = [SSVI, dataclasses.replace(PAPER_SSVI, epochs=10), dataclasses.replace(PAPER_SSVI, validation=0.1)]
    made = frames(tmp_path, *(write(tmp_path, spec, accuracy=[0.9]) for spec in others))
    table = tables.make_table(name, made)
    assert table.frame.empty
    assert "digits with resnet8, 3 epochs" in table.notes[0]
    assert "cifar10 with resnet18, 200 epochs, 10 % of the images held out" in table.notes[0]
    tables.write_table(table, tmp_path / "t")
    assert NO_ROWS in (tmp_path / "t.md").read_text()
    assert NO_ROWS in (tmp_path / "t.html").read_text()
    assert NO_ROWS in (tmp_path / "t.tex").read_text()
    assert pd.read_csv(tmp_path / "t.csv").empty


def test_published_numbers_agree_with_each_other() -> None:
    """Densities and sparsities, and FLOPs with the unit, as far as the paper rounds."""
    for dataset in published()["datasets"]:
        assert [row["density"] for row in published_rows("table1", dataset)] == [1.0, 0.1, 0.05]
        assert [row["sparsity_percent"] for row in published_rows("table1", dataset)] == [0, 90, 95]
        (ours,) = [row for row in published_rows("table2", dataset) if row["method"] == "ssvi"]
        assert ours["sparsity_percent"] == pytest.approx(100 * (1 - ours["density"]))
        assert ours["training_flops"] == pytest.approx(ours["density"] * published()["flops_unit"])
        assert len(published_rows("table2", dataset)) == 5


# Choices


def test_choices_are_paired_differences_to_the_default(tmp_path: Path) -> None:
    base, half = [0.90, 0.92, 0.93], [0.91, 0.925, 0.95]
    specs = write_runs(tmp_path, [dataclasses.replace(SSVI, alpha=0.1, seed=s) for s in range(3)])
    default = write(tmp_path, SSVI, accuracy=base, training_flops=[2e12] * 3)
    varied = write(tmp_path, dataclasses.replace(SSVI, alpha=0.5), accuracy=half, training_flops=[3e12] * 3)
    worse = write(tmp_path, dataclasses.replace(SSVI, delta_t=50), accuracy=[0.80, 0.82, 0.83])
    preset = PRESETS["official"] | {"addition_average": "absolute"}
    official = write(tmp_path, dataclasses.replace(SSVI, **preset), accuracy=base)
    table = tables.make_table("choices", frames(tmp_path, official, specs, varied, worse, default))
    assert table.frame["options"].tolist() == ["delta_t 50", "alpha 0.1", "alpha 0.5", "preset official"]
    row = table.numbers[table.numbers["options"] == "alpha 0.5"].iloc[0]
    expected = scipy_stats.ttest_rel([100 * v for v in half], [100 * v for v in base]).confidence_interval(0.95)
    assert (row["accuracy_percent_difference_low"], row["accuracy_percent_difference_high"]) == pytest.approx(
        (expected.low, expected.high)
    )
    assert row["training_flops_ratio"] == pytest.approx(1.5)
    assert (0, "accuracy (points)") in table.strong
    assert (2, "accuracy (points)") not in table.strong
    assert (3, "accuracy (points)") not in table.strong


def test_choices_of_two_methods_and_with_missing_seeds(tmp_path: Path) -> None:
    parts = [write(tmp_path, s, accuracy=[0.9, 0.91]) for s in (SSVI, VI, dataclasses.replace(SSVI, alpha=0.1))]
    parts += [write(tmp_path, dataclasses.replace(s, sampling="weight"), accuracy=[0.8]) for s in (SSVI, VI)]
    table = tables.make_table("choices", frames(tmp_path, *parts))
    assert table.frame[["method", "options", "n"]].values.tolist() == [
        ["dense BNN", "sampling weight", "1"],
        ["SSVI", "sampling weight", "1"],
        ["SSVI", "alpha 0.1", "2"],
    ]
    assert table.frame["accuracy (points)"][0] == "−10.00"
    assert not [row for row, _ in table.strong if row < 2]


# Files


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def all_tables(tmp_path: Path) -> Iterable[tables.Table]:
    specs = [PAPER_VI, PAPER_SSVI, SSVI, VI, dataclasses.replace(SSVI, criterion="snr")]
    specs += [dataclasses.replace(SSVI, density=0.5), RunSpec(method="rigl", **DIGITS)]
    written = write_runs(tmp_path, [s for spec in specs for s in with_seeds(spec, 2)])
    natural = dataclasses.replace(SSVI, posterior_optimizer="ivon", prior_sigma=0.1)
    written |= {write_run(tmp_path, spec, validation_nll=0.4): spec for spec in with_seeds(natural, 2)}
    bad = dataclasses.replace(SSVI, seed=5)
    written[write_run(tmp_path, bad, diverged="50% of {a_b} & #1 ~ \\x^2")] = bad
    for name, maker in tables.TABLES.items():
        yield maker.make(load_frames(tmp_path, written, maker.needs))
        assert name


def test_every_table_is_well_formed_in_every_format(tmp_path: Path) -> None:
    for table in all_tables(tmp_path):
        latex = tables.to_latex(table)
        bare = re.sub(r"\\[{}%&#$_]|\\textbackslash\{\}", "", latex)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert not re.search(r"[%#]", bare)
        assert latex.isascii()
        for kind in re.findall(r"\\begin\{(\w+)\}", latex):
            assert latex.count(rf"\begin{{{kind}}}") == latex.count(rf"\end{{{kind}}}")
        body = [line for line in latex.split("\n") if line.endswith(r" \\") and NO_ROWS not in line]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {len(table.frame.columns) - 1}
        page = tables.to_html(table)
        parser = Balance()
        parser.feed(page)
        assert not parser.open
        shown = from_html(page)
        assert shown == to_fragment(table)
        assert '<div class="box"' in shown
        assert not re.search("<(style|body|html)", shown)
        lines = [line for line in tables.to_markdown(table).split("\n") if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} <= {len(table.frame.columns) + 1}
        assert bool(lines) == bool(len(table.frame))


def test_a_long_table_runs_over_pages() -> None:
    cells = pd.DataFrame({"n": [str(i) for i in range(50)]})
    latex = tables.to_latex(tables.Table(cells, cells, "long"))
    assert r"\begin{longtable}{r}" in latex
    assert r"\begin{table}" not in latex
