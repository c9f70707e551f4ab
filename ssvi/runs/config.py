"""From config.yaml to studies, experiments and run specs: pure functions, checked at parse time.

A study trains the runs of its experiments. An experiment is a named grid, or a list of grids: every list
is expanded, every scalar shared. `train:` holds what the study's runs have in common; it reaches each run
whose method uses the option, and has to reach one, while a grid may only name options that its own method uses.
A study that is `like:` another one takes over everything that it does not say itself.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ssvi.errors import UserError, unknown
from ssvi.registry import INHERITED, KINDS, using
from ssvi.runs import plugins
from ssvi.runs.completion import check_preset, idle, needed, parse_parent, unmet
from ssvi.runs.configfile import Sources, check_size, merged, schema
from ssvi.runs.home import at_home
from ssvi.runs.options import FOLDER_PREFIX, PRESETS, options_of
from ssvi.runs.parents import with_parents
from ssvi.runs.paths import unique
from ssvi.runs.spec import RunSpec, make_spec
from ssvi.runs.values import flag_text, validate

OUTPUT_KINDS = ("tables", "figures")
# Keys whose value is a folder.
FOLDERS = ("results", "reports", "data_root")
# Names of the workflow's own targets, which no table or figure may take.
TARGETS = (
    *("all", "quick", "report", "mirror", "data", "train", "evaluate", "samples", "suite", "collect", "table"),
    "figure",
)
# What a generic figure may name; each is a column of the runs.
GENERIC_AXES = ("x", "y", "hue", "facets")
# No study that anybody could train needs more.
MOST_POINTS = 100_000


def load_config(path: Path) -> dict[str, Any]:
    """Read and check a config file, as `load`; plugins may lie beside it."""
    plugins.look_in(path.parent)
    return load(Sources((path,)))


def load(sources: Sources, check: Callable[[Any, str], None] = lambda config, where: None) -> dict[str, Any]:
    """Read and check a config; `~` in its folders is the home folder.

    Args:
        sources: what it is made of.
        check: what else is to be checked; told the config and where it is from.

    Raises:
        UserError: naming the key, its value, what is allowed, and the file, or --config, that said it.
    """
    layers = sources.layers()

    def problem(number: int, where: str) -> str | None:
        """What is wrong with the first of them."""
        config = merged(layer for _, layer in layers[:number])
        try:
            check_config(config, where)
            check(config, where)
            found.update(config | {key: _folder(config, key, where) for key in FOLDERS})
        except UserError as error:
            return str(error)
        return None

    found: dict[str, Any] = {}
    names, last = [name for name, _ in layers], len(layers)
    wrong = problem(last, names[-1])
    if wrong is None:
        return found
    # what says it is the last without which it is not so
    while last > 1 and _same(problem(last - 1, names[-1]), wrong):
        last -= 1
    raise UserError(str(problem(last, names[last - 1])))


def _same(one: str | None, other: str) -> bool:
    """Whether two lines say the same; what could be chosen instead depends on all that a config is made of."""
    return one is not None and one.partition(" Choose from ")[0] == other.partition(" Choose from ")[0]


def _folder(config: Mapping[str, Any], key: str, where: str) -> str:
    try:
        return str(at_home(config[key])) if config[key].startswith("~") else config[key]
    except UserError as error:
        raise UserError(f"{where}: {key}: {error}") from None


def check_config(config: Any, where: str) -> None:
    """Check structure, names and every run of every study.

    Raises:
        UserError: at the first thing that is wrong.
    """
    check_size(config, where)
    _check_structure(config, where)
    if not (seconds := config.get("checkpoint_seconds", 0)) < math.inf:
        raise UserError(f"{where}: checkpoint_seconds: {seconds} is not allowed: a number >= 0")
    studies = config["studies"]
    if config["study"] not in studies:
        raise unknown("study", config["study"], studies, f"{where}: study")
    folders: dict[str, str] = {}
    for name in studies:
        runs = study_runs(config, name, where)
        _check_spellings((spec.dataset for spec in runs.values()), folders, f"{where}: studies.{name}")
        content = resolve(config, name, where)
        _check_reach(content, studies[name].get("train", {}), f"{where}: studies.{name}.train")
        _check_outputs(content, f"{where}: studies.{name}")


def _check_spellings(datasets: Iterable[str], folders: dict[str, str], where: str) -> None:
    """Refuse two spellings of one image folder, of which each would be a data set of its own.

    `folders` has what was seen of other studies, by the folder that it is, and takes in what is seen here.
    """
    for dataset in dict.fromkeys(datasets):
        if dataset.startswith(FOLDER_PREFIX):
            folder = os.path.realpath(dataset.removeprefix(FOLDER_PREFIX))
            if (other := folders.setdefault(folder, dataset)) != dataset:
                raise UserError(f"{where}: dataset is {dataset!r}, the same folder as {other!r}; write it in one way.")


@cache
def _validator() -> Any:
    """Of the schema, where an integer is one that was written as such: not 5.0."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return extend(Draft202012Validator, type_checker=types)(schema())


