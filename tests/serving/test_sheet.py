"""The picture of the surest and the least sure images."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssvi.core.prediction import entropy
from ssvi.runs.card import Inputs, Step
from ssvi.serving import sheet
from ssvi.serving.predictor import Predictions


def made_up(n: int, step: Step | None = None, names: tuple[str, ...] = ()) -> Predictions:
    """Predictions of `n` images; every seventh could not be read."""
    p = torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).mul(3).double().softmax(1).round(decimals=1)
    causes = tuple("damaged" if i % 7 == 6 else None for i in range(n))
    unread = torch.tensor([cause is not None for cause in causes])[:, None]
    p = p.masked_fill(unread, torch.nan)
    names = names or tuple(map(str, range(n)))
    return Predictions(names, ("a", "b", "c"), 5, p, entropy(p), entropy(p), p.max(1).values, causes, step)


@pytest.mark.parametrize("n", [1, 2, 9, 11, 60])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_the_surest_and_the_least_sure_of_all_are_found_batch_by_batch(n: int, batch: int) -> None:
    part = made_up(n)
    found = sheet.Extremes(each=5)
    for i in range(0, n, batch):
        cut = {name: getattr(part, name)[i : i + batch] for name in ("names", "probabilities", "entropy", "causes")}
        found.add(dataclasses.replace(part, **cut, confidence=part.confidence[i : i + batch]))
    there = [i for i in range(n) if part.causes[i] is None]
    order = sorted(there, key=lambda i: (-float(part.confidence[i]), float(part.entropy[i]), i))
    half = min(5, -(-len(order) // 2))
    assert [one.name for one in found.surest] == [str(i) for i in order[:half]]
    assert [one.name for one in found.least_sure] == [str(i) for i in order[half:][-5:][::-1]]
    assert found.images == n
    for one in found.surest:
        row = part.rows()[one.place]
        assert (one.label, one.probability, one.entropy) == (
            row["class"],
            row["probability"],
            row["predictive_entropy"],
        )


def test_the_picture_shows_every_pixel_and_marks_what_is_abstained_on(run, pictures, predict, tmp_path) -> None:
    words = (run, pictures, "--coverage=0.8", "--format=jsonl", "--sheet", tmp_path / "sheet.png")
    code, out, _ = predict(*words)
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    first = min(found, key=lambda row: (-row["probability"], row["predictive_entropy"]))
    assert [row["abstain"] for row in (first, min(found, key=lambda row: row["probability"]))] == [False, True]
    with Image.open(tmp_path / "sheet.png") as opened:
        shown = np.array(opened)
    assert shown.shape[1] == 2 * sheet.MARGIN + 10 * sheet.SIDE + 9 * sheet.GAP
    frames = (shown == sheet.ABSTAINS).all(2)
    pixels = np.kron(np.array(Image.open(first["image"])), np.ones((16, 16), np.uint8))
    tops = [y for y in range(shown.shape[0] - 128) if np.array_equal(shown[y : y + 128, 24:152, 0], pixels)]
    assert len(tops) == 1
    assert not frames[: tops[0] + 300].any()  # the surest
    around = [(y, x) for y, x in zip(*frames.nonzero(), strict=True) if frames[y, x : x + 134].sum() == 134]
    corners = [(y, x) for y, x in around if frames[y : y + 134, x].sum() == frames[y : y + 134, x + 133].sum() == 134]
    assert len(corners) == 20  # the least sure
    assert all(frames[y : y + 134, x : x + 134].sum() == 4 * 3 * (134 - 3) for y, x in corners)
    assert predict(*words)[0] == 0  # it is replaced


@pytest.mark.parametrize(("size", "channels", "n"), [(8, 1, 1), (32, 3, 9), (300, 3, 45)])
def test_a_picture_of_any_size_of_images_and_names(tmp_path, size: int, channels: int, n: int) -> None:
    odd = ("a very long name of a photograph from a holiday in the mountains", "猫の写真", "Z\u0335\u0321\u0353a" * 90)
    names = tuple(str(tmp_path / f"{odd[i % 3][:60]}{i}\n.png") for i in range(n))
    for name in names[:-1]:  # one was deleted meanwhile
        Image.new("RGB", (40, 30), (0, 255, 0)).save(name)
    found = sheet.Extremes()
    found.add(made_up(n, Step(0.7, 0.5, 0.1), names))
    content = sheet.draw(found, Inputs(("a", "b", "c"), channels, size, (0.5,) * channels, (0.5,) * channels))
    with Image.open(io.BytesIO(content)) as opened:
        assert (opened.format, opened.width) == ("PNG", 1472)
        assert opened.height < 1000
        assert (opened.getpixel((30, 90)) == (0, 255, 0)) == (channels == 3)


@given(st.text("ab…猫", max_size=40), st.integers(0, 30), st.booleans())
def test_a_text_is_cut_to_its_width(text: str, width: int, keep_end: bool) -> None:
    found = sheet.shortened(text, width, len, keep_end)
    assert found == text if len(text) <= width else len(found) == max(width, 1)
    kept = found.removeprefix("…") if keep_end else found.removesuffix("…")
    assert text.endswith(kept) if keep_end else text.startswith(kept)
