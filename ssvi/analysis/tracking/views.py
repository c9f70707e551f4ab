"""What MLflow shows when an experiment is opened: its table of trainings, with the columns that tell them apart.

MLflow 3 opens an experiment as one of its GenAI applications unless the address, or a tag of the experiment, says that
it is of trainings. Which columns its table has, and by what it is sorted, is a saved view: a tag too, named by the
address.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ssvi.analysis.figures.style import percent
from ssvi.analysis.settings import METHOD_NAMES
from ssvi.analysis.tracking import experiment as experiments
from ssvi.analysis.tracking.experiment import COUNT, FINAL, HIGH, LOW, MEAN, Experiment
from ssvi.runs.options import options_of
from ssvi.runs.spec import RunSpec

KIND, TRAININGS = "mlflow.experimentKind", "custom_model_development"
VIEW = "mlflow.sharedViewState.ssvi-"
# Columns of the table that stand first, and how wide they are, in pixels.
PINNED = {"attributes.`Run Name`": 230, "runDateAndNestInfo": 60}
WIDTHS = {"metrics": 112, "params": 78, "nll": 78, "density": 66}
# A density that so many methods have in a study is a view of its own.
COMPARED = 2


def tags(specs: Iterable[RunSpec]) -> dict[str, str]:
    """The tags of a study's experiment that say how it is shown."""
    views = list(_views(list(specs)))
    # MLflow lists the latest first
    times = [{"createdAt": time, "updatedAt": time} for time in range(len(views), 0, -1)]
    found = {f"{VIEW}{key}": json.dumps(view | time) for (key, view), time in zip(views, times, strict=True)}
    return {KIND: TRAININGS} | found


def show(experiment: Experiment, specs: Iterable[RunSpec]) -> None:
    """See to it that MLflow shows the experiment so. Views that people saved are theirs."""
    for name, value in tags(specs).items():
        if experiment.tags.get(name) != value:
            experiment.client.set_experiment_tag(experiment.id, name, value)
            experiment.tags[name] = value


def address(server: str, experiment: str) -> str:
    """Where the trainings of an experiment are shown by the MLflow server at `server`."""
    return f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=ssvi-runs"


def _views(specs: list[RunSpec]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of all trainings, of their settings, and of each density at which methods compete."""
    single = [f"metrics.`{FINAL}/accuracy`", f"metrics.`{FINAL}/nll`", "params.method", "params.density"]
    single += [f"metrics.`{FINAL}/ece`", "params.criterion", "params.seed"]
    means = [f"metrics.`{kind}/accuracy`" for kind in (MEAN, LOW, HIGH)]
    means += [f"metrics.`{MEAN}/nll`", f"metrics.`{COUNT}/accuracy`", "params.method", "params.density"]
    yield "runs", _view("Runs", "", single)
    yield "settings", _view("Means over seeds", f"tags.`{experiments.KIND}` = '{experiments.SETTING}'", means)
    sparse = [(spec.density, spec.method) for spec in specs if "density" in options_of(spec.method)]
    methods = Counter(density for density, _ in set(sparse))
    for density in sorted(density for density, count in methods.items() if count >= COMPARED):
        title = f"Density {density:g} ({percent(1 - density)} % sparse)"
        yield f"density-{density:g}", _view(title, f"params.density = '{density}'", single)
    for method in dict.fromkeys(method for _, method in sparse):
        yield f"method-{method}", _view(METHOD_NAMES[method], f"params.method = '{method}'", single)


def _view(name: str, condition: str, columns: list[str]) -> dict[str, Any]:
    """A saved view as MLflow keeps it but for its time, sorted by the first column."""
    shown = [column if "`" in column else "{}.`{}`".format(*column.split(".")) for column in columns]
    words = {column: column.replace("`", "").replace("/", ".").split(".") for column in shown}
    widths = {column: WIDTHS.get(last, WIDTHS[kind]) for column, (kind, *_, last) in words.items()}
    state = {
        "searchFilter": condition,
        "orderByKey": shown[0],
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": shown,
        "columnOrder": [*PINNED, *shown],
        "columnWidths": PINNED | widths,
    }
    return {"name": name, "state": json.dumps(state)}
