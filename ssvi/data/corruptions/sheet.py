"""A picture of every corruption of an image: a row each, its severities side by side.

PIL is imported only where a picture is made.
"""

from __future__ import annotations

import io
import math

from torch import Tensor

from ssvi.data.corruptions.registry import CORRUPTIONS, SEVERITIES, corrupted
from ssvi.data.pixels import enlarged

# In pixels: of an image, at least, by whole numbers, and at most; between images; around all; of the names' column; of
# letters.
SMALLEST, LARGEST, GAP, MARGIN, NAMES, LETTERS = 128, 256, 8, 16, 190, 16
PAPER, INK, PALE = (255, 255, 255), (20, 20, 20), (105, 105, 105)


def typical(images: Tensor) -> Tensor:
    """Of images uint8 [n, C, H, W] one [C, H, W] whose contrast is neither weak nor strong among the first hundred."""
    contrasts = images[:100].flatten(1).float().std(1)
    return images[contrasts.median(0).indices]


def draw(image: Tensor, seed: int = 0) -> bytes:
    """The picture as a PNG.

    Args:
        image: uint8 [C, H, W].
        seed: of what is drawn.
    """
    from PIL import Image, ImageDraw, ImageFont

    across = image.shape[-1]
    side = min(across * math.ceil(SMALLEST / across), LARGEST)
    step, head, font = side + GAP, MARGIN + LETTERS + GAP, ImageFont.load_default(LETTERS)
    size = (2 * MARGIN + NAMES + (1 + len(SEVERITIES)) * step, head + len(CORRUPTIONS) * step + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, words in enumerate(("as it is", *(f"severity {one}" for one in SEVERITIES))):
        pen.text((MARGIN + NAMES + column * step, MARGIN), words, INK, font)
    for row, (name, kind) in enumerate(CORRUPTIONS.items()):
        top = head + row * step
        pen.text((MARGIN, top), name, INK, font)
        pen.text((MARGIN, top + LETTERS + GAP), kind.family, PALE, font)
        versions = [image, *(corrupted(image[None], name, severity, seed)[0] for severity in SEVERITIES)]
        for column, version in enumerate(versions):
            sheet.paste(enlarged(version, side), (MARGIN + NAMES + column * step, top))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
