"""Folders of images: which files are read and which are left out, and whether they are still those of before.

    listing   path, size, times and inode of every image: cheap, and another one as soon as anything was touched
    content   path and bytes of every image: what decides, wherever the folder lies; read anew if the listing is another

Standard library only: the workflow asks while it plans, the report when it is made.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ssvi.errors import UserError, nearest
from ssvi.machine.disk import write_json
from ssvi.runs.options import FOLDER_PREFIX

# What these suffixes stand for is read as `ssvi.data.pixels` has it.
SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
PARTS = ("train", "test")
LAYOUT = "needs train/<class>/ and test/<class>/ with images in them"
# A file that was changed just now may be changed again without its times telling: it has to be so old to be trusted.
SETTLED_SECONDS = 2.0
BLOCK = 1 << 20

# Why a file is left out, where that is not its suffix.
HIDDEN, NO_CLASS, BESIDE, CIRCLE = (
    "hidden",
    "in no class folder",
    "beside train/ and test/",
    "links to a folder around them",
)


@dataclass(frozen=True)
class Folder:
    """The images found under `path`: for each part a list of (file, index into `classes`), in a fixed order.

    `left_out` counts what is not read, by its suffix or by another reason.
    """

    path: Path
    classes: tuple[str, ...]
    train: tuple[tuple[Path, int], ...]
    test: tuple[tuple[Path, int], ...]
    left_out: Mapping[str, int]

    def listing(self) -> tuple[str, float]:
        """A digest of every image's path, size, times and inode, and the newest time of change, in seconds.

        Times of modification can be set at will; those of change and inodes cannot, so that neither an archive that
        restores the first nor a renamed folder passes for what was there before.

        Raises:
            OSError: if an image is gone.
        """
        digest, newest = hashlib.sha256(), 0
        for file, _ in (*self.train, *self.test):
            stat = file.stat()
            newest = max(newest, stat.st_ctime_ns)
            numbers = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            digest.update(json.dumps([str(file.relative_to(self.path)), *numbers]).encode())
        return digest.hexdigest(), newest / 1e9

    def numbers(self) -> dict[str, dict[str, int]]:
        """How many images each class has in each part."""
        labels = {part: Counter(label for _, label in getattr(self, part)) for part in PARTS}
        return {part: {self.classes[label]: n for label, n in of.items()} for part, of in labels.items()}


class Class(NamedTuple):
    """The images of a class: how many, a SHA-256 of their paths inside the class folder and of their bytes, in order,
    and one of their bytes under whatever names, empty where an earlier version recorded none."""

    number: int
    digest: str
    nameless: str = ""


@dataclass(frozen=True)
class Content:
    """The images of a folder, identified by their bytes.

    `images` has for each part the classes; `digest` is that of all their digests. `listing` is the folder's when they
    were read.
    """

    images: Mapping[str, Mapping[str, Class]]
    listing: str

    @property
    def digest(self) -> str:
        return self._digest(*self.images)

    def identity(self) -> dict[str, str]:
        """The digest and those of one part alone, as `ssvi.runs.identity` names them."""
        train, test = PARTS
        return {
            "content": self.digest,
            "training_content": self._digest(train),
            "test_content": self._digest(test),
        }

    def _digest(self, *parts: str) -> str:
        named = {p: {name: (one.number, one.digest) for name, one in self.images[p].items()} for p in parts}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def dataset_path(dataset: str) -> Path | None:
    """Where the images of a data set folder:PATH lie; None of any other."""
    return Path(dataset.removeprefix(FOLDER_PREFIX)) if dataset.startswith(FOLDER_PREFIX) else None


def expanded(path: Path) -> Path:
    """The path with the home folder that a ~ in front stands for; with the ~ where it stands for none."""
    return Path(os.path.expanduser(path))


def scan(path: Path, follow_links: bool = False) -> Folder:
    """Find the images of train/<class>/ and test/<class>/ under `path`, in folders inside these too.

    Args:
        path: of the folder.
        follow_links: whether a link may lead out of it.

    Raises:
        UserError: if the folders are not laid out like that, or cannot be read, naming the one that is wrong.
    """
    try:
        return _scan(path, follow_links)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None


def _real(path: Path, layout: str = LAYOUT) -> Path:
    """Where the folder of a data set lies, links followed; `layout` is what has to be in it."""
    given = expanded(path)
    if not given.is_dir():
        problem = "is a file" if given.exists() else "no such folder"
        raise UserError(f"{path}: {problem}; a data set folder:PATH {layout}.")
    return given.resolve()


def _scan(path: Path, follow_links: bool) -> Folder:
    path = _real(path)
    walk = _Walk(path, follow_links)
    for part in PARTS:
        if not (path / part).is_dir():
            raise UserError(f"{path}: has no folder {part}/; a data set folder:PATH {LAYOUT}.")
        walk.check_link(path / part)
    for entry in path.iterdir():
        if entry.name not in PARTS:
            walk.left_out[HIDDEN if _hidden(entry) else BESIDE] += 1
    train, test = (walk.class_folders(path / part) for part in PARTS)
    classes = tuple(train)
    if len(classes) < 2:
        found = f"only one class folder, {classes[0]!r}" if classes else "no class folders"
        raise UserError(f"{path / 'train'}: has {found}, but at least 2 are needed, one for each class.")
    if not test:
        raise UserError(f"{path / 'test'}: has no class folders, but needs those of {path / 'train'}.")
    for name in test:
        if name not in train:
            raise UserError(
                f"{path / 'test' / name}: class {name!r} is not among the {len(classes)} classes in "
                f"{path / 'train'}, did you mean {nearest(name, classes, cutoff=0)!r}?"
            )
    index = {name: i for i, name in enumerate(classes)}
    parts = [tuple((file, index[name]) for name in part for file in part[name]) for part in (train, test)]
    return Folder(path, classes, *parts, left_out=dict(sorted(walk.left_out.items())))


class Classes(NamedTuple):
    """Class folders somewhere: the part that they are of, if they lie in train/ or test/, where they are, the image
    files of each, and what is not read, by its suffix or another reason."""

    part: str | None
    place: Path
    files: Mapping[str, Sequence[Path]]
    left_out: Mapping[str, int]


def scan_classes(path: Path, part: str | None = None, follow_links: bool = False) -> Classes:
    """Find images by class: in train/ or test/ under `path` if it has both, else in the class folders under itself.

    Args:
        path: of the folder.
        part: train or test; without it test.
        follow_links: whether a link may lead out of it.

    Raises:
        UserError: if there are none, or a folder cannot be read, naming it.
    """
    try:
        root = _real(path, f"{LAYOUT}, or <class>/ alone")
        parted = all((root / name).is_dir() for name in PARTS)
        if part is not None and not parted:
            raise UserError(f"{path}: has no {' and '.join(f'{name}/' for name in PARTS)}, of which to take {part}/.")
        place = root / (part or PARTS[1]) if parted else root
        walk = _Walk(root, follow_links)
        walk.check_link(place)
        found = walk.class_folders(place, may_be_empty=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}).") from None
    if not any(found.values()):
        raise UserError(
            f"{place}: has no class folders with images; files that end in {', '.join(sorted(SUFFIXES))} are read."
        )
    return Classes(place.name if parted else None, place, found, dict(sorted(walk.left_out.items())))


def _hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


class _Walk:
    """A way through the folders under `root` that counts what it leaves out."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.root, self.follow_links = root, follow_links
        self.left_out: Counter[str] = Counter()

    def class_folders(self, part: Path, may_be_empty: bool = False) -> dict[str, list[Path]]:
        """The image files of each class folder of `part`, sorted by name."""
        folders = {}
        for folder in sorted(part.iterdir()):
            if _hidden(folder):
                self.left_out[HIDDEN] += 1
                continue
            self.check_link(folder)
            if not folder.is_dir():
                self.left_out[NO_CLASS] += 1
                continue
            folders[folder.name] = sorted(self._images(folder, (str(self.root), os.path.realpath(part))))
            if not folders[folder.name] and not may_be_empty:
                raise UserError(f"{folder}: has no images; files that end in {', '.join(sorted(SUFFIXES))} are read.")
        return folders

    def _images(self, folder: Path, around: tuple[str, ...]) -> Iterator[Path]:
        """The images in a folder and in those inside it; `around` are the folders that it lies in, links followed."""
        place = os.path.realpath(folder)
        if place in around:
            self.left_out[CIRCLE] += 1
            return
        for entry in folder.iterdir():
            image = entry.suffix.lower() in SUFFIXES
            if _hidden(entry):
                self.left_out[HIDDEN] += 1
            elif image or entry.is_dir():
                self.check_link(entry)
                if not image:
                    yield from self._images(entry, (*around, place))
                elif not entry.is_file():
                    raise UserError(f"{entry}: is named like an image, but is not a file.")
                else:
                    yield entry
            else:
                self.left_out[entry.suffix.lower() or "without a suffix"] += 1

    def check_link(self, entry: Path) -> None:
        """Refuse a link that leads nowhere or, unless that is asked for, out of the folder."""
        if not entry.is_symlink():
            return
        target = Path(os.path.realpath(entry))  # which also ends where links form a circle
        if not self.follow_links and not target.is_relative_to(self.root):
            raise UserError(
                f"{entry}: is a link to {target}, outside {self.root}; copy the images into the folder, or allow such "
                "links (follow_links: true in config.yaml, or --follow-links)."
            )
        if not entry.exists():
            raise UserError(f"{entry}: is a link to {os.readlink(entry)}, which is not there; delete it.")


