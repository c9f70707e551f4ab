"""CIFAR-10-C as a user has it: read, and refused where it is not what it has to be."""

import pickle

import numpy as np
import pytest
import torch

from ssvi.data.corruptions import CORRUPTIONS, SEVERITIES, published
from ssvi.errors import UserError

LABELS = torch.tensor([3, 1, 4, 1])
N = len(LABELS)
ROWS = 5 * N
SEEDS = {"fog": 1, "gaussian_noise": 2}


def pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (ROWS, 32, 32, 3), np.uint8)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(LABELS.numpy(), 5))
    for name in CORRUPTIONS:
        np.save(folder / f"{name}.npy", pixels(SEEDS.get(name, 9)))
    np.save(folder / "saturate.npy", pixels())  # which is none of ours
    return tmp_path


def test_a_severity_is_a_fifth_of_the_rows(root):
    found = published("cifar10", root, LABELS)
    assert found.names == tuple(CORRUPTIONS)
    stored = torch.from_numpy(pixels(1)).permute(0, 3, 1, 2)
    for severity in SEVERITIES:
        rows = stored[(severity - 1) * N : severity * N]
        images = found.images("fog", severity)
        assert images.dtype == torch.uint8
        assert torch.equal(images, rows)
        assert torch.equal(found.images("fog", severity, slice(1, 3)), rows[1:3])
        assert torch.equal(found.images("fog", severity, torch.tensor([2, 0])), rows[[2, 0]])
        assert torch.equal(found.images("fog", severity, LABELS == 1), rows[LABELS == 1])


def test_what_is_read_may_be_written_to(root):
    found = published("cifar10", root, LABELS)
    found.images("fog", 1).fill_(0)
    assert found.images("fog", 1).any()


@pytest.mark.parametrize("dataset", ["digits", "cifar100", "folder:CIFAR-10-C"])
def test_where_there_are_none_there_are_none(root, dataset):
    assert published(dataset, root, LABELS) is None


def test_an_image_that_is_not_there_is_no_row_of_another_severity(root):
    with pytest.raises(IndexError):
        published("cifar10", root, LABELS).images("fog", 1, torch.tensor([N]))


@pytest.mark.parametrize(
    ("name", "severity", "words"),
    [
        ("saturate", 1, "corruption 'saturate' is unknown"),
        ("fog", 6, r"severity of fog is 6, but must be one of 1, 2, 3, 4, 5\."),
    ],
)
def test_what_there_is_not_is_refused(root, name, severity, words):
    with pytest.raises(UserError, match=words):
        published("cifar10", root, LABELS).images(name, severity)


class Executed:
    """Fails the test if it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("was executed",)


WRONG = {
    "another shape": ("fog", lambda file: np.save(file, pixels()[:-1]), r"holds uint8 (19, 32, 32, 3), but must hold"),
    "channels first": (
        "fog",
        lambda file: np.save(file, pixels().transpose(0, 3, 1, 2)),
        "holds uint8 (20, 3, 32, 32)",
    ),
    "another type": ("fog", lambda file: np.save(file, pixels().astype(np.float32)), "holds float32 (20, 32, 32, 3)"),
    "another range": ("fog", lambda file: np.save(file, pixels() // 128), "its values are 0 and 1, but must be from 0"),
    "objects": ("fog", lambda file: np.save(file, np.array([Executed()]), allow_pickle=True), "cannot be read as an"),
    "a pickle": ("fog", lambda file: file.write_bytes(pickle.dumps(Executed())), "cannot be read as an array"),
    "empty": ("fog", lambda file: file.write_bytes(b""), "cannot be read as an array"),
    "cut off": ("fog", lambda file: file.write_bytes(file.read_bytes()[:5000]), "cannot be read as an array"),
    "a folder": ("fog", lambda file: (file.unlink(), file.mkdir()), "cannot be read as an array"),
    "no labels": ("labels", lambda file: file.unlink(), "is missing; it comes in the same archive."),
    "few labels": (
        "labels",
        lambda file: np.save(file, LABELS.numpy()),
        "holds int64 (4,), but must hold integers (20,)",
    ),
    "fractions": ("labels", lambda file: np.save(file, np.zeros(ROWS)), "holds float64 (20,), but must hold integers"),
    "other labels": (
        "labels",
        lambda file: np.save(file, np.tile([3, 1, 4, 2], 5)),
        "says 2 at row 3, where the test set has 1; it must have the test set's labels 5 times.",
    ),
    "labels by severity": (
        "labels",
        lambda file: np.save(file, np.repeat(LABELS.numpy(), 5)),
        "says 3 at row 1, where the test set has 1",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_file_ends_in_a_line_that_names_it(root, fault):
    name, spoil, words = WRONG[fault]
    file = root / "CIFAR-10-C" / f"{name}.npy"
    spoil(file)
    with pytest.raises(UserError) as caught:
        published("cifar10", root, LABELS)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)


def test_an_archive_of_arrays_is_none(root):
    file = root / "CIFAR-10-C" / "fog.npy"
    with file.open("wb") as stream:
        np.savez(stream, a=pixels())
    with pytest.raises(UserError, match=r"fog\.npy: is an archive of several arrays; it must hold one\."):
        published("cifar10", root, LABELS)


def test_a_folder_without_corruptions_is_refused(root):
    for file in (root / "CIFAR-10-C").glob("[!l]*.npy"):
        file.unlink()
    with pytest.raises(UserError, match=r"CIFAR-10-C: has no NAME\.npy of a corruption; unpack the archive there"):
        published("cifar10", root, LABELS)
