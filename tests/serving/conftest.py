"""A small network of SSVI on digits, trained and evaluated once."""

from pathlib import Path

import pytest
from PIL import Image

from ssvi.cli import main

OPTIONS = ("--dataset=digits", "--model=resnet8", "--width=0.5", "--density=0.2", "--epochs=4", "--batch-size=32",
           "--lr=0.1", "--mu-init-sd=0.05", "--delta-t=8", "--sigma-init=0.02", "--prior-sigma=0.1")  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Its run folder, which no test changes."""
    folder = tmp_path_factory.mktemp("serving") / "run"
    place = f"--data-root={data_root}"
    main(["train", *OPTIONS, f"--out={folder}", place, "--device=cpu"])
    main(["evaluate", str(folder), place, "--device=cpu"])
    return folder


@pytest.fixture(scope="session")
def pictures(digits, tmp_path_factory) -> Path:
    """The test images of digits as files, the first 40 of them in a folder of their own."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "first").mkdir()
    for i, image in enumerate(digits.test_images):
        Image.fromarray(image[0].numpy()).save(folder / ("first" if i < 40 else ".") / f"{i:03}.png")
    return folder


@pytest.fixture
def predict(capsysbinary):
    """Run the command; its exit code, standard output, and lines of standard error."""

    def run(*words: object) -> tuple[int, bytes, list[str]]:
        code = 0
        try:
            main(["predict", *map(str, words), "--device=cpu"])
        except SystemExit as end:
            code = end.code
        out, err = capsysbinary.readouterr()
        return code, out, [*err.decode().splitlines(), *([code] if isinstance(code, str) else [])]

    return run
