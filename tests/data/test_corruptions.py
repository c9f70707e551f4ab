"""Corrupted test images, against closed forms, brute force, SciPy and PIL's JPEG."""

import io
import itertools
import math

import numpy as np
import pytest
import scipy.fft
import scipy.special
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from images import make_image_folder
from PIL import Image

from ssvi.cli import main
from ssvi.data.corruptions import CORRUPTIONS, FAMILIES, SEVERITIES, corrupted
from ssvi.data.corruptions.blur import zoom_blur
from ssvi.data.corruptions.digital import CHROMA, LUMA, cosines, jpeg_compression, pixelate, table
from ssvi.data.corruptions.draws import Draws
from ssvi.data.corruptions.filters import clouds, disc, field, filtered, gaussian, lines, sampled
from ssvi.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from ssvi.data.corruptions.registry import PIECE
from ssvi.data.corruptions.sheet import GAP, LETTERS, MARGIN, NAMES, draw, typical
from ssvi.data.corruptions.weather import FOG, brightness, fog, frost, snow
from ssvi.errors import Misuse, UserError

NAMED = pytest.mark.parametrize("name", CORRUPTIONS)
# Of which nothing is drawn.
FIXED = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}


def pictures(side, channels=1, number=8):
    """Discs and stripes of several greys or colours, each of another size and place, uint8 [n, C, side, side]."""
    source = np.random.default_rng(side)
    y, x = np.mgrid[:side, :side] / side
    images = []
    for _ in range(number):
        (a, b), radius, angle = source.uniform(0.3, 0.7, 2), source.uniform(0.2, 0.4), source.uniform(0, math.pi)
        ink, paper = source.uniform(0.5, 1, (channels, 1, 1)), source.uniform(0, 0.3, (channels, 1, 1))
        inside = (y - a) ** 2 + (x - b) ** 2 < radius**2
        stripes = np.sin(20 * (x * math.cos(angle) + y * math.sin(angle))) > 0.4
        images.append(paper + (ink - paper) * inside * (1 - 0.5 * stripes))
    return torch.from_numpy((np.stack(images) * 255).round().astype(np.uint8))


def draws(seed=0, number=PIECE):
    return Draws("test", seed, range(number))


def smooth(side=32, number=PIECE, channels=1):
    """Random float images [n, C, side, side] in [0, 1]."""
    return torch.rand(number, channels, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---------------------------------------------------------------- what holds of all


def test_every_family_is_there():
    assert {kind.family for kind in CORRUPTIONS.values()} == {*FAMILIES}
    assert len(CORRUPTIONS) >= 15


@NAMED
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [7, 8, 14, 28, 32])
def test_each_severity_is_worse_than_the_one_before(name, channels, side):
    clean = pictures(side, channels)
    before, distance = clean.clone(), 0.0
    for severity in SEVERITIES:
        worse = corrupted(clean, name, severity, seed=3)
        assert worse.shape == clean.shape
        assert worse.dtype == torch.uint8
        further = (worse.float() - clean.float()).abs().mean().item()
        assert further > distance, f"severity {severity}"
        distance = further
    assert torch.equal(clean, before)
    assert distance > 5


@NAMED
def test_the_same_seed_gives_the_same_bytes_and_another_one_others(name):
    clean = pictures(16)
    once = corrupted(clean, name, 3, seed=3)
    assert torch.equal(corrupted(clean, name, 3, seed=3), once)
    assert torch.equal(corrupted(clean, name, 3, seed=4), once) == (name in FIXED)


@NAMED
def test_two_images_get_noise_of_their_own(name):
    clean = pictures(16, number=1).expand(2, -1, -1, -1)
    first, second = corrupted(clean, name, 3, seed=3)
    assert torch.equal(first, second) == (name in FIXED)


@pytest.mark.parametrize("name", ["gaussian_noise", "defocus_blur", "fog", "elastic_transform", "jpeg_compression"])
def test_the_number_of_threads_decides_nothing(name):
    clean, threads, found = pictures(32, 3, 12), torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(corrupted(clean, name, 4, seed=3))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


