"""Where images come from: each source becomes a `Prepared` data set, once, and is then read from its cache file.

scikit-learn, torchvision and PIL are imported only where a data set is made from its source, never to read the cache.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import http.client
import importlib
import json
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssvi.data.cache import Prepared, cached, prepared
from ssvi.errors import UserError, unknown
from ssvi.spec import DATASETS, FOLDER_PREFIX

if TYPE_CHECKING:
    from PIL import Image

# Part of the cache files' names: raised whenever a source is turned into tensors in another way.
VERSION = 1

CIFAR = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
# What these suffixes stand for. PIL knows many more formats, of which some are handed to other programs to be read.
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")
# The largest side of an image; the memory to scale a strip of a few pixels by millions is a thousand times its own.
MOST_PIXELS_ACROSS = 65_535
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
DIGITS_TEST = 360


def prepare(dataset: str, root: Path, image_size: int = 32, download: bool = False) -> Prepared:
    """A data set as tensors, from its cache file under `root`/cache, which is made first where needed.

    Args:
        dataset: digits, cifar10, cifar100 or folder:PATH.
        root: folder of the data; CIFAR is looked for here, as torchvision lays it out or as the archive.
        image_size: side in pixels to which the images of folder:PATH are resized; not used by the others.
        download: whether CIFAR may be downloaded if it is not there.

    Raises:
        UserError: if the data set is unknown, missing, damaged or not as it has to be.
    """
    if dataset == "digits":
        return cached(_cache_file(root, "digits"), _digits)
    if dataset in CIFAR:
        return cached(_cache_file(root, dataset), lambda: _cifar(dataset, root, download))
    if dataset.startswith(FOLDER_PREFIX):
        given = Path(dataset.removeprefix(FOLDER_PREFIX))
        try:
            folder = scan(given)
            digest = folder.digest(image_size)
        except OSError as error:
            raise UserError(f"{given}: cannot be read ({error}).") from None
        return cached(_cache_file(root, f"folder-{digest}"), lambda: _decode(folder, image_size))
    raise unknown("dataset", dataset, [*DATASETS, "folder:PATH"], "data")


def _cache_file(root: Path, name: str) -> Path:
    return root / "cache" / f"{name}-v{VERSION}.safetensors"


# ---------------------------------------------------------------- digits


def _digits() -> Prepared:
    """1437 training and 360 test images, 8x8, grey, in fixed proportions of the ten classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    # Sixteen is the brightest value there.
    images = (images.reshape(-1, 1, 8, 8) * 255 / 16).round().astype("uint8")
    split = train_test_split(images, labels.astype("int64"), test_size=DIGITS_TEST, stratify=labels, random_state=0)
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, split)
    return prepared((train_images, train_labels), (test_images, test_labels), [str(digit) for digit in range(10)])


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


def _cifar(dataset: str, root: Path, download: bool) -> Prepared:
    """CIFAR from the extracted folder or the archive under `root`; every file is checked against its MD5."""
    torchvision = import_torchvision()
    utils = importlib.import_module("torchvision.datasets.utils")
    source = getattr(torchvision.datasets, CIFAR[dataset])
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
        with _scratch(root) as scratch:
            utils.extract_archive(os.fspath(archive), scratch)
            return _read_cifar(source, Path(scratch))
    if not download:
        raise UserError(f"{dataset}: not found, looked for {folder} and {archive}. {hint}")
    # In a folder of its own, so that two downloads at once do not write into one file.
    with _scratch(root) as scratch:
        try:
            data = _read_cifar(source, Path(scratch), download=True)
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            by_hand = f"Put {source.filename} (from {source.url}) into {root}, or try again."
            raise UserError(f"{dataset}: the download to {root} failed ({error}). {by_hand}") from None
        os.replace(Path(scratch) / source.filename, archive)
    return data


def _scratch(root: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=root, prefix=".unpack-")
    except OSError as error:
        raise UserError(f"{root}: cannot be written to ({error}); choose another folder for the data.") from None


def _read_cifar(source: Any, root: Path, download: bool = False) -> Prepared:
    train = source(root, train=True, download=download)
    test = source(root, train=False)
    return prepared(_cifar_tensors(train), _cifar_tensors(test), train.classes)


def _cifar_tensors(part: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)


# ---------------------------------------------------------------- folders of images


