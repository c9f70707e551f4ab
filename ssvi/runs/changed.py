"""Whether the images of folder:PATH are still those that the runs of a study were trained on, told without torch.

What decides is the content that `ssvi data`, every training and every evaluation record; runs of versions that recorded
none are left to their evaluation, which compares pixels. A folder that is not there has not changed: finished runs need
it no more. Other training images are another training, other test images another evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ssvi.errors import UserError
from ssvi.runs import files
from ssvi.runs.identity import Identity, decisive, kind_of
from ssvi.runs.images import PARTS, Class, Content, content, dataset_path, expanded, images_of, is_there, scan
from ssvi.runs.records import read_json
from ssvi.runs.spec import RunSpec

# Of many classes that changed, or runs, the first ones say enough.
NAMED, NAMED_RUNS = 4, 3
EVALUATED = "evaluated on other test images"


@dataclass(frozen=True)
class Changed:
    """A data set whose images are no longer those of some runs.

    Attributes:
        dataset: its name.
        runs: the paths of these runs.
        words: what changed; empty where it is not recorded what was there.
        deed: what was done to the runs on images that are no longer there.
        problem: why what is there now is no data set; empty if it is one.
    """

    dataset: str
    runs: tuple[str, ...]
    words: str
    deed: str
    problem: str = ""

    def __str__(self) -> str:
        number = "1 run was" if len(self.runs) == 1 else f"{len(self.runs)} runs were"
        if self.problem:
            return f"{self.problem.rstrip('.?')}; {number} trained on images of {self.dataset}: {self._names}"
        return f"{self.dataset}: {number} {self.deed} than are there now{self._said}: {self._names}"

    @property
    def is_of_tests(self) -> bool:
        """Whether the runs are as they should be but for their evaluation."""
        return self.deed == EVALUATED

    @property
    def remedy(self) -> str:
        """What is done about other test images, in a line."""
        number = "1 run is" if len(self.runs) == 1 else f"{len(self.runs)} runs are"
        changed = f"since its test images changed{self._said}"
        return f"{self.dataset}: {number} evaluated anew where that is needed, {changed}: {self._names}."

    @property
    def _said(self) -> str:
        return f" ({self.words})" if self.words else ""

    @property
    def _names(self) -> str:
        more = f" and {len(self.runs) - NAMED_RUNS} more" if len(self.runs) > NAMED_RUNS else ""
        return f"{', '.join(self.runs[:NAMED_RUNS])}{more}"


class _Made(NamedTuple):
    """What a run was made of, by its training or by its evaluation: the name and the digest of what has to be there."""

    run: str
    deed: str
    name: str
    digest: str


def changed_data_sets(results: Path, specs: Mapping[str, RunSpec], root: Path, here: Path = Path()) -> list[Changed]:
    """The data sets of these runs whose images are others now than when they were trained, or began to be; and those
    of which the test images alone are others than when they were evaluated.

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
        mine = {run: spec for run, spec in specs.items() if spec.dataset == dataset}
        made = [one for run, spec in mine.items() for one in _made(results / "runs" / run, run, spec)]
        if not made:
            continue
        now, problem = None, ""
        try:
            now = content(scan(path, follow_links=True), root)
        except UserError as error:
            problem = str(error)
        others = [one for one in made if now is None or one.digest != now.identity()[one.name]]
        trained = {one.run for one in others if one.deed != EVALUATED}
        # of a run that was trained on other images there is nothing to evaluate
        others = [one for one in others if one.deed != EVALUATED or one.run not in trained]
        for deed in dict.fromkeys(one.deed for one in others):
            first, *more = (one for one in others if one.deed == deed)
            words = _difference(_recorded(results, dataset, first), now, first.name)
            found.append(Changed(dataset, (first.run, *(one.run for one in more)), words, deed, problem))
    return found


def _made(folder: Path, run: str, spec: RunSpec) -> Iterator[_Made]:
    """What a run folder says it was made of; nothing where a version before recorded no content."""
    origin = _origin(folder)
    name = decisive(origin, spec, "content")
    if isinstance(digest := origin.get(name), str):
        watched = ", with record_best_test," if spec.record_best_test else ""
        yield _Made(run, f"trained{watched} on other {kind_of(name)}", name, digest)
        if isinstance(digest := _record(folder / files.METRICS).get("test_content"), str):
            yield _Made(run, EVALUATED, "test_content", digest)


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


def check_images(folder: Path, spec: RunSpec, root: Path) -> None:
    """Refuse a trained run whose images are others now.

    Raises:
        UserError: naming the run folder.
    """
    origin, path = _origin(folder), _folder_of(spec.dataset, Path())
    name = decisive(origin, spec, "content")
    if (before := origin.get(name)) is None or path is None:
        return
    if content(scan(path, follow_links=True), root).identity()[name] != before:
        raise UserError(
            f"{folder}: was trained on other {kind_of(name)} of {spec.dataset!r}; bring those images back, or move the "
            "folder away to train on the present ones."
        )


def other_files(folder: Path, spec: RunSpec, now: Identity) -> str:
    """What to say of a run whose images have the pixels it was trained on, and other files; mostly nothing."""
    origin = _origin(folder)
    name = decisive(origin, spec, "content")
    if getattr(now, name) is None or origin.get(name) in (None, getattr(now, name)):
        return ""
    return (
        f"{folder}: the image files of {spec.dataset!r} have other names or other bytes than those that it was trained "
        "on, but the same pixels in the same order; for a workflow bring those files back."
    )


def _folder_of(dataset: str, here: Path) -> Path | None:
    """The folder of a data set folder:PATH, if it is there; links are followed, since reading it may allow them."""
    path = dataset_path(dataset)
    place = None if path is None else here / expanded(path)
    return place if place is not None and is_there(place) else None


def _origin(folder: Path) -> dict[str, Any]:
    """What a run folder says it was trained with; nothing where it does not say."""
    origin = _record(folder / files.SPEC).get("provenance")
    return origin if isinstance(origin, dict) else {}


def _record(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, and where it is damaged, which is said where it is used."""
    try:
        record = read_json(path) if path.is_file() else {}
    except (UserError, OSError):
        return {}
    return record if isinstance(record, dict) else {}


def _recorded(results: Path, dataset: str, made: _Made) -> Content | None:
    """What `ssvi data` recorded of the images that something was made of."""
    for path in sorted((results / "data").glob("*.json")):
        record = _record(path)
        try:
            found = Content(images_of(record["images"]), "")
        except (LookupError, TypeError, ValueError, AttributeError):
            continue
        if record.get("dataset") == dataset and found.identity()[made.name] == made.digest:
            return found
    return None


def _difference(then: Content | None, now: Content | None, name: str = "content") -> str:
    """What changed of that which `name` identifies, in words; nothing where it is not recorded what was there."""
    if then is None or now is None:
        return ""
    parts = {"training_content": PARTS[:1], "test_content": PARTS[1:]}.get(name, PARTS)
    words = [word for part in parts for word in _changes(part, then.images.get(part, {}), now.images[part])]
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
