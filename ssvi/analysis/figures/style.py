"""How what is drawn looks: one style, one look a method and a removal criterion, the widths of figures."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ssvi.analysis.settings import METHOD_NAMES, in_words, option_text
from ssvi.registry import CRITERIA, KINDS


class Looks(Mapping[str, str]):
    """A look for every name of a registry: the one chosen for it, or the next spare one that is not taken.

    When all are taken, they come again.
    """

    def __init__(self, chosen: Mapping[str, str], names: Collection[str], spare: Collection[str]) -> None:
        self._chosen, self._names, self._spare = chosen, names, spare

    def _all(self) -> dict[str, str]:
        unused = [look for look in dict.fromkeys(self._spare) if look not in self._chosen.values()]
        following = itertools.cycle(unused or self._spare)
        return {**self._chosen, **{name: next(following) for name in self._names if name not in self._chosen}}

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


# Okabe and Ito's colours, told apart under the common colour blindnesses; the markers do it in grey.
METHODS = {
    "dense": ("#000000", "D"),
    "vi": ("#0072B2", "^"),
    "rigl": ("#009E73", "s"),
    "ssvi": ("#D55E00", "o"),
    "vd": ("#CC79A7", "v"),
    "sbp": ("#E69F00", "P"),
    "aeb": ("#56B4E9", "X"),
    "mbnn": ("#7A4B1F", "*"),
    "static": ("#7FCFB5", "s"),
    "static_vi": ("#F0A878", "o"),
    "pruned": ("#6BAED6", "^"),
    "ensemble": ("#555555", "D"),
}
COLOURS = Looks(
    {name: colour for name, (colour, _) in METHODS.items()},
    KINDS,
    ["#999999", "#332288", "#882255", "#44AA99", "#999933"],
)
MARKERS = Looks({name: marker for name, (_, marker) in METHODS.items()}, KINDS, ["p", "h", "<", ">", "d"])
NAMES = ChainMap({"vi": "dense BNN (VI)"}, METHOD_NAMES)
# For lines that are not methods.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SYMBOLS = ("o", "^", "s", "D", "v", "P", "X")
# The removal criteria, and how the paper writes them; the default one looks like SSVI, as which other figures show it.
CRITERIA_SHOWN = {
    "abs_mu": ("#000000", "v", r"$|\mu|$"),
    "snr": ("#E69F00", "D", r"SNR$(\theta)$"),
    "e_abs": ("#009E73", "s", r"$\mathbb{E}\,|\theta|$"),
    "snr_abs": ("#D55E00", "o", r"SNR$(|\theta|)$"),
    "e_exp": ("#CC79A7", "P", r"$\mathbb{E}\,e^{\lambda|\theta|}$"),
    "snr_exp": ("#56B4E9", "X", r"SNR$(e^{\lambda|\theta|})$"),
}
CRITERION_COLOURS = Looks(
    {name: colour for name, (colour, _, _) in CRITERIA_SHOWN.items()}, CRITERIA, (*PALETTE, *COLOURS.values())
)
CRITERION_MARKERS = Looks(
    {name: marker for name, (_, marker, _) in CRITERIA_SHOWN.items()},
    CRITERIA,
    (*SYMBOLS, *MARKERS.values(), "<", ">", "h", "p"),
)
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
FILLINGS = ("full", "full", "left", "bottom")
# Widths in inches of a figure in one column of a paper, and across both.
COLUMN, WIDE = 3.35, 6.75
GREY = "#555555"
# A line that is no measurement: what chance gives, or what is usual.
DOTTED = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (1, 1.5)), "zorder": 1}


def rc() -> dict[str, Any]:
    """The settings that all figures share, for `matplotlib.rc_context`."""
    return {
        "font.family": "DejaVu Sans",
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8.5,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 7.5,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.5,
        "lines.linewidth": 1.3,
        "lines.markersize": 4.5,
        "errorbar.capsize": 2,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "savefig.dpi": 200,
        # Fixed, so that the same numbers give the same bytes.
        "svg.hashsalt": "ssvi",
    }


def of_method(method: str) -> dict[str, Any]:
    """The colour and marker of a method."""
    return {"color": COLOURS[method], "marker": MARKERS[method]}


def of_criterion(criterion: str) -> dict[str, Any]:
    """The colour and marker of a removal criterion."""
    return {"color": CRITERION_COLOURS[criterion], "marker": CRITERION_MARKERS[criterion]}


def criterion_name(criterion: str) -> str:
    """As the paper writes it; one that is not in it has its name."""
    return CRITERIA_SHOWN[criterion][2] if criterion in CRITERIA_SHOWN else criterion


def numbered(number: int) -> dict[str, Any]:
    """The colour and marker of what is no method: the next ones; after the last the first again."""
    return {"color": PALETTE[number % len(PALETTE)], "marker": SYMBOLS[number % len(SYMBOLS)]}


def percent(density: float) -> str:
    return f"{100 * density:.6g}"


def words(option: str, value: Any) -> str:
    """An option as figures call it."""
    if option == "method":
        return NAMES[value]
    if option == "density":
        return f"density {percent(value)}%"
    if option == "parent":
        return "from a trained network" if value else "from scratch"
    return option_text(value) if option in ("dataset", "model") else in_words(option, value, spaced=True)
