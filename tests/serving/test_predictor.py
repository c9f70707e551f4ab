"""What a predictor takes, and what it says: the same of an image however it is given, and when it abstains."""

import dataclasses
import io
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import ssvi
from ssvi.data.pixels import decode, single
from ssvi.errors import Misuse, UserError
from ssvi.runs.card import Calibration, Inputs, Step, read_card
from ssvi.serving.predictor import Predictor
from ssvi.serving.reading import files_in


@pytest.fixture(scope="module")
def network(run) -> Predictor:
    return ssvi.load(run)


def as_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_is_the_same_however_it_is_given(network, digits, tmp_path) -> None:
    grey = digits.test_images[3, 0].numpy()
    path = tmp_path / "a.png"
    path.write_bytes(as_png(grey))
    forms = [path, str(path), path.read_bytes(), memoryview(path.read_bytes()), grey, np.stack([grey] * 3, -1)]
    with Image.open(path) as opened:
        forms += [opened.copy(), opened.convert("P"), opened.convert("RGBA"), digits.test_images[3:4]]
        found = [network.predict(form) for form in forms]
    assert all(torch.equal(one.probabilities, found[0].probabilities) for one in found)
    together = network.predict([form for form in forms if not isinstance(form, torch.Tensor)])
    assert together.names[:3] == (str(path), str(path), "2")
    assert together.causes == (None,) * (len(forms) - 1)
    assert float((together.probabilities - found[0].probabilities).abs().max()) < 1e-6


def test_a_photo_is_read_as_the_training_reads_it(network, tmp_path) -> None:
    """Turned as its EXIF data say, resized, grey; as a folder of images would have it."""
    photo = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path, exif=exif)
    upright = Image.fromarray(np.rot90(photo, -1).copy()).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)
    expected = np.array(upright.convert("L"))
    assert single(decode(path, 8), None, 1).numpy().tolist() == [expected.tolist()]
    given = torch.from_numpy(expected)[None, None]
    assert torch.equal(network.predict(path).probabilities, network.predict(given).probabilities)


@pytest.mark.parametrize(
    ("largest", "bits", "expected"), [(4095, 12, 255), (4095, 16, 16), (65535, None, 255), (4095, None, None)]
)
def test_deep_images_are_scaled_by_the_bits_of_the_training(tmp_path, largest, bits, expected) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((8, 8), largest, dtype=np.uint16)).save(path)
    if expected is None:
        with pytest.raises(ValueError, match="12-bit values in 16 bits"):
            single(decode(path, 8), bits, 1)
    else:
        assert single(decode(path, 8), bits, 1).unique().tolist() == [expected]


def test_what_cannot_be_read_has_a_cause_and_the_rest_its_numbers(network, digits, tmp_path) -> None:
    (tmp_path / "no.png").write_bytes(b"no image")
    images = [tmp_path / "no.png", digits.test_images[0, 0].numpy(), tmp_path / "gone.png"]
    found = network.predict(images, coverage=0.9)
    assert [cause is None for cause in found.causes] == [False, True, False]
    assert found.probabilities.isnan().all(1).tolist() == [True, False, True]
    assert found.abstain.tolist()[::2] == [True, True]
    first, second, third = found.rows()
    assert "cannot be read as an image" in first["cause"]
    assert "No such file" in third["cause"]
    assert first["class"] is first["abstain"] is first["probabilities"]["0"] is None
    assert second["cause"] is None
    assert second["probability"] == max(second["probabilities"].values())
    alone = network.predict([tmp_path / "no.png"])
    assert alone.samples == 0
    assert network.predict([]).rows() == []


def test_one_weight_sample_says_nothing_of_their_disagreement(network, digits) -> None:
    rows = network.predict(digits.test_images[:2], samples=1).rows()
    assert [row["mutual_information"] for row in rows] == [None, None]
    rows = network.predict(digits.test_images[:2], samples=2).rows()
    assert all(row["mutual_information"] >= 0 for row in rows)


# Abstaining ---------------------------------------------------------------------------------------

CURVE = (Step(0.9, 0.2, 0.05), Step(0.7, 0.5, 0.0), Step(0.6, 0.8, 0.1), Step(0.3, 1.0, 0.2))


def test_a_threshold_is_of_the_coverage_or_the_risk_that_is_named() -> None:
    held_out = Calibration(10, 5, 1.0, CURVE)
    assert [held_out.by_coverage(c).threshold for c in (0.1, 0.2, 0.21, 0.8, 0.81, 1.0)] == [
        0.9,
        0.9,
        0.7,
        0.6,
        0.3,
        0.3,
    ]
    assert [held_out.by_risk(r).threshold for r in (0.0, 0.04, 0.1, 0.19, 0.2, 1.0)] == [0.7, 0.7, 0.6, 0.6, 0.3, 0.3]
    assert Calibration(10, 5, 1.0, (Step(0.3, 1.0, 0.2),)).by_risk(0.1) is None


def test_abstaining_keeps_what_was_asked_for_of_the_validation_images(network, digits) -> None:
    for asked in (0.3, 0.9):
        found = network.predict(digits.val_images, coverage=asked, batch_size=1000)
        kept = (~found.abstain).double().mean().item()
        assert kept == pytest.approx(found.step.coverage)
        assert asked <= kept
        assert torch.equal(found.abstain, found.confidence < found.step.threshold)


