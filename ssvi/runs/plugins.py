"""Plugins found, loaded, checked and recorded: own criteria, addition rules, networks and methods (`ssvi.plugins`).

A plugin is a module with one object, `PLUGIN`, that says by names and import strings what it brings; it is named in
`plugins:` of config.yaml or by `ssvi train --plugins`, or announced by an installed package (entry points of the group
`ssvi.plugins`), which is loaded always. It is found by its name, at last in the current folder. Its names then stand in
the registries (`ssvi.registry`) like any other, and the code behind them is imported when a run uses it.

Standard library only: planning, tables and figures load plugins too.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssvi.errors import UserError, quoted, unknown
from ssvi.plugins import Plugin
from ssvi.registry import ADDITIONS, CRITERIA, KINDS, MODELS, Kind, Registry, broken
from ssvi.runs.imports import binds, modules
from ssvi.runs.options import FIELDS
from ssvi.runs.parents import with_parents
from ssvi.runs.paths import run_path
from ssvi.runs.spec import RunSpec

GROUP = "ssvi.plugins"
OBJECT = "PLUGIN"
REGISTRIES: dict[str, Registry] = {
    "criteria": CRITERIA,
    "additions": ADDITIONS,
    "models": MODELS,
    "methods": KINDS,
}
# A name stands in paths, on command lines and in a parent's text.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
CODE = re.compile(rf"{MODULE.pattern}:[A-Za-z_]\w*", re.ASCII)
# Folders in which packages of many makers lie.
SHARED = ("site-packages", "dist-packages")
PACKAGE = Path(__file__).resolve().parent.parent


# Those that were loaded, by module; a process never forgets one.
_loaded: dict[str, Plugin] = {}
_announced = False


def load(names: Iterable[str] = (), where: str = "plugins", outside: Path | None = None) -> None:
    """Load the plugins that installed packages announce, and these; what is loaded already stays as it is.

    Args:
        names: of modules.
        where: they were read, for messages.
        outside: a folder in which none of them may lie: the run folder that names them, which somebody may have sent.

    Raises:
        UserError: naming the module and what is wrong with it.
    """
    _load_announced()
    for name in names:
        look_in(Path())
        if outside is not None and name not in _loaded:
            _refuse_inside(name, outside.resolve(), where)
        _load(name, where)


def _refuse_inside(name: str, folder: Path, where: str) -> None:
    """Nothing is run to find that out, no package around a module either."""
    top = name.partition(".")[0]
    found = importlib.util.find_spec(top) if top.isidentifier() else None
    places = [] if found is None else [found.origin, *(found.submodule_search_locations or ())]
    for place in places:
        if place is not None and Path(place).resolve().is_relative_to(folder):
            raise UserError(
                f"{where}: plugin {quoted(name)} would be {place}, which lies in the run folder itself and is not run; "
                "bring the module to where you work, or name it by --plugins of ssvi train."
            )


def look_in(folder: Path) -> None:
    """Find modules in a folder too, after all places where Python looks for them."""
    if (place := str(folder.absolute())) not in sys.path:
        sys.path.append(place)
        importlib.invalidate_caches()


def _load_announced() -> None:
    global _announced
    if not _announced:
        from importlib.metadata import entry_points

        for point in sorted(entry_points(group=GROUP), key=lambda point: point.value):
            of = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
            _load(point.value, f"entry point {point.name!r}{of}")
    _announced = True


def _load(name: str, where: str) -> None:
    if name in _loaded:
        return
    if not MODULE.fullmatch(name):
        raise UserError(f"{where}: plugin {quoted(name)} is no name of a module, as in my_module or my_package.plugin.")
    file = file_of(name, f"{where}: plugin {name!r}")
    try:
        # looked at before it is run: a name that was meant otherwise, or stands in somebody's run folder, runs nothing
        if file.suffix != ".py" or not binds(file, OBJECT):
            raise UserError(f"{where}: plugin {name!r}: {file} has no {OBJECT} = ssvi.plugins.Plugin(...).")
        plugin = getattr(importlib.import_module(name), OBJECT, None)
    except UserError:
        raise
    except Exception as error:  # whatever somebody's module does when it is run
        raise UserError(f"{where}: plugin {name!r} cannot be imported: {broken(error)}.") from error
    if not isinstance(plugin, Plugin):
        raise UserError(f"{where}: plugin {name!r}: {OBJECT} of {file} is {quoted(plugin)}, but must be a Plugin.")
    _enter(name, plugin, where)


def _enter(name: str, plugin: Plugin, where: str) -> None:
    """Check all that a plugin brings, then put it into the registries: all of it, or nothing."""
    entered: list[tuple[Registry, str]] = []
    try:
        parts = [(registry, _part(plugin, part, name)) for part, registry in REGISTRIES.items()]
        new = [(registry, one, entry) for registry, entries in parts for one, entry in entries.items()]
        for registry, one, entry in new:
            registry.add(one, entry, name)
            entered.append((registry, one))
        for registry, one, entry in new:
            _check_entry(registry, one, entry, name)
    except UserError as error:
        for registry, one in entered:
            del registry[one]
        raise UserError(f"{where}: {error}") from None
    _loaded[name] = plugin


def _part(plugin: Plugin, part: str, name: str) -> Mapping[Any, Any]:
    entries = getattr(plugin, part)
    if not isinstance(entries, Mapping):
        raise UserError(f"plugin {name!r}: {part} is {quoted(entries)}, but must be a mapping of names.")
    return entries


def _check_entry(registry: Registry, name: Any, entry: Any, source: str) -> None:
    """Refuse a name that no path could hold, and code that is not there; of a method, options that no run has."""
    who = f"plugin {source!r}: {registry.kind} {quoted(name)}"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{who} is no name: letters, digits, '_' and '-', a letter first.")
    code = entry
    if registry is KINDS:
        if not isinstance(entry, Kind):
            raise UserError(f"{who} is {quoted(entry)}, but must be a Kind (ssvi.registry).")
        code = entry.code
        for part in ("factors", "uses", "parents"):
            if not isinstance(value := getattr(entry, part), tuple):
                raise UserError(f"{who}: {part} is {quoted(value)}, but must be a tuple of names.")
        for option in (*entry.uses, *entry.factors):
            if option not in FIELDS:
                raise unknown("option", option, FIELDS, who)
        if stray := [option for option in entry.factors if option not in entry.options]:
            raise UserError(f"{who}: {stray[0]!r} is one of its factors, but not of the options that it uses.")
        if entry.of_members and not {"members", "density"} <= {*entry.uses}:
            raise UserError(f"{who}: of_members shares density among members, but it does not use both options.")
        for parent in entry.parents:
            if parent not in KINDS:
                raise unknown("parent's method", parent, KINDS, who)
    if not isinstance(code, str) or not CODE.fullmatch(code):
        raise UserError(f"{who} is {quoted(code)}, but must say where its code is: 'module:attribute'.")
    # a package is run when a module in it is looked for, and what is outside the plugin's own may need torch
    top = code.partition(":")[0].partition(".")[0]
    if "." not in code.partition(":")[0] or top == source.partition(".")[0]:
        file_of(code.partition(":")[0], f"{who}: {code} leads nowhere")


def file_of(module: str, who: str) -> Path:
    """The file of a module, which is not run; the packages around it are.

    Raises:
        UserError: if there is none.
    """
    try:
        found = importlib.util.find_spec(module)
    except Exception as error:  # whatever a package around it does when it is run
        raise UserError(f"{who}: {module} cannot be imported: {broken(error)}.") from error
    if found is None or found.origin is None or not os.path.isfile(found.origin):
        raise UserError(f"{who}: no module {module!r} is installed, nor in the current folder, {os.getcwd()}.")
    return Path(found.origin).resolve()


def not_loaded(names: Iterable[str]) -> list[str]:
    """Those of some plugins that this process has not loaded."""
    return [name for name in names if name not in _loaded]


def files() -> list[Path]:
    """The files of the plugins that are loaded: tables and figures have names from them."""
    return [file_of(name, f"plugin {name!r}") for name in _loaded]


def used(spec: RunSpec) -> list[dict[str, Any]]:
    """What spec.json says of the plugins that a run uses, for itself or what it starts from.

    Each is its `module`, the `version` of the distribution it is from (None without one), and `files`: the SHA-256 of
    the plugin, of the code that the run uses of it, and of what these import from beside them, by their names from the
    folder on which they are found.

    Raises:
        UserError: if a file is not there any more.
    """
    codes: dict[str, list[str]] = {}
    for one in with_parents({run_path(spec): spec}).values():
        for registry, name in _names(one):
            if name in registry.sources:
                codes.setdefault(registry.sources[name], []).append(registry.code(name).partition(":")[0])
    return [
        {"module": name, "version": _version(name), "files": _hashes([name, *codes[name]])} for name in sorted(codes)
    ]


def _names(spec: RunSpec) -> list[tuple[Registry, str]]:
    return [(KINDS, spec.method), (MODELS, spec.model), (CRITERIA, spec.criterion), (ADDITIONS, spec.addition)]


def _version(module: str) -> str | None:
    from importlib import metadata

    of = metadata.packages_distributions().get(module.partition(".")[0], [])
    return metadata.version(of[0]) if of else None


def _hashes(names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        file, depth = file_of(name, f"plugin {name!r}"), name.count(".") + 1
        root = file.parents[depth - (file.name != "__init__.py")]
        for path in modules(file, root, lambda path, root=root, name=name: _is_own(path, root, name)):
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(sorted(found.items()))


def _is_own(path: Path, root: Path, module: str) -> bool:
    """Whether a file that a plugin imports is part of it: neither this package nor another maker's."""
    if path.is_relative_to(PACKAGE):
        return False
    top = path.relative_to(root).parts[0].removesuffix(".py")
    return root.name not in SHARED or top == module.partition(".")[0]


def changes(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between two results of `used`, each file with both hashes."""
    then, here = (
        {(one["module"], file): sha for one in of for file, sha in one["files"].items()} for of in (before, now)
    )
    said = []
    for module, file in sorted({*then, *here}):
        was, is_now = (of.get((module, file)) for of in (then, here))
        if was != is_now:
            words = [f"SHA-256 {sha[:16]}" if sha else "not there" for sha in (was, is_now)]
            said.append(f"{file} of plugin {module!r} was {words[0]} and is now {words[1]}")
    return said
