"""Data sets: sources, cache, split, normalisation, augmentation, and every wrong input a user can give."""

import dataclasses
import os
import pickle
import shutil
import socket
import subprocess
import sys
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from images import make_image_folder
from PIL import Image
from places import ROOT

from ssvi.data import Data, load, prepare, sources
from ssvi.data.batches import STATISTICS, split_validation, statistics
from ssvi.errors import UserError
from ssvi.machine import disk
from ssvi.runs.options import DATASETS
from ssvi.runs.spec import RunSpec, make_spec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder in which the digits are prepared already."""
    root = tmp_path_factory.mktemp("data")
    prepare("digits", root)
    return root


@pytest.fixture
def folder(tmp_path):
    return make_image_folder(tmp_path / "pets", classes=3, train=4, test=2)


def cache_files(root):
    return sorted((root / "cache").iterdir())


def refused(folder, root, *parts):
    """Preparing `folder` fails with one line that holds all of `parts`."""
    with pytest.raises(UserError) as caught:
        prepare(f"folder:{folder}", root)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


# ---------------------------------------------------------------- digits and the cache


def test_digits(root):
    digits = prepare("digits", root)
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.train_images.dtype == digits.test_images.dtype == torch.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == torch.int64
    assert digits.classes == tuple("0123456789")
    values = torch.cat([digits.train_images, digits.test_images]).unique()
    assert values.tolist() == [round(v * 255 / 16) for v in range(17)]
    assert digits.test_labels.bincount().min() >= 34
    assert digits.test_labels.bincount().max() <= 37


def test_every_name_has_a_source():
    assert tuple(sources.SOURCES) == DATASETS


def test_every_load_gives_the_same(root, tmp_path):
    first, again, elsewhere = prepare("digits", root), prepare("digits", root), prepare("digits", tmp_path)
    assert len(first.fingerprint) == 64
    assert first.fingerprint == again.fingerprint == elsewhere.fingerprint
    assert first.train_images.equal(again.train_images)
    assert cache_files(root)[0].read_bytes() == cache_files(tmp_path)[0].read_bytes()


def test_reading_the_cache_imports_no_source(root):
    code = (
        "import sys; from pathlib import Path; import torch; from ssvi.data import load;"
        "from ssvi.runs.spec import RunSpec;"
        f"load(RunSpec(), Path({str(root)!r}), torch.device('cpu'));"
        "print([m for m in ('sklearn', 'torchvision', 'PIL', 'pandas') if m in sys.modules])"
    )
    package = ROOT
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=package)
    assert done.stdout.strip() == "[]"


def _cut(data):
    return data[: len(data) // 2]


def _flip_a_pixel(data):
    return data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:]


def _rename_a_class(data):
    return data.replace(b'\\"7\\"', b'\\"8\\"')


@pytest.mark.parametrize("damage", [_cut, _flip_a_pixel, _rename_a_class, lambda data: b"", lambda data: b"x" * 99])
def test_a_damaged_cache_is_made_anew(damage, root, tmp_path, caplog):
    shutil.copytree(root / "cache", tmp_path / "cache")
    (file,) = cache_files(tmp_path)
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole))
    assert prepare("digits", tmp_path).fingerprint == prepare("digits", root).fingerprint
    assert file.read_bytes() == whole
    assert str(file) in caplog.text


def test_preparing_at_the_same_time_is_harmless(folder, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: prepare(f"folder:{folder}", tmp_path, 8).fingerprint, range(8)))
    assert len(set(found)) == 1
    assert len(cache_files(tmp_path)) == 1


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        prepare("digits", tmp_path / "data")


def test_unknown_data_set(tmp_path):
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        prepare("cifar", tmp_path)


# ---------------------------------------------------------------- a run's data


def test_load_digits(root):
    data = load(RunSpec(validation=0.1), root, CPU)
    assert isinstance(data, Data)
    assert (data.n_train, data.n_classes, data.channels, data.image_size) == (1437 - 144, 10, 1, 8)
    assert len(data.val_images) == len(data.val_labels) == 144
    assert (data.padding, data.flip) == (1, False)
    normal = data.normalise(data.train_images)
    assert normal.dtype == torch.float32
    assert normal.shape == data.train_images.shape
    assert normal.mean().item() == pytest.approx(0, abs=1e-5)
    assert normal.std().item() == pytest.approx(1, abs=1e-3)


def test_no_validation(root):
    data = load(RunSpec(validation=0.0), root, CPU)
    assert data.n_train == 1437
    assert data.val_images.shape == (0, 1, 8, 8)
    assert data.val_labels.shape == (0,)


def test_validation_is_apart_from_training_and_the_same_for_every_seed(root):
    a, b = (load(RunSpec(seed=seed), root, CPU) for seed in (0, 1))
    assert a.val_images.equal(b.val_images)
    assert a.train_images.equal(b.train_images)
    labels = prepare("digits", root).train_labels
    train, val = split_validation(labels, 0.1)
    assert torch.cat([train, val]).sort().values.equal(torch.arange(1437))
    assert a.val_labels.equal(labels[val])
    share = labels[val].bincount() / labels.bincount()
    assert (share - 0.1).abs().max() < 0.01


def test_split_of_unequal_classes():
    labels = torch.tensor([0] * 95 + [1] * 4 + [2])
    train, val = split_validation(labels, 0.5)
    # 47.5, 2 and 0.5 images: the odd one comes of the first class, never the last image of a class.
    assert labels[val].bincount(minlength=3).tolist() == [48, 2, 0]
    assert len(train) + len(val) == 100


def test_statistics():
    images = torch.randint(256, (50, 3, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, 2] = 77
    mean, sd = statistics(images)
    expected = images.double() / 255
    assert mean == pytest.approx(expected.mean((0, 2, 3)).tolist())
    assert sd[:2] == pytest.approx(expected.std((0, 2, 3), correction=0).tolist()[:2])
    assert sd[2] == 1


def test_fewer_images_than_a_batch(folder, tmp_path):
    spec = RunSpec(dataset=f"folder:{folder}", batch_size=12, validation=0.25)
    with pytest.raises(UserError, match=r"batch_size is 12, but must be at most 9.*3 were held out"):
        load(spec, tmp_path, CPU)
    assert load(dataclasses.replace(spec, batch_size=9), tmp_path, CPU).n_train == 9


# ---------------------------------------------------------------- augmentation


def make_data(channels, size, padding, flip):
    images = torch.randint(1, 256, (40, channels, size, size), generator=torch.Generator().manual_seed(1))
    images, labels, none = images.to(torch.uint8), torch.zeros(40, dtype=torch.int64), torch.zeros(0)
    zero, one = torch.zeros(channels), torch.ones(channels)
    return Data(images, labels, none, none, images, labels, none, ("a", "b"), "", zero, one, padding, flip)


def test_augment_is_a_crop_of_every_single_image():
    data = make_data(channels=3, size=6, padding=2, flip=True)
    got = data.augment(data.train_images, torch.Generator().manual_seed(5))
    assert got.dtype == torch.uint8
    seen = set()
    for before, after in zip(data.train_images, got, strict=True):
        padded = np.pad(before.numpy(), ((0, 0), (2, 2), (2, 2)))
        places = {
            (y, x, mirror)
            for y in range(5)
            for x in range(5)
            for mirror in (False, True)
            if np.array_equal(padded[:, y : y + 6, x : x + 6][:, :, :: -1 if mirror else 1], after.numpy())
        }
        assert len(places) == 1
        seen |= places
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(5))
    assert {mirror for _, _, mirror in seen} == {False, True}


def test_augment_follows_its_draws():
    data = make_data(channels=1, size=5, padding=1, flip=True)
    got = data.augment(data.train_images, torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    top, left = torch.randint(3, (2, 40, 1), generator=generator)
    mirrored = torch.randint(2, (40, 1), generator=generator)
    for i, image in enumerate(torch.nn.functional.pad(data.train_images, [1] * 4)):
        crop = image[:, top[i] : top[i] + 5, left[i] : left[i] + 5]
        assert got[i].equal(crop.flip(2) if mirrored[i] else crop)


def test_augment_repeats_with_the_generator_and_leaves_its_input():
    data = make_data(channels=3, size=8, padding=1, flip=True)
    before = data.train_images.clone()
    generator = torch.Generator().manual_seed(3)
    first, second = (data.augment(data.train_images, generator) for _ in range(2))
    assert first.equal(data.augment(data.train_images, torch.Generator().manual_seed(3)))
    assert not first.equal(second)
    assert data.train_images.equal(before)


def test_without_padding_and_flips_nothing_happens():
    data = make_data(channels=3, size=4, padding=0, flip=False)
    assert data.augment(data.train_images, torch.Generator()).equal(data.train_images)


# ---------------------------------------------------------------- folders of images


def test_folder(folder, tmp_path):
    data = load(RunSpec(dataset=f"folder:{folder}", image_size=16, batch_size=4, validation=0.0), tmp_path, CPU)
    assert data.classes == ("class0", "class1", "class2")
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test_labels.tolist() == [0] * 2 + [1] * 2 + [2] * 2
    assert (data.channels, data.image_size, data.padding, data.flip) == (3, 16, 2, False)
    pixels = np.array(Image.open(folder / "train" / "class1" / "002.png"))
    assert np.array_equal(data.train_images[6].permute(1, 2, 0).numpy(), pixels)
    assert data.normalise(data.train_images).mean((0, 2, 3)).abs().max() < 1e-5


def test_odd_sizes_modes_and_formats(folder, tmp_path):
    into = folder / "train" / "class0"
    shutil.rmtree(into)
    into.mkdir()
    ramp = np.linspace(0, 255, 41 * 23).astype(np.uint8).reshape(41, 23)
    colour = np.stack([ramp, 255 - ramp, ramp // 2], 2)
    Image.fromarray(ramp).save(into / "a-L.png")
    Image.fromarray(colour).save(into / "b.JPEG")
    Image.fromarray(colour).convert("RGBA").save(into / "c-RGBA.png")
    Image.fromarray(colour).quantize(32).save(into / "d-P.gif")
    Image.fromarray(ramp).convert("1").save(into / "e-1.bmp")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(into / "f-16.png")
    Image.fromarray(colour).convert("CMYK").save(into / "g-CMYK.tif")
    Image.fromarray(colour).save(into / "h.webp", lossless=True)
    (into / ".hidden.png").write_text("no image")
    (into / "notes.txt").write_text("no image")
    (folder / "train" / ".git").mkdir()
    (folder / "train" / "README").write_text("no class")
    data = prepare(f"folder:{folder}", tmp_path, 12)
    images = dict(zip("abcdefgh", data.train_images.double(), strict=False))
    assert data.train_images.shape == (16, 3, 12, 12)
    assert (images["a"] - images["f"]).abs().max() <= 1  # resized before it is rounded
    expected = np.array(Image.fromarray(colour).resize((12, 12), Image.Resampling.BILINEAR), dtype=float)
    for name in "bcdgh":
        assert np.abs(images[name].permute(1, 2, 0).numpy() - expected).mean() < 12
    assert images["c"].equal(images["h"])


def test_the_cache_notices_changes_of_the_folder(folder, tmp_path):
    first = prepare(f"folder:{folder}", tmp_path, 8)
    assert prepare(f"folder:{folder}", tmp_path, 8).fingerprint == first.fingerprint
    assert len(cache_files(tmp_path)) == 1
    prepare(f"folder:{folder}", tmp_path, 12)
    assert len(cache_files(tmp_path)) == 2
    file = folder / "train" / "class0" / "000.png"
    shutil.copy(folder / "train" / "class2" / "000.png", file)
    os.utime(file, ns=(1, 1))
    changed = prepare(f"folder:{folder}", tmp_path, 8)
    assert changed.fingerprint != first.fingerprint
    file.unlink()
    assert len(prepare(f"folder:{folder}", tmp_path, 8).train_images) == 11


def test_missing_folders(tmp_path, folder):
    refused(tmp_path / "no", tmp_path, tmp_path / "no", "no such folder")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", tmp_path, "is a file")
    shutil.rmtree(folder / "test")
    refused(folder, tmp_path, folder, "no folder test/")
    (folder / "test").mkdir()
    refused(folder, tmp_path, folder / "test", "no class folders")
    shutil.rmtree(folder / "train")
    refused(folder, tmp_path, folder, "no folder train/")
    (folder / "train").mkdir()
    refused(folder, tmp_path, folder / "train", "no class folders", "at least 2")


def test_wrong_classes(tmp_path, folder):
    (folder / "test" / "class1").rename(folder / "test" / "clas1")
    refused(folder, tmp_path, folder / "test" / "clas1", "'clas1'", "did you mean 'class1'")
    (folder / "test" / "clas1").rename(folder / "test" / "class1")
    (folder / "train" / "empty").mkdir()
    refused(folder, tmp_path, folder / "train" / "empty", "no images", ".png")
    for name in ("empty", "class1", "class2"):
        shutil.rmtree(folder / "train" / name)
    refused(folder, tmp_path, folder / "train", "only one class folder, 'class0'")


def test_broken_images(tmp_path, folder):
    file = folder / "test" / "class1" / "000.png"
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"no image at all", whole[:60] + b"\0" * 40 + whole[100:]):
        file.write_bytes(broken)
        refused(folder, tmp_path, file, "cannot be read as an image")
    file.write_bytes(whole)
    jpeg = folder / "train" / "class0" / "x.jpg"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:-200])
    refused(folder, tmp_path, jpeg, "cannot be read as an image")
    jpeg.unlink()
    (folder / "train" / "class0" / "x.png").mkdir()
    refused(folder, tmp_path, "x.png", "is not a file")


def test_images_of_unknown_range(tmp_path, folder):
    file = folder / "train" / "class0" / "x.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(file)
    refused(folder, tmp_path, file, "mode F")


@pytest.mark.parametrize("limit", [200, 100])
def test_too_large_images(tmp_path, folder, monkeypatch, limit):
    # 256 pixels: above the limit PIL warns, above twice the limit it raises.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    refused(folder, tmp_path, "000.png", f"more than {limit} pixels")


def test_links(tmp_path, folder):
    inside = folder / "train" / "class0" / "link.png"
    inside.symlink_to(folder / "train" / "class0" / "000.png")
    assert len(prepare(f"folder:{folder}", tmp_path, 8).train_images) == 13
    (tmp_path / "also").symlink_to(folder)
    assert len(prepare(f"folder:{tmp_path / 'also'}", tmp_path, 8).train_images) == 13
    inside.unlink()
    outside = make_image_folder(tmp_path / "other")
    inside.symlink_to(outside / "train" / "class0" / "000.png")
    refused(folder, tmp_path, inside, "is a link", "outside")
    inside.unlink()
    (folder / "train" / "class9").symlink_to(outside / "train" / "class0")
    refused(folder, tmp_path, folder / "train" / "class9", "is a link")
    shutil.rmtree(folder / "test")
    (folder / "test").symlink_to(outside / "test")
    refused(folder, tmp_path, folder / "test", "is a link")


# ---------------------------------------------------------------- CIFAR


@pytest.fixture(scope="module")
def datasets():
    return sources.import_torchvision().datasets


def test_missing_cifar_says_what_to_do(tmp_path):
    with pytest.raises(UserError) as caught:
        prepare("cifar10", tmp_path / "data")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        tmp_path / "data" / "cifar-10-batches-py",
        tmp_path / "data" / "cifar-10-python.tar.gz",
        f"ssvi data cifar10 --root {tmp_path / 'data'} --download",
    ):
        assert str(part) in message


def test_counterfeit_cifar_is_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a file with a wrong checksum was unpickled",))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="checksum is wrong"):
        prepare("cifar10", tmp_path)


def test_cut_archive(tmp_path):
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"only the beginning")
    with pytest.raises(UserError, match=r"cifar-100-python\.tar\.gz: its checksum is wrong"):
        prepare("cifar100", tmp_path)


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no network"), OSError("disk full"), RuntimeError("File not found or corrupted.")]
)
def test_failed_download(tmp_path, datasets, monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(UserError, match=r"download to .* failed .*cifar-10-python.tar.gz") as caught:
        prepare("cifar10", tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def make_cifar(root, source):
    """A tiny data set in CIFAR-10's layout and the checksums it has."""
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, (name, _) in enumerate(source.test_list + source.train_list):
        labels = [(4 * i + j) % 10 for j in range(4)]
        batch = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": labels}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / source.meta["filename"]).write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


