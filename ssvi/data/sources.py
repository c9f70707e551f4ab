"""Where images come from: each source becomes a `Prepared` data set, once, and is then read from its cache file.

scikit-learn, torchvision and PIL are imported only where a data set is made from its source, never to read the cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import importlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ssvi.data.cache import Form, Prepared, cached, prepared
from ssvi.data.folders import read_folder
from ssvi.data.idx import read_idx
from ssvi.errors import UserError, unknown
from ssvi.machine.disk import check_replaceable, replace, scratch
from ssvi.runs import places
from ssvi.runs.images import content, dataset_path, scan
from ssvi.runs.options import DATASETS

# Part of the cache files' names: raised whenever a source is turned into tensors in another way.
VERSION = 3

DIGITS_TEST = 360
# A server that says nothing for so long is given up.
SILENCE_SECONDS = 60.0


def prepare(
    dataset: str, root: Path, image_size: int = 32, download: bool = False, follow_links: bool = False
) -> Prepared:
    """A data set as tensors, from its cache file under `root`/cache, which is made first where needed.

    Args:
        dataset: one of `DATASETS`, or folder:PATH.
        root: folder of the data; CIFAR and the others that are published as files are looked for here, as torchvision
            lays them out or as they are downloaded.
        image_size: side in pixels to which the images of folder:PATH are resized; not used by the others.
        download: whether what is published may be downloaded if it is not there.
        follow_links: whether links in folder:PATH may lead out of it.

    Raises:
        UserError: if the data set is unknown, missing, damaged or not as it has to be.
    """
    if (source := SOURCES.get(dataset)) is not None:
        return cached(_cache_file(root, dataset), lambda: source.read(root, download), source.form)
    if (path := dataset_path(dataset)) is not None:
        folder = scan(path, follow_links)
        held = content(folder, root)
        file = _cache_file(root, f"folder-{held.digest[:32]}-{image_size}")
        form = Form(len(folder.classes), 3, image_size, held.digest)
        data = cached(file, lambda: read_folder(folder, held, image_size), form)
        return dataclasses.replace(data, left_out=folder.left_out, images=held.images)
    raise unknown("dataset", dataset, [*DATASETS, "folder:PATH"], "data")


def _cache_file(root: Path, name: str) -> Path:
    return root / "cache" / f"{name}-v{VERSION}.safetensors"


# ---------------------------------------------------------------- digits


def _digits(root: Path, download: bool) -> Prepared:
    """1437 training and 360 test images, 8x8, grey, in fixed proportions of the ten classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    # Sixteen is the brightest value there.
    images = (images.reshape(-1, 1, 8, 8) * 255 / 16).round().astype("uint8")
    split = train_test_split(images, labels.astype("int64"), test_size=DIGITS_TEST, stratify=labels, random_state=0)
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, split)
    return prepared((train_images, train_labels), (test_images, test_labels), NUMERALS)


# ---------------------------------------------------------------- CIFAR


@functools.cache
def _nms_schemas() -> torch.library.Library:
    """Declare the operators without which torchvision cannot be imported; kept alive by the cache."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def import_torchvision() -> ModuleType:
    """Import torchvision, also its CUDA build beside a CPU-only torch.

    That build's compiled operators cannot be loaded there, and the import fails for want of their declarations.
    Declaring them makes everything but those operators work. The plain import comes first, because where the
    operators do load (macOS, builds for CPUs) a second declaration would be an error.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    _nms_schemas()
    return importlib.import_module("torchvision")


def _cifar(name: str, root: Path, download: bool) -> Prepared:
    """CIFAR from the extracted folder or the archive under `root`; every file is checked against its MD5."""
    torchvision = import_torchvision()
    utils = importlib.import_module("torchvision.datasets.utils")
    source, dataset = getattr(torchvision.datasets, name), name.lower()
    folder, archive = root / source.base_folder, root / source.filename
    hint = (
        f"Run `ssvi data {dataset} --root {root} --download`, or put {source.filename} (from {source.url}) into {root}."
    )
    if folder.is_dir():
        try:
            return _read_cifar(source, root)
        except RuntimeError:
            # torchvision raises this for a file that is missing or has another checksum, before reading any.
            if not download and not archive.is_file():
                raise UserError(f"{folder}: a file is missing or its checksum is wrong. Delete it. {hint}") from None
    if archive.is_file() and not utils.check_integrity(archive, source.tgz_md5):
        if not download:
            raise UserError(f"{archive}: its checksum is wrong, the download was cut short. Delete it. {hint}")
    elif archive.is_file():
        with _scratch(root) as room:
            utils.extract_archive(os.fspath(archive), os.fspath(room))
            return _read_cifar(source, room)
    if not download:
        raise UserError(f"{dataset}: not found, looked for {folder} and {archive}. {hint}")
    check_replaceable(archive)
    # In a folder of its own, so that two downloads at once do not write into one file.
    with _scratch(root) as room:
        with _downloading(dataset, root, f"Put {source.filename} (from {source.url}) into {root}, or try again."):
            data = _read_cifar(source, room, download=True)
        replace(room / source.filename, archive)
    return data


