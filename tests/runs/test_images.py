"""Folders of images: which files are read, what identifies them, and that no change passes unsaid."""

import dataclasses
import html
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from images import make_image_folder
from PIL import Image
from studies import config_of, write_config

from ssvi.cli import main
from ssvi.data import folders, prepare
from ssvi.errors import UserError
from ssvi.machine.disk import write_json
from ssvi.runs import files, images
from ssvi.runs.changed import Changed, _difference, changed_data_sets, check_images, is_outdated
from ssvi.runs.config import data_sets, study_runs
from ssvi.runs.images import content, scan
from ssvi.runs.records import read_json
from ssvi.runs.runfolder import spec_record
from ssvi.runs.ties import check_sealed
from ssvi.runs.versions import NUMERICS_OF_FOLDERS

CONFIG = config_of(
    "tiny",
    {
        "train": {"dataset": "folder:pets", "image_size": 8, "model": "mlp", "width": 0.1, "epochs": 1},
        "experiments": {"vi": {"method": "vi", "seed": [0, 1], "batch_size": 4}},
        "tables": {"summary": ["vi"]},
    },
)
SPECS = study_runs(CONFIG, "tiny")


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files count as old enough to be trusted at once."""
    monkeypatch.setattr(images, "SETTLED_SECONDS", -1e9)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_image_folder(tmp_path / "pets", classes=3, train=4, test=2)


def digest(folder, root):
    return content(scan(folder), root).digest


# ---------------------------------------------------------------- which files


def names(folder, **options):
    found = scan(folder, **options)
    return [f"{f.relative_to(found.path)} {found.classes[label]}" for f, label in (*found.train, *found.test)]


def test_folders_in_class_folders_and_all_suffixes_are_read_and_the_rest_counted(folder):
    before = names(folder)
    (folder / "train" / "class1" / "camera" / "raw").mkdir(parents=True)
    one = folder / "train" / "class1" / "000.png"
    for suffix in images.SUFFIXES:
        shutil.copy(one, folder / "train" / "class1" / "camera" / f"x{suffix.upper()}")
    shutil.copy(one, folder / "train" / "class1" / "camera" / "raw" / "y.png")
    left = ["a.txt", "b.TXT", "Thumbs.db", "README", ".DS_Store", ".hidden.png", "x.heic", "x.npy"]
    for name in left:
        (folder / "train" / "class1" / "camera" / name).write_text("")
    (folder / "train" / "class1" / ".cache").mkdir()
    shutil.copy(one, folder / "train" / "lost.png")
    shutil.copy(one, folder / "test" / ".hidden.png")
    (folder / "val").mkdir()
    (folder / "LICENSE").write_text("")
    new = set(names(folder)) - set(before)
    assert new == {f"train/class1/camera/x{s.upper()} class1" for s in images.SUFFIXES} | {
        "train/class1/camera/raw/y.png class1"
    }
    assert scan(folder).left_out == {
        ".db": 1, ".heic": 1, ".npy": 1, ".txt": 2, "beside train/ and test/": 2, "hidden": 4, "in no class folder": 1,
        "without a suffix": 1,
    }  # fmt: skip


def test_the_order_is_that_of_the_names_wherever_the_folder_lies(folder, tmp_path):
    (folder / "train" / "class0" / "0").mkdir()
    shutil.move(folder / "train" / "class0" / "003.png", folder / "train" / "class0" / "0" / "z.png")
    shutil.copytree(folder, tmp_path / "elsewhere" / "x")
    assert names(folder) == names(tmp_path / "elsewhere" / "x")
    assert names(folder)[:4] == [f"train/class0/{name}.png class0" for name in ("0/z", "000", "001", "002")]


@pytest.mark.parametrize("target", [".", "..", "../..", "../../train", "sub"])
def test_links_in_a_circle_end(folder, target):
    before = names(folder)
    (folder / "train" / "class0" / "sub").mkdir()
    shutil.copy(folder / "train" / "class0" / "000.png", folder / "train" / "class0" / "sub" / "x.png")
    (folder / "train" / "class0" / "sub" / "back").symlink_to(
        folder / "train" / "class0" / target if target != "." else folder / "train" / "class0" / "sub"
    )
    assert len(names(folder)) == len(before) + 1
    assert scan(folder).left_out == {"links to a folder around them": 1}


def test_links_out_of_the_folder_need_to_be_allowed(folder, tmp_path):
    other = make_image_folder(tmp_path / "shared", classes=1, train=5, test=5)
    links = {
        folder / "train" / "class0" / "one.png": other / "train" / "class0" / "000.png",
        folder / "train" / "class1" / "sub": other / "train" / "class0",
        folder / "train" / "class2": other / "test" / "class0",
    }
    shutil.rmtree(folder / "train" / "class2")
    for link, target in links.items():
        link.symlink_to(target)
        with pytest.raises(UserError, match=rf"{link}: is a link to {target}, outside .* \(follow_links: true in"):
            scan(folder)
        link.unlink()
    for link, target in links.items():
        link.symlink_to(target)
    assert len(scan(folder, follow_links=True).train) == (4 + 1) + (4 + 5) + 5
    (folder / "train" / "class0" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png: is a link to .*nowhere\.png, which is not there"):
        scan(folder, follow_links=True)


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_links_are_allowed_by_a_flag_and_by_the_environment(folder, tmp_path, monkeypatch, capsys, way):
    shutil.move(folder, tmp_path / "shared")
    folder.mkdir()
    (folder / "train").symlink_to(tmp_path / "shared" / "train")
    (folder / "test").symlink_to(tmp_path / "shared" / "test")
    words = ["data", "folder:pets", "--image-size=8"]
    with pytest.raises(SystemExit, match="or --follow-links"):
        main(words)
    if way == "environment":
        monkeypatch.setenv("SSVI_FOLLOW_LINKS", "true")
    main(words + ["--follow-links"] * (way == "flag"))
    record = json.loads(capsys.readouterr().out)
    assert record["train_images"] == 12
    # no part of what the images are
    assert record["content"] == digest(tmp_path / "shared", tmp_path / "data")


# ---------------------------------------------------------------- what identifies them


def overwrite(file, data):
    """Other bytes under the old size and the old times, as far as these can be set."""
    stat = file.stat()
    assert len(data) == stat.st_size
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swap(one, other):
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def unpack(folder, *, by):
    """The folder packed and unpacked with all its sizes and times, changed between by `by`."""
    times = {f.relative_to(folder): f.stat().st_mtime_ns for f in folder.rglob("*.png")}
    by(folder)
    for name, time in times.items():
        if (folder / name).exists():
            os.utime(folder / name, ns=(time, time))


def flipped_bit(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # of the checksum at the end, which PIL does not look at
    return bytes(data)


def halve(folder):
    for file in sorted((folder / "train").rglob("*.png"))[::2]:
        file.unlink()


CHANGES = {
    "half of the images deleted": (halve, "train/class0 had 4 images and has 2, train/class1 had 4 images and has 2"),
    "two classes swapped": (
        lambda f: swap(f / "train" / "class0", f / "train" / "class1"),
        "train/class0 has what was in train/class1, train/class1 has what was in train/class0",
    ),
    "two classes swapped in both parts": (
        lambda f: [swap(f / part / "class0", f / part / "class1") for part in ("train", "test")],
        "train/class0 has what was in train/class1, train/class1 has what was in train/class0, test/class0 has what",
    ),
    "two images swapped": (
        lambda f: unpack(f, by=lambda f: swap(f / "train/class0/000.png", f / "train/class1/000.png")),
        "train/class0 had 4 images and has as many of other bytes, train/class1 had 4 images and has as many",
    ),
    "overwritten with equal size and time": (
        lambda f: overwrite(f / "train/class0/000.png", flipped_bit(f / "train/class0/000.png")),
        "train/class0 had 4 images and has as many of other bytes",
    ),
    "an image more": (
        lambda f: shutil.copy(f / "test/class0/000.png", f / "train/class0/new.png"),
        "train/class0 had 4 images and has 5",
    ),
    "an image with another name": (
        lambda f: (f / "train/class0/000.png").rename(f / "train/class0/zzz.png"),
        "train/class0 has the same images under other names",
    ),
    "a class more": (lambda f: shutil.copytree(f / "train/class0", f / "train/new"), "train/new is new (4 images)"),
    "a class gone": (
        lambda f: [shutil.rmtree(f / part / "class1") for part in ("train", "test")],
        "train/class1 is gone (4 images), test/class1 is gone (2 images)",
    ),
    "a class gone from one part": (
        lambda f: shutil.rmtree(f / "train" / "class1"),
        "class 'class1' is not among the 2 classes in",
    ),
    "a part gone": (lambda f: shutil.rmtree(f / "test"), "has no folder test/"),
}
# Of these a trained network is what it was.
TEST_CHANGES = {
    "a test image overwritten": (
        lambda f: shutil.copy(f / "test/class0/000.png", f / "test/class1/000.png"),
        "test/class1 had 2 images and has as many of other bytes",
    ),
    "a test image more": (
        lambda f: shutil.copy(f / "test/class0/000.png", f / "test/class1/new.png"),
        "test/class1 had 2 images and has 3",
    ),
    "a class without test images": (
        lambda f: shutil.rmtree(f / "test" / "class2"),
        "test/class2 is gone (2 images)",
    ),
}


@pytest.fixture(params=["by parts", "as a whole"])
def trained(request, folder, capsys):
    """The record of a data set, and run folders that say they were trained and evaluated on it, as this version
    writes them and as those before, which knew the whole alone."""
    main(["data", "folder:pets", "--image-size=8"])
    (name,) = data_sets(SPECS)
    record = Path("results/data") / f"{name}.json"
    record.parent.mkdir(parents=True)
    record.write_text(capsys.readouterr().out)
    of = content(scan(folder), Path("data")).identity()
    assert of["content"] == json.loads(record.read_text())["content"]
    parts = request.param == "by parts"
    for run, spec in SPECS.items():
        place = Path("results/runs") / run
        origin = {name: of[name] for name in ("content", "training_content") if parts or name == "content"}
        write_json(place / files.SPEC, spec_record(spec, origin))
        write_json(
            place / files.METRICS, {"status": "complete"} | ({"test_content": of["test_content"]} if parts else {})
        )
    return record


def changed():
    return changed_data_sets(Path("results"), SPECS, Path("data"))


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed_and_said_in_words(request, folder, trained, change):
    by, words = CHANGES[change]
    assert changed() == []
    by(folder)
    (found,) = changed()
    assert found.dataset == "folder:pets"
    assert found.runs == tuple(SPECS)
    assert not found.is_of_tests
    unreadable = change in ("a class gone from one part", "a part gone")
    parts, both = "by parts" in request.node.name, ", ".join(SPECS)
    if unreadable:
        assert str(found).endswith(f"; 2 runs were trained on images of folder:pets: {both}")
    else:
        what = "training images" if parts else "images"
        assert str(found).startswith(f"folder:pets: 2 runs were trained on other {what} than are there now (")
        assert str(found).endswith(f"): {both}")
    told = [word for word in words.split(", ") if not (parts and word.startswith("test/"))]
    assert ", ".join(told) in (found.problem if unreadable else found.words)
    assert is_outdated(trained, "folder:pets", Path("data")) is not unreadable
    run, spec = next(iter(SPECS.items()))
    with pytest.raises(UserError, match="pets"):
        check_images(Path("results/runs") / run, spec, Path("data"))


@pytest.mark.parametrize("change", TEST_CHANGES)
def test_other_test_images_are_another_evaluation_and_no_other_training(request, folder, trained, change):
    by, words = TEST_CHANGES[change]
    by(folder)
    (found,) = changed()
    assert (found.dataset, found.runs, found.words) == ("folder:pets", tuple(SPECS), words)
    both = ", ".join(SPECS)
    assert is_outdated(trained, "folder:pets", Path("data"))
    run, spec = next(iter(SPECS.items()))
    place = Path("results/runs") / run
    if "by parts" not in request.node.name:
        assert not found.is_of_tests
        with pytest.raises(UserError, match="was trained on other images of 'folder:pets'; bring"):
            check_images(place, spec, Path("data"))
        return
    assert found.is_of_tests
    assert str(found) == (
        f"folder:pets: 2 runs were evaluated on other test images than are there now ({words}): {both}"
    )
    assert found.remedy == (
        f"folder:pets: 2 runs are evaluated anew where that is needed, since its test images changed ({words}): {both}."
    )
    check_images(place, spec, Path("data"))
    # one that is evaluated anew is no longer among them, whatever its training says of the whole
    now = content(scan(folder), Path("data")).identity()
    write_json(place / files.METRICS, {"status": "complete", "test_content": now["test_content"]})
    (found,) = changed()
    assert found.runs == tuple(SPECS)[1:]
    # and words are found for its training images though the record of its data set is of other test images
    main(["data", "folder:pets", "--image-size=8"])
    trained.write_text(request.getfixturevalue("capsys").readouterr().out)
    CHANGES["half of the images deleted"][0](folder)
    (found,) = changed()
    assert (found.runs, found.is_of_tests) == (tuple(SPECS), False)
    assert found.words.startswith("train/class0 had 4 images and has 2, train/class1 had")
    assert "test" not in found.words


def test_a_training_that_records_the_best_epoch_on_test_images_is_of_these(folder, trained):
    """What it says of them is of the old ones for ever, and so is the network that it chose."""
    (run, spec), *_ = SPECS.items()
    watched = dataclasses.replace(spec, record_best_test=True)
    TEST_CHANGES["a test image more"][0](folder)
    (found,) = changed_data_sets(Path("results"), {run: watched}, Path("data"))
    assert not found.is_of_tests
    assert str(found) == (
        "folder:pets: 1 run was trained, with record_best_test, on other images than are there now (test/class1 had 2 "
        f"images and has 3): {run}"
    )
    with pytest.raises(UserError, match="was trained on other images"):
        check_images(Path("results/runs") / run, watched, Path("data"))


UNCHANGED = {
    "nothing": lambda f: None,
    "other times": lambda f: [os.utime(file, ns=(1, 1)) for file in f.rglob("*.png")],
    "copied": lambda f: (f.rename("old"), shutil.copytree("old", f)),
    "moved and linked": lambda f: (f.rename("old"), f.symlink_to("old")),
    "a file that is no image": lambda f: (f / "train/class0/notes.txt").write_text("new"),
    "swapped twice": lambda f: [swap(f / "train" / "class0", f / "train" / "class1") for _ in range(2)],
}


@pytest.mark.parametrize("what", UNCHANGED)
def test_what_leaves_the_images_as_they_are_is_no_change(folder, trained, what):
    UNCHANGED[what](folder)
    assert changed() == []
    assert not is_outdated(trained, "folder:pets", Path("data"))
    run, spec = next(iter(SPECS.items()))
    check_images(Path("results/runs") / run, spec, Path("data"))


@pytest.mark.parametrize("empty", [False, True])
def test_images_that_are_elsewhere_have_not_changed(folder, trained, empty):
    folder.rename("moved")
    if empty:
        folder.mkdir()  # as where a disk is not mounted
    assert changed() == []
    assert not is_outdated(trained, "folder:pets", Path("data"))


def test_only_runs_that_say_so_were_trained_on_other_images(folder, trained):
    first, second = (Path("results/runs") / run / files.SPEC for run in SPECS)
    write_json(first, spec_record(SPECS[next(iter(SPECS))], {"data": "of a version that did not say"}))
    halve(folder)
    (found,) = changed()
    assert str(found).startswith("folder:pets: 1 run was trained")
    second.write_text("damaged")
    assert changed() == []


def test_the_record_of_an_older_version_is_outdated(folder, trained):
    trained.write_text(json.dumps({"dataset": "folder:pets"}))
    assert is_outdated(trained, "folder:pets", Path("data"))
    assert not is_outdated(trained, "digits", Path("data"))
    folder.rename("moved")
    assert not is_outdated(trained, "folder:pets", Path("data"))


@pytest.mark.parametrize("change", ["two classes swapped", "overwritten with equal size and time"])
def test_the_cache_is_of_the_very_images(folder, change):
    """Archives may restore sizes and times: the tensors are still those of the files."""
    before = prepare("folder:pets", Path("data"), 8)
    if change.startswith("two"):
        CHANGES[change][0](folder)
    else:
        file = folder / "train/class0/000.png"
        data = (folder / "train/class2/000.png").read_bytes()
        size = max(len(data), file.stat().st_size)
        file.write_bytes(file.read_bytes().ljust(size, b"\0"))
        prepare("folder:pets", Path("data"), 8)
        overwrite(file, data.ljust(size, b"\0"))
    after = prepare("folder:pets", Path("data"), 8)
    shutil.copytree("pets", "fresh")
    assert after.fingerprint == prepare("folder:fresh", Path("elsewhere"), 8).fingerprint != before.fingerprint


def test_images_are_read_anew_only_when_the_listing_changed(folder, tmp_path, monkeypatch):
    first = digest(folder, tmp_path)
    read = []
    monkeypatch.setattr(images, "_file_digest", lambda file: read.append(file) or "x")
    assert digest(folder, tmp_path) == first
    assert not read
    os.utime(folder / "train" / "class0" / "000.png", ns=(1, 1))
    assert digest(folder, tmp_path) != first
    assert len(read) == 18


def test_what_was_changed_just_now_is_not_trusted(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "SETTLED_SECONDS", 1e9)
    digest(folder, tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"listing": 1}', "bytes", "number", "list"])
def test_a_damaged_note_is_not_trusted(folder, tmp_path, damage):
    first = digest(folder, tmp_path)
    (note,) = (tmp_path / "cache").iterdir()
    record = json.loads(note.read_text())
    if damage == "number":
        record["images"]["train"]["class0"][0] = 5
    elif damage == "list":
        record["images"]["train"]["class0"] = []
    note.write_bytes(b"\xff\xfe" if damage == "bytes" else (damage if damage[:1] in "{[n" else "").encode())
    if damage in ("number", "list"):
        note.write_text(json.dumps(record))
    assert digest(folder, tmp_path) == first


def test_a_note_that_cannot_be_written_costs_only_time(folder, tmp_path):
    (tmp_path / "file").write_text("")
    assert digest(folder, tmp_path / "file") == digest(folder, tmp_path)


@pytest.mark.parametrize(("module", "name"), [(images, "_file_digest"), (folders, "decode")])
def test_images_that_change_while_they_are_read_are_refused(folder, tmp_path, monkeypatch, module, name):
    true = getattr(module, name)

    def meanwhile(file, *more):
        os.utime(folder / "train" / "class0" / "000.png", ns=(1, os.stat(file).st_ctime_ns))
        return true(file, *more)

    monkeypatch.setattr(module, name, meanwhile)
    with pytest.raises(UserError, match="images were changed while they were read; try again"):
        prepare("folder:pets", tmp_path, 8)
    assert not list(tmp_path.glob("cache/folder*"))


# ---------------------------------------------------------------- what follows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was trained on a folder of images by hand."""
    where = tmp_path_factory.mktemp("run")
    make_image_folder(where / "pets", classes=3, train=4, test=2)
    options = ["--image-size=8", "--model=mlp", "--method=dense", "--width=0.1", "--epochs=1", "--batch-size=4"]
    words = ["train", "--dataset=folder:pets", *options, "--out=run", "--device=cpu"]
    before = Path.cwd()
    os.chdir(where)
    main(words)
    os.chdir(before)
    return where, words


