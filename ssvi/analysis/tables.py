"""Tables as pure functions of the runs frame: a `Table` holds the numbers, and is written as CSV, Markdown, LaTeX.

Every figure is a mean and a sample standard deviation over seeds; n counts the runs that were averaged.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ssvi.errors import UserError, unknown
from ssvi.runs import write_text
from ssvi.spec import CRITERIA, FIELDS, METHODS

METHOD_NAMES = {"dense": "dense network", "vi": "dense BNN", "rigl": "RigL", "ssvi": "SSVI"}
SETTING = (*(name for name in FIELDS if name != "seed"), "evaluation_samples", "evaluation_bins")
HEADINGS = {"dataset": "data set", "evaluation_samples": "test samples", "evaluation_bins": "bins"}
FIRST = ("dataset", "model", "method", "density", "lr")

# What the cost of a dense BNN depends on: its runs that agree in these are the yardstick of a sparse one.
COST_OPTIONS = (
    "dataset",
    "model",
    "width",
    "image_size",
    "validation",
    "augment",
    "epochs",
    "batch_size",
    "precision",
    "sampling",
)

# The paper counts the training of one dense BNN as 1.14e17 and multiplies by the density.
PAPER_FLOPS = 1.14e17
PAPER_DATASETS = ("cifar10", "cifar100")
PAPER_MODEL = "resnet18"
PAPER_EPOCHS = 200

DASH = "–"

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }
caption { font-weight: bold; text-align: left; padding-bottom: .6em; }
th, td { padding: .2em .7em; text-align: left; white-space: nowrap; }
th { border-bottom: 1px solid; white-space: normal; vertical-align: bottom; }
.figure { text-align: right; font-variant-numeric: tabular-nums; }
"""


@dataclass(frozen=True)
class Column:
    """A measured column: its key in the CSV, its heading, how it is written, and what it is made of."""

    key: str
    heading: str
    style: str
    source: str
    factor: float = 1.0


ACCURACY = Column("accuracy_percent", "accuracy (%)", ".2f", "accuracy", 100.0)
BEST_TEST = Column("accuracy_best_test_percent", "best test accuracy (%)", ".2f", "accuracy_best_test", 100.0)
NLL = Column("nll", "NLL", ".4f", "nll")
ECE = Column("ece", "ECE", ".4f", "ece")
ECE_MARGINAL = Column("ece_marginal", "marginal ECE", ".4f", "ece_marginal")
BRIER = Column("brier", "Brier", ".4f", "brier")
SPARSITY = Column("sparsity_percent", "sparsity (%)", ".2f", "sparsity", 100.0)
COMPLEXITY = Column("complexity", "complexity", "big", "complexity")
STORED = Column("stored_numbers", "stored numbers", "big", "stored_numbers")
TRAINING_FLOPS = Column("training_flops", "training FLOPs", "big", "training_flops")
INFERENCE_FLOPS = Column("inference_flops", "inference FLOPs per image", "big", "inference_flops")
SECONDS = Column("training_seconds", "training time (s)", ".1f", "training_seconds")
MEMORY = Column("peak_memory_mb", "peak memory (MB)", ".0f", "peak_memory_bytes", 1e-6)
FLOPS_RATIO = Column("training_flops_ratio", "training FLOPs (× dense BNN)", ".3f", "training_flops_ratio")
SECONDS_RATIO = Column("training_seconds_ratio", "training time (× dense BNN)", ".2f", "training_seconds_ratio")
PAPER_UNITS = Column(
    "training_flops_paper", "Training FLOPs, paper's units (density × 1.14e17)", "exact", "paper_units"
)

