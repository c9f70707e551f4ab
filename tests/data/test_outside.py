"""Images of no class that a network knows: which there are for which data set, what is in them, what is refused."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from images import make_image_folder
from PIL import Image
from scipy.io import savemat

from ssvi.data import load, sources
from ssvi.data import outside as module
from ssvi.data.outside import LEAST_SPREAD, SETS, outside
from ssvi.data.pixels import coloured, resized
from ssvi.errors import UserError
from ssvi.runs import places
from ssvi.runs.options import DATASETS
from ssvi.runs.spec import RunSpec

NOISE = ["uniform_noise", "gaussian_noise"]
DIGITS = RunSpec(dataset="digits")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.setattr(places, "INSTALLED", {})


@pytest.fixture
def colours(digits):
    """What a network trained on CIFAR has seen, as far as this matters here."""
    parts = ("train_images", "val_images", "test_images")
    images = {name: coloured(resized(getattr(digits, name)[:50], 32), 3) for name in parts}
    return dataclasses.replace(digits, **images, held_out_images=torch.zeros(0, 3, 32, 32, dtype=torch.uint8))


def found(*args, **options):
    return {one.name: one for one in outside(*args, **options)}


def write_idx(folder, images):
    """The four files of a data set after MNIST's pattern, of the same images for training and test."""
    folder.mkdir()
    for part in ("train", "t10k"):
        for kind, numbers in (("images-idx3", images), ("labels-idx1", np.arange(len(images), dtype=np.uint8) % 10)):
            head = bytes([0, 0, 8, numbers.ndim]) + b"".join(n.to_bytes(4, "big") for n in numbers.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + numbers.tobytes())


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_data_set_is_outside_of_itself(dataset):
    names = [one.name for one in SETS if one.of is None or dataset in one.of]
    assert len(names) == len(set(names))
    assert dataset not in names
    # handwritten digits are handwritten digits
    assert dataset not in ("digits", "mnist") or not {"digits", "mnist", "svhn"} & set(names)
    assert {*NOISE, "photographs"} <= set(names)
    assert {name for one in SETS for name in one.of or ()} <= set(DATASETS)


def test_what_needs_no_file(digits, colours, data_root):
    grey, colour = (
        found(DIGITS, digits, data_root, most=60),
        found(RunSpec(dataset="cifar10"), colours, data_root, most=300),
    )
    assert list(grey) == ["photographs", *NOISE]
    assert list(colour) == ["digits", "photographs", *NOISE]
    for sets, shape in ((grey, (60, 1, 8, 8)), (colour, (300, 3, 32, 32))):
        for one in sets.values():
            assert (one.images.dtype, tuple(one.images.shape), one.near) == (torch.uint8, shape, False)
            assert "seed 0" in one.source
            assert "\n" not in one.source
    assert not (colour["digits"].images - colour["digits"].images[:, :1]).any()
    assert colour["digits"].source == (
        "scikit-learn's handwritten digits (300 of 1797, chosen with seed 0), enlarged from 8 to 32 pixels"
    )
    patches = coloured(colour["photographs"].images, 1).double().flatten(1)
    assert (patches.std(1, correction=0) >= LEAST_SPREAD).all()
    assert len(patches.unique(dim=0)) == len(patches)


def test_the_same_on_any_day_whatever_the_seed_of_the_run(digits, data_root):
    torch.manual_seed(1)
    np.random.seed(1)
    one = outside(DIGITS, digits, data_root, most=20)
    torch.manual_seed(2)
    other = outside(RunSpec(dataset="digits", seed=5), digits, data_root, most=20)
    for a, b in zip(one, other, strict=True):
        assert (a.name, a.source) == (b.name, b.source)
        assert torch.equal(a.images, b.images)


