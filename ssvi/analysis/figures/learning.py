"""What a way of learning is worth: accuracy, NLL and use of the posterior, by optimiser, start and temperature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures import compared, panels, style
from ssvi.analysis.figures.panels import Drawing
from ssvi.analysis.figures.scales import TEST_NLL
from ssvi.analysis.quantities import ACCURACY, INFORMATION_SHARE
from ssvi.analysis.settings import METHOD_NAMES, SETTING
from ssvi.analysis.ways import NATURAL, OPTIMISERS, WAY, telling, varied, way_text, with_ways

SHARE = replace(INFORMATION_SHARE, titled="mutual information\n(% of entropy)")
# Filled by the natural gradient, open by AdamW, SGD in between.
FILLS = {NATURAL: "full", OPTIMISERS["sgd"]: "left", OPTIMISERS["adam"]: "none"}
# What is compared in a panel: anything but what is learned, and how sparse it is.
APART = ("dataset", "model", "density", "width", "shrink", "training_images", "held_out_classes")


def learning(frames: Frames) -> Drawing:
    """Every way of learning of the runs, a row of panels a density."""
    runs = with_ways(panels.using(frames, "learning", "optimizer"))
    inside = [name for name in SETTING if name not in APART]
    more, apart = varied(runs), telling(runs)

    def name(*values: Any) -> str:
        way, options = values[: 1 + len(WAY)], dict(zip(more, values[1 + len(WAY) :], strict=True))
        return way_text(METHOD_NAMES[way[0]], *way[1:], **{option: options[option] for option in apart.get(way, ())})

    parts = compared.dots(panels.split(runs, inside), ("method", *WAY, *more), name, _look)
    return compared.draw_dots(
        *(frames, parts, (ACCURACY, TEST_NLL, SHARE)),
        "Ways to learn one sparse network: without a posterior (RigL, temperature 1) or with one (SSVI); by SGD (half "
        "filled), AdamW (open) or the natural gradient (filled); from means of the published start, or by the fan-in, "
        "whole or active; T is the weight of the KL. Mutual information is a share of the predictive entropy.",
        noise=False,
    )


def _look(method: str, learned_by: str, **others: Any) -> dict[str, Any]:
    return style.of_method(method) | {"fillstyle": FILLS[learned_by]}
