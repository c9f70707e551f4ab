"""MNIST and what is after its pattern: IDX files, and every way in which one can be wrong."""

import gzip
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssvi.data import prepare, sources
from ssvi.data.idx import read_idx
from ssvi.errors import UserError
from ssvi.runs import places

SHAPES = {"train": (30, 28, 28), "t10k": (20, 28, 28)}


def idx(numbers: np.ndarray, kind: int = 8) -> bytes:
    """The bytes of an IDX file of these numbers."""
    sizes = b"".join(size.to_bytes(4) for size in numbers.shape)
    return bytes([0, 0, kind, numbers.ndim]) + sizes + numbers.astype(np.uint8).tobytes()


def make_idx(folder: Path, *, zipped: bool = False) -> dict[str, np.ndarray]:
    """The four files of a tiny data set; returns what is in them, by their names."""
    rng, made = np.random.default_rng(0), {}
    folder.mkdir(parents=True)
    for part, shape in SHAPES.items():
        made[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, shape)
        made[f"{part}-labels-idx1-ubyte"] = np.arange(shape[0]) % 10
    for name, numbers in made.items():
        content = idx(numbers)
        (folder / f"{name}{'.gz' * zipped}").write_bytes(gzip.compress(content) if zipped else content)
    return made


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of this kind are tiny ones, and none is installed."""
    monkeypatch.setattr(sources, "IDX_SHAPES", SHAPES)
    monkeypatch.setattr(places, "INSTALLED", {})


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_what_is_read_is_what_was_written(tmp_path: Path, shape: tuple[int, ...], zipped: bool) -> None:
    numbers = np.random.default_rng(1).integers(0, 256, shape)
    file = tmp_path / "file"
    file.write_bytes(gzip.compress(idx(numbers)) if zipped else idx(numbers))
    found = read_idx(file, shape)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), numbers)


WRONG = {
    "empty": (lambda good: b"", "begins with nothing, but an IDX file of bytes in 1 dimension begins with 00 00 08 01"),
    "of another kind": (lambda good: b"\x00\x00\x0d\x01" + good[4:], "begins with 00 00 0d 01, but"),
    "of more dimensions": (lambda good: b"\x00\x00\x08\x03" + good[4:], "begins with 00 00 08 03, but"),
    "without a whole head": (lambda good: good[:6], "begins with 00 00 08 01, but"),
    "of another size": (lambda good: good[:4] + (2**31).to_bytes(4) + good[8:], "names 2147483648 numbers, but must"),
    "cut": (lambda good: good[:-1], "instead of"),
    "too long": (lambda good: good + b"\x00", "instead of"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("damage", WRONG)
def test_a_wrong_file_is_refused_in_a_line(tmp_path: Path, damage: str, zipped: bool) -> None:
    spoil, says = WRONG[damage]
    content = spoil(idx(np.arange(7)))
    file = tmp_path / "file"
    file.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(UserError, match=says) as caught:
        read_idx(file, (7,))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_cut_archive_a_bomb_and_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(gzip.compress(idx(np.arange(200)))[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(file, (200,))
    # no more of it is read than it may hold
    file.write_bytes(gzip.compress(idx(np.arange(7)) + bytes(10**7)))
    with pytest.raises(UserError, match="holds more instead of 7 numbers"):
        read_idx(file, (7,))
    with pytest.raises(UserError, match="cannot be read"):
        read_idx(tmp_path / "nothing", (7,))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("dataset", "place"), [("mnist", "MNIST/raw"), ("kmnist", "kmnist"), ("fashion", "FashionMNIST/raw")]
)
def test_a_data_set_from_its_files(tmp_path: Path, tiny: None, dataset: str, place: str, zipped: bool) -> None:
    made = make_idx(tmp_path / place, zipped=zipped)
    found = prepare(dataset, tmp_path)
    assert np.array_equal(found.train_images[:, 0].numpy(), made["train-images-idx3-ubyte"])
    assert np.array_equal(found.test_labels.numpy(), made["t10k-labels-idx1-ubyte"])
    assert (len(found.classes), found.classes[-1]) == (10, {"mnist": "9", "kmnist": "wo"}.get(dataset, "Ankle boot"))
    # from its cache alone
    shutil.rmtree(tmp_path / place.partition("/")[0])
    assert prepare(dataset, tmp_path).fingerprint == found.fingerprint


def test_the_one_that_is_installed_is_found(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    make_idx(tmp_path / "installed", zipped=True)
    monkeypatch.setattr(places, "INSTALLED", {"fashion": str(tmp_path / "installed")})
    assert prepare("fashion", tmp_path / "data").test_images.shape == (20, 1, 28, 28)
    with pytest.raises(
        UserError, match=r"mnist: not found, looked for .*MNIST/raw, .*data/mnist\. Run `ssvi data mnist"
    ):
        prepare("mnist", tmp_path / "data")


def test_a_label_of_no_class(tmp_path: Path, tiny: None) -> None:
    make_idx(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(20, 10)))
    with pytest.raises(UserError, match="has the label 10, but must have labels from 0 to 9"):
        prepare("mnist", tmp_path)


def test_a_download_is_torchvisions_and_leaves_its_files(
    tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.import_torchvision()
    datasets = sys.modules["torchvision.datasets"]

    def fetch(root: Path, download: bool) -> None:
        assert download
        make_idx(Path(root) / "KMNIST" / "raw", zipped=True)

    monkeypatch.setattr(datasets, "KMNIST", fetch)
    found = prepare("kmnist", tmp_path, download=True)
    assert found.train_images.shape == (30, 1, 28, 28)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["KMNIST", "cache"]
    assert len(list((tmp_path / "KMNIST" / "raw").iterdir())) == 4

    def fail(root: Path, download: bool) -> None:
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(UserError, match=r"mnist: the download to .* failed \(Error downloading\)\. Put its four"):
        prepare("mnist", tmp_path, download=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["KMNIST", "cache"]


def test_sizes_are_the_published_ones() -> None:
    assert sources.IDX_SHAPES == {"train": (60_000, 28, 28), "t10k": (10_000, 28, 28)}
    assert math.prod(sources.IDX_SHAPES["train"]) == 47_040_000
