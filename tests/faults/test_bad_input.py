"""Every mistake of a user ends in one line that says what is wrong, and leaves everything as it was."""

from __future__ import annotations

import contextlib
import hashlib
import html
import io
import json
import os
import pickle
import re
import resource
import shlex
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fake_runs import write_runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import make_image_folder
from spoiling import (
    Spoil,
    Trap,
    change,
    checkpoints,
    encoded,
    flipped,
    framed,
    half,
    link,
    make_folder,
    nothing,
    pipe,
    png,
    record,
    remove,
    saved,
    state_of,
    tensors,
    unreadable,
    with_seed,
    write,
)

from ssvi import checkpoint, runs
from ssvi.analysis import collect
from ssvi.analysis.report.gather import load_readable, read_curves
from ssvi.cli import main, parser
from ssvi.config import load_config, study_experiments
from ssvi.data.cache import cached, prepared
from ssvi.data.sources import _decode_image
from ssvi.errors import UserError
from ssvi.network import build, load_model, read_model
from ssvi.noise import NormalSource
from ssvi.plan import make_plan
from ssvi.spec import FIELDS, METHODS, RunSpec, make_spec, run_path, to_flags

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
MALFORMED = "malformed input"

# ---------------------------------------------------------------- the good folder that is spoiled

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
GO_ON = f"{TRAIN} --out=cut"
CHILD = f"{TRAIN} --runs=runs --method=vd --parent=dense,epochs=1,batch_size=256"
PETS = "ssvi data folder:pets --image-size=8"
# What one image of the folder is replaced by, and where.
IMAGE = "pets/train/class0/000.png"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, a folder of images, a trained run, one that was interrupted, and the parent of others."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "config.yaml").write_text(CONFIG)
    make_image_folder(folder / "pets", classes=2, train=3, test=2, size=(8, 8))
    data = f"--data-root={folder / 'data'}"
    main([*shlex.split(TRAIN)[1:], data, f"--out={folder / 'run'}", "--checkpoint-seconds=0"])
    main([*shlex.split(TRAIN)[1:], data, f"--runs={folder / 'runs'}", "--method=dense"])
    shutil.copytree(folder / "run", folder / "cut")
    for name in (runs.HISTORY, runs.TOPOLOGY, runs.MODEL, runs.TRAINING):
        (folder / "cut" / name).unlink()
    return folder


def tree(folder: Path) -> dict[str, str]:
    """What is in a folder: each name with a hash of the content, the target of a link, or its kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat().st_mode
        name = str(path.relative_to(folder))
        if stat.S_ISREG(kind) and os.access(path, os.R_OK):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = os.readlink(path) if stat.S_ISLNK(kind) else oct(stat.S_IFMT(kind))
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Names that came, went or changed, but for those of the cache and of who works in a run folder."""
    differ = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {name for name in differ if not name.startswith("data/cache/folder-") and not name.endswith(runs.OWNER)}