# ---------------------------------------------------------------- content


def content(folder: Folder, root: Path) -> Content:
    """What the folder holds: as it was noted under `root`/cache if its listing is still the same, else read anew.

    Raises:
        UserError: if an image cannot be read, or is changed while it is.
    """
    try:
        began = time.time()
        listing, newest = folder.listing()
        note = root / "cache" / f"images-{hashlib.sha256(os.fsencode(folder.path)).hexdigest()[:24]}.json"
        if (known := _noted(note, listing)) is not None and _numbers(known) == folder.numbers():
            return known
        found = Content(_read(folder), listing)
        check_unchanged(folder, listing)
    except OSError as error:
        raise UserError(f"{error.filename or folder.path}: cannot be read ({error.strerror or error}).") from None
    if newest + SETTLED_SECONDS < began:
        _write_note(note, found)
    return found


def check_unchanged(folder: Folder, listing: str) -> None:
    """Refuse a folder whose listing is another than when something began to read it."""
    if folder.listing()[0] != listing:
        raise UserError(f"{folder.path}: images were changed while they were read; try again when they are all there.")


def _read(folder: Folder) -> dict[str, dict[str, Class]]:
    images: dict[str, dict[str, Class]] = {}
    for part in PARTS:
        files: dict[str, list[str]] = {}
        digests = {}
        for file, label in getattr(folder, part):
            name = folder.classes[label]
            inside = file.relative_to(folder.path / part / name)
            files.setdefault(name, []).append(_file_digest(file))
            line = json.dumps([inside.as_posix(), files[name][-1]])
            digests.setdefault(name, hashlib.sha256()).update(line.encode())
        images[part] = {
            name: Class(
                len(found), digests[name].hexdigest(), hashlib.sha256("".join(sorted(found)).encode()).hexdigest()
            )
            for name, found in files.items()
        }
    return images


