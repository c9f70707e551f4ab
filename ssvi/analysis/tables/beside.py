"""Our numbers beside the paper's, quantity by quantity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from ssvi.analysis import comparing, quantities
from ssvi.analysis.collect import Frames
from ssvi.analysis.quantities import Quantity
from ssvi.analysis.settings import METHOD_NAMES, caveats
from ssvi.analysis.stats import Estimate, interval
from ssvi.analysis.tables.format import COUNTED, DASH, Table, format_difference, format_interval
from ssvi.analysis.tables.options import describe, unsaid_options
from ssvi.analysis.tables.published import is_papers, published, published_rows, what_was_run
from ssvi.analysis.tables.rows import reading_order

# What is compared, keyed as in `published.json`, and by what it is divided to be short.
COMPARED = {
    quantities.ACCURACY: 1.0,
    replace(quantities.NLL, name="NLL (the paper's loss)", style=".3f"): 1.0,
    quantities.ECE_MARGINAL: 1.0,
    replace(quantities.SPARSITY, style=".1f"): 1.0,
    replace(quantities.COMPLEXITY, unit="millions", style=".2f"): 1e6,
    replace(quantities.TRAINING_FLOPS, name="training FLOPs (1e15), counted here", style=".1f"): 1e15,
    quantities.FLOPS_RATIO: 1.0,
}
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
    groups, _ = comparing.relative_cost(reading_order(comparable), comparable) if len(comparable) else ([], [])
    usual = unsaid_options(groups)
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
    for quantity, divisor in COMPARED.items():
        if quantity.key in entry:
            ours = interval(comparing.by_seed(group, quantity))
            found.append(_row(entry, group, options, quantity, divisor, ours))
    if entry["method"] == "ssvi" and "training_flops" in entry and len(comparing.complete(group)):
        units = float(group.iloc[0]["density"]) * published()["flops_unit"]
        name = "training FLOPs (1e15), the paper's units (density × 1.14e17)"
        defined = replace(quantities.TRAINING_FLOPS, name=name, style=".1f")
        text, number = _row(entry, group, options, defined, 1e15, Estimate(units, units, units, 1))
        # The paper's number is the same product: nothing is compared.
        text |= dict.fromkeys(("95 % interval", "n", "ours − paper [95 % interval]"), DASH)
        number |= dict.fromkeys(("ours_low", "ours_high", "difference", "difference_low", "difference_high", "n"))
        found.append((text, number))
    return found


def _row(
    entry: dict[str, Any], group: pd.DataFrame, options: str, quantity: Quantity, divisor: float, ours: Estimate
) -> tuple[dict[str, str], dict[str, Any]]:
    printed, first = entry[quantity.key], group.iloc[0]
    difference = Estimate(ours.mean - printed, ours.low - printed, ours.high - printed, ours.n)
    label = {"dataset": first["dataset"], "method": first["method"], "density": first["density"], "options": options}
    number = {**label, "quantity": quantity.heading, "paper": printed, "ours": ours.mean, "ours_low": ours.low}
    number |= {"ours_high": ours.high, "difference": difference.mean, "difference_low": difference.low}
    number |= {"difference_high": difference.high, "n": ours.n}
    short, style = _scaled(ours, divisor), quantity.style
    text = {
        "data set": str(first["dataset"]),
        "method": METHOD_NAMES[first["method"]],
        "density": f"{first['density']:g}" if "density" in entry else "",
        "options": options,
        "quantity": quantity.heading,
        "paper": f"{printed / divisor:{style}}",
        "ours": f"{short.mean:{style}}" if ours.n else DASH,
        "95 % interval": COUNTED if ours.low == ours.high else format_interval(short, style).replace("+", ""),
        "n": str(ours.n),
        "ours − paper [95 % interval]": format_difference(_scaled(difference, divisor), style),
    }
    return text, number


def _scaled(estimate: Estimate, divisor: float) -> Estimate:
    return Estimate(estimate.mean / divisor, estimate.low / divisor, estimate.high / divisor, estimate.n)
