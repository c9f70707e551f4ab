"""What of a data set a network is shown: smaller images, fewer of them, fewer classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssvi.data import load, prepare
from ssvi.data.pixels import decode, resized, single
from ssvi.errors import UserError
from ssvi.runs.config import study_runs
from ssvi.runs.paths import run_path
from ssvi.runs.spec import make_spec

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    prepare("digits", root)
    return root


def spec_of(**options: object):
    return make_spec({"dataset": "digits", "model": "mlp", "batch_size": 8, **options})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "size"), [(8, 4), (28, 14), (28, 28), (5, 9)])
def test_images_are_resized_as_files_are_read(tmp_path: Path, channels: int, side: int, size: int) -> None:
    """What is predicted of an image's file is what the network was trained to see."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, channels, side, side), dtype=np.uint8))
    found = resized(images, size)
    assert found.shape == (3, channels, size, size)
    for image, small in zip(images, found, strict=True):
        plain = image[0] if channels == 1 else image.permute(1, 2, 0)
        Image.fromarray(plain.numpy()).save(tmp_path / "image.png")
        assert single(decode(tmp_path / "image.png", size), None, channels).equal(small)


def test_no_images_are_resized_to_none() -> None:
    assert resized(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), 4).shape == (0, 3, 4, 4)


def test_shrunk_images(root: Path) -> None:
    whole, half = (load(spec_of(shrink=shrink), root, CPU) for shrink in (1, 2))
    assert (whole.image_size, half.image_size, half.padding) == (8, 4, 0)
    assert half.train_images.equal(resized(whole.train_images, 4))
    assert half.test_labels.equal(whole.test_labels)
    assert half.inputs.image_size == 4
    assert float(half.normalise(half.train_images).mean()) == pytest.approx(0, abs=1e-4)
    with pytest.raises(UserError, match="options: shrink is 3, but must divide 8, the side of the images of digits"):
        spec_of(shrink=3)


def test_fewer_training_images_are_a_part_with_all_classes_in_proportion(root: Path) -> None:
    whole = load(spec_of(validation=0.0), root, CPU)
    few = load(spec_of(validation=0.0, training_images=500), root, CPU)
    assert few.n_train == 500
    rows = {bytes(image.numpy()) for image in whole.train_images}
    assert {bytes(image.numpy()) for image in few.train_images} <= rows
    shares = few.train_labels.bincount() / 500 - whole.train_labels.bincount() / whole.n_train
    assert shares.abs().max() < 1 / 500
    assert few.test_images.equal(whole.test_images)
    # the same for every seed, and held-out images are of these
    other, part = load(spec_of(validation=0.0, training_images=500, seed=3), root, CPU), 0.2
    assert other.train_images.equal(few.train_images)
    split = load(spec_of(validation=part, training_images=500), root, CPU)
    assert (split.n_train, len(split.val_labels)) == (400, 100)
    both = torch.cat([split.train_images, split.val_images])
    assert sorted(bytes(x.numpy()) for x in both) == sorted(bytes(x.numpy()) for x in few.train_images)


def test_all_images_by_their_number_are_all(root: Path) -> None:
    whole, named = (load(spec_of(training_images=number), root, CPU) for number in (0, 1437))
    assert named.train_images.equal(whole.train_images)
    assert named.val_images.equal(whole.val_images)
    with pytest.raises(UserError, match="training_images is 1438, but must be at most 1437"):
        load(spec_of(training_images=1438), root, CPU)


def test_held_out_classes_are_nowhere_but_in_their_own_set(root: Path) -> None:
    whole, data = load(spec_of(), root, CPU), load(spec_of(held_out_classes="4+9"), root, CPU)
    assert data.classes == tuple("01235678")
    known = ~torch.isin(whole.test_labels, torch.tensor([4, 9]))
    assert data.test_images.equal(whole.test_images[known])
    assert data.held_out_images.equal(whole.test_images[~known])
    assert [data.classes[i] for i in data.test_labels] == [whole.classes[i] for i in whole.test_labels[known]]
    for labels in (data.train_labels, data.val_labels, data.test_labels):
        assert labels.unique().tolist() == list(range(8))
    assert data.n_train + len(data.val_labels) == int((~torch.isin(prepare("digits", root).train_labels,
                                                                   torch.tensor([4, 9]))).sum())  # fmt: skip
    assert len(whole.held_out_images) == 0
    assert data.identity == whole.identity  # which is of the whole data set; what of it is shown stands in the spec


@pytest.mark.parametrize(("classes", "says"), [("10", "has no class 10"), ("0+1+2+3+4+5+6+7+8", "keeps 1 of 10")])
def test_classes_that_cannot_be_held_out(root: Path, classes: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load(spec_of(held_out_classes=classes), root, CPU)


@pytest.mark.parametrize("text", ["9+4", "4+4", "4,9", "+4", "04", "-1", "x", "4+", "1234567", "٣"])
def test_classes_have_one_form(text: str) -> None:
    with pytest.raises(UserError, match=r"held_out_classes is .*, but must be numbers of classes"):
        spec_of(held_out_classes=text)


def test_a_number_that_yaml_reads_as_one_is_to_be_quoted() -> None:
    with pytest.raises(UserError, match=r'held_out_classes is 4, but must be a word\. YAML .* write "4" in quotes'):
        spec_of(held_out_classes=4)


def test_folders_are_resized_otherwise() -> None:
    with pytest.raises(UserError, match="shrink is 2, but has no effect unless dataset is digits or fashion or"):
        make_spec({"dataset": "folder:pets", "shrink": 2})


def test_a_parent_is_shown_what_its_child_is() -> None:
    options = {"method": "pruned", "parent": "vi", "shrink": 2, "training_images": 500, "held_out_classes": "4+6"}
    config = {"studies": {"s": {"train": {}, "experiments": {"e": {"dataset": "fashion", **options}}}}}
    (child, parent) = sorted(study_runs(config, "s").values(), key=lambda spec: spec.method)
    assert (parent.method, parent.shrink, parent.training_images, parent.held_out_classes) == ("vi", 2, 500, "4+6")
    assert child.parent == "vi"
    assert run_path(parent) != run_path(make_spec({"dataset": "fashion", "method": "vi"}))