SUMMARY_COLUMNS = (
    ACCURACY,
    NLL,
    ECE,
    ECE_MARGINAL,
    BRIER,
    SPARSITY,
    COMPLEXITY,
    STORED,
    TRAINING_FLOPS,
    INFERENCE_FLOPS,
    SECONDS,
    MEMORY,
)
TABLE1_COLUMNS = (ACCURACY, ECE, ECE_MARGINAL, SPARSITY, FLOPS_RATIO, SECONDS_RATIO)


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        frame: what is read, every cell as text.
        numbers: the same rows unrounded, means and standard deviations in columns of their own.
        caption: what is shown.
        notes: what a reader must know to read it right, such as the runs left out.
    """

    frame: pd.DataFrame
    numbers: pd.DataFrame
    caption: str
    notes: tuple[str, ...] = ()


def format_mean_sd(mean: float, sd: float, style: str) -> str:
    """`mean ± sd` in the given style; a missing number is a dash.

    Args:
        mean: the mean, NaN if nothing was measured.
        sd: the sample standard deviation, NaN for a single value.
        style: a format such as `.2f`; `big`: whole numbers, from a million on with one power of ten for both;
            `exact`: a figure that is defined and not measured, alone and with three digits.
    """
    if _missing(mean):
        return DASH
    if style == "exact":
        return f"{mean:.2e}".replace("e+", "e")
    exponent = int(f"{mean:e}".partition("e")[2]) if style == "big" and abs(mean) >= 1e6 else 0
    digits = ".2f" if exponent else ",.0f" if style == "big" else style
    spread = DASH if _missing(sd) else f"{sd / 10**exponent:{digits}}"
    both = f"{mean / 10**exponent:{digits}} ± {spread}"
    return f"({both})e{exponent}" if exponent else both


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def setting_columns(frame: pd.DataFrame) -> list[str]:
    """The columns that tell the frame's settings apart: data set, method, density, lr, and whatever else varies.

    An option varies if runs that use it differ in it; that a method has no criterion is no difference.
    """
    always = ("dataset", "method", "density", "lr")
    order = (*FIRST, *(name for name in SETTING if name not in FIRST))
    return [name for name in order if name in always or frame[name].dropna().nunique() > 1]


def settings(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs of each distinct setting (all options but the seed), in reading order."""
    columns = list(SETTING)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for position, row in enumerate(frame[columns].itertuples(index=False, name=None)):
        groups.setdefault(tuple(None if _missing(v) else v for v in row), []).append(position)
    return [frame.iloc[groups[key]] for key in sorted(groups, key=_reading_order)]


def _reading_order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    options = dict(zip(SETTING, key, strict=True))
    rest = [
        (0, 0.0, "") if v is None else (1, float(v), "") if isinstance(v, int | float) else (2, _rank(v), v)
        for v in key
    ]
    return (options["dataset"], options["model"], METHODS.index(options["method"]), -options["density"], rest)


def _rank(word: str) -> float:
    return float(CRITERIA.index(word)) if word in CRITERIA else 0.0


def option_text(value: Any) -> str:
    """An option as it stands in a table or legend; empty where the method does not use it."""
    if _missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    return str(value)


def _build(
    groups: list[pd.DataFrame], columns: Sequence[Column], named: list[str], caption: str, notes: list[str]
) -> Table:
    shown, numbers = [], []
    for group in groups:
        complete = group[group["status"] == "complete"]
        first = group.iloc[0]
        text: dict[str, Any] = {HEADINGS.get(name, name): option_text(first[name]) for name in named}
        text["method"] = METHOD_NAMES[first["method"]]
        number: dict[str, Any] = {name: first[name] for name in named}
        for column in columns:
            mean, sd = mean_sd(complete[column.source], column.factor)
            text[column.heading] = format_mean_sd(mean, sd, column.style)
            number |= {f"{column.key}_mean": mean, f"{column.key}_sd": sd}
        shown.append(text | {"n": str(len(complete))})
        numbers.append(number | {"n": len(complete)})
    runs = pd.concat(groups)
    return Table(pd.DataFrame(shown), pd.DataFrame(numbers), caption, (*notes, *_notes(runs)))