@pytest.mark.parametrize("change", [c for c in CHANGES if c != "overwritten with equal size and time"])
@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_commands_by_hand_refuse_other_images(run, tmp_path, monkeypatch, command, change):
    shutil.copytree(run[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    CHANGES[change][0](Path("pets"))
    with pytest.raises(SystemExit) as stopped:
        main(run[1] if command == "train" else ["evaluate", "run", "--device=cpu"])
    assert str(stopped.value).startswith("ssvi: ")
    assert "pets" in str(stopped.value)
    assert not Path("run/metrics.json").exists()


def test_commands_by_hand_evaluate_on_other_test_images(run, tmp_path, monkeypatch, capsys):
    shutil.copytree(run[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    asked = ["run", "--device=cpu", "--samples=1"]
    main(["evaluate", *asked])
    main(["samples", *asked])
    before, network = read_json(Path("run/metrics.json")), Path("run/model.safetensors").stat().st_mtime_ns
    TEST_CHANGES["a test image more"][0](Path("pets"))
    main(["evaluate", *asked])
    after, now = read_json(Path("run/metrics.json")), content(scan(Path("pets")), Path("data")).identity()
    assert (before["test_images"], after["test_images"]) == (6, 7)
    assert after["test_content"] == now["test_content"] != before["test_content"]
    assert after["data"] != before["data"]
    assert after["test_data"] == prepare("folder:pets", Path("data"), 8).test_fingerprint != before["test_data"]
    # the curve of samples is not of these images yet
    with pytest.raises(UserError, match="was measured on other test images than"):
        check_sealed(Path("run"), files.SAMPLES)
    main(["samples", *asked])
    check_sealed(Path("run"), files.SAMPLES)
    capsys.readouterr()
    main(run[1])
    assert "already trained" in capsys.readouterr().err
    assert Path("run/model.safetensors").stat().st_mtime_ns == network


def saved_again(folder):
    """Other bytes of the same pixels."""
    file = folder / "train/class0/000.png"
    with Image.open(file) as image:
        image.save(file, compress_level=0)


@pytest.mark.parametrize("change", ["another name", "saved again", "nothing"])
@pytest.mark.parametrize("command", ["evaluate", "samples"])
def test_commands_by_hand_say_that_other_files_have_the_same_pixels(
    run, tmp_path, monkeypatch, capsys, command, change
):
    shutil.copytree(run[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    if change == "another name":
        Path("pets/train/class0/000.png").rename("pets/train/class0/0.png")
    elif change == "saved again":
        saved_again(Path("pets"))
    main([command, "run", "--device=cpu", "--samples=1"])
    notes = [line for line in capsys.readouterr().err.splitlines() if "other bytes" in line]
    assert len(notes) == (change != "nothing")
    assert all("run: the image files of 'folder:pets' have other names or" in line for line in notes)


def test_a_record_that_tells_no_names_from_bytes_is_of_the_same_content(folder, trained):
    """As an earlier version wrote it: nothing has changed by that, and of a change is said what is known."""
    record = json.loads(trained.read_text())
    record["images"] = {part: {name: one[:2] for name, one in of.items()} for part, of in record["images"].items()}
    assert record["content"] == images.Content(images.images_of(record["images"]), "").digest
    trained.write_text(json.dumps(record))
    assert changed() == []
    (folder / "train/class0/000.png").rename(folder / "train/class0/zzz.png")
    (found,) = changed()
    assert found.words == "train/class0 had 4 images and has as many of other names or other bytes"


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ((4, "a", "x"), (4, "b", "x"), "has the same images under other names"),
        ((4, "a", "x"), (4, "b", "y"), "had 4 images and has as many of other bytes"),
        ((4, "a", "x"), (4, "b"), "had 4 images and has as many of other names or other bytes"),
        ((4, "a"), (4, "b"), "had 4 images and has as many of other names or other bytes"),
        ((4, "a"), (5, "b", "y"), "had 4 images and has 5"),
        ((4, "a"), (4, "a", "x"), ""),
    ],
)
def test_only_what_is_recorded_of_both_is_said(then, now, words):
    two = (images.Content({"train": {"cat": images.Class(*one)}, "test": {}}, "") for one in (then, now))
    assert _difference(*two) == (words and f"train/cat {words}")


@pytest.mark.parametrize(("number", "said"), [(1, "x0"), (3, "x0, x1, x2"), (4, "x0, x1, x2 and 1 more")])
def test_of_many_runs_the_first_are_named(number, said):
    runs_of = tuple(f"x{i}" for i in range(number))
    deed = "trained on other images"
    assert str(Changed("folder:pets", runs_of, "", deed)).endswith(f" {deed} than are there now: {said}")
    assert str(Changed("folder:pets", runs_of, "", deed, "pets: no test/.")).startswith("pets: no test/; ")


def test_a_class_is_matched_whatever_its_case(folder):
    for part, name in (("train", "A"), ("train", "CLASS9"), ("test", "a")):
        shutil.copytree(folder / "train/class0", folder / part / name)
    with pytest.raises(UserError, match=r"class 'a' is not among the 5 classes in .*, did you mean 'A'"):
        scan(folder)


def test_a_run_records_the_content_and_its_numerics(run):
    found = read_json(run[0] / "run" / files.SPEC)["provenance"]
    now = content(scan(run[0] / "pets"), run[0] / "data").identity()
    assert (found["content"], found["training_content"]) == (now["content"], now["training_content"])
    assert found["numerics"] == NUMERICS_OF_FOLDERS


@pytest.mark.parametrize("trained", ["by parts"], indirect=True)
@pytest.mark.parametrize(
    ("change", "deed"),
    [
        (halve, "trained on other training images"),
        (TEST_CHANGES["a test image more"][0], "evaluated on other test images"),
    ],
)
def test_the_report_names_the_runs_of_other_images(folder, trained, change, deed):
    write_config(Path(), CONFIG)
    change(folder)
    main(["report"])
    page = Path("reports/tiny/so_far/report.html").read_text()
    (line,) = re.findall("WARNING: folder:pets.*", page)
    assert line.startswith(f"WARNING: folder:pets: 2 runs were {deed} than are there now (")
    for run in SPECS:
        assert html.escape(run) in line
    shutil.rmtree(folder)
    main(["report"])
    assert "WARNING: folder:pets" not in Path("reports/tiny/so_far/report.html").read_text()
