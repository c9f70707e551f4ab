"""A small dense BNN on digits, trained, evaluated and shown the suite once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ssvi.cli import main
from ssvi.runs import places

OPTIONS = (
    *("--dataset=digits", "--model=mlp", "--width=0.1", "--epochs=8", "--batch-size=32", "--lr=0.1", "--method=vi"),
    *("--mu-init-sd=0.1", "--sigma-init=0.05", "--sigma-init-sd=0.01", "--prior-sigma=0.2", "--parameterisation=abs"),
)


@pytest.fixture(autouse=True, scope="session")
def nothing_installed() -> Iterator[None]:
    """What is at hand is the same on every machine."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(places, "INSTALLED", {})
        yield


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Its run folder, evaluated with 5 weight samples; no test changes it."""
    folder = tmp_path_factory.mktemp("uncertainty") / "run"
    place = f"--data-root={data_root}"
    main(["train", *OPTIONS, f"--out={folder}", place, "--device=cpu"])
    main(["evaluate", str(folder), place, "--device=cpu"])
    return folder


@pytest.fixture(scope="session")
def run(evaluated: Path, data_root: Path) -> Path:
    """The same after the suite."""
    main(["evaluate", str(evaluated), "--suite=uncertainty", f"--data-root={data_root}", "--device=cpu"])
    return evaluated
