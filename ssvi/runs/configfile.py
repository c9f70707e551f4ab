"""The text of a config file as values: what YAML reads otherwise than it looks, or drops, is one line and no value."""

from __future__ import annotations

import json
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ssvi.errors import UserError, told, unknown

SCHEMA = Path(__file__).with_name("config.schema.json")
# Of a file: forty times the one that is shipped, and a few seconds for YAML.
MOST_BYTES = 500_000
# Values and levels, references followed.
LARGEST, DEEPEST = 200_000, 50
# Options of Snakemake of which only the last one counts; the values of all of them are the config.
CONFIG_FLAGS = {
    "--config": "--config",
    "-C": "--config",
    "--configfile": "--configfile",
    "--configfiles": "--configfile",
}
SETTINGS = "--config"


@cache
def schema() -> dict[str, Any]:
    """The structure of config.yaml as a JSON schema; run options are checked by `ssvi.runs.completion`."""
    return json.loads(SCHEMA.read_text())


@dataclass(frozen=True)
class Sources:
    """What a config is made of, as Snakemake is told it: each of it over what is before it.

    Attributes:
        files: config.yaml, then those of --configfile.
        settings: of --config, KEY=VALUE; the values as they would be written in a file.
    """

    files: tuple[Path, ...]
    settings: tuple[str, ...] = ()

    @classmethod
    def over(cls, base: Path, files: Sequence[Path], settings: Sequence[str]) -> Sources:
        """`files` and `settings` over `base`, which need not be there if there are files."""
        return cls((*([base] if base.exists() or not files else []), *files), tuple(settings))

    def layers(self) -> list[tuple[str, dict[str, Any]]]:
        """What each of them says, with its name in messages.

        Raises:
            UserError: as `read_config` and `read_settings`.
        """
        read = {path: read_config(path) for path in dict.fromkeys(self.files)}
        found = [(str(path), read[path]) for path in self.files]
        return [*found, (SETTINGS, read_settings(self.settings))] if self.settings else found


def merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One mapping of many, each over those before it: mappings key by key, anything else as a whole."""
    config: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = config.get(key)
            if isinstance(value, Mapping):
                value = merged([before, value] if isinstance(before, Mapping) else [value])
            config[key] = value
    return config


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """The values of KEY=VALUE, each read as it would be in a config file: a mapping holds numbers where they are meant.

    Raises:
        UserError: naming --config, as `read_config` names a file.
    """
    found = {}
    _refuse_twice([setting.partition("=")[0] for setting in settings], SETTINGS)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"{SETTINGS}: {setting!r} is not KEY=VALUE, as in study=paper.")
        if key not in schema()["properties"]:
            raise unknown("key", key, schema()["properties"], SETTINGS)
        found[key] = _read(text, f"{SETTINGS}: {key}")
        check_size(found[key], f"{SETTINGS}: {key}")
    return found


def read_config(path: Path) -> dict[str, Any]:
    """Read a config file and check its keys at the top, but nothing of what they hold.

    Raises:
        UserError: if the file is missing, too large, is no YAML, has a key twice, a value that YAML reads otherwise
            than it looks, or a key at the top that no config has.
    """
    try:
        text = _text(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(told(error)) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as YAML: {error}.") from None
    config = _read(text, str(path))
    check_size(config, str(path))
    if not isinstance(config, dict):
        found = "is empty" if config is None else f"is {reprlib.repr(config)}"
        raise UserError(f"{path}: {found}, but must be a mapping. {schema()['description']}")
    if unknown_keys := [key for key in config if key not in schema()["properties"]]:
        raise unknown("key", unknown_keys[0], schema()["properties"], str(path))
    return config


def check_size(config: Any, where: str) -> None:
    """Refuse what only YAML's references can write: a circle, or a few lines that are millions; and keys but words."""
    todo, seen = [(config, ())], 1
    while todo:
        value, path = todo.pop()
        parts = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        seen += len(parts)
        if seen > LARGEST or len(path) > DEEPEST:
            raise UserError(f"{where}: has more than {LARGEST} values or {DEEPEST} levels, references followed.")
        if isinstance(value, dict) and (odd := [key for key in value if not isinstance(key, str)]):
            place = f"{where}: {'.'.join(map(str, path))}" if path else where
            truth = ": YAML reads yes, no, on and off as true and false" if isinstance(odd[0], bool) else ""
            raise UserError(f"{place}: the key {odd[0]!r} is no word{truth}; write it in quotes.")
        todo += [(part, (*path, key)) for key, part in parts.items()]


def _text(path: Path) -> str:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path}: is not a file.")  # but a pipe, say, that nobody ever writes to
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: has more than {MOST_BYTES} bytes, which no config needs; it is not read.")
    return content.decode()


def _read(text: str, where: str) -> Any:
    """The value of a text.

    Raises:
        UserError: naming `where`.
    """
    import yaml

    from ssvi.runs.loader import Loader

    try:
        return yaml.load(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark or error.context_mark).line + 1
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{where}: line {line}: not readable as YAML: {said}.") from None
    except yaml.reader.ReaderError as error:
        odd = f"{chr(error.character)!r} at character {error.position}"
        raise UserError(f"{where}: not readable as YAML: {odd} is not allowed in a text.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # a date that does not exist is a ValueError
        raise UserError(f"{where}: not readable as YAML: {' '.join(str(error).split())}.") from None


def end_if_unreadable(sources: Sources, arguments: Sequence[str]) -> None:
    """Before Snakemake's config is used: end with one line if what it is made of is wrong.

    Snakemake would show a traceback, and take the last of what is there twice. The Python code that a file may contain
    (with a key `__use_yte__`) it would run: of config.yaml after this, of the files of --configfile already before.

    Args:
        sources: that Snakemake reads the config from.
        arguments: its command line.
    """
    try:
        sources.layers()
        flags = [CONFIG_FLAGS.get(word.partition("=")[0]) for word in arguments]
        _refuse_twice([flag for flag in flags if flag], "command line")
    except UserError as error:
        sys.exit(f"ssvi: {error}")


def _refuse_twice(names: Sequence[str], where: str) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{where}: {twice[0]!r} is there twice, of which Snakemake would take the last.")
