"""Whether the images of folder:PATH are still those that the runs of a study were trained on, told without torch.

What decides is the content that `ssvi data` and every training record; runs of versions that recorded none are left
to their evaluation, which compares pixels. A folder that is not there has not changed: finished runs need it no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.images import PARTS, Class, Content, content, dataset_path, expanded, images_of, is_there, scan
from ssvi.runs.records import read_json
from ssvi.runs.spec import RunSpec

# Of many classes that changed, or runs, the first ones say enough.
NAMED, NAMED_RUNS = 4, 3


@dataclass(frozen=True)
class Changed:
    """A data set whose images are no longer those of some runs.

    Attributes:
        dataset: its name.
        runs: the paths of these runs.
        words: what changed; empty where it is not recorded what was there.
        problem: why what is there now is no data set; empty if it is one.
    """

    dataset: str
    runs: tuple[str, ...]
    words: str
    problem: str = ""

    def __str__(self) -> str:
        number = "1 run was" if len(self.runs) == 1 else f"{len(self.runs)} runs were"
        more = f" and {len(self.runs) - NAMED_RUNS} more" if len(self.runs) > NAMED_RUNS else ""
        names = f"{', '.join(self.runs[:NAMED_RUNS])}{more}"
        if self.problem:
            return f"{self.problem.rstrip('.?')}; {number} trained on images of {self.dataset}: {names}"
        words = f" ({self.words})" if self.words else ""
        return f"{self.dataset}: {number} trained on other image files than are there now{words}: {names}"


def changed_data_sets(results: Path, specs: Mapping[str, RunSpec], root: Path, here: Path = Path()) -> list[Changed]:
    """The data sets of these runs whose images are others now than when they were trained, or began to be.

    Args:
        results: the results folder.
        specs: the runs, by their paths.
        root: folder of the data, where it is noted what was found.
        here: the folder that relative paths of data sets start from.
    """
    found = []
    for dataset in dict.fromkeys(spec.dataset for spec in specs.values()):
        if (path := _folder_of(dataset, here)) is None:
            continue
        mine = {run: of for run, spec in specs.items() if spec.dataset == dataset and (of := _trained_on(results, run))}
        if not mine:
            continue
        now, problem = None, ""
        try:
            now = content(scan(path, follow_links=True), root)
        except UserError as error:
            problem = str(error)
        if others := [run for run, of in mine.items() if now is None or of != now.digest]:
            words = _difference(_recorded(results, dataset, mine[others[0]]), now)
            found.append(Changed(dataset, tuple(others), words, problem))
    return found


def is_outdated(record: Path, dataset: str, root: Path) -> bool:
    """Whether a record that is there is not, or cannot be told to be, of the images that are there.

    Args:
        record: results/data/NAME.json, which `ssvi data` printed.
        dataset: its data set.
        root: folder of the data, where it is noted what was found.
    """
    path = _folder_of(dataset, Path())
    if path is None or not record.is_file():
        return False
    try:
        return content(scan(path, follow_links=True), root).digest != _record(record).get("content")
    except UserError:
        return False  # said by the training that needs the images


def check_images(folder: Path, dataset: str, root: Path) -> None:
    """Refuse a trained run whose images are others now.

    Raises:
        UserError: naming the run folder.
    """
    before, path = _content_in(folder), _folder_of(dataset, Path())
    if before is None or path is None or content(scan(path, follow_links=True), root).digest == before:
        return
    raise UserError(
        f"{folder}: was trained on other images of {dataset!r}; bring those images back, or move the folder away to "
        "train on the present ones."
    )


def other_files(folder: Path, dataset: str, now: str | None) -> str:
    """What to say of a run whose images have the pixels it was trained on, and the content `now`; mostly nothing."""
    if now is None or _content_in(folder) in (None, now):
        return ""
    return (
        f"{folder}: the image files of {dataset!r} have other names or other bytes than those that it was trained on, "
        "but the same pixels in the same order; for a workflow bring those files back."
    )


def _folder_of(dataset: str, here: Path) -> Path | None:
    """The folder of a data set folder:PATH, if it is there; links are followed, since reading it may allow them."""
    path = dataset_path(dataset)
    place = None if path is None else here / expanded(path)
    return place if place is not None and is_there(place) else None


def _trained_on(results: Path, run: str) -> str | None:
    return _content_in(results / "runs" / run)


def _content_in(folder: Path) -> str | None:
    """The content that a run was trained on, None if it does not say."""
    record = _record(folder / files.SPEC).get("provenance")
    found = record.get("content") if isinstance(record, dict) else None
    return found if isinstance(found, str) else None


def _record(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, and where it is damaged, which is said where it is used."""
    try:
        record = read_json(path) if path.is_file() else {}
    except (UserError, OSError):
        return {}
    return record if isinstance(record, dict) else {}


def _recorded(results: Path, dataset: str, digest: str) -> Content | None:
    """What `ssvi data` recorded of the content that runs were trained on."""
    for path in sorted((results / "data").glob("*.json")):
        record = _record(path)
        if record.get("dataset") == dataset and record.get("content") == digest:
            try:
                return Content(images_of(record["images"]), "")
            except (LookupError, TypeError, ValueError, AttributeError):
                return None
    return None


def _difference(then: Content | None, now: Content | None) -> str:
    """What changed, in words; nothing where it is not recorded what was there."""
    if then is None or now is None:
        return ""
    words = [word for part in PARTS for word in _changes(part, then.images.get(part, {}), now.images[part])]
    more = [f"{len(words) - NAMED} more"] if len(words) > NAMED else []
    return ", ".join([*words[:NAMED], *more])


def _changes(part: str, then: Mapping[str, Class], now: Mapping[str, Class]) -> Iterator[str]:
    was = {one.digest: name for name, one in then.items()}
    for name in sorted({*then, *now}):
        place = f"{part}/{name}"
        if name not in now:
            yield f"{place} is gone ({then[name].number} images)"
        elif name not in then:
            yield f"{place} is new ({now[name].number} images)"
        elif (before := then[name]).digest != (after := now[name]).digest:
            told = bool(before.nameless and after.nameless)
            if after.digest in was:
                yield f"{place} has what was in {part}/{was[after.digest]}"
            elif told and before.nameless == after.nameless:
                yield f"{place} has the same images under other names"
            elif before.number != after.number:
                yield f"{place} had {before.number} images and has {after.number}"
            else:
                what = "bytes" if told else "names or other bytes"
                yield f"{place} had {before.number} images and has as many of other {what}"
