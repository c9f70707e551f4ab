"""Figures as pure functions of the frames; each is a line in `FIGURES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib

from ssvi.analysis.collect import Frames
from ssvi.analysis.figures.ablations import allocation, exp_lambda, figure3_left, figure3_right, sampling, schedule
from ssvi.analysis.figures.criteria import criteria, figure2_right, noise_floor_figure
from ssvi.analysis.figures.curves import curves
from ssvi.analysis.figures.density import figure2_left
from ssvi.analysis.figures.generic import generic
from ssvi.analysis.figures.layers import layers, survival
from ssvi.analysis.figures.learning import learning
from ssvi.analysis.figures.ood import ood
from ssvi.analysis.figures.overlap import iou, iou_course
from ssvi.analysis.figures.panels import Drawing, write_figure
from ssvi.analysis.figures.posterior import posterior_use
from ssvi.analysis.figures.reliability import reliability
from ssvi.analysis.figures.samples import weight_samples
from ssvi.analysis.figures.selective import risk_coverage
from ssvi.analysis.figures.shift import shift
from ssvi.analysis.figures.sigma import sigma_drift, sigma_learning
from ssvi.analysis.figures.sparsity import sparsity
from ssvi.analysis.figures.style import rc
from ssvi.analysis.figures.tradeoff import figure1
from ssvi.errors import unknown

__all__ = ["FIGURES", "Drawing", "FigureMaker", "make_figure", "needs", "write_figure"]


@dataclass(frozen=True)
class FigureMaker:
    """How a figure is drawn, and which frames it reads beside the runs."""

    draw: Callable[[Frames], Drawing]
    needs: tuple[str, ...] = ()


FIGURES: dict[str, FigureMaker] = {
    "figure1": FigureMaker(figure1),
    "figure2_left": FigureMaker(figure2_left),
    "iou": FigureMaker(iou, ("overlap",)),
    "iou_course": FigureMaker(iou_course, ("overlap",)),
    "curves": FigureMaker(curves, ("history",)),
    "figure2_right": FigureMaker(figure2_right),
    "criteria": FigureMaker(criteria),
    "figure3_left": FigureMaker(figure3_left),
    "figure3_right": FigureMaker(figure3_right),
    "noise_floor": FigureMaker(noise_floor_figure),
    "sigma_drift": FigureMaker(sigma_drift, ("updates", "history")),
    "sigma_learning": FigureMaker(sigma_learning),
    "exp_lambda": FigureMaker(exp_lambda),
    "schedule": FigureMaker(schedule),
    "allocation": FigureMaker(allocation),
    "sampling": FigureMaker(sampling),
    "learning": FigureMaker(learning),
    "test_samples": FigureMaker(weight_samples, ("samples",)),
    "layers": FigureMaker(layers, ("updates",)),
    "survival": FigureMaker(survival, ("updates",)),
    "sparsity": FigureMaker(sparsity),
    "reliability": FigureMaker(reliability, ("uncertainty",)),
    "shift": FigureMaker(shift, ("uncertainty",)),
    "ood": FigureMaker(ood, ("uncertainty",)),
    "risk_coverage": FigureMaker(risk_coverage, ("uncertainty",)),
    "posterior_use": FigureMaker(posterior_use, ("uncertainty",)),
}


def needs(name: str) -> tuple[str, ...]:
    """The frames that a figure reads beside the runs; a generic one reads none."""
    return FIGURES[name].needs if name in FIGURES else ()


def make_figure(name: str, frames: Frames, content: Any = None) -> Drawing:
    """The figure of that name: a registered one, or a generic one described by its entry in config.yaml.

    Args:
        name: as in the config.
        frames: its runs, and what it needs beside them.
        content: the config's entry; a mapping with x, y, hue, facets makes a generic figure.

    Raises:
        UserError: for an unknown name, or runs that lack what the figure shows.
    """
    with matplotlib.rc_context(rc()):
        if isinstance(content, Mapping):
            axes = {key: content.get(key) for key in ("x", "y", "hue", "facets")}
            return generic(frames, name, **axes)
        if name not in FIGURES:
            raise unknown("figure", name, FIGURES, "reports")
        return FIGURES[name].draw(frames)
