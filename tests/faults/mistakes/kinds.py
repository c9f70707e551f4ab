"""What a mistake is, the good folder that it is made in, and the words that its line shares with others."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from spoiling import (
    Spoil,
    checkpoints,
    nothing,
    write,
)

from ssvi.runs import files
from ssvi.runs.runfolder import FORMAT

MALFORMED = "malformed input"

CONFIG = """\
study: tiny
results: results
reports: reports
data_root: data
evaluation:
  samples: 2
  bins: 15
studies:
  tiny:
    train: {dataset: digits, model: mlp, epochs: 1}
    experiments:
      vi: {method: vi, seed: [0, 1]}
      ssvi: {method: ssvi, density: 0.1}
    tables:
      summary: [vi, ssvi]
"""

WHERE = "--device=cpu --threads=1"
SMALL = f"--model=mlp --width=0.1 --batch-size=256 {WHERE}"
TRAIN = f"ssvi train --epochs=1 {SMALL}"
EVALUATE = f"ssvi evaluate run {WHERE}"
PREDICT = f"ssvi predict run {WHERE}"
GO_ON = f"{TRAIN} --out=cut"
CHILD = f"{TRAIN} --runs=runs --method=vd --parent=dense,epochs=1,batch_size=256"
PETS = "ssvi data folder:pets --image-size=8"
# What one image of the folder is replaced by, and where.
IMAGE = "pets/train/class0/000.png"


LAUGHS = "".join(
    f"    {name}: &{name} [{', '.join(before for _ in range(10))}]\n"
    for name, before in zip("abcdefgh", ["x", *(f"*{letter}" for letter in "abcdefg")], strict=True)
)
MERGES = "".join(
    f"    {name}: &{name} {{<<: [{', '.join(before for _ in range(10))}]}}\n"
    for name, before in zip("abcdefgh", ["{x: 1}", *(f"*{letter}" for letter in "abcdefg")], strict=True)
)
# A hundred keys that each mapping has of its own, and again of the one before it.
KEYS = ", ".join(f"x{i}: 1" for i in range(100))
CHAIN = f"    m0: &m0 {{{KEYS}}}\n" + "".join(f"    m{i}: &m{i} {{<<: *m{i - 1}, {KEYS}}}\n" for i in range(1, 101))
NEEDED = "It needs study, results, reports, data_root, evaluation and studies."
NOT_REPLACED = "is a folder, which is not replaced by a file; move it away, or name another place."
NO_FOLDER = "a folder, without ; & | < > $ ` \" ' \\ * ? ( ) { } [ ] ! and control characters, and no - in front"
NO_PATH = "; & | < > $ ` \" ' \\ * ? { } and control characters."
NO_NUMBER = "is no number, as in 12, 0.1 or 1e-3"
ANEW = "delete the run folder to train it anew."
VERSION = "this is ssvi ..., and ... wrote it: read it with that one, or restore what was changed since."
NEWER = (
    f"format is {FORMAT + 1}, but ssvi ... knows none beyond {FORMAT}: a newer version wrote this run "
    "folder; update ssvi to read it."
)
LAYOUT = "a data set folder:PATH needs train/<class>/ and test/<class>/ with images in them."
LINKS = "copy the images into the folder, or allow such links (follow_links: true in config.yaml, or --follow-links)."
NO_IMAGE = "cannot be read as an image (...); replace or delete it."
TEXT_BOMB = b"zTXtk\0\0" + zlib.compress(bytes(20_000_000))
WRONG, NONE = "its checksum is wrong", "it does not begin as one"
LIVE = "delete cut/live to start this run anew."
OTHER_LIVE = f"{VERSION} To start this run anew, move cut/live away."
UNREADABLE = f"cut/live/checkpoint.pt: torch cannot read this checkpoint (UnpicklingError); {OTHER_LIVE}"
JSON = "not readable as JSON"
MISFIT = f"does not fit the network of spec.json (...); {VERSION}"
YAML = "not readable as YAML"
GRID = "is not allowed: a grid (option: value or list of values) or a non-empty list of grids"
MODEL = "run/model.safetensors"
PARENT = "runs/digits/mlp/dense/lr=0.01/width=0.1+epochs=1+batch_size=256/seed=0"


def other(option: str, was: object, now: object) -> str:
    """The end of a line about results of another spec."""
    return (
        f"these results were made under other options or defaults: {option} was {was} and is now {now}. "
        "Go back to the old option, or move this run folder to where it is kept."
    )


def no_checkpoint(why: str) -> str:
    """The line about two checkpoints that are damaged alike."""
    both = (
        f"cut/{name}: truncated or damaged checkpoint ({why})" for name in (files.CHECKPOINT, files.PREVIOUS_CHECKPOINT)
    )
    return f"{'; '.join(both)}. No other is left: {LIVE}"


@dataclass(frozen=True)
class Bad:
    """A mistake: what is typed, the one line that answers it, and what was done before to the good folder.

    The line is what follows `ssvi: `, or, where the exit code is 2, all of it. In it `...` stands for what a library
    says, HERE for the folder.
    """

    name: str
    command: str
    line: str
    spoil: Spoil = nothing
    code: int = 1


def config(old: str, new: str) -> str:
    """The good config with one place changed."""
    assert CONFIG.count(old) == 1, old
    return CONFIG.replace(old, new)


def train(options: str) -> str:
    """The good config with more options under `train`."""
    return config("epochs: 1}", f"epochs: 1, {options}}}")


def instead(flag: str, command: str = TRAIN) -> str:
    """A good command with this flag instead of the one of that name that it has."""
    name, _, _ = flag.partition("=")
    changed = [flag if word.startswith(f"{name}=") else word for word in command.split()]
    assert flag in changed
    return " ".join(changed)


def looks(line: int, text: str, read: object, instead: str) -> str:
    """The line about a number that YAML would read otherwise than it looks."""
    hint = f"write {instead}, or '{text}' in quotes where it is a word"
    return f"line {line}: {YAML}: {text} would be read as {read}: {hint}."


def config_row(name: str, line: str, content: str | bytes | Spoil, command: str = "ssvi report") -> Bad:
    spoil = content if callable(content) else write("config.yaml", content)
    return Bad(name, command, f"config.yaml: {line}", spoil)


def image_row(name: str, line: str, spoil: Spoil) -> Bad:
    return Bad(name, PETS, f"HERE/{IMAGE}: {line}", spoil)


def checkpoint_row(name: str, line: str, by: Callable[[bytes], bytes]) -> Bad:
    return Bad(name, GO_ON, line, checkpoints(by))


def run_row(name: str, line: str, spoil: Spoil) -> Bad:
    return Bad(name, EVALUATE, f"run/{line}", spoil)
