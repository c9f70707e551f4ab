"""How an image file becomes pixels: the one place that decides it, so that a network sees what a viewer shows.

PIL is imported only where a file is opened.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssvi.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# What `ssvi.runs.images.SUFFIXES` stand for (JPEG has MPO with it, the photos of many phones). PIL knows many more
# formats, of which some are handed to other programs.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
# The largest side of an image; the memory to scale a strip of a few pixels by millions is a thousand times its own.
MOST_PIXELS_ACROSS = 65_535
# EXIF's number of how an image is to be turned, and the name of what does it in PIL.
ORIENTATION = 0x0112
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
DEEPEST_BITS = 16
DEEPEST = 2**DEEPEST_BITS - 1
# Tags of TIFF.
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2


@dataclass(frozen=True)
class Decoded:
    """An image at its final size.

    Attributes:
        pixels: uint8 [3, size, size]; of a `deep` one float32 [size, size], not scaled yet.
        deep: the largest value of a grey image of more than 8 bits, before it was resized; None of any other. How many
            bits such values have only all of a data set's tell.
        inverted: of a deep image, whether 0 is white.
        upper: the largest upper byte of an image of 16 bits a colour, of which only these are read; None of any other.
        frames: whether the file holds more than this one, the first.
        transparent: whether there was any transparency, which is dropped.
    """

    pixels: Tensor
    deep: int | None = None
    inverted: bool = False
    upper: int | None = None
    frames: bool = False
    transparent: bool = False


def decode(file: Path, size: int, content: bytes | None = None) -> Decoded:
    """One image, turned as its EXIF data say, resized to `size` x `size` pixels.

    Args:
        file: where it is, or what it is called.
        size: in pixels.
        content: of the file, if it was read already.

    Raises:
        UserError: naming the file, if it is damaged, too large, or its values have no known range.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # From its limit on PIL warns, and refuses only twice as large ones.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # By its path PIL maps a plain TIFF into memory as if it were stored in the size to which it is turned.
            source = file.open("rb") if content is None else io.BytesIO(content)
            with source as stream, Image.open(stream, formats=FORMATS) as opened:
                if (side := max(opened.size)) > MOST_PIXELS_ACROSS:
                    raise UserError(f"{file}: is {side} pixels across, but at most {MOST_PIXELS_ACROSS} are read.")
                return _decoded(opened, file, size)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS
        raise UserError(f"{file}: has more than {limit} pixels, the most that is read; scale it down.") from None
    except (UserError, MemoryError):
        raise
    except Exception as error:
        # The decoders of PIL tell of damage in every way there is, a TypeError among them.
        unknown = isinstance(error, UnidentifiedImageError)  # which shows the stream
        reason = f"none of {', '.join(FORMATS)}" if unknown else " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as an image ({reason}); replace or delete it.") from None


def _decoded(opened: Image.Image, file: Path, size: int) -> Decoded:
    import numpy as np
    from PIL import Image

    # Read before the pixels are, which forgets them.
    tags: Any = getattr(opened, "tag_v2", {})
    most = _largest_possible(opened)
    frames = bool(getattr(opened, "is_animated", False))
    opened.load()
    deep = opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format in ("PNG", "PPM"))
    signed = SIGNED in tags.get(SAMPLE_FORMAT, ())
    if signed or (opened.mode in ("I", "F") and not deep):
        kind = "signed numbers" if signed else f"pixels of mode {opened.mode}"
        raise UserError(f"{file}: has {kind}, whose range is not known; save it with 8 bits.")
    if not deep:
        image = opened.convert("RGB")
        pixels = torch.from_numpy(np.array(_resized(_turned(image, opened), size))).permute(2, 0, 1)
        colours = zip(opened.getbands(), opened.getextrema(), strict=True) if most == DEEPEST else ()
        upper = max((int(high) for band, (_, high) in colours if band != "A"), default=None)
        return Decoded(pixels, upper=upper, frames=frames, transparent=_is_transparent(opened))
    values = np.asarray(opened).astype(np.float32)
    named = opened.format == "PPM" and most < DEEPEST
    if named:
        values /= DEEPEST / 255  # PIL has scaled it to 16 bits by the largest value that the file names
    pixels = torch.from_numpy(np.array(_resized(_turned(Image.fromarray(values), opened), size)))
    if named:
        return Decoded(pixels.round().to(torch.uint8).expand(3, size, size), frames=frames)
    inverted = opened.format == "TIFF" and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    return Decoded(pixels, deep=int(values.max()), inverted=inverted, frames=frames)