def test_noise_has_the_moments_that_it_says(digits, data_root):
    noise = found(DIGITS, digits, data_root, most=500)
    pixels = noise["uniform_noise"].images.double()
    error = 1 / math.sqrt(pixels.numel())
    assert pixels.mean().item() == pytest.approx(127.5, abs=5 * 73.9 * error)
    assert pixels.std().item() == pytest.approx(math.sqrt((256**2 - 1) / 12), abs=5 * 73.9 * error)
    # of a normal distribution cut off at both ends, the shares beyond them
    trained = digits.train_images.double()
    gaussian = torch.distributions.Normal(trained.mean(), trained.std(correction=0))
    pixels = noise["gaussian_noise"].images
    for share, expected in (
        ((pixels == 0).double().mean(), gaussian.cdf(torch.tensor(0.5))),
        ((pixels == 255).double().mean(), 1 - gaussian.cdf(torch.tensor(254.5))),
        ((pixels <= 100).double().mean(), gaussian.cdf(torch.tensor(100.5))),
    ):
        assert share.item() == pytest.approx(expected.item(), abs=5 * error)


def test_held_out_classes_are_near(data_root):
    spec = RunSpec(dataset="digits", held_out_classes="3+7")
    data = load(spec, data_root, torch.device("cpu"))
    held_out, whole = found(spec, data, data_root)["held_out"], sources.prepare("digits", data_root)
    unseen = torch.isin(whole.test_labels, torch.tensor([3, 7]))
    assert held_out.near
    assert torch.equal(held_out.images, whole.test_images[unseen])
    assert held_out.source == f"test images of the classes held out of the training (all {unseen.sum()})"
    few = found(spec, data, data_root, most=9)["held_out"]
    assert few.source.endswith(f"(9 of {unseen.sum()}, chosen with seed 0)")
    kept = {image.numpy().tobytes() for image in held_out.images}
    assert len({image.numpy().tobytes() for image in few.images} & kept) == 9


