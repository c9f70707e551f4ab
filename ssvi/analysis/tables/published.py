"""The paper's printed numbers (`published.json`) and whether a run may stand beside them."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd


@cache
def published() -> dict[str, Any]:
    """The paper's tables, with where each number is printed and what its columns mean."""
    return json.loads(files(__package__).joinpath("published.json").read_text())


def is_papers(row: pd.Series) -> bool:
    """Whether a run has the paper's data, all training images of it, its network and its number of epochs."""
    paper = published()
    same_data = row["dataset"] in paper["datasets"] and row["validation"] == 0
    same_network = row["model"] == paper["model"] and row["width"] == 1.0
    return bool(same_data and same_network and row["epochs"] == paper["epochs"])


def published_rows(table: str, dataset: str) -> list[dict[str, Any]]:
    """The paper's rows of one of its tables on one data set."""
    return [row for row in published()[table]["rows"] if row["dataset"] == dataset]


def what_was_run(runs: pd.DataFrame) -> str:
    """The data, networks and epochs of these runs: `digits with resnet8, 12 epochs, 10 % of the images held out`."""
    kinds = runs[["dataset", "model", "epochs", "validation"]].drop_duplicates().itertuples(index=False, name=None)
    return "; ".join(
        f"{dataset} with {model}, {epochs} epochs" + (f", {100 * held_out:g} % of the images held out" * (held_out > 0))
        for dataset, model, epochs, held_out in kinds
    )