def _file_digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _noted(note: Path, listing: str) -> Content | None:
    """What was noted of this very listing; None if nothing was, or the note is damaged."""
    try:
        record = json.loads(note.read_bytes())
        found = Content(images_of(record["images"]), listing)
        return found if record["listing"] == listing and record["content"] == found.digest else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # whatever is wrong with it, the images themselves tell
        return None


def _numbers(found: Content) -> dict[str, dict[str, int]]:
    return {part: {name: one.number for name, one in of.items()} for part, of in found.images.items()}


def images_of(record: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, dict[str, Class]]:
    """`Content.images` from JSON, where tuples are lists.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: if it is something else.
    """
    images = {part: {name: Class(*one) for name, one in record[part].items()} for part in PARTS}
    for one in (one for found in images.values() for one in found.values()):
        if type(one.number) is not int or one.number < 1 or {type(one.digest), type(one.nameless)} != {str}:
            raise TypeError(f"{one!r} are no images of a class")
    return images


def _write_note(note: Path, found: Content) -> None:
    try:
        write_json(note, {"listing": found.listing, "content": found.digest, "images": found.images})
    except OSError:
        return  # without it the images are read again: slower, and as right


def is_there(path: Path) -> bool:
    """Whether the folder of a data set is where it should be; an empty one is a disk that is not mounted."""
    return any(os.path.isdir(expanded(path) / part) for part in PARTS)
