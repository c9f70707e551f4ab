"""Our numbers beside the paper's, quantity by quantity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssvi.analysis.collect import Frames
from ssvi.analysis.settings import METHOD_NAMES, caveats
from ssvi.analysis.stats import Estimate, interval
from ssvi.analysis.tables.format import COUNTED, DASH, Table, format_difference, format_interval
from ssvi.analysis.tables.options import describe, usual_options
from ssvi.analysis.tables.published import is_papers, published, published_rows, what_was_run
from ssvi.analysis.tables.results import relative_cost
from ssvi.analysis.tables.rows import by_seed, complete, reading_order


@dataclass(frozen=True)
class Quantity:
    """What is compared: its key in `published.json`, its heading, and our column."""

    key: str
    heading: str
    source: str
    style: str
    factor: float = 1.0
    divisor: float = 1.0  # of both numbers, to write them short


QUANTITIES = (
    Quantity("accuracy_percent", "accuracy (%)", "accuracy", ".2f", 100.0),
    Quantity("nll", "NLL (the paper's loss)", "nll", ".3f"),
    Quantity("ece_marginal", "marginal ECE", "ece_marginal", ".4f"),
    Quantity("sparsity_percent", "sparsity (%)", "sparsity", ".1f", 100.0),
    Quantity("complexity", "complexity (millions)", "complexity", ".2f", divisor=1e6),
    Quantity("training_flops", "training FLOPs (1e15), counted here", "training_flops", ".1f", divisor=1e15),
    Quantity("training_flops_ratio", "training FLOPs (× dense BNN)", "training_flops_ratio", ".3f"),
)
SHOWN = (
    *("data set", "method", "density", "quantity", "paper", "ours", "95 % interval"),
    *("n", "ours − paper [95 % interval]"),
)
NUMBERS = (
    *("dataset", "method", "density", "options", "quantity", "paper", "ours", "ours_low", "ours_high"),
    *("difference", "difference_low", "difference_high", "n"),
)


def table1_paper(frames: Frames) -> Table:
    """Table 1 of the paper beside our runs of the same data, network and epochs; without such runs, no rows."""
    return _beside(frames, "table1")


def table2_paper(frames: Frames) -> Table:
    """Table 2 of the paper beside our runs of the same data, network and epochs; without such runs, no rows."""
    return _beside(frames, "table2")


def _beside(frames: Frames, name: str) -> Table:
    paper = published()
    caption = f"Ours beside the paper's {paper[name]['source'].partition(',')[0]}."
    comparable = frames.runs[[is_papers(row) for _, row in frames.runs.iterrows()]]
    groups, _ = relative_cost(reading_order(comparable), comparable) if len(comparable) else ([], [])
    usual = usual_options(groups)
    shown, numbers = [], []
    for group in groups:
        for entry in published_rows(name, group.iloc[0]["dataset"]):
            if _matches(entry, group.iloc[0]):
                for text, number in _quantities(entry, group, describe(group.iloc[0], usual)):
                    shown.append(text)
                    numbers.append(number)
    options = ("options",) if any(text["options"] for text in shown) else ()
    columns = [*SHOWN[:3], *options, *SHOWN[3:]]
    source = f"Source: {paper['paper']}, {paper[name]['source']}."
    notes = [source, *paper["notes"], *caveats(comparable)] if shown else [_why_empty(frames.runs), source]
    table = pd.DataFrame(numbers, columns=NUMBERS)
    return Table(pd.DataFrame(shown, columns=columns), table.astype({"n": "Int64"}), caption, tuple(notes))


def _why_empty(runs: pd.DataFrame) -> str:
    paper = published()
    return (
        f"The paper's numbers are of {' and '.join(paper['datasets'])} with {paper['model']}, {paper['epochs']} "
        f"epochs, on all training images, at its densities; these runs are not: "
        f"{what_was_run(runs) or 'there are none'}."
    )


def _matches(entry: dict[str, Any], row: pd.Series) -> bool:
    """Whether a printed row is of this setting's method and, if it names one, density."""
    return entry["method"] == row["method"] and entry.get("density", row["density"]) == row["density"]


def _quantities(entry: dict[str, Any], group: pd.DataFrame, options: str) -> list[tuple[dict[str, str], dict]]:
    """A row for each number that the paper prints of this setting."""
    found = []
    for quantity in QUANTITIES:
        if quantity.key in entry:
            ours = interval(by_seed(group, quantity.source, quantity.factor))
            found.append(_row(entry, group, options, quantity, ours))
    if entry["method"] == "ssvi" and "training_flops" in entry and len(complete(group)):
        units = float(group.iloc[0]["density"]) * published()["flops_unit"]
        heading = "training FLOPs (1e15), the paper's units (density × 1.14e17)"
        defined = Quantity("training_flops", heading, "", ".1f", divisor=1e15)
        text, number = _row(entry, group, options, defined, Estimate(units, units, units, 1))
        # The paper's number is the same product: nothing is compared.
        text |= dict.fromkeys(("95 % interval", "n", "ours − paper [95 % interval]"), DASH)
        number |= dict.fromkeys(("ours_low", "ours_high", "difference", "difference_low", "difference_high", "n"))
        found.append((text, number))
    return found


def _row(
    entry: dict[str, Any], group: pd.DataFrame, options: str, quantity: Quantity, ours: Estimate
) -> tuple[dict[str, str], dict[str, Any]]:
    printed, first = entry[quantity.key], group.iloc[0]
    difference = Estimate(ours.mean - printed, ours.low - printed, ours.high - printed, ours.n)
    label = {"dataset": first["dataset"], "method": first["method"], "density": first["density"], "options": options}
    number = {**label, "quantity": quantity.heading, "paper": printed, "ours": ours.mean, "ours_low": ours.low}
    number |= {"ours_high": ours.high, "difference": difference.mean, "difference_low": difference.low}
    number |= {"difference_high": difference.high, "n": ours.n}
    short, style = _scaled(ours, quantity.divisor), quantity.style
    text = {
        "data set": str(first["dataset"]),
        "method": METHOD_NAMES.get(first["method"], entry.get("name", first["method"])),
        "density": f"{first['density']:g}" if "density" in entry else "",
        "options": options,
        "quantity": quantity.heading,
        "paper": f"{printed / quantity.divisor:{style}}",
        "ours": f"{short.mean:{style}}" if ours.n else DASH,
        "95 % interval": COUNTED if ours.low == ours.high else format_interval(short, style).replace("+", ""),
        "n": str(ours.n),
        "ours − paper [95 % interval]": format_difference(_scaled(difference, quantity.divisor), style),
    }
    return text, number


def _scaled(estimate: Estimate, divisor: float) -> Estimate:
    return Estimate(estimate.mean / divisor, estimate.low / divisor, estimate.high / divisor, estimate.n)
