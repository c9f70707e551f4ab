"""Images unlike any that a network was trained on: near ones, much like them, and far ones, of another kind altogether.

Which there are for a data set is a line of `SETS`: what needs no file, and what lies in the folder of the data. Nothing
is downloaded. A set is the same for every run and seed, but for what is drawn like the training images (the noise):
chosen, cut out and drawn with `SEED`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssvi.data.batches import Data
from ssvi.data.pixels import coloured, decode, moments, resized, single
from ssvi.data.sources import prepare
from ssvi.errors import UserError, quoted
from ssvi.runs.files import outside_name
from ssvi.runs.images import Classes, dataset_path, scan_classes
from ssvi.runs.options import ANY_FOLDER
from ssvi.runs.places import at_hand
from ssvi.runs.spec import RunSpec

SEED = 0
# In front of folder:PATH, where its images are much like those of the training.
NEAR_PREFIX = "near:"
# The test images of SVHN's second format, as MATLAB has them: rows, columns, colours, images.
SVHN_FILE, SVHN_SHAPE = "test_32x32.mat", (32, 32, 3, 26_032)
# Of a patch of a photograph: the least side, as a part of the shorter side, and the least sd, of 255, for clear sky and
# what is out of focus show nothing.
SMALLEST_PATCH, LEAST_SPREAD = 0.15, 20.0


@dataclass(frozen=True)
class Outside:
    """Images of none of a network's classes, as it takes them.

    Attributes:
        name: of the set.
        near: whether they are much like those of the training.
        images: uint8 [n, C, size, size], in the size and colours of the training's, and on their device.
        source: where they are from, which of them these are, and how they were made.
        folder: where that is one of a user's, [near:]folder:PATH; else empty.
    """

    name: str
    near: bool
    images: Tensor
    source: str
    folder: str = ""


# Images uint8 [n, C, size, size] and their source.
Made = tuple[Tensor, str]


@dataclass(frozen=True)
class Wanted:
    """What a set is made for: images as `data` has them, at most `most`, of files under `root` where it needs any."""

    data: Data
    root: Path
    most: int
    follow_links: bool

    def chosen(self, number: int) -> tuple[list[int], str]:
        """Which of so many are taken, ascending; and that in words."""
        which = sorted(np.random.default_rng(SEED).permutation(number)[: self.most].tolist())
        if len(which) == number:
            return which, f"all {number}"
        return which, f"{len(which)} of {number}, chosen with seed {SEED}"

    def taken(self, images: Tensor, what: str) -> Made:
        """Some of these images, uint8 [n, 1 or 3, H, W]; `what` they are."""
        which, said = self.chosen(len(images))
        side, size = images.shape[-1], self.data.image_size
        how = "" if side == size else f", {'reduced' if size < side else 'enlarged'} from {side} to {size} pixels"
        return self.shaped(images[which]), f"{what} ({said}){how}"

    def shaped(self, images: Tensor) -> Tensor:
        """Images uint8 [n, 1 or 3, H, W] in the size and colours of the data."""
        return coloured(resized(images, self.data.image_size), self.data.channels)


@dataclass(frozen=True)
class Set:
    """Images that are outside of some data sets: `of` which, None for any; `make` gives None where there are none."""

    name: str
    near: bool
    of: Collection[str] | None
    make: Callable[[Wanted], Made | None]


def outside(
    spec: RunSpec,
    data: Data,
    root: Path,
    *,
    most: int = 1000,
    folders: Sequence[str] = (),
    follow_links: bool = False,
) -> list[Outside]:
    """The images on which to try whether a network notices that it knows nothing of them.

    Args:
        spec: its `dataset` matters.
        data: what the network was trained on.
        root: folder of the data.
        most: images of a set.
        folders: more sets, folder:PATH each, of images by class (of which nothing is made), of test/ where there is a
            train/ too. They count as far, but after near: as near. Images of `data` itself are left out.
        follow_links: whether links in a folder may lead out of it.

    Raises:
        UserError: if a set is there and cannot be read, or a folder is not there or has no other images than `data`.
    """
    wanted = Wanted(data, root, most, follow_links)
    found = [
        Outside(one.name, one.near, made[0].to(data.train_images.device), made[1])
        for one in SETS
        if (one.of is None or spec.dataset in one.of) and (made := one.make(wanted)) is not None
    ]
    for name in dict.fromkeys(folders):
        found.append(_folder(name, wanted))
    names = [one.name for one in found]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"out of distribution: two folders are called {double}; give one of them another name.")
    return found


# ---------------------------------------------------------------- what needs no file


def _held_out(wanted: Wanted) -> Made | None:
    images = wanted.data.held_out_images.cpu()
    return wanted.taken(images, "test images of the classes held out of the training") if len(images) else None


def _digits(wanted: Wanted) -> Made:
    digits = prepare("digits", wanted.root)
    return wanted.taken(torch.cat([digits.train_images, digits.test_images]), "scikit-learn's handwritten digits")


def _photographs(wanted: Wanted) -> Made:
    from sklearn.datasets import load_sample_images

    photographs = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in load_sample_images().images]
    photographs = [coloured(photograph, wanted.data.channels) for photograph in photographs]
    generator = np.random.default_rng(SEED)
    patches: list[Tensor] = []
    while len(patches) < wanted.most:
        photograph = photographs[generator.integers(len(photographs))]
        height, width = photograph.shape[1:]
        side = int(min(height, width) * generator.uniform(SMALLEST_PATCH, 1))
        top, left = generator.integers(height - side + 1), generator.integers(width - side + 1)
        patch = wanted.shaped(photograph[None, :, top : top + side, left : left + side])
        if coloured(patch, 1).double().std(correction=0) >= LEAST_SPREAD:
            patches.append(patch)
    source = (
        f"{wanted.most} square patches of scikit-learn's two sample photographs (china, flower), of {SMALLEST_PATCH:g} "
        f"to 1 times their shorter side, each reduced to {wanted.data.image_size} pixels, drawn with seed {SEED}, and "
        f"anew where the sd of its grey was below {LEAST_SPREAD:g} of 255"
    )
    return torch.cat(patches), source


def _uniform_noise(wanted: Wanted) -> Made:
    shape = (wanted.most, *wanted.data.train_images.shape[1:])
    pixels = np.random.default_rng(SEED).integers(256, size=shape, dtype=np.uint8)
    source = f"{wanted.most} images of independent pixels, uniform from 0 to 255, drawn with seed {SEED}"
    return torch.from_numpy(pixels), source


def _gaussian_noise(wanted: Wanted) -> Made:
    shape = (wanted.most, *wanted.data.train_images.shape[1:])
    means, sds = (255 * np.array(x)[:, None, None] for x in moments(wanted.data.train_images.cpu()))
    pixels = means + sds * np.random.default_rng(SEED).standard_normal(shape)
    source = (
        f"{wanted.most} images of independent pixels, normal with the mean and sd of the training images in each "
        f"channel, rounded and cut off at 0 and 255, drawn with seed {SEED}"
    )
    return torch.from_numpy(pixels.round().clip(0, 255).astype(np.uint8)), source


# ---------------------------------------------------------------- what has to be at hand


# What is to be known of a data set that stands in for what is outside.
CAVEATS = dict.fromkeys(
    ("cifar10", "cifar100"),
    "; CIFAR-10 and CIFAR-100 have no class in common, but close ones, such as truck and pickup_truck",
)


def _published(dataset: str) -> Callable[[Wanted], Made | None]:
    """Test images of a data set of `ssvi.data.sources`."""

    def make(wanted: Wanted) -> Made | None:
        if not at_hand(dataset, wanted.root):
            return None
        images = prepare(dataset, wanted.root).test_images
        taken, source = wanted.taken(images, f"test images of {dataset}")
        return taken, source + CAVEATS.get(dataset, "")

    return make


def _svhn(wanted: Wanted) -> Made | None:
    from scipy.io import loadmat, whosmat

    places = (wanted.root / SVHN_FILE, wanted.root / "SVHN" / SVHN_FILE)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return None
    try:
        held = {name: (shape, kind) for name, shape, kind in whosmat(file)}
        if (form := held.get("X")) == (SVHN_SHAPE, "uint8"):
            pixels = loadmat(file, variable_names=["X"])["X"]
    except MemoryError:
        raise
    except Exception as error:
        # The reader tells of damage in every way there is, a TypeError among them.
        raise UserError(f"{file}: cannot be read ({error}); bring the file again.") from None
    if form != (SVHN_SHAPE, "uint8"):
        said = "nothing" if form is None else f"{form[1]} {list(form[0])}"
        raise UserError(f"{file}: has {said} as X, but must have uint8 {list(SVHN_SHAPE)}; bring the file again.")
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
    return wanted.taken(images, "test images of SVHN (cropped house numbers)")


def _textures(wanted: Wanted) -> Made | None:
    places = (wanted.root / "dtd" / "dtd" / "images", wanted.root / "textures")
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        return None
    return _read(scan_classes(place, follow_links=wanted.follow_links), wanted, "textures (DTD)")


def _folder(name: str, wanted: Wanted) -> Outside:
    """The images of near:folder:PATH or folder:PATH that are not those of the data."""
    near = name.startswith(NEAR_PREFIX)
    path = dataset_path(name.removeprefix(NEAR_PREFIX))
    if path is None:
        raise UserError(f"out of distribution: {quoted(name)} is not {ANY_FOLDER} or {NEAR_PREFIX}{ANY_FOLDER}.")
    images, source = _read(scan_classes(path, follow_links=wanted.follow_links), wanted, "images of a folder")
    data = wanted.data
    known = {one for part in (data.train_images, data.val_images, data.test_images) for one in _digests(part)}
    new = torch.tensor([digest not in known for digest in _digests(images)])
    if not new.any():
        raise UserError(f"{path}: all of the {len(new)} images taken are images of the training's own data set.")
    if not new.all():
        source += f"; {int((~new).sum())} that are images of the training's own data set are left out"
    return Outside(outside_name(name), near, images[new].to(data.train_images.device), source, name)


def _read(found: Classes, wanted: Wanted, what: str) -> Made:
    """Some of the images in class folders, read as those of a data set folder:PATH are."""
    files = [file for of in found.files.values() for file in of]
    which, said = wanted.chosen(len(files))
    images = []
    for file in (files[i] for i in which):
        try:
            images.append(single(decode(file, wanted.data.image_size), wanted.data.bits, wanted.data.channels))
        except ValueError as error:
            raise UserError(f"{file}: {error}.") from None
    part = f"the part {found.part} of " if found.part else ""
    return torch.stack(images), f"{part}{what} ({said}), resized to {wanted.data.image_size} pixels on both sides"


def _digests(images: Tensor) -> Iterator[bytes]:
    return (hashlib.sha256(image.numpy().tobytes()).digest() for image in images.cpu())


# ---------------------------------------------------------------- by name

GREY, COLOUR = frozenset({"digits", "mnist", "kmnist", "fashion"}), frozenset({"cifar10", "cifar100"})
# Of a folder of one's own nobody knows what is outside but noise, and what its owner says.
SETS: tuple[Set, ...] = (
    Set("held_out", True, None, _held_out),
    Set("cifar100", True, {"cifar10"}, _published("cifar100")),
    Set("cifar10", True, {"cifar100"}, _published("cifar10")),
    Set("mnist", True, {"kmnist"}, _published("mnist")),
    Set("kmnist", True, {"mnist"}, _published("kmnist")),
    Set("mnist", False, {"fashion"}, _published("mnist")),
    Set("kmnist", False, {"fashion"}, _published("kmnist")),
    Set("fashion", False, {"digits", "mnist", "kmnist"}, _published("fashion")),
    Set("digits", False, {"fashion", *COLOUR}, _digits),
    Set("svhn", False, COLOUR, _svhn),
    Set("textures", False, COLOUR, _textures),
    Set("photographs", False, GREY | COLOUR, _photographs),
    Set("uniform_noise", False, None, _uniform_noise),
    Set("gaussian_noise", False, None, _gaussian_noise),
)
