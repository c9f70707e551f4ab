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
    """Whether a run has the paper's data, all training images of it, its network and its number of epochs.

    Of the methods it compares itself with, the paper does not state the epochs.
    """
    paper = published()
    same_data = row["dataset"] in paper["datasets"] and row["validation"] == 0
    same_network = is_papers_network(row)
    same_length = row["method"] in rivals() or row["epochs"] == paper["epochs"]
    return bool(same_data and same_network and same_length)


def is_papers_network(runs: pd.DataFrame | pd.Series) -> Any:
    """Whether a run has the paper's network, at its full width; of a frame a series that says so of each run."""
    return (runs["model"] == published()["model"]) & (runs["width"] == 1.0)


def rivals() -> tuple[str, ...]:
    """The methods that the paper's Table 2 compares SSVI with."""
    return tuple(dict.fromkeys(row["method"] for row in published()["table2"]["rows"] if row["method"] != "ssvi"))


def published_rows(table: str, dataset: str) -> list[dict[str, Any]]:
    """The paper's rows of one of its tables on one data set."""
    return [row for row in published()[table]["rows"] if row["dataset"] == dataset]


def what_was_run(runs: pd.DataFrame) -> str:
    """The data, networks and epochs of these runs: `digits with resnet8, 12 epochs, 10 % of the images held out`."""
    found = []
    for (dataset, model, held_out), group in runs.groupby(["dataset", "model", "validation"], sort=False):
        *most, last = [f"{epochs:g}" for epochs in sorted(group["epochs"].dropna().unique())]
        length = f"{', '.join(most)} or {last}" if most else last
        share = f", {100 * held_out:g} % of the images held out" if held_out > 0 else ""
        found.append(f"{dataset} with {model}, {length} epochs{share}")
    return "; ".join(found)
