"""CIFAR-10-C and CIFAR-100-C as their authors published them, read where a user has them, never downloaded.

A folder beside the data set's own holds `labels.npy` and a NAME.npy for each corruption: the test images five times in
their order, once a severity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssvi.data.corruptions.registry import CORRUPTIONS, SEVERITIES, check_severity
from ssvi.errors import UserError, unknown

FOLDERS = {"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"}
LABELS = "labels"
# Of an image, as it is stored.
FORM = (32, 32, 3)
# Images by whose values a file is known to hold bytes, and not numbers of [0, 1] that were made bytes.
LOOKED_AT = 100


@dataclass(frozen=True)
class Published:
    """The arrays of a folder, on disk until they are read.

    Attributes:
        folder: where they are.
        names: of the corruptions, those of `CORRUPTIONS`; others that are there are not used.
        number: of test images.
    """

    folder: Path
    names: tuple[str, ...]
    number: int

    def images(self, name: str, severity: int, which: Tensor | slice = slice(None)) -> Tensor:
        """Images uint8 [n, 3, 32, 32] of a severity.

        Args:
            name: one of `names`.
            severity: one of `SEVERITIES`.
            which: of the test images, all unless told.

        Raises:
            UserError: if there is no such corruption or severity, or its file is not as it has to be.
        """
        if name not in self.names:
            raise unknown("corruption", name, self.names, str(self.folder))
        check_severity(name, severity)
        places = np.arange(self.number)[which if isinstance(which, slice) else which.cpu().numpy()]
        stored = _stored(self.folder, name, self.number)[places + (severity - 1) * self.number]
        return torch.from_numpy(np.ascontiguousarray(stored.transpose(0, 3, 1, 2)))


def published(dataset: str, root: Path, labels: Tensor) -> Published | None:
    """The published corruptions of a data set, all files checked; None where there is no such folder.

    Args:
        dataset: any; only cifar10 and cifar100 have some.
        root: folder of the data.
        labels: int64 [n] of the test images.

    Raises:
        UserError: naming the file that is missing, damaged or of another shape or type, or whose labels or values are
            not those of the test set.
    """
    if dataset not in FOLDERS or not (folder := root / FOLDERS[dataset]).is_dir():
        return None
    found = {file.stem for file in folder.glob("*.npy")} - {LABELS}
    if not found:
        raise UserError(f"{folder}: has no NAME.npy of a corruption; unpack the archive there, or delete the folder.")
    if missing := [name for name in CORRUPTIONS if name not in found]:
        raise UserError(f"{_file(folder, missing[0])}: is missing; it comes in the same archive.")
    # a mean over corruptions is over the same kinds, whoever made them
    names = tuple(CORRUPTIONS)
    _check_labels(folder, labels.cpu().numpy())
    for name in names:
        if _stored(folder, name, len(labels))[:LOOKED_AT].max() <= 1:
            raise UserError(f"{_file(folder, name)}: its values are 0 and 1, but must be from 0 to 255.")
    return Published(folder, names, len(labels))


def _check_labels(folder: Path, labels: Any) -> None:
    file, stored = _file(folder, LABELS), _array(folder, LABELS)
    if stored.shape != (rows := len(SEVERITIES) * len(labels),) or stored.dtype.kind not in "iu":
        raise UserError(f"{file}: holds {_form(stored)}, but must hold integers ({rows},).")
    different = np.flatnonzero(stored != np.tile(labels, len(SEVERITIES)))
    if different.size:
        row = int(different[0])
        words = f"{stored[row]} at row {row}, where the test set has {labels[row % len(labels)]}"
        raise UserError(f"{file}: says {words}; it must have the test set's labels {len(SEVERITIES)} times.")


def _stored(folder: Path, name: str, number: int) -> Any:
    """The array uint8 [5 n, 32, 32, 3] of a corruption."""
    array, shape = _array(folder, name), (len(SEVERITIES) * number, *FORM)
    if array.shape != shape or array.dtype != np.uint8:
        raise UserError(f"{_file(folder, name)}: holds {_form(array)}, but must hold uint8 {shape}.")
    return array


def _array(folder: Path, name: str) -> Any:
    file = _file(folder, name)
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{file}: is missing; it comes in the same archive.") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: cannot be read as an array ({error}); fetch it anew.") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"{file}: is an archive of several arrays; it must hold one.")
    return array


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _form(array: Any) -> str:
    return f"{array.dtype} {array.shape}"