@dataclass(frozen=True)
class Folder:
    """The images found under `path`: for each part a list of (file, index into `classes`), in a fixed order."""

    path: Path
    classes: tuple[str, ...]
    train: tuple[tuple[Path, int], ...]
    test: tuple[tuple[Path, int], ...]

    def digest(self, image_size: int) -> str:
        """A name for these very files at this size: another file, size or time of change gives another name."""
        files = []
        skip = len(self.path.as_posix()) + 1
        for file, _ in (*self.train, *self.test):
            stat = file.stat()
            files.append([file.as_posix()[skip:], stat.st_size, stat.st_mtime_ns])
        text = json.dumps([str(self.path), image_size, list(self.classes), sorted(files)])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def scan(path: Path) -> Folder:
    """Find the images of train/<class>/ and test/<class>/ under `path`; hidden and other files are ignored.

    Raises:
        UserError: if the folders are not laid out like that, naming the one that is wrong.
    """
    given = path.expanduser()
    layout = "needs train/<class>/ and test/<class>/ with images in them"
    if not given.is_dir():
        problem = "is a file" if given.exists() else "no such folder"
        raise UserError(f"{path}: {problem}; a data set folder:PATH {layout}.")
    path = given.resolve()
    for part in ("train", "test"):
        if not (path / part).is_dir():
            raise UserError(f"{path}: has no folder {part}/; a data set folder:PATH {layout}.")
        _check_inside(path / part, path)
    train, test = _class_folders(path / "train", path), _class_folders(path / "test", path)
    classes = tuple(train)
    if len(classes) < 2:
        found = f"only one class folder, {classes[0]!r}" if classes else "no class folders"
        raise UserError(f"{path / 'train'}: has {found}, but at least 2 are needed, one for each class.")
    if not test:
        raise UserError(f"{path / 'test'}: has no class folders, but needs those of {path / 'train'}.")
    for name in test:
        if name not in train:
            near = difflib.get_close_matches(name, classes, n=1, cutoff=0)
            raise UserError(
                f"{path / 'test' / name}: class {name!r} is not among the {len(classes)} classes in "
                f"{path / 'train'}, did you mean {near[0]!r}?"
            )
    index = {name: i for i, name in enumerate(classes)}
    parts = [tuple((file, index[name]) for name in part for file in part[name]) for part in (train, test)]
    return Folder(path, classes, *parts)


def _class_folders(part: Path, root: Path) -> dict[str, list[Path]]:
    """The image files of each class folder of `part`, sorted by name."""
    folders = {}
    for folder in sorted(part.iterdir()):
        if folder.name.startswith("."):
            continue
        _check_inside(folder, root)
        if not folder.is_dir():
            continue
        files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in IMAGE_SUFFIXES and f.name[0] != "."]
        if not files:
            allowed = ", ".join(sorted(IMAGE_SUFFIXES))
            raise UserError(f"{folder}: has no images; files that end in {allowed} are read.")
        for file in files:
            _check_inside(file, root)
            if not file.is_file():
                raise UserError(f"{file}: is named like an image, but is not a file.")
        folders[folder.name] = files
    return folders


def _check_inside(entry: Path, root: Path) -> None:
    """Refuse a link that leaves the folder: what it holds could change without the cache noticing where."""
    if not entry.is_symlink():
        return
    target = Path(os.path.realpath(entry))  # which also ends where links form a circle
    if not target.is_relative_to(root):
        raise UserError(f"{entry}: is a link to {target}, outside {root}; copy the images into the folder.")
    if not entry.exists():
        raise UserError(f"{entry}: is a link to {os.readlink(entry)}, which is not there; delete it.")


def _decode(folder: Folder, image_size: int) -> Prepared:
    """Read every image, in RGB, resized to `image_size` x `image_size` pixels."""
    parts = []
    for files in (folder.train, folder.test):
        images = torch.empty(len(files), 3, image_size, image_size, dtype=torch.uint8)
        for target, (file, _) in zip(images, files, strict=True):
            target.copy_(_decode_image(file, image_size))
        parts.append((images, torch.tensor([label for _, label in files], dtype=torch.int64)))
    return prepared(*parts, folder.classes)


def _decode_image(file: Path, size: int) -> Tensor:
    """One image as uint8 [3, size, size]; of an animation the first frame; transparency is dropped."""
    import numpy as np
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # From its limit on PIL warns, and refuses only twice as large ones.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=IMAGE_FORMATS) as opened:
                if (side := max(opened.size)) > MOST_PIXELS_ACROSS:
                    raise UserError(f"{file}: is {side} pixels across, but at most {MOST_PIXELS_ACROSS} are read.")
                image = _to_rgb(opened, file)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS
        raise UserError(f"{file}: has more than {limit} pixels, the most that is read; scale it down.") from None
    except (UserError, MemoryError):
        raise
    except Exception as error:
        # The decoders of PIL tell of damage in every way there is, a TypeError among them.
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read as an image ({reason}); replace or delete it.") from None
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _to_rgb(image: Image.Image, file: Path) -> Image.Image:
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):
        # PIL's own conversion would cut everything above 255 instead of scaling it.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UserError(f"{file}: has pixels of mode {image.mode}, whose range is not known; save it with 8 bits.")
    return image.convert("RGB")