def typed(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code of a command line and all that it says on stderr."""
    program, *words = shlex.split(command)
    assert program == "ssvi"
    capsys.readouterr()
    code: Any = 0
    try:
        main(words)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    return (1, f"{said}{code}\n") if isinstance(code, str) else (code or 0, said)


def says(line: str) -> re.Pattern[str]:
    """A pattern for a line in which `...` stands for whatever a library says."""
    return re.compile(r"[^<\n]+".join(map(re.escape, line.split("..."))))


LAUGHS = "".join(
    f"    {name}: &{name} [{', '.join(before for _ in range(10))}]\n"
    for name, before in zip("abcdefgh", ["x", *(f"*{letter}" for letter in "abcdefg")], strict=True)
)
MERGES = "".join(
    f"    {name}: &{name} {{<<: [{', '.join(before for _ in range(10))}]}}\n"
    for name, before in zip("abcdefgh", ["{x: 1}", *(f"*{letter}" for letter in "abcdefg")], strict=True)
)
NEEDED = "It needs study, results, reports, data_root, evaluation and studies."
NO_FOLDER = "a folder, without ; & | < > $ ` \" ' \\ * ? ( ) { } [ ] ! and control characters, and no - in front"
NO_PATH = "; & | < > $ ` \" ' \\ * ? { } and control characters."
ANEW = "delete the run folder to train it anew."
LAYOUT = "a data set folder:PATH needs train/<class>/ and test/<class>/ with images in them."
NO_IMAGE = "cannot be read as an image (...); replace or delete it."
TEXT_BOMB = b"zTXtk\0\0" + zlib.compress(bytes(20_000_000))
WRONG, NONE = "its checksum is wrong", "it does not begin as one"
LIVE = "delete cut/live to start this run anew."
UNREADABLE = f"cut/live/checkpoint.pt: torch cannot read this checkpoint (UnpicklingError); {LIVE}"
JSON = "not readable as JSON"
MISFIT = "does not fit the network of spec.json: ..."
YAML = "not readable as YAML"
GRID = "is not allowed: a grid (option: value or list of values) or a non-empty list of grids"
MODEL = "run/model.safetensors"
PARENT = "runs/digits/mlp/dense/lr=0.01/width=0.1+epochs=1+batch_size=256/seed=0"


def other(option: str, was: object, now: object) -> str:
    """The end of a line about results of another spec."""
    return (
        f"these results were made under other options or defaults: {option} was {was} and is now {now}. "
        "Move or delete this run folder, or go back to the old option."
    )


def no_checkpoint(why: str) -> str:
    """The line about two checkpoints that are damaged alike."""
    both = (
        f"cut/{name}: truncated or damaged checkpoint ({why})" for name in (runs.CHECKPOINT, runs.PREVIOUS_CHECKPOINT)
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


def config_row(name: str, line: str, content: str | bytes | Spoil, command: str = "ssvi report") -> Bad:
    spoil = content if callable(content) else write("config.yaml", content)
    return Bad(name, command, f"config.yaml: {line}", spoil)


def image_row(name: str, line: str, spoil: Spoil) -> Bad:
    return Bad(name, PETS, f"HERE/{IMAGE}: {line}", spoil)


def checkpoint_row(name: str, line: str, by: Callable[[bytes], bytes]) -> Bad:
    return Bad(name, GO_ON, line, checkpoints(by))


def run_row(name: str, line: str, spoil: Spoil) -> Bad:
    return Bad(name, EVALUATE, f"run/{line}", spoil)


# ---------------------------------------------------------------- the table

CONFIGS = [
    Bad("no config", "ssvi report --config=none.yaml", "none.yaml: no such file."),
    Bad("a folder for a config", "ssvi report --config=pets", "pets: Is a directory"),
    config_row("a link to itself", "Too many levels of symbolic links", link("config.yaml", "config.yaml")),
    config_row("a config nobody may read", "Permission denied", unreadable("config.yaml")),
    config_row("empty", f"is empty, but must be a mapping. {NEEDED}", ""),
    config_row("a list", f"is [1], but must be a mapping. {NEEDED}", "- 1"),
    config_row("a word", f"is 'digits', but must be a mapping. {NEEDED}", "digits", "ssvi ui"),
    config_row("an open bracket", f"line 1: {YAML}: ...'<stream end>'.", "study: ["),
    config_row(
        "a tab",
        f"line 10: {YAML}: ...'\\t' that cannot start any token.",
        config("    train:", "\ttrain:"),
    ),
    config_row(
        "a key twice",
        f"line 2: {YAML}: the key 'study' is there twice.",
        config("study: tiny\n", "study: tiny\nstudy: tiny\n"),
    ),
    config_row("an experiment twice", f"line 13: {YAML}: the key 'vi' is there twice.", config("ssvi: {", "vi: {")),
    config_row("two documents", f"line 16: {YAML}: expected a single document...", f"{CONFIG}---\na: 1\n"),
    config_row(
        "an unknown reference",
        f"line 1: {YAML}: found undefined alias 'x'.",
        config("study: tiny", "study: *x"),
    ),
    config_row(
        "Python in YAML",
        f"line 1: {YAML}: could not determine a constructor for the tag '...:python/object/apply:os.system'.",
        config("study: tiny", "study: !!python/object/apply:os.system [touch evil]"),
    ),
    config_row("Python for Snakemake", "key '__use_yte__' is unknown. Choose from ...", f"__use_yte__: true\n{CONFIG}"),
    config_row(
        "not UTF-8",
        f"{YAML}: 'utf-8' codec can't decode byte 0xfc in position 32: invalid start byte.",
        CONFIG.replace("results: results", "results: ergebnisse-ü").encode("latin-1"),
    ),
    config_row("a null byte", f"{YAML}: '\\x00' at character 300 is not allowed in a text.", f"{CONFIG}\0"),
    config_row(
        "a date that is none",
        f"{YAML}: month must be in 1..12.",
        config("study: tiny", "study: 2020-13-45"),
    ),
    config_row("5000 digits", f"{YAML}: Exceeds the limit...", config("samples: 2", f"samples: {'1' * 5000}")),
    config_row("5000 brackets", f"{YAML}: maximum recursion depth exceeded...", "[" * 5000),
    config_row(
        "a thousand million values in few lines",
        "has more than 200000 values or 50 levels, references followed.",
        config("  tiny:\n", f"  laughs:\n{LAUGHS}  tiny:\n"),
    ),
    config_row(
        "a thousand million keys in few lines",
        f"line ...: {YAML}: merges more than 10000 keys into one mapping.",
        config("  tiny:\n", f"  laughs:\n{MERGES}  tiny:\n"),
    ),
    config_row(
        "a mapping in itself",
        "has more than 200000 values or 50 levels, references followed.",
        config("experiments:\n", "experiments: &e\n      self: *e\n"),
    ),
    config_row(
        "a number for a name", "studies: the key 3 is no word; write it in quotes.", config("  tiny:\n", "  3:\n")
    ),
    config_row(
        "yes for a name",
        "studies.tiny.experiments: the key True is no word; write it in quotes.",
        config("      vi:", "      yes:"),
    ),
    config_row(
        "a key that is no key",
        "key 'stduy' is unknown, did you mean 'study'? Choose from ...",
        config("study: tiny", "stduy: tiny"),
    ),
    config_row("a key that is missing", f"the key 'results' is missing. {NEEDED}", config("results: results\n", "")),
    config_row(
        "an unknown study", "study: study 'digit' is unknown. Choose from tiny.", config("study: tiny", "study: digit")
    ),
    Bad(
        "an unknown study by command",
        "ssvi report --study=tiyn",
        "--study: study 'tiyn' is unknown, did you mean 'tiny'? Choose from tiny.",
    ),
    config_row(
        "studies alike in a circle",
        "studies.tiny.like: other -> tiny -> other is a circle.",
        config("  tiny:\n", "  other: {like: tiny}\n  tiny:\n    like: other\n"),
        "ssvi ui",
    ),
    config_row(
        "a study that is a word",
        'studies.other: "x" is not allowed: A study is a mapping and needs experiments, or a study it is like.',
        config("  tiny:\n", "  other: x\n  tiny:\n"),
    ),
    config_row(
        "a study without experiments",
        "studies.other: has no experiments, of its own or of a study it is like.",
        config("  tiny:\n", "  other: {}\n  tiny:\n"),
    ),
    config_row(
        "an empty grid",
        f"studies.tiny.experiments.vi: {{}} {GRID}",
        config("{method: vi, seed: [0, 1]}", "{}"),
    ),
    config_row(
        "an empty axis",
        f'studies.tiny.experiments.vi: {{"method": "vi", "seed": []}} {GRID}',
        config("[0, 1]", "[]"),
    ),
    config_row(
        "a grid of ten thousand million runs",
        "studies.tiny.experiments.vi: makes 10000000000 runs, but must make at most 100000.",
        config(
            "seed: [0, 1]",
            ", ".join(
                f"{name}: [{', '.join(['0.1'] * 100)}]"
                for name in ("lr", "momentum", "weight_decay", "sigma_lr", "kl_scale")
            ),
        ),
    ),
    config_row(
        "a method that is a number",
        "studies.tiny.experiments.vi: method 3 is unknown. Choose from ...",
        config("{method: vi,", "{method: 3,"),
    ),
    config_row(
        "an option that is none",
        "studies.tiny.train: option 'epoch' is unknown, did you mean 'epochs'? Choose from ...",
        train("epoch: 3"),
    ),
    config_row(
        "a number in text",
        "studies.tiny.train: lr is '1e-3', but must be a number. YAML reads 1e-3 as text: write 0.001 or 1.0e-3.",
        train("lr: 1e-3"),
    ),
    config_row("not a number", "studies.tiny.train: lr is nan, but must be > 0.", train("lr: .nan")),
    config_row("infinity", "studies.tiny.train: lr is inf, but must be > 0 and <= 1.79769e+308.", train("lr: .inf")),
    config_row(
        "30 digits",
        "studies.tiny.train: batch_size is 1e+30, but must be >= 2 and <= 9.22337e+18.",
        train(f"batch_size: 1{'0' * 30}"),
    ),
    config_row(
        "an option that no method uses",
        "studies.tiny.train: members is 3, but no method of this study uses members (used by ensemble).",
        train("members: 3"),
    ),
    config_row(
        "an option that the method does not use",
        "studies.tiny.experiments.vi: density is 0.1, but method 'vi' does not use density (used by ...).",
        config("method: vi, ", "method: vi, density: 0.1, "),
    ),
    config_row(
        "an unknown experiment in a table",
        "studies.tiny.tables.summary: experiment 'v' is unknown, did you mean 'vi'? Choose from ssvi, vi.",
        config("summary: [vi, ssvi]", "summary: [v]"),
    ),
    config_row(
        "a truth for a number",
        "evaluation.samples: true is not allowed: a whole number >= 1 and <= 1000000",
        config("samples: 2", "samples: true"),
    ),
    config_row(
        "5.0 for 5",
        "evaluation.bins: 5.0 is not allowed: a whole number >= 1 and <= 1000000",
        config("bins: 15", "bins: 5.0"),
    ),
    config_row(
        "a command for a name",
        "studies: 'a; rm -rf b' is no name: letters, digits, '_' and '-', a letter first.",
        config("  tiny:\n", "  a; rm -rf b: {like: tiny}\n  tiny:\n"),
    ),
    config_row(
        "a command for an experiment",
        "studies.tiny.experiments: '$(reboot)' is no name: letters, digits, '_' and '-', a letter first.",
        config("      vi:", "      $(reboot):"),
    ),
    config_row(
        "a name that goes on in the next line",
        "studies.tiny.tables: 'summary\\n' is no name: letters, digits, '_' and '-', a letter first.",
        config("summary:", '"summary\\n":'),
    ),
    config_row(
        "a command for the results",
        f'results: "results; rm -rf b" is not allowed: {NO_FOLDER}',
        config("results: results", "results: results; rm -rf b"),
    ),
    Bad(
        "a file for the reports",
        "ssvi report",
        "run/spec.json/tiny/so_far: Not a directory",
        write("config.yaml", config("reports: reports", "reports: run/spec.json")),
    ),
]

COMMANDS = [
    Bad("no command", "ssvi", "ssvi: the following arguments are required: COMMAND", code=2),
    Bad(
        "an unknown command", "ssvi trian", "ssvi: argument COMMAND: invalid choice: 'trian' (choose from ...)", code=2
    ),
    Bad(
        "an unknown option",
        f"{TRAIN} --densty=0.1",
        "ssvi: unrecognized arguments: --densty=0.1, did you mean --density?",
        code=2,
    ),
    Bad("a word for a number", f"{TRAIN} --lr=fast", "ssvi train: argument --lr: invalid float value: 'fast'", code=2),
    Bad(
        "a fraction for a whole number",
        f"{TRAIN} --delta-t=1.5",
        "ssvi train: argument --delta-t: invalid int value: '1.5'",
        code=2,
    ),
    Bad("nothing for a number", f"{TRAIN} --lr=", "ssvi train: argument --lr: invalid float value: ''", code=2),
    Bad(
        "two lines for a number",
        f"{TRAIN} '--lr=1\n2'",
        "ssvi train: argument --lr: invalid float value: '1\\n2'",
        code=2,
    ),
    Bad("yes for true", f"{TRAIN} --augment=yes", "ssvi train: argument --augment: 'yes' is not true or false", code=2),
    Bad("out of range", f"{TRAIN} --density=0", "command line: density is 0, but must be > 0 and <= 1."),
    Bad("nan by command", f"{TRAIN} --density=nan", "command line: density is nan, but must be > 0 and <= 1."),
    Bad(
        "beyond all floats",
        f"{TRAIN} --sigma-lr=1e999",
        "command line: sigma_lr is inf, but must be >= 0 and <= 1.79769e+308.",
    ),
    Bad(
        "a seed beyond 64 bits",
        f"{TRAIN} --seed=1{'0' * 22}",
        "command line: seed is 1e+22, but must be >= 0 and <= 9.22337e+18.",
    ),
    Bad("no seed", f"{TRAIN} --seed=-1", "command line: seed is -1, but must be >= 0 and <= 9.22337e+18."),
    Bad(
        "a network for a giant", f"{TRAIN} --width=1e300", "command line: width is 1e+300, but must be > 0 and <= 100."
    ),
    Bad(
        "an option of others",
        f"{TRAIN} --method=dense --density=0.5",
        "command line: density is 0.5, but method 'dense' does not use density (used by ...).",
    ),
    Bad(
        "an option without effect",
        f"{TRAIN} --exp-lambda=2",
        "command line: exp_lambda is 2.0, but has no effect unless criterion is e_exp or snr_exp.",
    ),
    Bad(
        "an unknown method",
        f"{TRAIN} --method=rigel",
        "command line: method 'rigel' is unknown, did you mean 'rigl'? Choose from ...",
    ),
    Bad(
        "an unknown preset",
        f"{TRAIN} --preset=oficial",
        "ssvi train: argument --preset: invalid choice: 'oficial' (choose from ...)",
        code=2,
    ),
    Bad(
        "no epochs",
        f"{TRAIN} --epochs=0",
        "command line: epochs is 0, but must be >= 1; only method pruned goes without training.",
    ),
    Bad("no parent", f"{TRAIN} --method=pruned", "command line: method 'pruned' needs a parent, as in parent: vi."),
    Bad(
        "a parent of another kind",
        f"{TRAIN} --method=vd --parent=rigl",
        "command line: parent's method 'rigl' is unknown. Choose from dense, vi.",
    ),
    Bad(
        "a parent that is no text of one",
        f"{TRAIN} --method=vd --parent=vi,epochs",
        "command line: parent is 'vi,epochs', but must be a method and options, as in vi,epochs=12.",
    ),
    Bad(
        "a parent with a bad option",
        f"{TRAIN} --method=vd --parent=vi,lr=nan",
        "command line: parent: lr is nan, but must be > 0.",
    ),
    Bad(
        "a parent that is not trained",
        f"{TRAIN} --method=vd --parent=vi",
        "results/runs/digits/mlp/vi/sigma_init=0.0006/width=0.1/seed=0: the parent of this run is not trained; "
        "train it first.",
    ),
    Bad(
        "a batch of more images than there are",
        f"{TRAIN} --batch-size=5000",
        "digits: batch_size is 5000, but must be at most 1293, the number of training images after 144 were held out "
        "(validation 0.1).",
    ),
    Bad(
        "an unknown data set",
        f"{TRAIN} --dataset=cifr10",
        "command line: dataset 'cifr10' is unknown, did you mean 'cifar10'? Choose from cifar10, cifar100, digits, "
        "folder:PATH.",
    ),
    Bad(
        "a data set without a path",
        f"{TRAIN} --dataset=folder:",
        "command line: dataset is 'folder:', but folder: needs a path, as in folder:images/pets.",
    ),
    Bad("a data set that is not there", f"{TRAIN} --dataset=folder:nowhere", f"nowhere: no such folder; {LAYOUT}"),
    Bad(
        "a command for a data set",
        f"{TRAIN} '--dataset=folder:a; rm -rf b'",
        f"command line: dataset is 'folder:a; rm -rf b', but a path must not contain ';', nor any other of {NO_PATH}",
    ),
    Bad(
        "a data set with a null byte",
        "ssvi data 'folder:a\0b'",
        f"command line: dataset is 'folder:a\\x00b', but a path must not contain '\\x00', nor any other of {NO_PATH}",
    ),
    Bad(
        "a data set in two lines",
        "ssvi data 'folder:a\nb'",
        f"command line: dataset is 'folder:a\\nb', but a path must not contain '\\n', nor any other of {NO_PATH}",
    ),
    Bad(
        "a size out of range",
        f"{PETS} --image-size=999999",
        "command line: image_size is 999999, but must be >= 4 and <= 512.",
    ),
    Bad("an unknown device", f"{TRAIN} --device=tpu", "--device 'tpu' is unknown; choose auto, cpu, cuda or cuda:N."),
    Bad(
        "a GPU that is not there",
        f"{TRAIN} --device=cuda:99",
        "--device 'cuda:99' is not there: torch sees ... CUDA devices.",
    ),
    Bad("no thread", f"{TRAIN} --threads=0", "--threads is 0, but must be >= 1 and <= 4096."),
    Bad(
        "a thousand million threads",
        f"{TRAIN} --threads=1000000000",
        "--threads is 1000000000, but must be >= 1 and <= 4096.",
    ),
    Bad(
        "a checkpoint before the last",
        f"{TRAIN} --checkpoint-seconds=-1",
        "--checkpoint-seconds is -1, but must be >= 0.",
    ),
    Bad(
        "nothing for a folder",
        f"{TRAIN} --out=",
        "ssvi train: argument --out: '' is no path: it is empty or has control characters",
        code=2,
    ),
    Bad(
        "a null byte in a folder",
        "ssvi evaluate 'a\0b'",
        "ssvi evaluate: argument folder: 'a\\x00b' is no path: it is empty or has control characters",
        code=2,
    ),
    Bad(
        "a folder that is not text",
        "ssvi evaluate 'a\udcff'",
        "ssvi evaluate: argument folder: 'a\\udcff' is no path: it is empty or has control characters",
        code=2,
    ),
    Bad("a folder of 5000 letters", f"ssvi evaluate {'x' * 5000}", f"{'x' * 5000}/spec.json: File name too long"),
    Bad("a folder in a file", f"{TRAIN} --out=config.yaml/run", "config.yaml/run/live: Not a directory"),
    Bad(
        "a file for the data",
        f"{TRAIN} --data-root=config.yaml",
        "config.yaml/cache/digits-v1.safetensors: the prepared data set cannot be written there (...).",
    ),
    Bad("a run that is not there", "ssvi evaluate nowhere", "nowhere/spec.json: no such file."),
    Bad("no samples", f"{EVALUATE} --samples=0", "--samples is 0, but must be >= 1 and <= 1000000."),
    Bad(
        "more bins than numbers",
        f"ssvi samples run --bins=1{'0' * 20}",
        f"--bins is 1{'0' * 20}, but must be >= 1 and <= 1000000.",
    ),
    Bad("a port out of range", "ssvi ui --port=99999", "port is 99999, but must be from 1 to 65535."),
    Bad("an unknown suite", "ssvi bench nosuch", "command line: suite 'nosuch' is unknown. Choose from ..."),
]

IMAGES = [
    Bad("no folder", PETS, f"pets: no such folder; {LAYOUT}", remove("pets")),
    Bad("a file for the folder", "ssvi data folder:config.yaml", f"config.yaml: is a file; {LAYOUT}"),
    Bad("no test images", PETS, f"HERE/pets: has no folder test/; {LAYOUT}", remove("pets/test")),
    Bad(
        "one class",
        PETS,
        "HERE/pets/train: has only one class folder, 'class0', but at least 2 are needed, one for each class.",
        remove("pets/train/class1"),
    ),
    Bad(
        "a class in test only",
        PETS,
        "HERE/pets/test/clas2: class 'clas2' is not among the 2 classes in HERE/pets/train, did you mean ...?",
        write("pets/test/clas2/0.png", ""),
    ),
    Bad(
        "an empty class",
        PETS,
        "HERE/pets/train/new: has no images; files that end in .bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp are "
        "read.",
        make_folder("pets/train/new"),
    ),
    image_row("text for an image", NO_IMAGE, write(IMAGE, "no image")),
    image_row("an empty file for an image", NO_IMAGE, write(IMAGE, "")),
    image_row(
        "a program for an image",
        NO_IMAGE,
        write(IMAGE, "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"),
    ),
    image_row("a folder for an image", "is named like an image, but is not a file.", make_folder(IMAGE)),
    image_row("a pipe for an image", "is named like an image, but is not a file.", pipe(IMAGE)),
    Bad(
        "half a JPEG",
        PETS,
        f"HERE/pets/train/class0/x.jpg: {NO_IMAGE}",
        write("pets/train/class0/x.jpg", half(encoded("JPEG"))),
    ),
    image_row("half a PNG", NO_IMAGE, write(IMAGE, half(encoded("PNG")))),
    image_row("a flipped bit in a PNG", NO_IMAGE, write(IMAGE, flipped(encoded("PNG")))),
    image_row(
        "2500 million pixels in a hundred bytes",
        "has more than 89478485 pixels, the most that is read; scale it down.",
        write(IMAGE, png(50_000, 50_000)),
    ),
    image_row(
        "a strip of 80 million pixels",
        "is 80000000 pixels across, but at most 65535 are read.",
        write(IMAGE, png(80_000_000, 1)),
    ),
    image_row(
        "80 million pixels that are not there",
        NO_IMAGE,
        write(IMAGE, png(8900, 8900)),
    ),
    image_row("a text of 20 MB in a PNG", NO_IMAGE, write(IMAGE, png(8, 8, b"", TEXT_BOMB))),
    Bad(
        "numbers of unknown range",
        PETS,
        "HERE/pets/train/class0/x.tif: has pixels of mode F, whose range is not known; save it with 8 bits.",
        write("pets/train/class0/x.tif", encoded("TIFF", "F")),
    ),
    image_row(
        "a link to a file elsewhere",
        "is a link to HERE/config.yaml, outside HERE/pets; copy the images into the folder.",
        link(IMAGE, "../../../config.yaml"),
    ),
    Bad(
        "a link to a folder elsewhere",
        PETS,
        "HERE/pets/train/more: is a link to HERE/run, outside HERE/pets; copy the images into the folder.",
        link("pets/train/more", "../../run"),
    ),
    image_row("a link to nothing", "is a link to none.png, which is not there; delete it.", link(IMAGE, "none.png")),
    image_row(
        "a link to itself for an image", "is a link to 000.png, which is not there; delete it.", link(IMAGE, "000.png")
    ),
    Bad(
        "a link to itself for a class",
        PETS,
        "HERE/pets/train/more: is a link to more, which is not there; delete it.",
        link("pets/train/more", "more"),
    ),
    image_row("an image nobody may read", NO_IMAGE, unreadable(IMAGE)),
    Bad(
        "a name in two lines",
        PETS,
        f"HERE/pets/train/class0/a\\nb.png: {NO_IMAGE}",
        write("pets/train/class0/a\nb.png", ""),
    ),
    Bad(
        "a bad image in a training",
        f"{TRAIN} --dataset=folder:pets",
        f"HERE/{IMAGE}: {NO_IMAGE}",
        write(IMAGE, "no image"),
    ),
    Bad(
        "no CIFAR",
        "ssvi data cifar10",
        "cifar10: not found, looked for data/cifar-10-batches-py and data/cifar-10-python.tar.gz. Run `ssvi data "
        "cifar10 --root data --download`, or put cifar-10-python.tar.gz (from ...) into data.",
    ),
    Bad(
        "half an archive",
        "ssvi data cifar10",
        "data/cifar-10-python.tar.gz: its checksum is wrong, the download was cut short. Delete it. Run ...",
        write("data/cifar-10-python.tar.gz", "half"),
    ),
    Bad(
        "half a folder of CIFAR",
        "ssvi data cifar10",
        "data/cifar-10-batches-py: a file is missing or its checksum is wrong. Delete it. Run ...",
        write("data/cifar-10-batches-py/data_batch_1", pickle.dumps(Trap())),
    ),
    Bad(
        "a folder for the cache",
        f"{TRAIN} --out=new",
        "data/cache/digits-v1.safetensors: the prepared data set cannot be read (...).",
        make_folder("data/cache/digits-v1.safetensors"),
    ),
]

CHECKPOINTS = [
    checkpoint_row("half a checkpoint", no_checkpoint(WRONG), half),
    checkpoint_row("an empty checkpoint", no_checkpoint(NONE), lambda content: b""),
    checkpoint_row("a flipped bit in a checkpoint", no_checkpoint(WRONG), flipped),
    checkpoint_row("something behind a checkpoint", no_checkpoint(WRONG), lambda content: content + b"x"),
    checkpoint_row("something else", no_checkpoint(NONE), lambda content: b"hello"),
    checkpoint_row("a pickle with a program", no_checkpoint(NONE), lambda content: pickle.dumps(Trap())),
    checkpoint_row("a file of torch.save", no_checkpoint(NONE), state_of),
    checkpoint_row(
        "a program with a right checksum",
        UNREADABLE,
        lambda content: framed(pickle.dumps(Trap())),
    ),
    checkpoint_row(
        "torch's own with a program",
        UNREADABLE,
        lambda content: framed(saved(Trap())),
    ),
    checkpoint_row(
        "a checkpoint of another version",
        f"cut/live/checkpoint.pt: a checkpoint of version 2, but this is version {checkpoint.VERSION}; {LIVE}",
        lambda content: framed(state_of(content), 2),
    ),
    checkpoint_row(
        "a checkpoint of something else",
        f"cut/live/checkpoint.pt: not a checkpoint of a training; {LIVE}",
        lambda content: framed(saved({"a": 1})),
    ),
    checkpoint_row(
        "a checkpoint of another spec",
        f"cut/live/checkpoint.pt: {other('seed', 5, 0)}",
        partial(with_seed, seed=5),
    ),
    Bad(
        "a folder for a checkpoint",
        GO_ON,
        f"cut/{runs.CHECKPOINT}: Is a directory",
        make_folder(f"cut/{runs.CHECKPOINT}"),
    ),
    Bad(
        "an interrupted run of another spec",
        f"{GO_ON} --seed=1",
        f"cut/spec.json: {other('seed', 0, 1)}",
    ),
]

ARTIFACTS = [
    run_row("no spec", "spec.json: no such file.", remove("run/spec.json")),
    run_row("an empty spec", f"spec.json: {JSON} (...); {ANEW}", write("run/spec.json", "")),
    run_row("half a spec", f"spec.json: {JSON} (...); {ANEW}", change("run/spec.json", half)),
    run_row("a spec of bytes", f"spec.json: not readable as text (...); {ANEW}", write("run/spec.json", b"\xff\0")),
    run_row("a folder for a spec", "spec.json: Is a directory", make_folder("run/spec.json")),
    run_row("a spec nobody may read", "spec.json: Permission denied", unreadable("run/spec.json")),
    run_row("a spec that is a list", f"spec.json: has no 'spec'; {ANEW}", write("run/spec.json", "[]")),
    run_row(
        "a spec in 9000 brackets",
        f"spec.json: {JSON} (maximum recursion depth...); {ANEW}",
        write("run/spec.json", "[" * 9000),
    ),
    run_row(
        "a spec that is a number",
        f"spec.json: spec is 3, but must be an object; {ANEW}",
        record("run/spec.json", spec=3),
    ),
    run_row(
        "an unknown option in a spec",
        "spec.json: option 'learning' is unknown... Choose from ...",
        record("run/spec.json", spec__learning=1),
    ),
    run_row(
        "a word for a number in a spec",
        "spec.json: lr is 'fast', but must be a number.",
        record("run/spec.json", spec__lr="fast"),
    ),
    Bad(
        "nothing for a method in a spec",
        f"ssvi samples run {WHERE}",
        "run/spec.json: method is None, but must be a word.",
        record("run/spec.json", spec__method=None),
    ),
    run_row(
        "NaN in a spec",
        f"spec.json: {JSON} (NaN is no number of JSON); {ANEW}",
        write("run/spec.json", '{"spec": {"lr": NaN}}'),
    ),
    run_row(
        "a bad parent in a spec",
        "spec.json: run spec: parent is 'vi,lr', but must be a method and options, as in vi,epochs=12.",
        record("run/spec.json", spec__method="vd", spec__parent="vi,lr"),
    ),
    run_row(
        "a spec without images",
        f"spec.json: provenance.data is None, but must be a word; {ANEW}",
        record("run/spec.json", provenance__data=...),
    ),
    Bad(
        "a spec with other images",
        EVALUATE,
        "run: was trained on other images of 'digits' (fingerprint 000000000000, now ...); delete the folder to train "
        "it anew.",
        record("run/spec.json", provenance__data="0" * 64),
    ),
    run_row(
        "a spec whose origin is a list",
        f"spec.json: provenance is [], but must be an object; {ANEW}",
        record("run/spec.json", provenance=[]),
    ),
    Bad(
        "a spec of another run",
        f"{TRAIN} --seed=1 --out=run",
        f"run/spec.json: {other('seed', 0, 1)}",
    ),
    run_row("no record of the training", "training.json: no such file.", remove("run/training.json")),
    run_row("half a record of the training", f"training.json: {JSON} (...); {ANEW}", change("run/training.json", half)),
    run_row(
        "a training without status", f"training.json: has no 'status'; {ANEW}", record("run/training.json", status=...)
    ),
    run_row(
        "a training with an odd status",
        f"training.json: status is 'great', but must be complete or diverged; {ANEW}",
        record("run/training.json", status="great"),
    ),
    Bad(
        "a training of other layers",
        f"ssvi samples run {WHERE}",
        f"run/training.json: positions are not those of the network in spec.json; {ANEW}",
        record("run/training.json", positions={}),
    ),
    run_row("no model", "model.safetensors: no such file; train the run first.", remove("run/model.safetensors")),
    run_row(
        "half a model", f"model.safetensors: truncated or damaged (...); {ANEW}", change("run/model.safetensors", half)
    ),
    run_row(
        "a flipped bit in a model",
        f"model.safetensors: damaged (its checksum is wrong); {ANEW}",
        change("run/model.safetensors", flipped),
    ),
    run_row(
        "an empty model", f"model.safetensors: truncated or damaged (...); {ANEW}", write("run/model.safetensors", "")
    ),
    run_row(
        "a program for a model",
        f"model.safetensors: truncated or damaged (...); {ANEW}",
        write("run/model.safetensors", pickle.dumps(Trap())),
    ),
    run_row("a folder for a model", "model.safetensors: cannot be read (...).", make_folder("run/model.safetensors")),
    Bad("a model of another network", EVALUATE, f"{MODEL}: {MISFIT}", record("run/spec.json", spec__model="resnet8")),
    Bad("a model of another size", EVALUATE, f"{MODEL}: {MISFIT}", record("run/spec.json", spec__width=0.5)),
    Bad("a model of another method", EVALUATE, f"{MODEL}: {MISFIT}", record("run/spec.json", spec__method="mbnn")),
    Bad(
        "a model without a tensor",
        EVALUATE,
        f"{MODEL}: {MISFIT}",
        tensors("run", lambda t: {k: t[k] for k in sorted(t)[1:]}),
    ),
    Bad(
        "a model with a tensor more",
        EVALUATE,
        f"{MODEL}: {MISFIT}",
        tensors("run", lambda t: {**t, "more": torch.zeros(2)}),
    ),
    Bad(
        "a model of whole numbers",
        EVALUATE,
        f"{MODEL}: {MISFIT}is of type torch.int64 instead of torch.float32",
        tensors("run", lambda t: {k: v.long() if v.is_floating_point() else v for k, v in t.items()}),
    ),
    run_row("a folder for the predictions", "predictions.npz: Is a directory", make_folder("run/predictions.npz")),
    Bad(
        "a parent without a model",
        CHILD,
        f"{PARENT}: the parent of this run is not trained; train it first.",
        remove(f"{PARENT}/model.safetensors"),
    ),
    Bad(
        "half a parent",
        CHILD,
        f"{PARENT}/model.safetensors: truncated or damaged (...); {ANEW}",
        change(f"{PARENT}/model.safetensors", half),
    ),
    Bad(
        "a parent without its weights",
        CHILD,
        f"{PARENT}/model.safetensors: {MISFIT}",
        tensors(PARENT, lambda t: {"more": torch.zeros(2)}),
    ),
    Bad(
        "a parent of no numbers",
        CHILD,
        f"{PARENT}/model.safetensors: head.bias has numbers that are not finite; {ANEW}",
        tensors(PARENT, lambda t: {**t, "head.bias": t["head.bias"] * torch.nan}),
    ),
    Bad(
        "a parent whose costs are words",
        CHILD,
        f"{PARENT}/training.json: training_flops is 'many', but must be a number; {ANEW}",
        record(f"{PARENT}/training.json", training_flops="many"),
    ),
    Bad(
        "a parent of another spec",
        CHILD,
        f"{PARENT}/spec.json: {other('lr', 0.5, 0.01)}",
        record(f"{PARENT}/spec.json", spec__lr=0.5),
    ),
]

TABLE = [*CONFIGS, *COMMANDS, *IMAGES, *CHECKPOINTS, *ARTIFACTS]


def test_the_table_names_each_mistake_once() -> None:
    assert len({bad.name for bad in TABLE}) == len(TABLE) > 60


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_a_mistake_is_one_line_and_changes_nothing(bad: Bad, world, tmp_path, monkeypatch, capsys, recwarn) -> None:
    folder = tmp_path / "w"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SSVI_DATA", raising=False)
    bad.spoil(folder)
    before = tree(folder)
    code, said = typed(bad.command, capsys)
    line = bad.line if bad.code == 2 else f"ssvi: {bad.line}"
    assert says(line).fullmatch(said.replace(str(folder.resolve()), "HERE").removesuffix("\n")), said
    assert len(said.splitlines()) == 1
    assert code == bad.code
    assert "Traceback" not in said
    assert changes(before, tree(folder)) == set()
    assert [str(w.message) for w in recwarn if issubclass(w.category, UserWarning | RuntimeWarning)] == []


# ---------------------------------------------------------------- what a report says of files it cannot use

HISTORY, SAMPLES = ",".join(runs.HISTORY_COLUMNS), ",".join(runs.SAMPLES_COLUMNS)


def first_update(**values: Any) -> Spoil:
    """The first record of topology.jsonl with other values."""

    def by(content: bytes) -> bytes:
        first, *others = content.splitlines()
        return b"\n".join([json.dumps(json.loads(first) | values).encode(), *others, b""])

    return change(runs.TOPOLOGY, by)


# Each is done to a run folder of its own; the report leaves that run out and says why.
REPORTED = {
    "no spec": (remove(runs.SPEC), "spec.json: no such file."),
    "half a spec": (change(runs.SPEC, half), f"spec.json: {JSON} (...); {ANEW}"),
    "a spec of another run": (record(runs.SPEC, spec__lr=0.5), f"spec.json: {other('lr', 0.5, 0.01)}"),
    "a spec with an unknown option": (record(runs.SPEC, spec__rate=1), "spec.json: option 'rate' is unknown..."),
    "images that are a number": (
        record(runs.SPEC, provenance__data=3),
        f"spec.json: data is 3, but must be a word; {ANEW}",
    ),
    "cores that are a word": (
        record(runs.SPEC, provenance__host_cpus="x"),
        f"spec.json: host_cpus is 'x', but must be a number; {ANEW}",
    ),
    "other images": (record(runs.SPEC, provenance__data="0" * 64), "was trained on other images of 'digits' than ..."),
    "half of the metrics": (change(runs.METRICS, half), f"metrics.json: {JSON} (...); {ANEW}"),
    "metrics that are a list": (write(runs.METRICS, "[]"), f"metrics.json: has no 'status'; {ANEW}"),
    "metrics without accuracy": (
        record(runs.METRICS, accuracy=None),
        "metrics.json: has no 'accuracy'; evaluate the run anew.",
    ),
    "an accuracy in words": (
        record(runs.METRICS, accuracy="high"),
        f"metrics.json: accuracy is 'high', but must be a number; {ANEW}",
    ),
    "NaN": (write(runs.METRICS, '{"status": NaN}'), f"metrics.json: {JSON} (NaN is no number of JSON); {ANEW}"),
    "an odd status": (
        record(runs.METRICS, status="great"),
        "metrics.json: status is 'great', but must be complete or diverged.",
    ),
    "no history": (remove(runs.HISTORY), "history.csv: no such file."),
    "other columns": (
        write(runs.HISTORY, "a,b\n1,2\n"),
        "history.csv: has the columns 'a,b', but '...' is expected; make it anew.",
    ),
    "a word in the history": (
        write(runs.HISTORY, f"{HISTORY}\n1,2,many,,,,,,,,,\n"),
        "history.csv: loss is 'many', but must be a number; make it anew.",
    ),
    "infinity in the history": (
        write(runs.HISTORY, f"{HISTORY}\n1,2,inf,,,,,,,,,\n"),
        "history.csv: loss is ..., but must be a number; make it anew.",
    ),
    "a row cut off": (
        write(runs.HISTORY, f"{HISTORY}\n1,2\n"),
        "history.csv: a row has 2 cells instead of 12; make it anew.",
    ),
    "a history of bytes": (write(runs.HISTORY, b"\xff\xfe"), f"history.csv: not readable as text (...); {ANEW}"),
    "half an update": (change(runs.TOPOLOGY, half), f"topology.jsonl: {JSON} (...); {ANEW}"),
    "an update that is a list": (
        write(runs.TOPOLOGY, "[]\n"),
        "topology.jsonl: not a record of updates (...); delete the run folder.",
    ),
    "an update without a layer": (
        first_update(layers=[3]),
        "topology.jsonl: not a record of updates (...); delete the run folder.",
    ),
    "a layer in words": (
        first_update(layers=[{"layer": "a", "size": "b"}]),
        "topology.jsonl: size is 'b', but must be a number; make it anew.",
    ),
    "an overlap too small": (
        first_update(iou=[[1]]),
        "topology.jsonl: not a record of updates (...); delete the run folder.",
    ),
    "samples with other columns": (
        write(runs.SAMPLES, "x\n"),
        "samples.csv: has the columns 'x', but '...' is expected; make it anew.",
    ),
    "a word in the samples": (
        write(runs.SAMPLES, f"{SAMPLES}\n1,a,,,,,\n"),
        "samples.csv: accuracy is 'a', but must be a number; make it anew.",
    ),
}


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, RunSpec], dict[str, str]]:
    """A folder with results of which every run but two is spoiled, all its runs, and the run of each mistake."""
    folder = tmp_path_factory.mktemp("spoiled")
    content = yaml.safe_load(CONFIG)
    grid = {"method": "ssvi", "seed": list(range(len(REPORTED) + 2))}
    content["studies"]["tiny"] = {
        "train": {"dataset": "digits", "epochs": 3},
        "experiments": {"all": grid},
        "tables": {"summary": ["all"]},
        "figures": {"curves": ["all"]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    specs = study_experiments(content, "tiny")["all"]
    write_runs(folder / "results", specs.values())
    runs_of = dict(zip(REPORTED, list(specs)[2:], strict=True))
    for name, (spoil, _) in REPORTED.items():
        spoil(folder / "results/runs" / runs_of[name])
    return folder, specs, runs_of


@pytest.fixture(scope="module")
def causes(spoiled) -> dict[str, str]:
    """Why a report leaves runs out that reads all their files."""
    folder, specs, _ = spoiled
    frame = load_readable(folder / "results", specs, tuple(collect.READERS)).runs
    failed = frame[frame["status"] == "failed"]
    return dict(zip(failed["run"], failed["cause"], strict=True))


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("name", REPORTED)
def test_a_run_with_a_bad_file_is_left_out_and_says_why(spoiled, causes, name: str) -> None:
    folder, _, runs_of = spoiled
    said = causes[runs_of[name]].removeprefix(f"{folder / 'results/runs' / runs_of[name]}/")
    assert says(REPORTED[name][1]).fullmatch(said), said
    assert "\n" not in said


@pytest.mark.fault(MALFORMED)
def test_a_report_is_made_of_what_is_readable(spoiled, causes, monkeypatch, capsys) -> None:
    folder, specs, _ = spoiled
    assert len(specs) - len(causes) == 2
    before = tree(folder / "results")
    monkeypatch.chdir(folder)
    assert typed("ssvi report", capsys) == (0, "")
    assert tree(folder / "results") == before
    page = html.unescape((folder / "reports/tiny/so_far/report.html").read_text())
    shown = [cause for cause in causes.values() if cause.removeprefix(f"{folder}/") in page]
    # those of the files that neither the table nor the figure needs are no matter
    unread = [cause for cause in causes.values() if runs.TOPOLOGY in cause or runs.SAMPLES in cause]
    assert len(shown) == len(causes) - len(unread) >= 15


@pytest.mark.fault(MALFORMED, quick=0)
def test_a_network_too_large_for_the_memory_is_one_line(tmp_path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))

    command = shlex.split(f"ssvi train --epochs=1 --width=99 {WHERE} --data-root=data")
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True
    )
    expected = "ssvi: there is not enough memory for this; a smaller batch_size, width or image_size needs less.\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# ---------------------------------------------------------------- what Snakemake says of a config

SNAKEMAKE = {
    "an open bracket": ("study: [", f"line 1: {YAML}: ...'<stream end>'."),
    "empty": ("", f"is empty, but must be a mapping. {NEEDED}"),
    "a list": ("- 1", f"is [1], but must be a mapping. {NEEDED}"),
    "not UTF-8": (b"\xff\xfe", f"{YAML}: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte."),
    "Python": ("__use_yte__: true\n? open('evil', 'w')\n: 1\n", "key '__use_yte__' is unknown. Choose from ..."),
    "a command for the data": (
        config("data_root: data", "data_root: $(touch evil)"),
        f'data_root: "$(touch evil)" is not allowed: {NO_FOLDER}',
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.fault(MALFORMED, quick=int(n == "Python"))) for n in SNAKEMAKE],
)
def test_snakemake_refuses_a_bad_config_in_one_line(tmp_path, name: str) -> None:
    content, line = SNAKEMAKE[name]
    write("config.yaml", content)(tmp_path)
    before = tree(tmp_path)
    command = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "-n", "--cores=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    profile, *said = (done.stdout + done.stderr).splitlines()
    assert profile.startswith("Using workflow specific profile")
    assert len(said) == 1
    assert says(f"ssvi: config.yaml: {line}").fullmatch(said[0]), said
    assert tree(tmp_path) | {".snakemake": ""} == before | {".snakemake": ""}


@pytest.mark.fault(MALFORMED, quick=0)
def test_a_workflow_with_a_broken_record_ends_in_order(tmp_path) -> None:
    """The job that needs it says so; what is said at the end needs it too."""
    write("config.yaml", CONFIG)(tmp_path)
    specs = write_runs(tmp_path / "results", study_experiments(yaml.safe_load(CONFIG), "tiny")["ssvi"].values())
    folder = tmp_path / "results/runs" / next(iter(specs))
    write(runs.MODEL, "")(folder)
    write(runs.TRAINING, "{")(folder)
    (folder / runs.METRICS).unlink()
    metrics = folder.relative_to(tmp_path) / runs.METRICS
    command = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile", "--cores=1", "--retries=0", "--", metrics]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("ssvi: ")]
    assert len(said) == 1
    assert says(f"ssvi: {metrics.parent / runs.TRAINING}: {JSON} (...); {ANEW}").fullmatch(said[0])
    assert "Traceback" not in done.stderr
    assert 'File "' not in done.stderr.replace('in file "', "")
    assert "Study tiny: 0 of 3 runs are trained; the same command goes on from here." in done.stderr


# ---------------------------------------------------------------- whatever a file holds


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Calls a property with drawn arguments: the same few each time, or, with --all-trials, many others."""
    whole = request.config.getoption("--all-trials")

    def run(check: Callable[..., None], examples: int = 50, **drawn: st.SearchStrategy[Any]) -> None:
        options = settings(
            max_examples=examples * (10 if whole else 1),
            deadline=None,
            derandomize=not whole,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        options(given(**drawn)(check))()

    return run


def answer(read: Callable[[], Any]) -> Any:
    """What is read, or None if it was refused in one line; any other error is raised."""
    try:
        return read()
    except UserError as error:
        said = str(error)
    assert len(said.splitlines()) == 1
    return None


@st.composite
def mutated(draw: st.DrawFn, content: bytes, most: int = 3) -> bytes:
    """A file's content after flipped bits, cuts, insertions and repetitions, or other content."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "insert", "delete", "repeat", "append", "replace"]))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at:]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "repeat":
            data[at:at] = data[at : at + 40]
        elif how == "append":
            data += draw(st.binary(min_size=1, max_size=9))
        elif how == "replace" and draw(st.integers(0, 4)) == 0:
            data[:] = draw(st.binary(max_size=99))
    return bytes(data)


@st.composite
def mutated_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """A text with lines left out, repeated, exchanged or shifted."""
    lines = content.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        at, to = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["delete", "repeat", "exchange", "shift"]))
        if how == "delete" and len(lines) > 1:
            del lines[at]
        elif how == "repeat":
            lines.insert(to, lines[at])
        elif how == "exchange":
            lines[at], lines[to] = lines[to], lines[at]
        elif how == "shift":
            lines[at] = b" " * draw(st.integers(1, 3)) + lines[at]
    return b"".join(lines)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**19, 10**400])
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def with_anything(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with anything at all at one place in it."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(anything)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    at = draw(st.sampled_from(keys))
    inner = draw(with_anything(value[at]))
    return {**value, at: inner} if isinstance(value, dict) else [*value[:at], inner, *value[at + 1 :]]


@pytest.mark.fault(MALFORMED)
def test_whatever_happens_to_the_shipped_config_it_works_or_is_one_line(tmp_path, tried) -> None:
    shipped = (ROOT / "config.yaml").read_text().replace("study: digits", "study: cifar10 ")
    # one study, because all take a second each time
    content = shipped[: shipped.index("  cifar100:")].encode()
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert load_config(path)["study"] == "cifar10"

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        found = answer(lambda: load_config(path))
        assert found is None or set(found) >= {"study", "studies"}

    tried(check, examples=15, changed=mutated(content) | mutated_lines(content))


@pytest.mark.fault(MALFORMED)
def test_whatever_options_a_run_has_it_has_a_path_or_is_one_line(tried) -> None:
    def check(options: dict[str, Any]) -> None:
        spec = answer(lambda: make_spec(options, "here"))
        if spec is not None:
            assert all(re.fullmatch(r"[A-Za-z0-9._=+%~,-]{1,255}", part) for part in run_path(spec).split("/"))
            words = parser().parse_args(["train", *to_flags(spec)])
            assert RunSpec(**{name: getattr(words, name) for name in FIELDS if hasattr(words, name)}) == spec

    names = st.sampled_from([*FIELDS, "preset"]) | st.text(max_size=5)
    choices = [c for field in FIELDS.values() for c in field.metadata["choices"] or ()]
    words = st.sampled_from([*METHODS, *choices, "vi,epochs=2", "official"]) | st.text().map(
        lambda text: f"folder:{text}"
    )
    tried(check, examples=200, options=st.dictionaries(names, words | anything, max_size=4))


@pytest.mark.fault(MALFORMED)
def test_whatever_is_typed_it_is_understood_or_is_one_line(tried) -> None:
    flags = [f"--{name.replace('_', '-')}" for name in (*FIELDS, "out", "threads", "device", "preset", "nothing")]
    command_line = parser()

    def check(words: list[str]) -> None:
        said, code = io.StringIO(), None
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                command_line.parse_args(words)
        except SystemExit as end:
            code = end.code
        assert code in (None, 0, 2)
        assert len(said.getvalue().splitlines()) == (code == 2), said.getvalue()

    text = st.text(st.characters(), max_size=6)
    word = text | st.builds("{}={}".format, st.sampled_from(flags), text | st.floats().map(repr))
    commands = st.sampled_from(["train", "evaluate", "samples", "data", "report", "ui", "bench"])
    tried(check, examples=100, words=st.tuples(commands | text, word, word).map(list))


KEYS = frozenset({"numbers", "words"})


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("previous", ["whole", "damaged", "missing"])
def test_whatever_happens_to_a_checkpoint_a_saved_state_is_read_or_one_line(tmp_path, tried, previous: str) -> None:
    newest, older = tmp_path / runs.CHECKPOINT, tmp_path / runs.PREVIOUS_CHECKPOINT
    states = [{"numbers": torch.arange(40) + i, "words": ["a", {"b": i}]} for i in (0, 1)]
    for state in states:
        checkpoint.save(tmp_path, state)
    contents = [older.read_bytes(), newest.read_bytes()]

    def same(found: dict[str, Any], state: dict[str, Any]) -> bool:
        return bool((found["numbers"] == state["numbers"]).all()) and found["words"] == state["words"]

    def check(changed: bytes, too: bytes) -> None:
        newest.write_bytes(changed)
        older.write_bytes(contents[0] if previous == "whole" else too)
        if previous == "missing":
            older.unlink()
        notes: list[str] = []
        found = answer(lambda: checkpoint.load(tmp_path, torch.device("cpu"), KEYS, notes.append))
        if changed == contents[1]:
            assert same(found, states[1])
        elif previous == "whole" or (previous == "damaged" and too == contents[0]):
            assert same(found, states[0])
            assert len(notes) == 1
            assert newest.read_bytes() == contents[0]
        else:
            assert found is None
            assert newest.read_bytes() == changed

    tried(check, changed=mutated(contents[1]), too=mutated(contents[0]))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, RunSpec]]:
    """A results folder with one run."""
    folder = tmp_path_factory.mktemp("results")
    return folder, write_runs(folder, [RunSpec(dataset="digits", epochs=3)], epochs=3, layers=2, updates=2)


# What of a report needs a file, beside every run's own row.
FILES = {
    runs.SPEC: (),
    runs.TRAINING: (),
    runs.METRICS: ("updates",),
    runs.HISTORY: ("history",),
    runs.TOPOLOGY: ("updates", "overlap"),
    runs.SAMPLES: ("samples",),
}


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize("name", FILES)
def test_whatever_happens_to_a_file_of_a_run_it_is_read_or_is_one_line(results, tried, name: str) -> None:
    folder, specs = results
    ((run, spec),) = specs.items()
    run_folder = folder / "runs" / run
    path = run_folder / name
    content = path.read_bytes()

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        for read in (runs.read_spec, runs.read_data, runs.read_training, partial(runs.check_spec, spec=spec)):
            answer(partial(read, run_folder))
        frame = load_readable(folder, specs, FILES[name]).runs
        assert frame["status"].tolist() in (["complete"], ["diverged"], ["failed"])
        read_curves(folder, [run])
        make_plan(folder, {"table": [run]}, specs)

    changes = mutated(content) | mutated_lines(content)
    if name.endswith(".json"):
        changes |= with_anything(json.loads(content)).map(lambda value: json.dumps(value).encode())
    if name.endswith(".jsonl"):
        records = [json.loads(line) for line in content.splitlines()]
        changes |= with_anything(records).map(
            lambda value: "".join(
                f"{json.dumps(one)}\n" for one in (value if isinstance(value, list) else [value])
            ).encode()
        )
    if name.endswith(".csv"):
        head, _, rows = content.decode().partition("\n")
        cells = st.text(max_size=5) | st.sampled_from(["nan", "inf", "True", "1e999", "0x1", '"', "1" * 400])
        cell = rows.split("\n")[0].split(",")
        changes |= st.tuples(st.integers(0, len(cell) - 1), cells).map(
            lambda drawn: f"{head}\n{','.join([*cell[: drawn[0]], drawn[1], *cell[drawn[0] + 1 :]])}\n".encode()
        )
    try:
        tried(check, examples=25, changed=changes)
    finally:
        path.write_bytes(content)


@pytest.mark.fault(MALFORMED)
def test_whatever_happens_to_a_model_it_is_read_or_is_one_line(world, tmp_path, tried) -> None:
    spec = runs.read_spec(world / "run")
    content = (world / "run" / runs.MODEL).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    whole = {name: value.tolist() for name, value in read_model(world / "run").items()}

    def check(head: bytes, tail: bytes) -> None:
        (tmp_path / runs.MODEL).write_bytes(head + tail)
        model, method = build(spec, 1, 8, 10, NormalSource(0, "test"))
        found = answer(lambda: load_model(tmp_path, model, method))
        assert found is None or {name: value.tolist() for name, value in found.items()} == whole

    tried(check, head=mutated(content[:header]), tail=st.just(content[header:]) | mutated(content[header:]))


@pytest.mark.fault(MALFORMED)
def test_whatever_happens_to_a_cache_it_gives_the_same_data(tmp_path, tried) -> None:
    images = torch.arange(48, dtype=torch.uint8).view(4, 3, 2, 2)
    data = prepared((images, torch.arange(4)), (images[:2].clone(), torch.arange(2)), "abcd")
    path = tmp_path / "cache.safetensors"
    cached(path, lambda: data)
    content = path.read_bytes()

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        found = cached(path, lambda: data)
        assert found.fingerprint == data.fingerprint
        assert found.classes == data.classes
        assert found.train_images.equal(data.train_images)
        assert path.read_bytes() == content

    tried(check, changed=mutated(content))


@pytest.mark.fault(MALFORMED)
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_deflate"}),
    ],
)
def test_whatever_happens_to_an_image_it_is_read_or_is_one_line(tmp_path, tried, capfd, format: str, options) -> None:
    content = encoded(format, **options)
    path = tmp_path / "image"
    path.write_bytes(content)
    assert _decode_image(path, 8).shape == (3, 8, 8)

    def check(head: bytes, rest: bytes) -> None:
        path.write_bytes(head + rest)
        found = answer(lambda: _decode_image(path, 8))
        assert found is None or (found.shape, found.dtype) == ((3, 8, 8), torch.uint8)

    tried(check, head=mutated(content[:80]), rest=st.just(content[80:]) | mutated(content[80:]))