def mean_sd(values: pd.Series, factor: float = 1.0) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1); the latter NaN for fewer than two values."""
    numbers = pd.to_numeric(values, errors="coerce").dropna() * factor
    return (float(numbers.mean()), float(numbers.std(ddof=1))) if len(numbers) else (math.nan, math.nan)


def _notes(runs: pd.DataFrame) -> list[str]:
    notes = ["Mean ± sample standard deviation over n seeds."]
    evaluations = runs[["evaluation_samples", "evaluation_bins"]].dropna().drop_duplicates()
    if len(evaluations) == 1:
        samples, bins = evaluations.iloc[0]
        notes.append(
            f"Posterior samples per test image: {samples:.0f} (Bayesian methods); bins of the ECE: {bins:.0f}."
        )
    devices = sorted(runs["device"].dropna().unique())
    if devices:
        warning = " (times are not comparable between devices)" if len(devices) > 1 else ""
        notes.append(f"Measured on: {', '.join(devices)}{warning}.")
    for row in runs[runs["status"] != "complete"].itertuples():
        cause = "" if _missing(row.cause) else f" ({row.cause})"
        notes.append(f"Left out, {row.status}: {row.run}{cause}.")
    return notes


def table1(runs: pd.DataFrame) -> Table:
    """The dense BNN against SSVI at each density, a block a data set, with the cost relative to the dense BNN.

    Raises:
        UserError: if the runs hold neither method.
    """
    wanted = _some(runs[runs["method"].isin(["vi", "ssvi"])], "table1", "a run of method vi or ssvi")
    groups, estimated = [], False
    for group in settings(wanted):
        reference = _dense_reference(wanted, group)
        counted, seconds = math.nan, math.nan
        if reference is not None:
            counted = reference["training_flops"].mean()
            seconds = reference[reference["device"].isin(group["device"])]["training_seconds"].mean()
        elif group["training_flops_dense"].notna().any():
            counted, estimated = group["training_flops_dense"].mean(), True
        groups.append(
            group.assign(
                training_flops_ratio=group["training_flops"] / counted,
                training_seconds_ratio=group["training_seconds"] / seconds,
                paper_units=[_paper_units(row) for _, row in group.iterrows()],
            )
        )
    notes = ["Training FLOPs are counted as if masked weights cost nothing; training time is measured."]
    if estimated:
        notes.append(
            "Where no dense BNN of the same network, data and epochs was run, FLOPs are relative to the count of "
            "the method itself at density 1."
        )
    paper = any(group["paper_units"].notna().any() for group in groups)
    columns = [*TABLE1_COLUMNS, PAPER_UNITS] if paper else TABLE1_COLUMNS
    return _build(
        groups, columns, setting_columns(wanted), "Dense BNN and SSVI: accuracy, calibration and cost.", notes
    )


def _dense_reference(runs: pd.DataFrame, group: pd.DataFrame) -> pd.DataFrame | None:
    """The finished vi runs whose cost a setting's cost can be compared with."""
    first = group.iloc[0]
    same = (runs["method"] == "vi") & (runs["status"] == "complete")
    for name in COST_OPTIONS:
        same &= runs[name] == first[name]
    return runs[same] if same.any() else None


def _paper_units(row: pd.Series) -> float:
    comparable = row["dataset"] in PAPER_DATASETS and row["model"] == PAPER_MODEL and row["epochs"] == PAPER_EPOCHS
    return float(row["density"]) * PAPER_FLOPS if comparable else math.nan


def summary(runs: pd.DataFrame) -> Table:
    """Every setting with every metric, one row each.

    Raises:
        UserError: if there are no runs.
    """
    wanted = _some(runs, "summary", "a run")
    best = [BEST_TEST] if wanted["accuracy_best_test"].notna().any() else []
    notes = [
        "Complexity: active weights and dense remainder, a pair (mu, sigma) counted once. FLOPs are counted as if "
        "masked weights cost nothing; inference is for one image with all its samples; time and memory are measured."
    ]
    if best:
        notes.append("Best test accuracy is the largest over the epochs: chosen on the test set, so biased upwards.")
    return _build(
        settings(wanted),
        [ACCURACY, *best, *SUMMARY_COLUMNS[1:]],
        setting_columns(wanted),
        "Accuracy, calibration, size and cost.",
        notes,
    )


