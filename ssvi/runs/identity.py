"""What identifies the images of a data set, whole and in its parts, and on which of it a run depends.

    spec.json      data, training_data           pixels, labels and class names when the training began
                   content, training_content     of folder:PATH: names and bytes of the image files
    metrics.json   data, test_data               the same when the run was evaluated
                   test_content
    samples.csv    test_data                     a column with the same in every row

Runs of versions before record `data` and `content` alone: there the whole has to be the same.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssvi.runs.spec import RunSpec

TRAINED_ON = ("data", "training_data", "content", "training_content")
EVALUATED_ON = ("data", "test_data", "test_content")


@dataclass(frozen=True)
class Identity:
    """SHA-256, in hex, of a data set and of its parts: of tensors (`ssvi.data.cache`), and of files (`Content`)."""

    data: str
    training_data: str
    test_data: str
    content: str | None = None
    training_content: str | None = None
    test_content: str | None = None

    def of(self, names: tuple[str, ...]) -> dict[str, str | None]:
        """Some of it, by name."""
        return {name: getattr(self, name) for name in names}


def decisive(record: Mapping[str, Any], spec: RunSpec, kind: str = "data") -> str:
    """Which of `TRAINED_ON` has to be as `record`, the provenance of a run, says, for it to be of these images.

    Test images are no part of a training, unless it was to record the epoch that is best on them.

    Args:
        record: as in spec.json.
        spec: the run's.
        kind: `data`, of pixels, or `content`, of files.
    """
    part = f"training_{kind}"
    return kind if spec.record_best_test or record.get(part) is None else part


def kind_of(name: str) -> str:
    """What one of `TRAINED_ON` is of, in words."""
    return "training images" if name.startswith("training_") else "images"


def other_images(record: Mapping[str, Any], spec: RunSpec, now: Identity) -> str:
    """On what else than the present images a run was trained, by its record, in words; nothing if it was on these."""
    name = decisive(record, spec)
    then, today = record[name], getattr(now, name)
    if then == today:
        return ""
    words = f"other {kind_of(name)} of {spec.dataset!r} (fingerprint {then[:12]}, now {today[:12]}"
    if record.get("training_data") == now.training_data:
        words += "; record_best_test has looked at the test images, which have changed"
    elif record.get("training_content") == now.training_content is not None:
        words += "; the files are the same, but are read otherwise"
    return f"{words})"
