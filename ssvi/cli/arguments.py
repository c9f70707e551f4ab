"""How a command line is read: one-line errors, nothing twice, numbers as they look."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssvi.errors import UserError, one_line
from ssvi.runs.configfile import Sources
from ssvi.runs.home import at_home
from ssvi.runs.options import FIELDS
from ssvi.runs.values import parse_number


class _Once:
    """What is given once, or not at all."""

    dest: str

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if self.dest in parser.seen:
            raise argparse.ArgumentError(self, "is given twice")
        parser.seen.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


class _Store(_Once, argparse._StoreAction):
    """A value."""


class _StoreTrue(_Once, argparse._StoreTrueAction):
    """A switch."""


class Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest right option; no abbreviations, which change as options come; nothing twice,
    of which argparse would take the last."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        self.seen: set[str] = set()
        for name, action in ((None, _Store), ("store", _Store), ("store_true", _StoreTrue)):
            self.register("action", name, action)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.seen = set()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> Any:
        before, _, given = message.partition("unrecognized arguments: ")
        if not before and given.startswith("--"):
            options = [f"--{name.replace('_', '-')}" for name in FIELDS]
            near = difflib.get_close_matches(given.split()[0].split("=")[0], options, n=1)
            message += f", did you mean {near[0]}?" if near else ""
        self.exit(2, f"{self.prog}: {one_line(message)}\n")


def to_path(text: str) -> Path:
    """A path of visible characters; `~` is the home folder."""
    if not text or re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no path: it is empty or has control characters")
    try:
        return at_home(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def check_sheet(path: Path | None) -> None:
    """Refuse a picture that is no PNG, before anything is computed."""
    if path is not None and path.suffix.lower() != ".png":
        raise UserError(f"--sheet is {str(path)!r}, but its name must end in .png.")


def to_whole(text: str) -> int:
    """A whole number in plain decimal notation."""
    return _plain(text, int, "whole number, as in 12")


def to_number(text: str) -> float:
    """A number in plain decimal notation."""
    return _plain(text, float, "number, as in 12, 0.1 or 1e-3")


def _plain(text: str, kind: type, what: str) -> Any:
    try:
        return parse_number(text, kind)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}") from None


def to_boolean(text: str) -> bool:
    """True or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


def to_words(text: str) -> list[str]:
    """Words between commas; none of an empty text."""
    return text.split(",") if text else []


# A value of each type from its text.
READ: dict[type, Callable[[str], Any]] = {bool: to_boolean, int: to_whole, float: to_number, str: str}


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Which config a command works on, in Snakemake's words; `config_sources` reads them."""
    parser.add_argument(
        "--config",
        nargs="+",
        type=_to_source,
        default=[],
        metavar="FILE|KEY=VALUE",
        help="the config file, in whose folder the results are (default: config.yaml), and what is to be otherwise, as "
        "for snakemake --config",
    )
    parser.add_argument(
        "--configfile",
        nargs="+",
        type=to_path,
        default=[],
        metavar="FILE",
        help="as for snakemake: files over that one",
    )


def config_sources(given: argparse.Namespace) -> tuple[Path, Sources]:
    """The folder that relative paths of the config start from, and what the config is made of.

    Raises:
        UserError: if two files are to be the config file.
    """
    files = [word for word in given.config if isinstance(word, Path)]
    if len(files) > 1:
        raise UserError(f"--config names two files, {str(files[0])!r} and {str(files[1])!r}; the other: --configfile.")
    base = files[0] if files else Path("config.yaml")
    return base.parent, Sources.over(base, given.configfile, [word for word in given.config if isinstance(word, str)])


def _to_source(word: str) -> Path | str:
    return word if "=" in word else to_path(word)