def _check_structure(config: Any, where: str) -> None:
    errors = sorted(_validator().iter_errors(config), key=lambda e: list(map(str, e.absolute_path)))
    if not errors:
        return
    error = errors[0]
    key = ".".join(map(str, error.absolute_path))
    place = f"{where}: {key}" if key else where
    if error.validator == "additionalProperties":
        extra = next(k for k in error.instance if k not in error.schema.get("properties", {}))
        raise unknown("key", extra, error.schema["properties"], place)
    if error.validator == "required":
        missing = next(k for k in error.validator_value if k not in error.instance)
        raise UserError(f"{place}: the key {missing!r} is missing. {error.schema.get('description', '')}".rstrip())
    if error.validator == "pattern" and "description" not in error.schema:
        raise UserError(f"{place}: {error.instance!r} is no name: letters, digits, '_' and '-', a letter first.")
    shown = json.dumps(error.instance, default=str)
    shown = shown if len(shown) < 80 else f"{shown[:76]} ..."
    allowed = error.schema.get("description") or f"{error.validator} {error.validator_value}"
    raise UserError(f"{place}: {shown} is not allowed: {allowed}")


def resolve(config: Mapping[str, Any], study: str, where: str = "config") -> dict[str, Any]:
    """A study's content, with what it takes over from the study it is `like` (and that one from another).

    Keys of `train`, experiments, tables and figures are taken over one by one, and one set to null is dropped.

    Raises:
        UserError: if a study named by `like` is unknown, the studies are alike in a circle, or what is set to null is
            not there.
    """
    studies, chain = config["studies"], [study]
    while (name := studies[chain[-1]].get("like")) is not None:
        place = f"{where}: studies.{chain[-1]}.like"
        if name not in studies:
            raise unknown("study", name, studies, place)
        if name in chain:
            raise UserError(f"{place}: {' -> '.join([*chain, name])} is a circle.")
        chain.append(name)
    content: dict[str, Any] = {kind: {} for kind in ("train", "experiments", *OUTPUT_KINDS)}
    content |= {"quick": [], "log_models": False}
    for name in reversed(chain):
        own = studies[name]
        for kind in ("train", "experiments", *OUTPUT_KINDS):
            said = own.get(kind, {})
            if nothing := [key for key, value in said.items() if value is None and key not in content[kind]]:
                raise UserError(
                    f"{where}: studies.{name}.{kind}.{nothing[0]}: is empty; write a value, or leave it out. (An empty "
                    "key drops what a study that this one is like says of it, but none says anything.)"
                )
            content[kind] = {k: v for k, v in {**content[kind], **said}.items() if v is not None}
        content |= {name: own[name] for name in ("quick", "log_models") if name in own}
    if not content["experiments"]:
        raise UserError(f"{where}: studies.{study}: has no experiments, of its own or of a study it is like.")
    return content


def output_experiments(output: Any) -> list[str]:
    """The experiments that a table or figure is made from."""
    return output["of"] if isinstance(output, Mapping) else output


def _check_outputs(study: Mapping[str, Any], where: str) -> None:
    names = [name for kind in OUTPUT_KINDS for name in study[kind]]
    for kind in OUTPUT_KINDS:
        for name, output in study[kind].items():
            for experiment in output_experiments(output):
                if experiment not in study["experiments"]:
                    raise unknown("experiment", experiment, study["experiments"], f"{where}.{kind}.{name}")
            if name in TARGETS:
                raise UserError(f"{where}.{kind}: {name!r} is a target of the workflow; choose another name.")
    for name in study["quick"]:
        if name not in names:
            raise unknown("table or figure", name, names, f"{where}.quick")