WHOLE = pictures(8, number=2 * PIECE + 5)


@given(st.sampled_from([*CORRUPTIONS]), st.lists(st.integers(0, len(WHOLE)), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_it_does_not_matter_in_which_parts_images_come(name, cuts):
    bounds = [0, *sorted(cuts), len(WHOLE)]
    parts = [corrupted(WHOLE[a:b], name, 2, 5, first=a) for a, b in itertools.pairwise(bounds)]
    assert torch.equal(torch.cat(parts), corrupted(WHOLE, name, 2, 5))


@pytest.mark.parametrize(
    ("name", "severity", "line"),
    [
        (
            "gausian_noise",
            1,
            "data: corruption 'gausian_noise' is unknown, did you mean 'gaussian_noise'? Choose from ",
        ),
        ("fog", 0, "data: severity of fog is 0, but must be one of 1, 2, 3, 4, 5."),
        ("fog", 6, "data: severity of fog is 6, but must be one of 1, 2, 3, 4, 5."),
        ("fog", 1.0, "data: severity of fog is 1.0, but must be one of 1, 2, 3, 4, 5."),
        ("fog", "1", "data: severity of fog is '1', but must be one of 1, 2, 3, 4, 5."),
    ],
)
def test_what_there_is_not_is_refused(name, severity, line):
    with pytest.raises(UserError) as caught:
        corrupted(WHOLE, name, severity, 0)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (WHOLE.float(), "images are float32 [133, 1, 8, 8], but must be uint8 [n, C, H, W] with C 1 or 3 and H = W."),
        (WHOLE[0], "images are uint8 [1, 8, 8], but must be "),
        (WHOLE.expand(-1, 2, -1, -1), "images are uint8 [133, 2, 8, 8], but must be "),
        (WHOLE[..., 1:], "images are uint8 [133, 1, 8, 7], but must be "),
        (WHOLE[..., :3, :3], "images are 3 pixels across, but must be at least 4."),
    ],
)
def test_images_of_another_kind_are_refused(images, line):
    with pytest.raises(Misuse) as caught:
        corrupted(images, "fog", 1, 0)
    assert str(caught.value).startswith(line)


def test_images_before_the_first_are_refused():
    with pytest.raises(Misuse, match=r"first is -1, but must be >= 0\."):
        corrupted(WHOLE, "fog", 1, 0, first=-1)


@NAMED
def test_of_no_images_there_are_none(name):
    assert corrupted(WHOLE[:0], name, 1, 0).shape == (0, 1, 8, 8)


# ---------------------------------------------------------------- kernels and fields


@pytest.mark.parametrize("kernel", [gaussian(0.2), gaussian(3), disc(0.3), disc(5), *lines(torch.arange(6.0), 4)[:, 0]])
def test_kernels_are_means_about_the_middle(kernel):
    places = torch.arange(len(kernel)) - len(kernel) // 2
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    assert (kernel.sum(0) @ places.double()).item() == pytest.approx(0, abs=1e-12)
    assert (kernel.sum(1) @ places.double()).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("width", [2.0, 7.0, 30.0])