def _largest_possible(opened: Image.Image) -> int:
    """The largest value that a colour of an image has room for, as its file says; 255 where it does not."""
    layout = opened.tile[0][3] if opened.tile else ()
    if opened.format == "PPM":
        return layout[1] if isinstance(layout, tuple) else DEEPEST if "16" in str(layout) else 255
    tags: Any = getattr(opened, "tag_v2", {})
    deep = "16B" in str(layout) if opened.format == "PNG" else max(tags.get(BITS_PER_SAMPLE, (8,))) > 8
    return DEEPEST if deep else 255


def _is_transparent(image: Image.Image) -> bool:
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _turned(image: Image.Image, opened: Image.Image) -> Image.Image:
    """`image` as the EXIF data of the loaded file say; PIL itself has turned what comes from TIFF, and says so."""
    from PIL import Image

    try:
        orientation = opened.getexif().get(ORIENTATION)
    except Exception:
        # Damaged EXIF data, told of in as many ways as damaged images: any viewer shows the photo as it is stored.
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(Image.Transpose[turn])


def _resized(image: Image.Image, size: int) -> Image.Image:
    from PIL import Image

    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def resized(images: Tensor, size: int) -> Tensor:
    """Images uint8 [n, C, H, H] as `decode` resizes them, to [n, C, size, size]."""
    if images.shape[2:] == (size, size):
        return images
    import numpy as np
    from PIL import Image

    planes = [Image.fromarray(plane) for plane in images.flatten(0, 1).numpy()]
    small = np.stack([np.asarray(_resized(plane, size)) for plane in planes]) if planes else np.zeros((0, size, size))
    return torch.from_numpy(small.astype(np.uint8)).reshape(*images.shape[:2], size, size)


def bits_of(largest: int) -> int:
    """The smallest number of bits, of 8 to 16, that holds a value."""
    return max(8, largest.bit_length())


def scaled(image: Decoded, bits: int) -> Tensor:
    """A deep image whose values have so many bits as uint8 [3, size, size]."""
    pixels = (image.pixels * (255 / (2**bits - 1))).round().clamp(0, 255).to(torch.uint8)
    return (255 - pixels if image.inverted else pixels).expand(3, *pixels.shape)


def single(image: Decoded, bits: int | None, channels: int) -> Tensor:
    """One image by itself as uint8 [channels, size, size].

    Args:
        image: as it was decoded.
        bits: that the data set's grey images of more than 8 have; None where it had none.
        channels: 3, or 1 for the luma of ITU-R 601, as PIL takes it.

    Raises:
        ValueError: of an image of more than 8 bits, if nobody knows of how many.
    """
    pixels = image.pixels
    if image.deep is not None:
        known = bits or bits_of(image.deep)
        if bits is None and known < DEEPEST_BITS:
            raise ValueError(
                f"has {known}-bit values in 16 bits, and no image of the training says of how many; save it with 8 bits"
            )
        pixels = scaled(image, known)
    return coloured(pixels, channels)


def coloured(pixels: Tensor, channels: int) -> Tensor:
    """Images uint8 [..., C, H, W] with 3 channels, of which grey has three alike, or as grey with 1: the luma of
    ITU-R 601, as PIL takes it."""
    if channels == pixels.shape[-3]:
        return pixels
    if channels == 3:
        return pixels.expand(*pixels.shape[:-3], 3, -1, -1)
    red, green, blue = pixels.to(torch.int32).unbind(-3)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).to(torch.uint8).unsqueeze(-3)


def enlarged(pixels: Tensor, side: int) -> Image.Image:
    """Pixels uint8 [C, size, size] as a picture at most `side` across; of a small image every pixel is a square, none
    is blurred."""
    from PIL import Image

    image = Image.fromarray(pixels.expand(3, *pixels.shape[1:]).permute(1, 2, 0).numpy())
    if (size := image.width) > side:
        return image.resize((side, side), Image.Resampling.LANCZOS)
    whole = side // size * size
    return image.resize((whole, whole), Image.Resampling.NEAREST)


def moments(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and sd of each channel of images uint8 [n, C, H, W], in units of the brightest value.

    Exact but for one rounding: counted values, float64.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, sds = [], []
    for channel in images.unbind(1):
        weights = channel.flatten().bincount(minlength=256).double() / channel.numel()
        mean = (weights * values).sum()
        means.append(mean.item())
        sds.append((weights * (values - mean).square()).sum().sqrt().item())
    return means, sds
