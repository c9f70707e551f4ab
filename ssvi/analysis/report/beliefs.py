"""The numbers behind "Numbers you may believe": taken from the study's runs, not written down by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ssvi.analysis import comparing
from ssvi.analysis.collect import COMPLETE, RunFolders
from ssvi.analysis.figures.sigma import start_of_sigma
from ssvi.analysis.made import MADE, one_machine
from ssvi.analysis.report.outputs import Experiments, paths_of
from ssvi.analysis.settings import HEADINGS, METHOD_NAMES, RECIPE, is_missing, option_text, settings
from ssvi.analysis.tables.evidence import gather, which
from ssvi.registry import SUBSPACE, VARIATIONAL
from ssvi.runs.completion import idle
from ssvi.runs.config import output_experiments
from ssvi.runs.options import FIELDS
from ssvi.runs.parents import with_parents
from ssvi.runs.spec import RunSpec

# Criteria that order weights alike, the second ones at lambda 1.
ALIKE = (("snr", "snr_abs"), ("e_abs", "e_exp"))
SSVI = which("ssvi")


@dataclass(frozen=True)
class Drift:
    """The change of the mean sigma of a setting's active weights, in percent of its start, and by what; mean over runs.

    Attributes:
        setting: its data set, network, method, density and sigma_init, and whatever else tells it from the others.
    """

    setting: str
    runs: int
    by_gradient: float
    by_topology: float


@dataclass(frozen=True)
class Speed:
    """Median images a second in training of the dense BNN, and of SSVI at its lowest density."""

    dataset: str
    model: str
    dense: float
    density: float
    sparse: float


def believe(
    source: RunFolders, runs: pd.DataFrame, content: Mapping[str, Any], experiments: Experiments
) -> dict[str, Any]:
    """What the section says of the runs, by its names in the template; empty or None where they do not tell."""
    complete = runs[runs["status"] == COMPLETE]
    sizes = Counter(len(group) for group in settings(complete)) if len(complete) else Counter()
    tested = complete.dropna(subset="test_images")
    variational = complete[complete["method"].isin(VARIATIONAL)]
    read = {"validation": runs, "weight_decay": runs, "kl_scale": variational, "prior_sigma": variational}
    read |= {"evaluation_samples": variational, "evaluation_bins": complete}
    return {name.removeprefix("evaluation_"): _values(frame, name) for name, frame in read.items()} | {
        "seeds": sorted(sizes.items()),
        "test_images": {str(d): int(g["test_images"].iloc[0]) for d, g in tested.groupby("dataset", sort=False)},
        "ece": _median(complete, "ece"),
        "ece_marginal": _median(complete, "ece_marginal"),
        "best_test": int(complete["accuracy_best_test"].notna().sum()),
        "diverged": int((runs["status"] == "diverged").sum()),
        "natural": int((complete["posterior_optimizer"] == "ivon").sum()),
        "speeds": _speeds(complete),
        "drift": _drift(source, _specs_of("sigma_drift", content, experiments), _made(runs)),
        "same_order": _same_order(source, _specs_of("iou", content, experiments)),
        "twins": _twins(complete, with_parents({r: s for members in experiments.values() for r, s in members.items()})),
    }


# What a run was computed with: values of `MADE`.
Made = tuple[Any, ...]


def _made(runs: pd.DataFrame) -> dict[str, Made]:
    """What each run was computed with, None where that is not known."""
    rows = runs[list(MADE)].itertuples(index=False, name=None)
    return {run: tuple(None if is_missing(v) else v for v in row) for run, row in zip(runs["run"], rows, strict=True)}


def _values(frame: pd.DataFrame, column: str) -> str:
    return " or ".join(option_text(float(v)) for v in sorted(frame[column].dropna().unique()))


def _median(frame: pd.DataFrame, column: str) -> float | None:
    numbers = pd.to_numeric(frame[column]).dropna()
    return float(numbers.median()) if len(numbers) else None


def _speeds(complete: pd.DataFrame) -> tuple[Speed, ...]:
    """The speeds on each data set and network, of default settings alike in what their cost depends on.

    Left out where the two did not run, or not on one machine.
    """
    found = []
    for evidence in gather(complete, pd.DataFrame(columns=["run"])) if len(complete) else []:
        densities = evidence.variants(SSVI, "density")
        if not densities or "vi" not in evidence.usual:
            continue
        dense, sparse = evidence.setting(which("vi")), evidence.setting(SSVI.but(density=min(densities)))
        both = pd.concat([dense, sparse])
        alike = both[list(comparing.COST_OPTIONS)].drop_duplicates().shape[0] == 1 and one_machine(both)
        speeds = [_median(runs, "images_per_second") for runs in (dense, sparse)]
        if alike and None not in speeds:
            found.append(Speed(evidence.dataset, evidence.model, speeds[0], min(densities), speeds[1]))
    return tuple(found)


def _specs_of(figure: str, content: Mapping[str, Any], experiments: Experiments) -> dict[str, RunSpec]:
    """The runs of a figure, none if the study does not draw it."""
    if figure not in content["figures"]:
        return {}
    named = output_experiments(content["figures"][figure])
    return {run: experiments[e][run] for e in named for run in paths_of([e], experiments)}


def _drift(source: RunFolders, specs: Mapping[str, RunSpec], made: Mapping[str, Made]) -> tuple[Drift, ...]:
    """The drift of each setting under the published recipe (all by SGD, rho at the default learning rate).

    `made` has what each run was computed with, over which no mean goes either.
    """
    published = {run: spec for run, spec in specs.items() if spec.method in SUBSPACE and _is_published_recipe(spec)}
    updates = source.frames(published, ["updates"]).updates
    changes: dict[tuple[RunSpec, Made], list[tuple[float, float]]] = {}
    for run, group in updates.groupby("run", sort=False):
        spec = published[str(run)]
        last = group[group["step"] == group["step"].max()].dropna(subset="sigma_drift_gradient")
        active = pd.to_numeric(last["active"])
        if active.sum() > 0:
            start = start_of_sigma(spec.sigma_init, spec.sigma_init_sd)[0] * float(active.sum()) / 100
            gradient, topology = (
                float((pd.to_numeric(last[f"sigma_drift_{by}"]) * active).sum()) / start
                for by in ("gradient", "topology")
            )
            changes.setdefault((replace(spec, seed=0), made[str(run)]), []).append((gradient, topology))
    named = _names([spec for spec, _ in changes])
    told = [i for i in range(len(MADE)) if len({how[i] for _, how in changes}) > 1]
    names = {
        (spec, how): ", ".join(
            [named[spec], *(f"{HEADINGS.get(MADE[i], MADE[i])} {option_text(how[i])}" for i in told)]
        )
        for spec, how in changes
    }

    def place(setting: tuple[RunSpec, Made]) -> tuple[Any, ...]:
        spec = setting[0]
        return (spec.dataset, spec.model, spec.method, -spec.density, spec.sigma_init, names[setting])

    means = {key: [sum(column) / len(found) for column in zip(*found, strict=True)] for key, found in changes.items()}
    return tuple(Drift(names[key], len(changes[key]), *means[key]) for key in sorted(changes, key=place))


def _is_published_recipe(spec: RunSpec) -> bool:
    return all(getattr(spec, name) == FIELDS[name].default for name in ("optimizer", *RECIPE))


def _names(settings: Sequence[RunSpec]) -> dict[RunSpec, str]:
    """What settings are called: `digits, resnet8, SSVI, density 0.1, sigma_init 0.01`, and what else differs."""
    always = ("density", "sigma_init")
    others = [name for name in FIELDS if name not in (*always, "dataset", "model", "method")]
    varied = [name for name in others if len({getattr(spec, name) for spec in settings}) > 1]
    return {
        spec: ", ".join(
            [spec.dataset, spec.model, METHOD_NAMES[spec.method]]
            + [f"{n} {option_text(getattr(spec, n))}" for n in (*always, *varied) if n not in idle(vars(spec))]
        )
        for spec in settings
    }


def _same_order(source: RunFolders, specs: Mapping[str, RunSpec]) -> dict[tuple[str, str], float]:
    """The least rank correlation seen between criteria that order alike."""
    overlap = source.frames(specs, ["overlap"]).overlap
    plain = {run for run, spec in specs.items() if spec.exp_lambda == 1}
    found = {}
    for pair in ALIKE:
        chosen = overlap[(overlap["first"] == pair[0]) & (overlap["second"] == pair[1]) & overlap["run"].isin(plain)]
        values = pd.to_numeric(chosen["spearman"]).dropna()
        if len(values):
            found[pair] = float(values.min())
    return found


def _twins(complete: pd.DataFrame, specs: Mapping[str, RunSpec]) -> dict[tuple[str, str], tuple[int, int]]:
    """Of the pairs of runs that differ in such criteria alone, those with the very same likelihood, and all."""
    made = _made(complete)
    nll = {(specs[run], made[run]): v for run, v in complete[["run", "nll"]].itertuples(index=False, name=None)}
    found = {}
    for first, second in ALIKE:
        pairs = [
            (value, nll[twin])
            for (spec, how), value in nll.items()
            if spec.criterion == first and (twin := (replace(spec, criterion=second), how)) in nll
        ]
        if pairs:
            found[first, second] = (sum(a == b for a, b in pairs), len(pairs))
    return found
