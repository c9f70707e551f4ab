"""A data set of one's own, folder:PATH, from its files to tensors, and what has to be said about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssvi.data.cache import Prepared, prepared
from ssvi.data.pixels import Decoded, bits_of, decode, moments, scaled
from ssvi.errors import UserError
from ssvi.runs.images import PARTS, Content, Folder, check_unchanged

# Of 255: images that differ by less than that show nothing.
LEAST_SPREAD = 1.0


def read_folder(folder: Folder, content: Content, image_size: int) -> Prepared:
    """Every image, in RGB, resized to `image_size` x `image_size` pixels.

    Raises:
        UserError: if an image cannot be read, was changed meanwhile, or if the images of a part show nothing.
    """
    files = {name: getattr(folder, name) for name in PARTS}
    images = {name: torch.empty(len(files[name]), 3, image_size, image_size, dtype=torch.uint8) for name in PARTS}
    deep: dict[tuple[str, int], Decoded] = {}
    upper: dict[Path, int] = {}
    frames = transparent = 0
    for name, i, file in ((part, i, file) for part in PARTS for i, (file, _) in enumerate(files[part])):
        one = decode(file, image_size)
        frames, transparent = frames + one.frames, transparent + one.transparent
        if one.upper is not None:
            upper[file] = one.upper
        if one.deep is None:
            images[name][i] = one.pixels
        else:
            deep[name, i] = one
    _check_colours_are_deep(upper)
    # One factor for all, by what they hold together: each by itself would lose which is brighter.
    bits = bits_of(max(one.deep or 0 for one in deep.values())) if deep else None
    for (name, i), one in deep.items():
        images[name][i] = scaled(one, bits or 8)
    check_unchanged(folder, content.listing)
    for name in PARTS:
        _check_spread(folder.path / name, images[name], bits)
    labels = {name: torch.tensor([label for _, label in files[name]], dtype=torch.int64) for name in PARTS}
    reading = {
        "sixteen_bit_images": len(deep),
        "bits": bits,
        "first_frames": frames,
        "transparent": transparent,
        **_repeated(folder, images["train"], images["test"]),
    }
    parts = ((images[name], labels[name]) for name in PARTS)
    return prepared(*parts, folder.classes, content.digest, reading)


def _check_colours_are_deep(upper: Mapping[Path, int]) -> None:
    """Refuse colours of 16 bits whose upper 8, which are all that is read of them, are half empty everywhere."""
    if upper and (largest := max(upper.values())) < 128:
        file = next(file for file, value in upper.items() if value == largest)
        raise UserError(
            f"{file}: is the brightest of {len(upper)} images with 16 bits a colour, but uses only "
            f"{8 + largest.bit_length()} of them, and the upper 8 alone are read; save them with 8 bits."
        )


def _check_spread(part: Path, images: Tensor, bits: int | None) -> None:
    """Refuse images that are nearly all of one colour, all together: what they show was lost before or in reading."""
    _, sds = moments(images)
    if (largest := 255 * max(sds)) < LEAST_SPREAD:
        depth = "" if bits is None else f"; its 16-bit files are read as {bits}-bit"
        raise UserError(
            f"{part}: its images show next to nothing: over all of their pixels the sd of each colour is below "
            f"{LEAST_SPREAD:g} of 255 ({largest:.2g}{depth}; transparency is not read); save them with the contrast "
            "that is to be seen."
        )


def _repeated(folder: Folder, train: Tensor, test: Tensor) -> dict[str, Any]:
    """What is there twice, pixel by pixel: test images among the training images, and these in several classes."""
    names, tested = ([hashlib.sha256(image.numpy().tobytes()).digest() for image in part] for part in (train, test))
    return {
        "test_images_in_train": _in_train(folder, names, tested),
        "train_images_in_other_classes": _in_other_classes(folder, names),
    }


def _relative(folder: Folder, *files: Path) -> list[str]:
    return [file.relative_to(folder.path).as_posix() for file in files]


def _in_other_classes(folder: Folder, names: list[bytes]) -> dict[str, Any] | None:
    """Training images of which the same is in another class as well: how many files, and an example."""
    of: dict[bytes, dict[int, Path]] = {}
    for (file, label), name in zip(folder.train, names, strict=True):
        of.setdefault(name, {}).setdefault(label, file)
    number = sum(len(of[name]) > 1 for name in names)
    if not number:
        return None
    one, other, *_ = next(files for files in of.values() if len(files) > 1).values()
    return {"images": number, "example": _relative(folder, one, other)}


def _in_train(folder: Folder, names: list[bytes], tested: list[bytes]) -> dict[str, Any] | None:
    """Test images that are training images too: how many, of them of another class, and an example."""
    # Of several training images alike the first one, but one of the same class where there is one.
    first: dict[bytes, int] = {}
    same: dict[tuple[bytes, int], int] = {}
    for i, (_, label) in enumerate(folder.train):
        first.setdefault(names[i], i)
        same.setdefault((names[i], label), i)
    found = [
        (file, label, same.get((name, label), first[name]))
        for (file, label), name in zip(folder.test, tested, strict=True)
        if name in first
    ]
    if not found:
        return None
    odd = [one for one in found if folder.train[one[2]][1] != one[1]]
    file, _, twin = (odd or found)[0]
    example = _relative(folder, file, folder.train[twin][0])
    return {"images": len(found), "of_another_class": len(odd), "example": example}


def remarks(data: Prepared) -> Iterator[str]:
    """What a user has to know of how a folder was read, a line each; nothing where there is nothing to say."""
    if data.left_out:
        yield f"left out: {', '.join(f'{n} {why}' for why, n in data.left_out.items())}"
    said = data.reading
    if said.get("bits"):
        yield f"{said['sixteen_bit_images']} images of 16 bits hold {said['bits']}-bit values, and are read as such"
    if said.get("first_frames"):
        yield f"of {said['first_frames']} files with several frames or pages the first one is read"
    if said.get("transparent"):
        yield f"of {said['transparent']} images the transparency is dropped"
    if twins := said.get("test_images_in_train"):
        odd = f", {twins['of_another_class']} of them in another class" if twins["of_another_class"] else ""
        yield (
            f"{twins['images']} of {len(data.test_labels)} test images are training images too, pixel by pixel{odd}: "
            f"for example {twins['example'][0]} and {twins['example'][1]}"
        )
    if twins := said.get("train_images_in_other_classes"):
        yield (
            f"{twins['images']} of {len(data.train_labels)} training images are in several classes, pixel by pixel: "
            f"for example {twins['example'][0]} and {twins['example'][1]}"
        )
