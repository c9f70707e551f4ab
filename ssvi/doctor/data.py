"""Where data sets are kept."""

from __future__ import annotations

import os

from ssvi.doctor import study
from ssvi.doctor.base import Asked, Result
from ssvi.doctor.probing import nearest, scratch
from ssvi.doctor.results import GIB
from ssvi.runs.options import FOLDER_PREFIX
from ssvi.runs.places import PUBLISHED, at_hand

# CIFAR, the largest, and its prepared file.
NEEDED = GIB


def root(asked: Asked) -> Result:
    """Whether it can be read and written, what is prepared, and whether what the study needs is there."""
    path, there = asked.data_root, nearest(asked.data_root)
    if there == path and not (path.is_dir() and os.access(path, os.R_OK | os.X_OK)):
        return Result("failed", f"{path} cannot be read", "nothing can be trained", "name another --data-root")
    prepared = sorted(file.name.removesuffix(".safetensors") for file in (path / "cache").glob("*.safetensors"))
    told = f"{path}: " + (f"prepared: {', '.join(prepared)}" if prepared else "nothing is prepared yet")
    if missing := sorted({spec.dataset for spec in study.specs(asked).values() if not _is_there(spec.dataset, asked)}):
        meaning = "the runs that need them cannot start"
        advice = "; ".join(f"ssvi data {name} --root {path} --download" for name in missing if name in PUBLISHED)
        said = f"{told}; not there: {', '.join(missing)}"
        return Result("warning", said, meaning, advice or "put the images where the config says")
    try:
        with scratch(path, asked):
            pass
    except OSError as error:
        said = f"{told}; {there} cannot be written: {error.strerror}"
        return Result("warning", said, "what is not prepared yet cannot be", "name a --data-root that can be written")
    size = os.statvfs(there)
    if (free := size.f_bavail * size.f_frsize) < NEEDED:
        said = f"{told}; {free / GIB:.2f} GiB free"
        return Result("warning", said, "CIFAR and its prepared file take up to 1 GiB", "make space")
    return Result("ok", told)


def _is_there(dataset: str, asked: Asked) -> bool:
    if dataset.startswith(FOLDER_PREFIX):
        beside = asked.config.parent if asked.config else asked.data_root
        return (beside / dataset.removeprefix(FOLDER_PREFIX)).is_dir()
    return at_hand(dataset, asked.data_root)