@pytest.fixture
def tiny_cifar(tmp_path, datasets, monkeypatch):
    """A folder with a tiny CIFAR-10 and its archive, for which torchvision expects just these checksums."""
    utils = sys.modules["torchvision.datasets.utils"]
    source = datasets.CIFAR10
    made = tmp_path / "made"
    make_cifar(made, source)

    def sums(files):
        return [[name, utils.calculate_md5(made / source.base_folder / name)] for name, _ in files]

    monkeypatch.setattr(source, "train_list", sums(source.train_list))
    monkeypatch.setattr(source, "test_list", sums(source.test_list))
    ((_, meta),) = sums([[source.meta["filename"], ""]])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": meta})
    archive = shutil.make_archive(made / "cifar-10-python", "gztar", made, source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", utils.calculate_md5(archive))
    return made, Path(archive)


def test_cifar_from_its_folder_its_archive_and_a_download(tmp_path, tiny_cifar, datasets, monkeypatch):
    made, archive = tiny_cifar
    from_folder = prepare("cifar10", made)
    assert from_folder.train_images.shape == (20, 3, 32, 32)
    assert from_folder.test_labels.tolist() == [0, 1, 2, 3]
    batch = pickle.loads((made / "cifar-10-batches-py" / "test_batch").read_bytes())
    assert np.array_equal(from_folder.test_images.numpy().reshape(4, 3072), batch["data"])

    by_hand = tmp_path / "by-hand"
    by_hand.mkdir()
    shutil.copy(archive, by_hand / "cifar-10-python.tar.gz")
    assert prepare("cifar10", by_hand).fingerprint == from_folder.fingerprint
    assert sorted(p.name for p in by_hand.iterdir()) == ["cache", "cifar-10-python.tar.gz"]

    monkeypatch.setattr(datasets.CIFAR10, "url", archive.as_uri())
    monkeypatch.setattr(datasets.utils, "_urlretrieve", lambda url, path: shutil.copy(archive, path))
    fetched = tmp_path / "fetched"
    assert prepare("cifar10", fetched, download=True).fingerprint == from_folder.fingerprint
    assert sorted(p.name for p in fetched.iterdir()) == ["cache", "cifar-10-python.tar.gz"]

    spec = RunSpec(dataset="cifar10", batch_size=4, validation=0.0)
    data = load(spec, fetched, CPU)
    assert data.mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert (data.padding, data.flip) == (4, True)


def test_a_server_that_says_nothing_is_given_up(tmp_path, datasets, monkeypatch):
    monkeypatch.setattr(sources, "SILENCE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(datasets.CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/cifar.tar.gz")
        with pytest.raises(UserError, match=r"download to .* failed \(.*timed out.*\)"):
            prepare("cifar10", tmp_path, download=True)
    assert socket.getdefaulttimeout() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("linked", [True, False])
def test_a_download_replaces_no_link_and_no_folder(tmp_path, tiny_cifar, datasets, monkeypatch, linked):
    root = tmp_path / "root"
    root.mkdir()
    (root / "elsewhere").write_text("mine")
    archive = root / "cifar-10-python.tar.gz"
    archive.symlink_to("nowhere") if linked else archive.mkdir()
    monkeypatch.setattr(datasets.utils, "_urlretrieve", lambda url, path: pytest.fail("fetched for nothing"))
    with pytest.raises(UserError, match=f"^{archive}: is a "):
        prepare("cifar10", root, download=True)
    assert {path.name for path in root.iterdir()} == {"elsewhere", archive.name}


def test_what_a_killed_preparation_left_goes_with_the_next_one(tmp_path):
    prepare("digits", tmp_path)
    (file,) = cache_files(tmp_path)
    disk._name(file).write_bytes(b"half of it")
    prepare("digits", tmp_path)
    assert list(file.parent.iterdir()) == [file]


def test_normalisation_as_published_codes_have_it(tmp_path: Path) -> None:
    """The mean of each image's own sd: smaller than the sd over all pixels, to which images' means belong too."""
    pixels, images = (STATISTICS["cifar10", name] for name in ("pixels", "images"))
    assert pixels[0] == images[0]
    assert all(a > b for a, b in zip(pixels[1], images[1], strict=True))
    official = make_spec({"dataset": "cifar10", "method": "ssvi", "preset": "official"})
    assert official.normalisation == "images"
    # elsewhere there is nothing to choose, so the preset leaves it alone
    assert make_spec({"dataset": "cifar100", "method": "ssvi", "preset": "official"}).normalisation == "pixels"
    with pytest.raises(UserError, match="normalisation is 'images', but has no effect unless dataset is cifar10"):
        make_spec({"dataset": "digits", "normalisation": "images"})
