"""The figures of uncertainty.csv as columns of the runs, by names that tables, claims, the report and MLflow share.

The frame `uncertainty` is tidy: a row a figure. Here each figure that is one number of a run gets its name; curves,
bins, histograms and single corruptions have none, and are drawn from the frame itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from ssvi.analysis.collect import COMPLETE, Frames
from ssvi.analysis.quantities import (
    AUROC_ENTROPY,
    AUROC_ENTROPY_SCALED,
    OOD_AUROC,
    OOD_AUROC_FAIR,
    OOD_AUROC_SCALED,
    QUANTITIES,
    Quantity,
)
from ssvi.analysis.settings import TASK, is_missing
from ssvi.registry import KINDS, POINT
from ssvi.runs.evaluated import POINT_SHARE

SEVERITIES = (1, 2, 3, 4, 5)
# The name under which `shift` has the mean over corruptions.
MEAN = "mean"
# Averaged over severities too.
SHIFTED = ("accuracy", "nll", "ece", "brier", "nll_scaled", "ece_scaled")


def name_of(part: str, name: str, score: str | None, level: float, metric: str) -> tuple[str, str] | None:
    """Where a figure belongs and what it is called there: `("shift", "accuracy_3")`, `("ood/kmnist", "auroc_entropy")`.

    A level is a severity or, of coverage and risk, percent. None for what is no number of the whole run, or is said by
    another one.
    """
    at = "" if is_missing(level) else f"_{level:g}" if part == "shift" else f"_{100 * level:g}"
    match part:
        case "posterior":
            return "test", metric
        case "calibration" if name == "raw" and metric != "images":
            return "test", metric
        case "calibration" if name == "scaled" and metric not in ("accuracy", "images"):
            return "test", metric if metric == "temperature" else f"{metric}_scaled"
        case "selective":
            return "selective", f"{metric}{at}"
        case "conformal" if metric != "images":
            return "conformal", f"{name}_{metric}{at}"
        case "shift" if name == MEAN:
            return "shift", f"{metric}{at}"
        case "ood" if metric != "images":
            return f"ood/{name}", metric if is_missing(score) else f"{metric}_{score}"
    return None


def named(figures: pd.DataFrame) -> pd.DataFrame:
    """The figures that have a name (`name_of`): run, place, figure, value."""
    columns = ["part", "name", "score", "level", "metric"]
    names = [name_of(*row) for row in figures[columns].itertuples(index=False, name=None)]
    kept = figures.assign(place=[n and n[0] for n in names], figure=[n and n[1] for n in names])
    kept = kept.loc[kept["place"].notna(), ["run", "place", "figure", "value"]]
    return kept.astype({"place": str, "figure": str})


def with_figures(frames: Frames) -> pd.DataFrame:
    """The runs with a column for each quantity of the suite, missing where a run was not evaluated so.

    Of shift the means over severities too (`shift_METRIC`), of OOD detection the mean over sets (`ood_auroc`). What
    metrics.json says of the same predictions is taken from there.
    """
    rows = named(frames.uncertainty)
    whole = rows[~rows["place"].str.startswith("ood/")]
    shifted = whole["place"].eq("shift") & whole["figure"].ne("corruption_error")
    column = whole["figure"].where(~shifted, "shift_" + whole["figure"])
    table = whole.assign(column=column).pivot(index="run", columns="column", values="value")
    for metric in SHIFTED:
        levels = table.reindex(columns=[f"shift_{metric}_{severity}" for severity in SEVERITIES])
        table[f"shift_{metric}"] = levels.mean(axis=1, skipna=False)
    for mean, column in averaged(frames).items():
        table[mean.column] = column
    table = table.reindex(index=frames.runs["run"], columns=list(QUANTITIES))
    found = {name: table[name].to_numpy(dtype=float) for name in QUANTITIES if name not in frames.runs}
    for name in set(QUANTITIES) & set(frames.runs):
        measured = pd.Series(table[name].to_numpy(), index=frames.runs.index)
        found[name] = frames.runs[name].where(frames.runs[name].notna() | measured.isna(), measured)
    return frames.runs.assign(**found)


def of_sets(frames: Frames) -> pd.DataFrame:
    """Figures of OOD detection, a row a run and set: run, ood_set, ood_distance (near or far), a column a figure."""
    rows = named(frames.uncertainty)
    rows = rows[rows["place"].str.startswith("ood/")]
    rows = rows.assign(ood_set=rows["place"].str.removeprefix("ood/"))
    table = rows.pivot(index=["run", "ood_set"], columns="figure", values="value").reset_index()
    near = table["near"] if "near" in table else pd.Series(dtype=float)
    return table.assign(ood_distance=near.map({1.0: "near", 0.0: "far"}).reindex(table.index).fillna("not said"))


def by_set(groups: Sequence[pd.DataFrame], sets: pd.DataFrame, columns: Iterable[str]) -> list[pd.DataFrame]:
    """Each setting once for each set that runs of its data set were tried on, with these columns of `sets`; near ones
    first."""
    found = []
    for group in groups:
        alike = pd.concat(one["run"] for one in groups if one.iloc[0]["dataset"] == group.iloc[0]["dataset"])
        tried = sets[sets["run"].isin(alike)].drop_duplicates("ood_set").sort_values(["ood_distance", "ood_set"])
        for name, distance in tried.sort_values("ood_distance", ascending=False, kind="stable")[
            ["ood_set", "ood_distance"]
        ].itertuples(index=False, name=None):
            mine = sets[sets["ood_set"] == name].set_index("run").reindex(group["run"])
            others = sets[sets["run"].isin(group["run"])]
            if len(others) and name not in set(others["ood_set"]):  # which its task does not have
                continue
            values = {column: mine[column].to_numpy(dtype=float) if column in mine else None for column in columns}
            found.append(group.assign(ood_set=name, ood_distance=distance, **values))
    return found


def averaged(frames: Frames) -> dict[Quantity, pd.Series]:
    """A run's AUROC by entropy, mean over sets: as it is, after temperature scaling, and scaled of networks without a
    posterior alone. Each is over the sets that all runs of a task that have it were tried on."""
    sets = of_sets(frames)
    raw, scaled = (sets.get(one.column, pd.Series(dtype=float)) for one in (AUROC_ENTROPY, AUROC_ENTROPY_SCALED))
    points = sets["run"].isin(frames.runs.loc[frames.runs["method"].isin(POINT), "run"])
    columns = {OOD_AUROC: raw, OOD_AUROC_SCALED: scaled, OOD_AUROC_FAIR: scaled.where(points, raw)}
    tasks = dict(zip(frames.runs["run"], frames.runs[list(TASK)].astype(str).agg("/".join, axis=1), strict=True))
    found = {}
    for mean, values in columns.items():
        table = sets.assign(value=values).dropna(subset="value").pivot(index="run", columns="ood_set", values="value")
        parts = [part.dropna(axis=1) for _, part in table.groupby(table.index.map(tasks))]
        found[mean] = pd.concat([part.mean(axis=1) for part in parts if part.shape[1]] or [pd.Series(dtype=float)])
    return found


def sets_averaged(frames: Frames) -> str:
    """The sets that a mean over them is over, in words; nothing if there are none."""
    sets = of_sets(frames)
    runs = frames.runs[frames.runs["run"].isin(sets["run"])]
    words = []
    for _, group in runs.groupby(list(TASK), dropna=False, sort=False):
        tried = sets[sets["run"].isin(group["run"])].groupby("ood_set")["run"].nunique()
        names = [str(name) for name, number in tried.items() if number == len(group)]
        words.append(f"{group.iloc[0]['dataset']}: {', '.join(names) or 'none'}")
    return "; ".join(dict.fromkeys(words))


def has_point(group: pd.DataFrame) -> bool:
    """Whether the posterior of a finished run of a setting is practically a point: by `point_posterior` or, of a
    version that did not say, by the share of the mutual information."""
    done = group[group["status"] == COMPLETE]
    if not len(done) or not KINDS[done.iloc[0]["method"]].posterior:
        return False
    small = pd.to_numeric(done["mutual_information_share"], errors="coerce") < POINT_SHARE
    said = done["point_posterior"]
    return bool(said.where(said.notna(), small).astype(bool).any())
