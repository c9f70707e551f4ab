"""A picture of the images of which a network is surest and of those of which it is least sure.

They are shown as the network sees them: at its size and in its colours. PIL is imported only where a picture is made.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from ssvi.data.pixels import enlarged
from ssvi.runs.card import Inputs
from ssvi.runs.escaped import line
from ssvi.serving.predictor import Predictions
from ssvi.serving.reading import read

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# Images of each kind, and of a row.
EACH, ACROSS = 20, 10
# Sides in pixels: of an image, of what is around it, and around all of it.
SIDE, GAP, MARGIN, FRAME = 128, 16, 24, 3
# Sizes of letters in pixels.
TITLE, LARGE, SMALL = 20, 15, 12
# Of a text, longer ones being cut before they are measured.
LONGEST = 200
PAPER, INK, PALE, ABSTAINS = (255, 255, 255), (20, 20, 20), (105, 105, 105), (190, 30, 30)
# A font that most Linux systems have and that knows more scripts than PIL's own.
FONT = "DejaVuSans.ttf"
# What no font has.
NO_LETTER = "\uffff"


class Found(NamedTuple):
    """An image and what was said of it; `place` is where it stood among all of them."""

    confidence: float
    entropy: float
    place: int
    name: str
    label: str
    probability: float
    abstain: bool | None

    @property
    def order(self) -> tuple[float, float, int]:
        """Smaller of surer ones; among equally likely ones entropy decides."""
        return -self.confidence, self.entropy, self.place


class Extremes:
    """The images of the largest and of the smallest confidence among all that were added, in this order."""

    def __init__(self, each: int = EACH) -> None:
        self._each, self._kept, self.images = each, list[Found](), 0

    def add(self, part: Predictions) -> None:
        """Look at some more; those that could not be read are left out."""
        largest, likely = part.probabilities.max(1)
        abstain = itertools.repeat(None) if part.abstain is None else part.abstain.tolist()
        columns = (part.confidence.tolist(), part.entropy.tolist(), itertools.count(self.images), part.names)
        rows = zip(*columns, likely.tolist(), largest.tolist(), abstain, part.causes, strict=False)
        new = [
            Found(sure, total, place, name, part.classes[index], p, abstains)
            for sure, total, place, name, index, p, abstains, cause in rows
            if cause is None
        ]
        self.images += len(part.names)
        self._kept = sorted([*self._kept, *new], key=lambda one: one.order)
        if len(self._kept) > 2 * self._each:
            self._kept = [*self._kept[: self._each], *self._kept[-self._each :]]

    @property
    def surest(self) -> list[Found]:
        """The surest first; of few images the surer half."""
        return self._kept[: min(self._each, (len(self._kept) + 1) // 2)]

    @property
    def least_sure(self) -> list[Found]:
        """The least sure first."""
        return self._kept[len(self.surest) :][::-1]


def draw(extremes: Extremes, inputs: Inputs) -> bytes:
    """The picture as a PNG.

    Args:
        extremes: of at least one image.
        inputs: of the network, as which the images are read once more.
    """
    from PIL import Image

    parts = [(title, found) for title, found in _parts(extremes) if found]
    cell = _height(LARGE) + 2 * _height(SMALL) + SIDE + GAP
    title, foot = _height(TITLE) + GAP // 2, _height(SMALL)
    rows = [-(-len(found) // ACROSS) for _, found in parts]
    width = 2 * MARGIN + ACROSS * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(rows) * cell + len(parts) * title + foot), PAPER)
    top = MARGIN
    for (words, found), number in zip(parts, rows, strict=True):
        _write(sheet, (MARGIN, top), words, TITLE, width - 2 * MARGIN)
        top += title
        for i, (one, image) in enumerate(zip(found, read([one.name for one in found], inputs), strict=True)):
            place = (MARGIN + i % ACROSS * (SIDE + GAP), top + i // ACROSS * cell)
            _draw_one(sheet, place, one, image.pixels)
        top += number * cell
    _write(sheet, (MARGIN, top), _foot(extremes, inputs), SMALL, width - 2 * MARGIN, PALE)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _parts(extremes: Extremes) -> Iterator[tuple[str, list[Found]]]:
    surest, least = extremes.surest, extremes.least_sure
    yield f"surest: {len(surest)} of {extremes.images:,} images", surest
    yield f"least sure: {len(least)} of {extremes.images:,} images", least


def _foot(extremes: Extremes, inputs: Inputs) -> str:
    side = inputs.image_size
    words = f"p: probability of the class; H: predictive entropy in nats; as the network sees them, {side} × {side}"
    return words if extremes.surest[0].abstain is None else f"{words}; in a red frame: abstains"


def _draw_one(sheet: Image.Image, place: tuple[int, int], one: Found, pixels: Tensor | None) -> None:
    from PIL import ImageDraw

    x, y = place
    left, top, side = x, y, SIDE
    if pixels is None:
        _write(sheet, (x, y + SIDE // 2), "is not there any more", SMALL, SIDE, PALE)
    else:
        image = enlarged(pixels, SIDE)
        side = image.width
        left, top = x + (SIDE - side) // 2, y + (SIDE - side) // 2
        sheet.paste(image, (left, top))
    if one.abstain:
        box = (left - FRAME, top - FRAME, left + side + FRAME - 1, top + side + FRAME - 1)
        ImageDraw.Draw(sheet).rectangle(box, outline=ABSTAINS, width=FRAME)
    y += SIDE + FRAME
    _write(sheet, (x, y), one.label, LARGE, SIDE, ABSTAINS if one.abstain else INK)
    y += _height(LARGE)
    _write(sheet, (x, y), f"p {one.probability:.3f}  H {one.entropy:.3f}", SMALL, SIDE)
    _write(sheet, (x, y + _height(SMALL)), os.path.basename(one.name), SMALL, SIDE, PALE, keep_end=True)


# Words --------------------------------------------------------------------------------------------


def _write(
    sheet: Image.Image,
    place: tuple[int, int],
    text: str,
    size: int,
    width: int,
    ink: tuple[int, int, int] = INK,
    keep_end: bool = False,
) -> None:
    """One line, cut to its width, on paper of its own, beyond which no letter reaches."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width, _height(size)), PAPER)
    font = _font(size)
    ImageDraw.Draw(strip).text((0, 0), shortened(_drawable(text, size), width, font.getlength, keep_end), ink, font)
    sheet.paste(strip, place)


def shortened(text: str, width: float, length: Callable[[str], float], keep_end: bool = False) -> str:
    """A text of at most this width, of a longer one its start, or its end, beside an ellipsis.

    Args:
        text: any.
        width: in the units of `length`.
        length: of a text.
        keep_end: rather than the start.
    """
    if length(text) <= width:
        return text

    def cut(letters: int) -> str:
        return f"…{text[len(text) - letters :]}" if keep_end else f"{text[:letters]}…"

    return next((found for n in range(len(text) - 1, 0, -1) if length(found := cut(n)) <= width), "…")


def _drawable(text: str, size: int) -> str:
    r"""A text in one line of letters that the font has; of others it is said which they are: \u732b."""
    short = line(text)
    if len(short) > LONGEST:
        short = f"{short[: LONGEST // 2]}…{short[-LONGEST // 2 :]}"
    return "".join(letter if _has(letter, size) else ascii(letter)[1:-1] for letter in short)


@functools.cache
def _has(letter: str, size: int) -> bool:
    font = _font(size)
    return letter.isascii() or bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(FONT, size)
    except OSError:
        return ImageFont.load_default(size)


def _height(size: int) -> int:
    """Of a line, in pixels."""
    return sum(_font(size).getmetrics()) + 2