def check_output_names(
    config: Mapping[str, Any], kind: str, known: Mapping[str, Any], columns: Sequence[str], where: str
) -> None:
    """Refuse tables or figures (`kind`) that no function makes, and generic figures of columns that runs lack."""
    for study in config["studies"]:
        for name, output in resolve(config, study, where)[kind].items():
            place = f"{where}: studies.{study}.{kind}"
            if not isinstance(output, Mapping):
                if name not in known:
                    raise unknown(kind.removesuffix("s"), name, known, place)
                continue
            if name in known:
                raise UserError(f"{place}: {name!r} is a figure of its own kind; give yours another name.")
            for key in GENERIC_AXES:
                if key in output and output[key] not in columns:
                    raise unknown("column", output[key], columns, f"{place}.{name}.{key}")


def _expand(content: Mapping[str, Any], experiment: str, place: str) -> dict[str, RunSpec]:
    grids = content["experiments"][experiment]
    specs = []
    of_grid: dict[str, set[RunSpec]] = {}
    for shared in _points(content["train"], f"{place}.train"):
        for i, grid in enumerate(grids if isinstance(grids, list) else [grids]):
            at = f"{place}.experiments.{experiment}" + (f"[{i}]" if isinstance(grids, list) else "")
            made: dict[RunSpec, Any] = {}
            for point in _points(grid, at):
                spec = make_spec(_merge(shared, point, at), at)
                if spec in made:
                    raise UserError(
                        f"{at}: parent has {made[spec]!r} and {point['parent']!r}, which makes one run instead of two."
                    )
                made[spec] = point.get("parent")
            specs += made
            of_grid.setdefault(at, set()).update(made)
    for one, other in itertools.combinations(of_grid, 2):
        if of_grid[one] == of_grid[other]:
            raise UserError(f"{other}: makes the same runs as {one.removeprefix(place + '.')}; leave one of them out.")
    return unique(specs)


def study_runs(config: Mapping[str, Any], study: str, where: str = "config") -> dict[str, RunSpec]:
    """All runs of a study, each once, whichever experiments use it, and the parents that they start from."""
    return with_parents(unique(s for runs in study_experiments(config, study, where).values() for s in runs.values()))


def study_experiments(config: Mapping[str, Any], study: str, where: str = "config") -> dict[str, dict[str, RunSpec]]:
    """The runs of each experiment of a study."""
    plugins.load(config.get("plugins", ()), f"{where}: plugins")
    content = resolve(config, study, where)
    place = f"{where}: studies.{study}"
    _check_shared(content, f"{place}.train")
    return {e: _expand(content, e, place) for e in content["experiments"]}


def output_runs(config: Mapping[str, Any], study: str, kind: str, name: str) -> dict[str, RunSpec]:
    """The runs of all experiments that a table or figure (`kind`) is made from, each once."""
    plugins.load(config.get("plugins", ()), "config: plugins")
    content = resolve(config, study)
    experiments = output_experiments(content[kind][name])
    place = f"config: studies.{study}"
    return unique(s for e in experiments for s in _expand(content, e, place).values())


