"""What the trials share: the data, once, and each training as it is undisturbed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import SPECS, run, training
from stopping import results


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


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
