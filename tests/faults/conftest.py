"""What the trials share: the data, once, and each training as it is undisturbed."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SPECS, run, training
from images import make_image_folder
from mistakes.kinds import CONFIG, TRAIN
from stopping import results

from ssvi.cli import main
from ssvi.runs import files


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Callable[[str], Path]:
    """The folder of the training named so in `SPECS`, trained without any fault."""
    root = tmp_path_factory.mktemp("undisturbed")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            assert run(training(SPECS[name], root / name, data_root), root / f"{name}.log") == 0
            assert results(root / name)["topology"].count("\n") >= 2
        return root / name

    return folder


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
    for name in (files.HISTORY, files.TOPOLOGY, files.MODEL, files.TRAINING):
        (folder / "cut" / name).unlink()
    return folder