def test_wide_kernels_have_the_variance_that_they_stand_for_and_no_gaps(width):
    """That of a point between two pixels is added: 1/6."""
    expected = {
        "gaussian": (gaussian(width), width**2),
        "disc": (disc(width), width**2 / 4),
        "line": (lines(torch.zeros(1).double(), width)[0, 0], width**2 / 12),
    }
    for name, (kernel, variance) in expected.items():
        row = kernel.sum(0)
        places = torch.arange(len(row)).double() - len(row) // 2
        assert row @ places.square() == pytest.approx(variance + 1 / 6, rel=0.02), name
        # falling to either side
        assert (row[len(row) // 2 :].diff() <= 0.02 * row.max()).all(), name


def test_a_disc_within_a_pixel_gives_its_neighbours_what_lies_on_their_side():
    """Linear interpolation gives a neighbour the mean of |x|, 4 r / (3 pi), of which each of the two has half."""
    assert disc(0.5).sum(0).tolist() == pytest.approx(
        [1 / (3 * math.pi), 1 - 2 / (3 * math.pi), 1 / (3 * math.pi)], rel=0.05
    )


@pytest.mark.parametrize("kernel", [gaussian(1.3), disc(2.2), lines(torch.tensor([0.5]).double(), 5)[0, 0]])
def test_filtering_is_convolution_of_the_image_with_its_edge_repeated(kernel):
    images, reach = smooth(11, 3, 3), len(kernel) // 2
    padded = F.pad(images, (reach,) * 4, mode="replicate").flatten(0, 1).unsqueeze(1)
    expected = F.conv2d(padded, kernel.flip(0, 1)[None, None])
    assert torch.allclose(filtered(images, kernel).flatten(0, 1).unsqueeze(1), expected, atol=1e-12)


def test_each_image_may_have_a_kernel_of_its_own():
    images, kernels = smooth(9, 4, 3), lines(torch.arange(4).double(), 3)
    for image, kernel, found in zip(images, kernels, filtered(images, kernels), strict=True):
        assert torch.allclose(found, filtered(image[None], kernel[0])[0], atol=1e-12)


def test_images_are_read_between_pixels_and_mirrored_beyond_the_edge():
    images, zero = smooth(6, 2, 3), torch.zeros(2, 6, 6, dtype=torch.float64)
    assert torch.allclose(sampled(images, zero, zero), images)
    half = sampled(images, zero, zero + 0.5)
    assert torch.allclose(half[..., :-1], (images[..., :-1] + images[..., 1:]) / 2)
    assert torch.allclose(sampled(images, zero - 1, zero)[..., 1:, :], images[..., :-1, :])
    assert torch.allclose(sampled(images, zero - 1, zero)[..., 0, :], images[..., 1, :])


@pytest.mark.parametrize("kernel", [gaussian(0.1), gaussian(2.0)])
def test_fields_are_standard_normal(kernel):
    found = field(draws(), 2, 40, kernel)
    assert found.shape == (PIECE, 2, 40, 40)
    assert found.mean() == pytest.approx(0, abs=0.03)
    assert found.std() == pytest.approx(1, abs=0.03)


def test_clouds_reach_from_0_to_1_and_are_smooth():
    found = clouds(draws(), 32, 2.0)
    assert found.amin((1, 2, 3)).tolist() == [0.0] * PIECE
    assert found.amax((1, 2, 3)).tolist() == [1.0] * PIECE
    assert found.diff(dim=-1).abs().mean() < 0.05


# ---------------------------------------------------------------- closed forms


@NAMED
def test_a_grey_image_of_one_value_stays_so_under_what_only_moves_its_pixels(name):
    grey = torch.full((2, 1, 14, 14), 100, dtype=torch.uint8)
    stays = CORRUPTIONS[name].family == "blur" or name in ("elastic_transform", "pixelate", "contrast")
    assert torch.equal(corrupted(grey, name, 5, 0), grey) or not stays


def test_gaussian_noise_has_its_sd():
    noise = gaussian_noise(torch.full((PIECE, 1, 32, 32), 0.5).double(), 0.1, draws()) - 0.5
    assert noise.mean() == pytest.approx(0, abs=0.002)
    assert noise.std() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("photons", [6, 250])
def test_shot_noise_is_the_quantile_of_poissons_distribution(photons):
    values = torch.randint(256, (PIECE, 1, 8, 8), generator=torch.Generator().manual_seed(2)).double() / 255
    # so many numbers of photons are not enough
    counts = np.arange(photons).reshape(-1, 1, 1, 1, 1)
    below = scipy.special.pdtr(counts, (values * photons).numpy()) <= draws().uniform(1, 8, 8).numpy()
    assert (shot_noise(values, photons, draws()) * photons).round().tolist() == below.sum(0).tolist()


def test_impulse_noise_makes_its_share_black_and_white():
    grey = torch.full((PIECE, 1, 32, 32), 0.5).double()
    noisy = impulse_noise(grey, 0.2, draws())
    assert (noisy == 0).double().mean() == pytest.approx(0.1, abs=0.005)
    assert (noisy == 1).double().mean() == pytest.approx(0.1, abs=0.005)
    assert (noisy == 0.5).double().mean() == pytest.approx(0.8, abs=0.005)


def test_zoom_blur_flattens_a_ramp_by_the_mean_of_the_inverse_zooms():
    ramp = torch.linspace(-1, 1, 33, dtype=torch.float64).expand(1, 1, 33, 33)
    zooms = torch.linspace(1, 1.5, 2 + math.ceil(0.25 * 33), dtype=torch.float64)
    assert torch.allclose(zoom_blur(ramp, 1.5, draws()), ramp * (1 / zooms).mean())


def test_fog_takes_as_much_light_as_it_gives():
    black = fog(torch.zeros(4, 1, 16, 16).double(), 1.0, draws(number=4))
    white = fog(torch.ones(4, 1, 16, 16).double(), 1.0, draws(number=4))
    through = white - black
    assert torch.allclose(black, FOG * (1 - through))
    assert through.min() >= math.exp(-1.9) - 1e-9
    assert through.max() <= math.exp(-0.1) + 1e-9


def test_snow_and_ice_are_lighter_than_what_is_black():
    black = torch.zeros(4, 3, 16, 16).double()
    flakes, ice = snow(black, (0.1, 1.0, 1.0), draws(number=4)), frost(black, (0.9, 0.5), draws(number=4))
    assert 0.02 < (flakes > 0.5).double().mean() < 0.3
    assert torch.equal(flakes[:, 0], flakes[:, 2])
    assert ice.min() >= 0
    assert (ice[:, 2] >= ice[:, 0]).all()  # ice is blue


def test_brightness_adds_a_constant_to_grey_up_to_white():
    images = smooth()
    assert torch.allclose(brightness(images, 0.2, draws()), (images + 0.2).clamp(max=1))
    assert (brightness(torch.zeros(1, 3, 4, 4).double(), 0.2, draws()) == 0.2).all()


def test_brightness_keeps_hue_and_saturation():
    images = smooth(channels=3) * 0.7 + 0.1
    lit = brightness(images, 0.2, draws())
    assert torch.allclose(lit.amax(1), images.amax(1) + 0.2)
    assert torch.allclose(lit / lit.amax(1, keepdim=True), images / images.amax(1, keepdim=True))


def test_contrast_draws_to_the_mean_by_its_factor():
    clean = pictures(32, 3)
    for severity, left in zip(SEVERITIES, CORRUPTIONS["contrast"].levels, strict=True):
        worse = corrupted(clean, "contrast", severity, 0).double()
        mean = clean.double().mean((2, 3), keepdim=True)
        assert ((worse - (mean + left * (clean - mean))).abs() <= 0.5 + 1e-4).all()


@pytest.mark.parametrize("cell", [2, 4, 8])
def test_cells_that_fit_have_the_mean_of_their_pixels(cell):
    images = smooth()
    means = F.avg_pool2d(images, cell).repeat_interleave(cell, -1).repeat_interleave(cell, -2)
    assert torch.allclose(pixelate(images, cell - 1, draws()), means)


# ---------------------------------------------------------------- JPEG


def test_the_transform_is_scipys_and_turns_back():
    blocks = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = cosines() @ blocks @ cosines().T
    assert torch.allclose(found, torch.from_numpy(scipy.fft.dctn(blocks.numpy(), axes=(1, 2), norm="ortho")))
    assert torch.allclose(cosines().T @ found @ cosines(), blocks)


def stored(image, quality):
    """A picture uint8 [C, H, W] as PIL stores and reads it, and its tables."""
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=quality, subsampling=2)
    with Image.open(buffer) as opened:
        tables = [torch.tensor(steps).view(8, 8) for steps in opened.quantization.values()]
        return torch.from_numpy(np.array(opened)).view(*pixels.shape[:2], -1).permute(2, 0, 1), tables


@pytest.mark.parametrize("quality", [5, 16, 50, 60, 95])
def test_the_tables_are_those_of_other_programs(quality):
    _, tables = stored(pictures(16, 3)[0], quality)
    assert torch.equal(table(LUMA, quality), tables[0].double())
    assert torch.equal(table(CHROMA, quality), tables[1].double())


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", [16, 28])
def test_a_grey_image_is_what_other_programs_make_of_it(side, severity):
    """But where a coefficient lies between two steps: the transform there is one of whole numbers."""
    quality = CORRUPTIONS["jpeg_compression"].levels[severity - 1]
    clean = pictures(side)
    theirs = torch.stack([stored(image, quality)[0] for image in clean])
    difference = (theirs.float() - corrupted(clean, "jpeg_compression", severity, 0).float()).abs()
    assert (difference <= 1).float().mean() > 0.9


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_colour_image_is_nearly_what_other_programs_make_of_it(severity):
    """They smooth the colours where they double them."""
    quality = CORRUPTIONS["jpeg_compression"].levels[severity - 1]
    clean = pictures(32, 3)
    found = corrupted(clean, "jpeg_compression", severity, 0)
    theirs = torch.stack([stored(image, quality)[0] for image in clean])
    ours = (found.float() - clean.float()).abs().mean()
    assert (found.float() - theirs.float()).abs().mean() < 0.5 * ours


def test_at_the_best_quality_next_to_nothing_is_lost():
    images = pictures(28).double() / 255
    assert (jpeg_compression(images, 100, draws()) - images).abs().max() < 2 / 255


# ---------------------------------------------------------------- the picture


@pytest.mark.parametrize(("side", "shown"), [(8, 128), (28, 140), (200, 200), (300, 256)])
def test_the_sheet_has_a_row_for_each_and_the_image_itself_first(monkeypatch, side, shown):
    some = {name: CORRUPTIONS[name] for name in ("brightness", "contrast")}
    monkeypatch.setattr("ssvi.data.corruptions.sheet.CORRUPTIONS", some)
    image = pictures(side, 3, 1)[0]
    with Image.open(io.BytesIO(draw(image))) as sheet:
        pixels = torch.from_numpy(np.array(sheet))
    top, left, step = MARGIN + LETTERS + GAP, MARGIN + NAMES, shown + GAP
    assert pixels.shape == (top + 2 * step + MARGIN, left + 6 * step + MARGIN, 3)
    if side <= shown:
        places = torch.arange(side) * (shown // side)
        for row in range(2):
            assert torch.equal(pixels[places + top + row * step][:, places + left], image.permute(1, 2, 0))
        darker = corrupted(image[None], "contrast", 5, 0)[0]
        assert torch.equal(pixels[places + top + step][:, places + left + 5 * step], darker.permute(1, 2, 0))


def test_a_typical_image_has_neither_the_least_nor_the_most_contrast():
    flat, some, much = torch.full((1, 4, 4), 9), torch.arange(16).view(1, 4, 4) * 5, torch.arange(16).view(1, 4, 4) * 15
    assert torch.equal(typical(torch.stack([much, flat, some])), some)


@pytest.fixture
def pets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_image_folder(tmp_path / "pets", classes=2, train=2, test=1, size=(8, 8))


def test_the_command_draws_it_of_a_data_set(pets, capsys):
    main(["data", "folder:pets", "--root=data", "--image-size=8", "--sheet=sheets/pets.png"])
    assert '"test_images": 2' in capsys.readouterr().out
    with Image.open(pets.parent / "sheets" / "pets.png") as sheet:
        assert sheet.size == (
            MARGIN + NAMES + 6 * 136 + MARGIN,
            MARGIN + LETTERS + GAP + len(CORRUPTIONS) * 136 + MARGIN,
        )


@pytest.mark.parametrize("sheet", ["pets/train/class0/001.png", "pets/sheet.png", "sheet.jpg"])
def test_no_picture_of_another_kind_or_among_the_images(pets, sheet):
    before = sorted(pets.parent.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        main(["data", "folder:pets", "--root=data", "--image-size=8", f"--sheet={sheet}"])
    words = (
        "which is among the images of pets; name another place."
        if "pets" in sheet
        else "but its name must end in .png."
    )
    assert caught.value.code == f"ssvi: --sheet is {sheet!r}, {words}"
    assert sorted(pets.parent.rglob("*")) == before
