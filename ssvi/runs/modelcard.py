"""A model card in Markdown: what a trained network is, takes, tells, and how far that can be trusted.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator

from ssvi.registry import KINDS
from ssvi.runs.card import Card
from ssvi.runs.escaped import to_markdown
from ssvi.runs.options import non_defaults

# Of many classes the first ones say enough.
NAMED = 50
# Coverages of which thresholds are listed.
SHOWN = (1.0, 0.95, 0.9, 0.8, 0.5)
FIGURES = {
    "accuracy": ("accuracy", ".2%"),
    "nll": ("NLL, nats", ".4f"),
    "brier": ("Brier score", ".4f"),
    "ece": ("ECE", ".4f"),
    "ece_mass": ("ECE, bins of equal mass", ".4f"),
    "ece_classwise": ("class-wise ECE", ".4f"),
    "ece_marginal": ("marginal ECE", ".4f"),
    "aurc": ("area under the risk-coverage curve", ".4f"),
    "predictive_entropy": ("predictive entropy, nats", ".4f"),
    "mutual_information": ("mutual information, nats", ".2g"),
    "sparsity": ("sparsity", ".2%"),
    "active_weights": ("active weights", ",.0f"),
    "complexity": ("complexity", ",.0f"),
}


def to_text(card: Card) -> str:
    """The card as Markdown."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: Card) -> Iterator[str]:
    spec, inputs = card.spec, card.inputs
    kind = KINDS[spec.method]
    yield f"# {to_markdown(f'{kind.title} on {spec.dataset}')}"
    yield ""
    yield _sentence(card)
    yield ""
    yield f"- licence: {to_markdown(card.licence or 'not stated')}"
    shown = ", ".join(to_markdown(name) for name in inputs.classes[:NAMED])
    more = f" and {len(inputs.classes) - NAMED} more" if len(inputs.classes) > NAMED else ""
    yield f"- {len(inputs.classes)} classes: {shown}{more}"
    if card.plugins:
        yield f"- needs the plugins {', '.join(map(to_markdown, card.plugins))}"
    yield from ("", "## How an image is read", "", *(f"- {to_markdown(line)}" for line in inputs.reading()))
    yield from _measured(card)
    yield from _abstention(card)
    yield from ("", "## How it was trained", "", "| option | value |", "| :--- | :--- |")
    yield from (f"| {to_markdown(name)} | {to_markdown(str(value))} |" for name, value in non_defaults(spec).items())
    yield from ("", "Options that are not listed are at their defaults.")
    yield from ("", "## Where it comes from", "")
    yield from (
        f"- {to_markdown(name)}: {to_markdown(str(value))}"
        for name, value in card.provenance.items()
        if value is not None
    )


def _sentence(card: Card) -> str:
    """What it is, in a sentence."""
    method = to_markdown(KINDS[card.spec.method].title)
    what = f"A network `{to_markdown(card.spec.model)}` trained by {method}"
    if KINDS[card.spec.method].posterior:
        number = "1 weight sample" if card.samples == 1 else f"{card.samples} weight samples"
        return f"{what}: its predictions are averages over {number} of a posterior."
    return f"{what}: it has no posterior, and its predictions are of one set of weights."


def _measured(card: Card) -> Iterator[str]:
    """What it reached on its test images."""
    yield from ("", "## What was measured", "")
    figures = {name: card.metrics[name] for name in FIGURES if card.metrics.get(name) is not None}
    if not figures:
        yield "Nothing yet: `ssvi evaluate` does."
        return
    images = card.metrics.get("test_images")
    yield f"On {'its' if images is None else f'{images:,.0f}'} test images."
    yield from ("", "| figure | value |", "| :--- | ---: |")
    yield from (f"| {FIGURES[name][0]} | {value:{FIGURES[name][1]}} |" for name, value in figures.items())


def _abstention(card: Card) -> Iterator[str]:
    """How sure it has to be, and its temperature."""
    yield from ("", "## When it should not be believed", "")
    if (found := card.calibration) is None:
        yield "No images were held out for validation, so nothing says at which confidence to abstain."
        return
    yield (
        f"On {found.images:,} held-out training images, predicted with {found.samples} weight samples: below a "
        f"threshold of the largest probability it abstains. Temperature of smallest NLL there: {found.temperature:.3g}."
    )
    yield from ("", "| threshold | kept | of these wrong |", "| ---: | ---: | ---: |")
    for step in dict.fromkeys(found.by_coverage(share) for share in SHOWN):
        yield f"| {step.threshold:.4f} | {step.coverage:.1%} | {step.risk:.2%} |"