@contextlib.contextmanager
def _downloading(dataset: str, root: Path, by_hand: str) -> Iterator[None]:
    """What torchvision fetches, with a limit for its silence, and one line where it cannot."""
    try:
        with _no_longer_silent_than(SILENCE_SECONDS):
            yield
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise UserError(f"{dataset}: the download to {root} failed ({error}). {by_hand}") from None


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            room = stack.enter_context(scratch(root, "unpacked"))
        except OSError as error:
            raise UserError(f"{root}: cannot be written to ({error}); choose another folder for the data.") from None
        yield room


@contextlib.contextmanager
def _no_longer_silent_than(seconds: float) -> Iterator[None]:
    """A limit for each answer of a server; torchvision sets none, and would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_cifar(source: Any, root: Path, download: bool = False) -> Prepared:
    train = source(root, train=True, download=download)
    test = source(root, train=False)
    return prepared(_cifar_tensors(train), _cifar_tensors(test), train.classes)


def _cifar_tensors(part: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)


# ---------------------------------------------------------------- MNIST and what is after its pattern

IDX_SHAPES = {"train": (60_000, 28, 28), "t10k": (10_000, 28, 28)}


def _idx(dataset: str, name: str, root: Path, download: bool) -> Prepared:
    """Images and labels from four IDX files, gzipped or not: under `root`, as torchvision lays them out, or installed.

    Downloaded files are checked against their MD5.
    """
    classes = IDX_CLASSES[dataset]
    installed = [Path(places.INSTALLED[dataset])] if dataset in places.INSTALLED else []
    looked = [root / name / "raw", root / dataset, *installed]
    found = next((place for place in looked if all(_idx_file(place, *which) for which in IDX_FILES)), None)
    if found is not None:
        return _read_idx(found, classes)
    hint = f"Run `ssvi data {dataset} --root {root} --download`, or put the four IDX files into {looked[1]}."
    if not download:
        raise UserError(f"{dataset}: not found, looked for its IDX files in {', '.join(map(str, looked))}. {hint}")
    source = getattr(import_torchvision().datasets, name)
    check_replaceable(root / name)
    with _scratch(root) as room:
        with _downloading(dataset, root, f"Put its four IDX files into {looked[1]}, or try again."):
            source(room, download=True)
        data = _read_idx(room / name / "raw", classes)
        replace(room / name, root / name)
    return data


IDX_FILES = [(part, kind) for part in IDX_SHAPES for kind in ("images-idx3", "labels-idx1")]


def _idx_file(folder: Path, part: str, kind: str) -> Path | None:
    names = (f"{part}-{kind}-ubyte", f"{part}-{kind}-ubyte.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_idx(folder: Path, classes: tuple[str, ...]) -> Prepared:
    parts = []
    for part, shape in IDX_SHAPES.items():
        images, labels = (_idx_file(folder, part, kind) for kind in ("images-idx3", "labels-idx1"))
        if images is None or labels is None:
            raise UserError(f"{folder}: lacks a file of {part} images and labels.")
        numbers = read_idx(labels, shape[:1]).long()
        if (worst := int(numbers.max())) >= len(classes):
            raise UserError(f"{labels}: has the label {worst}, but must have labels from 0 to {len(classes) - 1}.")
        parts.append((read_idx(images, shape).unsqueeze(1), numbers))
    return prepared(*parts, classes)


NUMERALS = tuple(str(digit) for digit in range(10))
IDX_CLASSES = {
    "mnist": NUMERALS,
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "fashion": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}


# ---------------------------------------------------------------- by name


@dataclass(frozen=True)
class Source:
    """How a data set is read, given the folder of the data and whether it may be downloaded, and what it holds."""

    form: Form
    read: Callable[[Path, bool], Prepared]


# Of the names in `DATASETS` (`ssvi.runs.options`), which planning knows without torch.
SOURCES: dict[str, Source] = {
    "digits": Source(Form(10, 1, 8), _digits),
    "fashion": Source(Form(10, 1, 28), functools.partial(_idx, "fashion", "FashionMNIST")),
    "mnist": Source(Form(10, 1, 28), functools.partial(_idx, "mnist", "MNIST")),
    "kmnist": Source(Form(10, 1, 28), functools.partial(_idx, "kmnist", "KMNIST")),
    "cifar10": Source(Form(10, 3, 32), functools.partial(_cifar, "CIFAR10")),
    "cifar100": Source(Form(100, 3, 32), functools.partial(_cifar, "CIFAR100")),
}
