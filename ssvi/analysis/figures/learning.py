"""What a way of learning is worth: accuracy, NLL and use of the posterior, by optimiser, start and temperature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import compared, panels, style
from ssvi.analysis.figures.panels import Drawing
from ssvi.analysis.figures.scales import TEST_NLL
from ssvi.analysis.quantities import ACCURACY, INFORMATION_SHARE
from ssvi.analysis.settings import METHOD_NAMES, SETTING, is_missing
from ssvi.analysis.ways import NATURAL, OPTIMISERS, WAY, telling, way_text, with_ways

SHARE = replace(INFORMATION_SHARE, titled="mutual information\n(% of entropy)")
# Filled by the natural gradient, open by AdamW, SGD in between.
FILLS = {NATURAL: "full", OPTIMISERS["sgd"]: "left", OPTIMISERS["adam"]: "none"}
# What is compared in a panel: anything but what is learned, and how sparse it is.
APART = ("dataset", "model", "density", "width", "shrink", "training_images", "held_out_classes")


def learning(frames: Frames) -> Drawing:
    """Every way of learning of the runs, a row of panels a density."""
    runs = with_ways(panels.using(frames, "learning", "optimizer"))
    inside = [name for name in SETTING if name not in APART]
    more = telling(runs)

    def name(method: str, *values: Any) -> str:
        way, options = values[: len(WAY)], dict(zip(more, values[len(WAY) :], strict=True))
        several = (method, *way) in ambiguous
        return way_text(METHOD_NAMES[method], *way, **(options if several else {}))

    ambiguous = _ambiguous(runs, more)
    parts = compared.dots(panels.split(runs, inside), ("method", *WAY, *more), name, _look)
    return compared.draw_dots(
        *(frames, parts, (ACCURACY, TEST_NLL, SHARE)),
        "Ways to learn one sparse network: without a posterior (RigL, temperature 1) or with one (SSVI); by SGD (half "
        "filled), AdamW (open) or the natural gradient (filled); from means of the published start, or by the fan-in, "
        "whole or active; T is the weight of the KL. Mutual information is a share of the predictive entropy.",
        noise=False,
    )


def _ambiguous(runs: pd.DataFrame, more: list[str]) -> set[tuple[Any, ...]]:
    """The methods and ways that are of several settings, which differ in more options."""
    keys = runs[["method", *WAY, *more]].drop_duplicates()
    counts = keys.groupby(["method", *WAY], dropna=False).size()
    return {tuple(None if is_missing(v) else v for v in way) for way in counts[counts > 1].index}


def _look(method: str, learned_by: str, **others: Any) -> dict[str, Any]:
    return style.of_method(method) | {"fillstyle": FILLS.get(learned_by, "full")}