def _points(grid: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    if (number := math.prod(len(_as_list(value)) for value in grid.values())) > MOST_POINTS:
        raise UserError(f"{where}: makes {number} runs, but must make at most {MOST_POINTS}.")
    for name, value in grid.items():
        # true is no 1
        values = [(isinstance(v, bool), v) for v in _as_list(value)]
        if len(set(values)) < len(values):
            (_, twice), _ = Counter(values).most_common(1)[0]
            raise UserError(f"{where}: {name} has {twice!r} twice, which makes one run instead of two.")
    axes = [[(k, v) for v in _as_list(value)] for k, value in grid.items()]
    return [dict(point) for point in itertools.product(*axes)]


def _merge(shared: Mapping[str, Any], point: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A grid point over the shared options; a shared one that has no effect on this run is left out."""
    method = point.get("method", shared.get("method", RunSpec.method))
    if method not in KINDS:
        raise unknown("method", method, KINDS, where)
    preset = point.get("preset", shared.get("preset"))
    check_preset(preset, where)
    chosen = PRESETS.get(preset, {})
    # A preset yields to what is written beside it; one in the grid still wins over the study's options.
    base = {**shared, **chosen} if "preset" in point else {**chosen, **shared}
    used = options_of(method)
    merged = {k: v for k, v in base.items() if k in used} | {k: v for k, v in point.items() if k != "preset"}
    merged = {k: v for k, v in merged.items() if k in point or k not in idle(merged)}
    if merged.get("parent"):
        merged["parent"] = _merge_parent(shared, merged, where)
    return merged


def _merge_parent(shared: Mapping[str, Any], child: Mapping[str, Any], where: str) -> str:
    """A parent's text with the shared options that its method uses and that it does not take from its child."""
    if not isinstance(child["parent"], str):
        return child["parent"]  # refused where types are checked
    given = parse_parent(child["parent"], where)
    point = _merge(_for_parent(shared, child), given, f"{where}: parent")
    # a preset may have put back what the parent takes from its child
    derived = {*INHERITED, "method", "parent", *(["density"] if "density" in child else [])}
    words = {k: v for k, v in point.items() if k in given or k not in derived} | given
    words = {k: v for k, v in words.items() if k != "method"}
    return ",".join([str(given["method"]), *(f"{k}={flag_text(v)}" for k, v in words.items())])


def _for_parent(shared: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """The shared options that a run's parent may use: none of those that it takes from its child."""
    taken = {*INHERITED, "method", *(["density"] if "density" in child else [])}
    return {name: value for name, value in shared.items() if name not in taken}


def _check_shared(content: Mapping[str, Any], where: str) -> None:
    for name, values in content["train"].items():
        for value in _as_list(values):
            if name == "preset":
                check_preset(value, where)
            else:
                validate({name: value}, where)


def _check_reach(content: Mapping[str, Any], own: Mapping[str, Any], where: str) -> None:
    """Refuse shared options that a study says itself (`own`) and that have no effect on any of its runs.

    Those of a study that it is like had theirs there, and may lose it where experiments are left out. Whether an option
    has an effect is told by the others, never by its value, so each value of a list has one if the option has.
    """
    fates: dict[str, set[str]] = {name: set() for name, value in own.items() if value is not None}
    for name, fate in _all_fates(content, where):
        if name in fates:
            fates[name].add(fate)
            if all("" in found for found in fates.values()):
                return
    for name, found in fates.items():
        if not found:
            raise UserError(
                f"{where}: {name} is {own[name]!r}, but no method of this study uses {name} "
                f"(used by {', '.join(using(name))})."
            )
        if "" not in found:
            instead = " or ".join(sorted(found))
            raise UserError(
                f"{where}: {name} is {own[name]!r}, but has no effect: every run that could use it has {instead}."
            )


def _all_fates(content: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    grids = [grid for found in content["experiments"].values() for grid in _as_list(found)]
    for shared, grid in itertools.product(_points(content["train"], where), grids):
        for point in _points(grid, where):
            yield from _fates(shared, point, where)


def _fates(shared: Mapping[str, Any], point: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """What becomes of each shared option that a grid point's method uses, or its parent's: the option, and nothing
    where it has an effect, else what the run has instead."""
    merged = _merge(shared, point, where)
    chosen = PRESETS.get(point.get("preset", shared.get("preset")), {})
    used = {*options_of(merged.get("method", RunSpec.method)), "preset"}
    for name in shared.keys() & used:
        if name in point:
            yield name, f"its own {name}"
        elif name == "preset":
            reaches = any(option in merged and option not in {**shared, **point} for option in chosen)
            yield name, "" if reaches else "its own values of what this preset sets"
        elif name in chosen and "preset" in point:
            yield name, f"the {name} of its preset"
        elif name not in merged and (need := unmet(name, merged)):
            yield name, f"another {need.option} than {needed(need)}"
        else:
            yield name, ""
    if merged.get("parent"):
        parent = point.get("parent", shared.get("parent"))
        yield from _fates(_for_parent(shared, merged), parse_parent(parent, where), where)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def data_sets(runs: Mapping[str, RunSpec]) -> dict[str, RunSpec]:
    """One spec for each data set (and image size) that the runs need, by a name fit for a file."""
    found: dict[str, RunSpec] = {}
    for path, spec in runs.items():
        size = f"-{spec.image_size}" if re.match("folder:", spec.dataset) else ""
        found.setdefault(path.split("/")[0] + size, spec)
    return found