def test_data_sets_that_are_at_hand(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IDX_SHAPES", {"train": (30, 28, 28), "t10k": (30, 28, 28)})
    clothes = np.random.default_rng(3).integers(256, size=(30, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / "fashion", clothes)
    write_idx(tmp_path / "kmnist", clothes)
    one = found(DIGITS, digits, tmp_path, most=10)["fashion"]
    assert (one.near, one.source) == (
        False,
        "test images of fashion (10 of 30, chosen with seed 0), reduced from 28 to 8 pixels",
    )
    every = {image.numpy().tobytes() for image in resized(torch.from_numpy(clothes)[:, None], 8)}
    assert {image.numpy().tobytes() for image in one.images} <= every
    assert found(RunSpec(dataset="mnist"), digits, tmp_path, most=20)["kmnist"].near
    sets = found(RunSpec(dataset="fashion"), digits, tmp_path, most=20)
    assert ("kmnist" in sets, sets["kmnist"].near, "mnist" in sets) == (True, False, False)
    (tmp_path / "cache" / "kmnist-v3.safetensors").unlink()
    (tmp_path / "kmnist" / "t10k-labels-idx1-ubyte").write_bytes(b"no")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte: begins with"):
        outside(RunSpec(dataset="fashion"), digits, tmp_path)


def test_svhn_as_torchvision_leaves_it(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SVHN_SHAPE", (32, 32, 3, 7))
    numbers = np.random.default_rng(0).integers(256, size=(32, 32, 3, 7), dtype=np.uint8)
    (tmp_path / "SVHN").mkdir()
    file = tmp_path / "SVHN" / "test_32x32.mat"
    savemat(file, {"X": numbers, "y": np.ones((7, 1), np.uint8)}, do_compression=True)
    spec = RunSpec(dataset="cifar100")
    svhn = found(spec, colours, tmp_path, most=20)["svhn"]
    assert (svhn.near, svhn.source) == (False, "test images of SVHN (cropped house numbers) (all 7)")
    for i in range(7):
        assert np.array_equal(svhn.images[i].permute(1, 2, 0), numbers[..., i])
    assert "svhn" not in found(DIGITS, colours, tmp_path, most=20)
    whole = file.read_bytes()
    for content, said in (
        (whole[:-200], "cannot be read"),
        (whole[:140], "cannot be read"),
        (b"", "cannot be read"),
        ({"X": numbers[..., :6]}, r"has uint8 \[32, 32, 3, 6\] as X, but must have uint8 \[32, 32, 3, 7\]"),
        ({"X": numbers.astype(np.float64)}, "has double"),
        ({"x": numbers}, "has nothing as X"),
    ):
        savemat(file, content) if isinstance(content, dict) else file.write_bytes(content)
        with pytest.raises(UserError, match=f"test_32x32.mat: {said}"):
            outside(spec, colours, tmp_path)


@pytest.mark.parametrize("place", ["dtd/dtd/images", "textures"])
def test_textures(colours, tmp_path, place):
    for name, colour in (("banded", (200, 40, 90)), ("woven", (10, 220, 30))):
        (tmp_path / place / name).mkdir(parents=True)
        Image.new("RGB", (50, 40), colour).save(tmp_path / place / name / "one.jpg", quality=100, subsampling=0)
    textures = found(RunSpec(dataset="cifar10"), colours, tmp_path, most=20)["textures"]
    assert (textures.near, tuple(textures.images.shape)) == (False, (2, 3, 32, 32))
    assert textures.source == "textures (DTD) (all 2), resized to 32 pixels on both sides"
    assert [image.double().mean((1, 2)).round().tolist() for image in textures.images] == [
        pytest.approx([200, 40, 90], abs=2),
        pytest.approx([10, 220, 30], abs=2),
    ]


def test_any_second_folder(digits, data_root, tmp_path):
    folder = make_image_folder(tmp_path / "pets", classes=2, train=3, test=4, size=(20, 16))
    names = (f"folder:{folder}", f"folder:{folder}", f"near:folder:{folder / 'train'}")
    *others, far, near = outside(DIGITS, digits, data_root, folders=names, most=6)
    assert [one.name for one in others] == ["photographs", *NOISE]
    assert [(one.name, one.near, tuple(one.images.shape)) for one in (far, near)] == [
        ("folder:pets", False, (6, 1, 8, 8)),
        ("folder:train", True, (6, 1, 8, 8)),
    ]
    assert far.source == (
        "the part test of images of a folder (6 of 8, chosen with seed 0), resized to 8 pixels on both sides"
    )
    every = {
        np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BILINEAR).convert("L")).tobytes()
        for file in (folder / "test").rglob("*.png")
    }
    assert {image.numpy().tobytes() for image in far.images} <= every
    with pytest.raises(UserError, match=r"two folders are called folder:pets; give one of them another name"):
        outside(DIGITS, digits, data_root, folders=(f"folder:{folder}", f"near:folder:{folder}"), most=2)


def test_what_was_trained_on_is_not_outside(data_root, tmp_path):
    own = make_image_folder(tmp_path / "own", classes=2, train=4, test=2, size=(16, 16))
    spec = RunSpec(dataset=f"folder:{own}", image_size=16, batch_size=2)
    data = load(spec, data_root, torch.device("cpu"))
    with pytest.raises(UserError, match=r"own: all of the 4 images taken are images of the training's own data set\."):
        outside(spec, data, data_root, folders=[f"folder:{own}"])
    Image.new("RGB", (16, 16), (1, 2, 3)).save(own / "train" / "class0" / "new.png")
    *noise, rest = outside(spec, data, data_root, folders=[f"folder:{own / 'train'}"])
    assert [one.name for one in noise] == NOISE
    assert rest.images.flatten(2).unique(dim=2).flatten().tolist() == [1, 2, 3]
    assert rest.source.endswith("; 8 that are images of the training's own data set are left out")


def test_a_wrong_folder_is_one_line(digits, data_root, tmp_path):
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "one.png").write_bytes(b"not an image")
    (tmp_path / "deep" / "a").mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 900, np.uint16)).save(tmp_path / "deep" / "a" / "one.png")
    for name, said in (
        (f"folder:{tmp_path / 'none'}", "none: no such folder"),
        (f"folder:{data_root}", "has no class folders with images"),
        ("pets", "'pets' is not folder:PATH or near:folder:PATH"),
        (f"folder:{tmp_path / 'broken'}", "one.png: cannot be read as an image"),
        (f"folder:{tmp_path / 'deep'}", "one.png: has 10-bit values in 16 bits"),
    ):
        with pytest.raises(UserError, match=said):
            outside(DIGITS, digits, data_root, folders=[name], most=2)
