"""Files of prepared data sets that are whole and hold something else than what was prepared."""

from __future__ import annotations

import hashlib
import json
import os
import re

import pytest
from images import make_image_folder
from safetensors.torch import save

from ssvi.core.tensors import fingerprint
from ssvi.data import Prepared, prepare
from ssvi.data.cache import TENSORS, cached, prepared
from ssvi.errors import UserError
from ssvi.machine.disk import write_json
from ssvi.runs.changed import changed_data_sets
from ssvi.runs.images import Content, content, images_of, scan
from ssvi.runs.paths import run_path
from ssvi.runs.spec import make_spec


def wrong(data: Prepared, **parts: object) -> Prepared:
    """A data set with other parts, and the fingerprint of what it then is."""
    whole = {name: parts.get(name, getattr(data, name)) for name in (*TENSORS, "classes", "content", "reading")}
    train, test = ((whole[f"{part}_images"], whole[f"{part}_labels"]) for part in ("train", "test"))
    return prepared(train, test, whole["classes"], whole["content"], whole["reading"])


WRONG = {
    "a label too large": (
        lambda d: {"train_labels": d.train_labels + 1},
        "train_labels has 10, but must be from 0",
    ),
    "a label below 0": (lambda d: {"test_labels": d.test_labels - 1}, "test_labels has -1, but must be from 0 to 9"),
    "no classes": (lambda d: {"classes": ()}, r"has the classes \[\], but must have at least 2, each once"),
    "one class": (lambda d: {"classes": ("0",), "train_labels": d.train_labels * 0}, "at least 2, each once"),
    "a class twice": (lambda d: {"classes": ("0",) * 10}, "at least 2, each once"),
    "fewer classes": (lambda d: {"classes": d.classes[:9]}, "has 9 classes instead of 10"),
    "more classes": (lambda d: {"classes": (*d.classes, "x")}, "has 11 classes instead of 10"),
    "a class without images": (
        lambda d: {"train_labels": d.train_labels.clamp(max=8)},
        "no training image of class '9'",
    ),
    "no images": (lambda d: {"test_images": d.test_images[:0], "test_labels": d.test_labels[:0]}, "test_labels are"),
    "more images than labels": (
        lambda d: {"train_labels": d.train_labels[1:]},
        r"int64 \[1436\], but must be one",
    ),
    "labels of bytes": (lambda d: {"train_labels": d.train_labels.byte()}, "train_labels are torch.uint8"),
    "labels of two": (lambda d: {"test_labels": d.test_labels[:, None]}, r"\[360, 1\], but must be one torch.int64"),
    "images of another type": (lambda d: {"train_images": d.train_images.float()}, r"are torch.float32 \[1, 8, 8\]"),
    "images of another size": (lambda d: {"test_images": d.test_images[..., :7]}, r"are torch.uint8 \[1, 8, 7\], but"),
    "images of three colours": (
        lambda d: {
            "train_images": d.train_images.expand(-1, 3, 8, 8),
            "test_images": d.test_images.expand(-1, 3, 8, 8),
        },
        r"are torch.uint8 \[3, 8, 8\], but must be torch.uint8 \[1, 8, 8\]",
    ),
    "flat images": (lambda d: {"train_images": d.train_images.flatten(1)}, r"are torch.uint8 \[64\], but must be"),
    "a folder's content": (lambda d: {"content": "0" * 64}, "is of other images, by what it says"),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_cache_that_is_whole_and_wrong_is_refused_by_name(tmp_path, how: str) -> None:
    change, said = WRONG[how]
    path = tmp_path / "cache/digits-v3.safetensors"
    data = prepare("digits", tmp_path)
    path.unlink()
    cached(path, lambda: wrong(data, **change(data)))
    before = path.read_bytes()
    line = rf"^{re.escape(str(path))}: .*{said}.*; delete this file, and it is made anew\.$"
    with pytest.raises(UserError, match=line) as caught:
        prepare("digits", tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == before
    path.unlink()
    assert prepare("digits", tmp_path).fingerprint == data.fingerprint


@pytest.mark.parametrize("about", [{"classes": "0123456789"}, {"classes": [*"012345678", 9]}, {"reading": 3}])
def test_a_cache_that_says_nonsense_is_made_anew(tmp_path, about) -> None:
    data = prepare("digits", tmp_path)
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    told = {"classes": list(data.classes), "content": None, "reading": {}, **about}
    told["fingerprint"] = fingerprint(
        {n: getattr(data, n) for n in TENSORS}, json.dumps(list(told["classes"])).encode()
    )
    path.write_bytes(save({name: getattr(data, name) for name in TENSORS}, {"data": json.dumps(told)}))
    assert prepare("digits", tmp_path).fingerprint == data.fingerprint
    assert path.read_bytes() == content


def test_a_folders_cache_is_of_that_folder(tmp_path) -> None:
    folder = make_image_folder(tmp_path / "pets", classes=2, train=3, test=1, size=(8, 8))
    data = prepare(f"folder:{folder}", tmp_path, 8)
    (path,) = (tmp_path / "cache").glob("folder-*")
    for parts, said in (
        ({"content": "0" * 64}, "is of other images"),
        ({"classes": ("a", "b", "c")}, "has 3 classes instead of 2"),
        ({"train_images": data.train_images[..., :4, :4], "test_images": data.test_images[..., :4, :4]}, "4, 4"),
        ({"train_labels": data.train_labels + 5}, "train_labels has 6, but must be from 0 to 1"),
    ):
        path.unlink()
        cached(path, lambda parts=parts: wrong(data, **parts))
        with pytest.raises(UserError, match=said):
            prepare(f"folder:{folder}", tmp_path, 8)


IMAGES = {part: {"a": [1, "0" * 64, "1" * 64], "b": [2, "2" * 64, ""]} for part in ("train", "test")}


@pytest.mark.parametrize(
    "one", [[0, "a"], [True, "a"], [1.5, "a"], ["3", "a"], [1, ["a"]], [1, "a", None], [1], [1, "a", "b", "c"], 3, None]
)
def test_a_record_of_images_is_one_or_none(tmp_path, one: object) -> None:
    assert images_of(IMAGES)["train"]["b"].number == 2
    for record in ({**IMAGES, "train": {"a": one}}, {"train": IMAGES["train"]}, [], {**IMAGES, "test": []}):
        with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
            images_of(record)


def test_a_note_of_images_that_the_folder_has_not_is_read_anew(tmp_path) -> None:
    folder = make_image_folder(tmp_path / "pets", classes=2, train=3, test=1, size=(8, 8))
    for file in folder.rglob("*.png"):
        os.utime(file, (0, 0))
    found = scan(folder)
    truth = content(found, tmp_path)
    note = tmp_path / "cache" / f"images-{hashlib.sha256(os.fsencode(found.path)).hexdigest()[:24]}.json"
    for change in ({"class0": [99, "0" * 64, ""]}, {"other": [3, "0" * 64, ""]}):
        images = {"train": {**truth.images["train"], **change}, "test": truth.images["test"]}
        digest = Content(images_of(json.loads(json.dumps(images))), "").digest
        write_json(note, {"listing": truth.listing, "content": digest, "images": images})
        assert content(found, tmp_path).digest == truth.digest


@pytest.mark.parametrize("name", ["~nobody9/x", "~nobody9", "~"])
def test_a_home_that_nobody_has_is_no_folder(tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match=rf"^{re.escape(name)}: no such folder; a data set folder:PATH needs train/"):
        prepare(f"folder:{name}", tmp_path)
    spec = make_spec({"dataset": f"folder:{name}"})
    assert changed_data_sets(tmp_path, {run_path(spec): spec}, tmp_path) == []