def test_calibrated_probabilities_are_at_the_temperature_and_thresholds_are_not(network, digits) -> None:
    raw = network.predict(digits.test_images, coverage=0.5)
    scaled = network.predict(digits.test_images, coverage=0.5, calibrated=True)
    powers = raw.probabilities ** (1 / network.card.calibration.temperature)
    assert torch.allclose(scaled.probabilities, powers / powers.sum(1, keepdim=True), atol=1e-12)
    assert torch.equal(raw.abstain, scaled.abstain)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"coverage": 0.5, "risk": 0.1}, "coverage and risk are both given"),
        ({"coverage": 0}, "coverage is 0, but must be a share above 0 to 1"),
        ({"risk": -0.1}, "risk is -0.1, but must be a share from 0 to 1"),
        ({"coverage": "most"}, "coverage is 'most'"),
        ({"samples": 0}, "samples is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(network, digits, asked, words) -> None:
    with pytest.raises(Misuse, match=words):
        network.predict(digits.test_images, **asked)


@pytest.mark.parametrize(
    "images",
    [
        *(3, [3], np.zeros((8, 8)), [np.zeros((8, 8))], torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8).byte()),
        *([np.zeros((3, 8, 8), np.uint8)], [np.zeros((0, 0), np.uint8)], [np.zeros((8, 8, 2), np.uint8)]),
    ],
)
def test_what_are_no_images_is_one_line(network, images) -> None:
    with pytest.raises(Misuse, match="must be"):
        network.predict(images)


def test_without_validation_images_there_is_no_threshold(run, digits) -> None:
    network = ssvi.load(run)
    network.card = dataclasses.replace(network.card, calibration=None)
    for asked in ({"coverage": 0.9}, {"risk": 0.1}, {"calibrated": True}):
        with pytest.raises(Misuse, match="validation data"):
            network.predict(digits.test_images[:1], **asked)
    network.card = dataclasses.replace(network.card, calibration=Calibration(10, 5, 1.0, (Step(0.3, 1.0, 0.2),)))
    with pytest.raises(UserError, match=r"of the 10 validation images no confident part is wrong less often than 0\.2"):
        network.predict(digits.test_images[:1], risk=0.1)


# Files --------------------------------------------------------------------------------------------


def test_a_run_that_was_not_evaluated_predicts_and_has_no_threshold(run, tmp_path, digits) -> None:
    shutil.copytree(run, tmp_path / "run")
    for name in ("metrics.json", "predictions.npz", "MODEL_CARD.md"):
        (tmp_path / "run" / name).unlink()
    network = ssvi.load(tmp_path / "run")
    assert network.card.calibration is None
    assert network.card.metrics == {}
    a, b = (one.predict(digits.test_images[:5]).probabilities for one in (network, ssvi.load(run)))
    assert torch.equal(a, b)


def test_images_of_folders_are_sorted_and_hidden_ones_left_out(tmp_path) -> None:
    for name in ("b.png", "a.JPG", "in/c.webp", ".hidden.png", ".in/d.png", "in/text.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files_in([tmp_path, tmp_path / "in/text.txt"])]
    assert found == ["a.JPG", "b.png", "in/c.webp", "in/text.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: has no images"):
        list(files_in([tmp_path / "empty"]))


def test_inputs_say_how_an_image_is_read(run) -> None:
    inputs = read_card(run).inputs
    lines = " ".join(inputs.reading())
    assert "8 × 8" in lines
    assert "grey" in lines
    assert "12-bit" in " ".join(dataclasses.replace(inputs, bits=12).reading())
    assert Inputs.from_json(dataclasses.asdict(inputs), "there") == inputs


def test_a_device_that_is_none_is_one_line(run, network) -> None:
    with pytest.raises(UserError, match="device is 'gpu', but must be cpu, cuda or cuda:N"):
        ssvi.load(run, device="gpu")
    with pytest.raises(UserError, match="device is 'cuda:99', but torch sees"):
        ssvi.load(run, device="cuda:99")
    with pytest.raises(Misuse, match="Predictor is no network of PyTorch"):
        ssvi.predict(network, torch.zeros(1, 1, 8, 8))


def test_threads_wait_for_each_other(network, digits) -> None:
    """The weights that are drawn lie in the network, and a server asks from many threads."""
    pixels = digits.test_images[:8]
    seeds = [0, 1, 2, 3] * 4
    expected = {seed: network.predict(pixels, seed=seed).probabilities for seed in set(seeds)}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: network.predict(pixels, seed=seed).probabilities, seeds))
    assert all(torch.equal(one, expected[seed]) for seed, one in zip(seeds, found, strict=True))


def test_all_are_kept_where_all_are_asked_for_whatever_the_batch(network, digits) -> None:
    """Thresholds lie between confidences, which other batches round otherwise."""
    for batch_size in (1, 64, 1000):
        found = network.predict(digits.val_images, coverage=1.0, batch_size=batch_size)
        assert not bool(found.abstain.any())
        found = network.predict(digits.val_images, coverage=0.8, batch_size=batch_size)
        assert (~found.abstain).double().mean().item() == pytest.approx(found.step.coverage)


def test_a_picture_of_a_kind_that_no_file_has_does_not_end_the_others(network, digits) -> None:
    picture = Image.fromarray(digits.test_images[0, 0].numpy())
    found = network.predict([picture, picture.convert("F"), picture])
    assert [cause is None for cause in found.causes] == [True, False, True]
    assert "cannot write mode F" in found.causes[1]