def _some(runs: pd.DataFrame, table: str, need: str) -> pd.DataFrame:
    if runs.empty:
        raise UserError(f"{table}: needs {need}, but the collected experiments have none.")
    return runs


def to_markdown(table: Table) -> str:
    """A GitHub table with its caption above and its notes below."""
    headings = [_markdown(name) for name in table.frame.columns]
    rule = [":---" if _is_setting(name) else "---:" for name in table.frame.columns]
    rows = [[_markdown(cell) for cell in row] for row in table.frame.itertuples(index=False, name=None)]
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows)]
    notes = [f"- {_markdown(note)}" for note in table.notes]
    return "\n".join([f"**{_markdown(table.caption)}**", "", *lines, "", *notes]) + "\n"


def _is_setting(heading: str) -> bool:
    return heading in FIELDS or heading in HEADINGS.values()


def _markdown(text: str) -> str:
    return re.sub(r"([|*<>`\\])", r"\\\1", text.replace("\n", " "))


def to_html(table: Table) -> str:
    """A page with the table, its caption and its notes; it needs no network."""
    rows = [[html.escape(cell) for cell in row] for row in table.frame.itertuples(index=False, name=None)]
    kinds = ["setting" if _is_setting(name) else "figure" for name in table.frame.columns]
    head = "".join(
        f'<th class="{kind}">{html.escape(name)}</th>' for kind, name in zip(kinds, table.frame.columns, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(f'<td class="{k}">{cell}</td>' for k, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    notes = "\n".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(table.caption)}</title>\n'
        f"<style>{STYLE}</style>\n<table>\n<caption>{html.escape(table.caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n<ul>\n{notes}\n</ul>\n</html>\n"
    )


def to_latex(table: Table) -> str:
    """A booktabs table environment (needs `booktabs` and nothing else)."""
    alignment = "".join("l" if _is_setting(name) else "r" for name in table.frame.columns)
    rows = [[_latex(cell) for cell in row] for row in table.frame.itertuples(index=False, name=None)]
    body = [" & ".join(cells) + r" \\" for cells in rows]
    notes = [r"\par\smallskip\footnotesize " + " ".join(_latex(note) for note in table.notes)] if table.notes else []
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(_latex(name) for name in table.frame.columns) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    DASH: "--",
    "\n": " ",
}


def _latex(text: str) -> str:
    if power := re.fullmatch(r"\((.+) ± (.+)\)e(\d+)", text):
        mean, sd, exponent = power.groups()
        spread = r"\mbox{--}" if sd == DASH else sd
        return rf"$({mean} \pm {spread}) \times 10^{{{exponent}}}$"
    if power := re.fullmatch(r"([\d.]+)e(\d+)", text):
        return rf"${power[1]} \times 10^{{{power[2]}}}$"
    return "".join(_LATEX.get(character, character) for character in text)


def write_table(table: Table, stem: Path) -> None:
    """Write STEM.csv (unrounded numbers), STEM.md, STEM.html and STEM.tex, each atomically."""
    for suffix, text in (
        ("csv", table.numbers.to_csv(index=False, lineterminator="\n")),
        ("md", to_markdown(table)),
        ("html", to_html(table)),
        ("tex", to_latex(table)),
    ):
        write_text(stem.with_name(f"{stem.name}.{suffix}"), text)


def make_table(name: str, runs: pd.DataFrame) -> Table:
    """The registered table of that name.

    Raises:
        UserError: for an unknown name, or runs that lack what the table shows.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES, "reports")
    return TABLES[name](runs)


TABLES: dict[str, Callable[[pd.DataFrame], Table]] = {"table1": table1, "summary": summary}
