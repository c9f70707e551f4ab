"""What each choice is worth: every ablation setting against the default one, paired by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ssvi.analysis import comparing, quantities
from ssvi.analysis.collect import Frames
from ssvi.analysis.settings import METHOD_NAMES, SETTING, caveats, split, task
from ssvi.analysis.stats import DIFFERENCES, mean_sd
from ssvi.analysis.tables.format import DASH, Table, format_difference, format_mean_sd
from ssvi.analysis.tables.options import departures, describe, usual_options
from ssvi.analysis.tables.rows import reading_order
from ssvi.errors import UserError
from ssvi.runs.options import FIELDS, options_of

BLOCK = ("dataset", "model", "method")
COMPARED = (quantities.ACCURACY, quantities.NLL, quantities.ECE)
FLOPS = replace(quantities.FLOPS_RATIO, unit="× default").heading


def default_settings(groups: Sequence[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The default setting of each method, of settings of one task (`ssvi.analysis.settings.task`).

    An ablation varies an option or two at a time, so the default setting is the one that departs least from the options
    that most settings have: of all methods, because of one there may be more ablations than anything else; then of its
    own; then from the defaults of `ssvi train`.
    """
    usual, defaults = usual_options(groups), {name: field.default for name, field in FIELDS.items()}
    found = {}
    for method, own in split(groups, lambda group: group.iloc[0]["method"]).items():
        centres = (usual, usual_options(own), defaults)
        found[method] = min(own, key=lambda group: [len(departures(group.iloc[0], c, BLOCK)) for c in centres])
    return found


def choices(frames: Frames) -> Table:
    """Every setting's difference to its method's default one in accuracy, NLL, ECE and training FLOPs.

    Raises:
        UserError: if there are no runs.
    """
    if frames.runs.empty:
        raise UserError("choices: needs a run, but the collected experiments have none.")
    groups = reading_order(frames.runs)
    # Of a method on one task the default setting, and all that it was run with.
    blocks = [
        (default, [group for group in alike if group.iloc[0]["method"] == method])
        for alike in split(groups, task).values()
        for method, default in default_settings(alike).items()
    ]
    models = {group.iloc[0]["model"] for group in groups}
    shown, numbers, strong, defaults = [], [], set(), []
    for default, block in blocks:
        defaults.append(_default_note(default))
        for group in _by_option([group for group in block if group is not default], default):
            text, number, bold = _compare(group, default, len(models) > 1)
            strong |= {(len(shown), heading) for heading in bold}
            shown.append(text)
            numbers.append(number)
    notes = (*defaults, *_notes(len(shown)), *caveats(frames.runs))
    caption = "Design choices: differences to the default setting, with 95 % intervals."
    columns = _headings(len(models) > 1)
    frame = pd.DataFrame(shown, columns=columns)
    return Table(frame, pd.DataFrame(numbers, columns=_keys()), caption, notes, frozenset(strong))


def _by_option(groups: Sequence[pd.DataFrame], default: pd.DataFrame) -> list[pd.DataFrame]:
    """The settings by the option that they vary and its value, presets last."""
    usual = dict(default.iloc[0])

    def key(group: pd.DataFrame) -> tuple[bool, list[tuple[int, bool, Any]]]:
        varied = departures(group.iloc[0], usual, BLOCK)
        order = [(SETTING.index(name), isinstance(value, str), value) for name, value in varied.items()]
        return "preset" in describe(group.iloc[0], usual, BLOCK), order

    return sorted(groups, key=key)


def _headings(models: bool) -> list[str]:
    model = ["model"] if models else []
    return ["data set", *model, "method", "options", *(quantity.difference for quantity in COMPARED), FLOPS, "n"]


def _keys() -> list[str]:
    ends = [f"{c.key}_difference{end}" for c in COMPARED for end in ("", "_low", "_high")]
    return ["dataset", "model", "method", "options", *ends, "training_flops_ratio", "n"]


def _compare(group: pd.DataFrame, default: pd.DataFrame, model: bool) -> tuple[dict[str, str], dict[str, Any], set]:
    """A row as text and as numbers, and the headings of its cells outside the noise."""
    first = group.iloc[0]
    words = describe(first, dict(default.iloc[0]), BLOCK)
    text = {"data set": str(first["dataset"])} | ({"model": str(first["model"])} if model else {})
    text |= {"method": METHOD_NAMES[first["method"]], "options": words}
    number: dict[str, Any] = {name: first[name] for name in BLOCK} | {"options": words}
    bold = set()
    estimates = [comparing.compare(group, default, column) for column in COMPARED]
    for column, estimate in zip(COMPARED, estimates, strict=True):
        text[column.difference] = format_difference(estimate, column.style)
        ends = {"": estimate.mean, "_low": estimate.low, "_high": estimate.high}
        number |= {f"{column.key}_difference{end}": value for end, value in ends.items()}
        if estimate.above(0) is not None:
            bold.add(column.difference)
    flops = [comparing.by_seed(g, quantities.TRAINING_FLOPS).mean() for g in (group, default)]
    ratio = flops[0] / flops[1]
    text |= {FLOPS: DASH if pd.isna(ratio) else f"{ratio:.3f}", "n": str(estimates[0].n)}
    return text, number | {"training_flops_ratio": ratio, "n": estimates[0].n}, bold


def _default_note(default: pd.DataFrame) -> str:
    """What the differences of a block are to."""
    row, done = default.iloc[0], comparing.complete(default)
    defaults = {name: field.default for name, field in FIELDS.items()} | {"density": None}
    ignored = BLOCK if "density" in options_of(row["method"]) else (*BLOCK, "density")
    options = describe(row, defaults, ignored) or "all at the defaults"
    means = ", ".join(f"{c.heading} {format_mean_sd(*mean_sd(c.of(done)), c.style)}" for c in COMPARED)
    return (
        f"Default, {row['dataset']}, {row['model']}, {METHOD_NAMES[row['method']]} ({options}): {means}; n {len(done)}."
    )


def _notes(rows: int) -> list[str]:
    if not rows:
        return ["Nothing to compare: of no method was a second setting run."]
    compared = rows * len(COMPARED)
    return [
        DIFFERENCES,
        f"Bold: the interval excludes 0. Of {compared} comparisons about {max(1, round(0.05 * compared))} would "
        "do so by chance if no choice mattered.",
        "FLOPs are counted as if masked weights cost nothing.",
    ]
