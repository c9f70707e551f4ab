"""How image files become pixels, against pixels made by hand: turns, depths, what is refused, what is said."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from images import make_image_folder
from PIL import Image

from ssvi.cli import main
from ssvi.data import prepare, remarks
from ssvi.data.batches import load
from ssvi.data.pixels import bits_of, decode
from ssvi.errors import UserError
from ssvi.runs.spec import make_spec

# What EXIF's orientations do to the stored rows and columns, by the standard's own words.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
FORMATS = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0, "save_all": True},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "packed TIFF": {"compression": "tiff_lzw"},
}
SUFFIX = {"MPO": "jpg", "packed TIFF": "tif"}
HEAD = b"Exif\0\0MM\0*\0\0\0\x08"


def photo(size=16):
    """Four corners of four colours, so that every turn is another image."""
    corners = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [220, 220, 220]]], np.uint8)
    return corners.repeat(size // 2, 0).repeat(size // 2, 1)


def saved(path, pixels, format, **options):
    image = Image.fromarray(np.ascontiguousarray(pixels))
    more = {"append_images": [image]} if format == "MPO" else {}
    image.save(path, format.removeprefix("packed "), **FORMATS.get(format, {}), **more, **options)
    return path


def rows(decoded):
    return decoded.pixels.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", SHOWN)
def test_an_image_is_turned_as_its_exif_data_say(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(tmp_path / f"x.{SUFFIX.get(format, format.lower())}", photo(), format, exif=exif)
    assert np.abs(rows(decode(file, 16)) - SHOWN[orientation](photo().astype(int))).max() <= 4


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_a_plain_tiff_that_is_not_square_is_turned_in_every_mode(tmp_path, mode, orientation):
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (2, 4, 3), np.uint8))
    values = np.asarray(image.convert("L")).astype(np.uint16) * 16
    image = Image.fromarray(values) if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x.tif", exif=exif)
    shown = SHOWN[orientation](values if mode == "I;16" else np.asarray(image.convert("RGB")))
    floats = [
        Image.fromarray(np.ascontiguousarray(c).astype(np.float32)) for c in np.atleast_3d(shown).transpose(2, 0, 1)
    ]
    expected = np.stack([np.asarray(one.resize((8, 8), Image.Resampling.BILINEAR)) for one in floats], 2)
    found = decode(tmp_path / "x.tif", 8)
    pixels = found.pixels.numpy()[:, :, None] if mode == "I;16" else rows(found)
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_deep_image_is_turned_too(tmp_path, format):
    values = photo()[:, :, 0].astype(np.uint16) * 16
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(saved(tmp_path / f"x.{format.lower()}", values, format, exif=exif), 16)
    assert np.array_equal(found.pixels.numpy(), SHOWN[6](values))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0",
        HEAD[:-1] + b"\xff",
        HEAD + b"\0\x05\x01\x12",
        HEAD + b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0",
        HEAD + b"\0\x01\x01\x12\0\x02\0\0\0\x02x\0\0\0\0\0\0\0",
    ],
    ids=["garbage", "empty", "no directory", "cut off", "a ninth way", "a word"],
)
def test_damaged_exif_data_leave_a_good_photo_as_it_is(tmp_path, format, exif):
    file = saved(tmp_path / f"x.{format.lower()}", photo(), format, exif=exif)
    assert np.abs(rows(decode(file, 16)) - photo()).max() <= 4


# ---------------------------------------------------------------- depths


def png16(kind, values):
    """A PNG of 16 bits a value, which PIL does not write: `kind` 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    height, width = values.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0), b"IDAT" + zlib.compress(lines))
    whole = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in (*parts, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def tiff(values, bits, photometric=1, sample_format=1, packed=None):
    """A plain grey TIFF, little-endian."""
    height, width = values.shape
    data = values.tobytes() if packed is None else packed
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 12 * 10 + 4)]
    entries += [(277, 1), (278, height), (279, len(data)), (339, sample_format)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + data


def pgm(values, largest, kind=b"P5"):
    data = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    return kind + f"\n{values.shape[1]} {values.shape[0]}\n{largest}\n".encode() + data


def packed12(values):
    """Two values in three bytes."""
    a, b = values.reshape(-1, 2).astype(np.uint32).T
    return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()


VALUES = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype("<u2")
VALUES[0, :2] = 0, 4095
DEEP = {
    "png": lambda v: png16(0, v),
    "tif": lambda v: tiff(v, 16),
    "12.tif": lambda v: tiff(v, 12, packed=packed12(v)),
    "65535.pgm": lambda v: pgm(v, 65535),
    "plain.pnm": lambda v: b"P2 8 8 65535\n" + " ".join(map(str, v.ravel())).encode(),
}


@pytest.fixture
def folder(tmp_path):
    return make_image_folder(tmp_path / "pets", classes=2, train=3, test=2, size=(8, 8))


def first(folder, data, name="000.png"):
    """The first image of the training set replaced by a file with this content."""
    (folder / "train" / "class0" / "000.png").unlink()
    (folder / "train" / "class0" / f"0.{name}").write_bytes(data)
    return folder / "train" / "class0" / f"0.{name}"


def train_images(folder, size=8):
    return prepare(f"folder:{folder}", folder.parent, size).train_images


@pytest.mark.parametrize("name", DEEP)
def test_deep_values_are_scaled_by_the_bits_that_they_have(folder, name):
    first(folder, DEEP[name](VALUES), name)
    assert np.array_equal(train_images(folder)[0].numpy(), np.stack([np.round(VALUES * (255 / 4095))] * 3))


def test_white_may_be_zero(folder):
    first(folder, tiff(VALUES, 16, photometric=0), "x.tif")
    assert np.array_equal(train_images(folder)[0, 0].numpy(), 255 - np.round(VALUES * (255 / 4095)))


@pytest.mark.parametrize(("largest", "kind"), [(4095, b"P5"), (300, b"P5"), (100, b"P5"), (1023, b"P5")])
def test_a_pgm_file_names_its_largest_value(folder, largest, kind):
    values = VALUES.astype(int) % (largest // 2)
    first(folder, pgm(values, largest, kind), "x.pgm")
    assert np.abs(train_images(folder)[0, 0].numpy() - values * 255 / largest).max() <= 0.51


def test_one_factor_for_all_images_of_a_data_set(folder):
    """A dark image stays darker than a bright one, and a test image counts as well."""
    dark, bright = np.full((8, 8), 500, np.uint16), np.full((8, 8), 1000, np.uint16)
    first(folder, png16(0, dark))
    (folder / "test" / "class1" / "bright.png").write_bytes(png16(0, bright))
    data = prepare(f"folder:{folder}", folder.parent, 8)
    assert data.train_images[0].unique().tolist() == [round(500 * 255 / 1023)]
    assert data.test_images[-1].unique().tolist() == [round(1000 * 255 / 1023)]
    assert "2 images of 16 bits hold 10-bit values, and are read as such" in list(remarks(data))


def test_deep_values_are_resized_before_they_are_rounded(folder):
    """A spot of half a grey level in every pixel is lost to rounding, but not to its resized mean."""
    values = np.tile(np.array([[2048, 2048], [2048, 2056 + 16]], np.uint16), (8, 8))
    first(folder, png16(0, values))
    (folder / "train" / "class1" / "most.png").write_bytes(png16(0, np.full((8, 8), 4095, np.uint16)))
    assert train_images(folder, 8)[0, 0].float().mean() == pytest.approx(values.mean() * 255 / 4095, abs=0.5)


@pytest.mark.parametrize(("largest", "bits"), [(0, 8), (1, 8), (255, 8), (256, 9), (4095, 12), (4096, 13), (65535, 16)])
def test_bits_of(largest, bits):
    assert bits_of(largest) == bits


@pytest.mark.parametrize("kind", [2, 6])
def test_the_upper_bytes_of_deep_colours_are_read_or_the_images_refused(folder, kind):
    channels = {2: 3, 6: 4}[kind]
    values = np.random.default_rng(1).integers(0, 65536, (8, 8, channels)).astype(np.uint16)
    file = first(folder, png16(kind, values))
    assert np.array_equal(train_images(folder)[0].numpy(), (values >> 8).transpose(2, 0, 1)[:3])
    file.write_bytes(png16(kind, values >> np.array([4, 4, 4, 0], np.uint16)[:channels]))
    with pytest.raises(UserError, match=r"0\.000\.png: is the brightest of 1 images with 16 .* but uses only 12 of"):
        train_images(folder)
    # bright ones beside it show that the depth is used
    (folder / "test" / "class1" / "x.png").write_bytes(png16(kind, values))
    assert len(train_images(folder)) == 6


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1])
def test_fewer_bits_fill_the_same_range(tmp_path, bits, photometric):
    values = np.arange(64).reshape(8, 8) % 2**bits
    joined = np.packbits((values[:, :, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(8, -1), axis=1)
    (tmp_path / "x.tif").write_bytes(tiff(values, bits, photometric, packed=joined.tobytes()))
    scaled = values * 255 / (2**bits - 1)
    assert np.array_equal(rows(decode(tmp_path / "x.tif", 8))[:, :, 0], scaled if photometric else 255 - scaled)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("signed 16", tiff(VALUES, 16, sample_format=2), "signed numbers"),
        ("signed 8", tiff(VALUES.astype(np.uint8), 8, sample_format=2), "signed numbers"),
        ("32", tiff(VALUES.astype("<u4"), 32), "pixels of mode I"),
        ("float", tiff(VALUES.astype("<f4"), 32, sample_format=3), "pixels of mode F"),
    ],
)
def test_values_of_unknown_range_are_refused(tmp_path, name, data, words):
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.tif: has {words}, whose range is not known; save it with 8 bits"):
        decode(tmp_path / "x.tif", 8)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "YCbCr", "1"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_grey_image_looks_the_same_in_every_mode(tmp_path, mode, format):
    """Black and white halves: no conversion of colours may change them."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).convert(mode).save(buffer, format)
    except (OSError, ValueError):
        pytest.skip(f"{format} has no mode {mode}")
    (tmp_path / "x").write_bytes(buffer.getvalue())
    assert np.abs(rows(decode(tmp_path / "x", 16)) - pixels).max() <= 3


# ---------------------------------------------------------------- what images show all together


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_part_that_shows_nothing_is_refused(folder, part, deep):
    for i, file in enumerate(sorted((folder / part).rglob("*.png"))):
        noise = np.random.default_rng(i).integers(0, 3, (8, 8))
        file.write_bytes(png16(0, 20 + noise) if deep else b"")
        if not deep:
            Image.fromarray((40 + noise // 2).astype(np.uint8)).save(file)
    if deep:
        (folder / "train" / "class0" / "hot.png").write_bytes(png16(0, np.full((1, 1), 65535)))
        if part == "train":
            (folder / "train" / "class0" / "hot.png").rename(folder / "test" / "class0" / "hot.png")
    words = "; its 16-bit files are read as 16-bit; " if deep else "; "
    with pytest.raises(UserError, match=rf"pets/{part}: its images show next to nothing: .*{words}transparency"):
        train_images(folder)


def test_images_of_one_colour_each_are_good_if_they_differ(tmp_path):
    for part in ("train", "test"):
        for name, colour in (("cat", (200, 90, 30)), ("dog", (30, 90, 200))):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), colour).save(tmp_path / "pets" / part / name / "0.png")
    data = prepare(f"folder:{tmp_path / 'pets'}", tmp_path, 8)
    assert list(remarks(data)) == [
        "2 of 2 test images are training images too, pixel by pixel: for example test/cat/0.png and train/cat/0.png"
    ]


def test_the_same_image_in_train_and_test_is_said_with_its_class(folder):
    image = (folder / "train" / "class0" / "001.png").read_bytes()
    (folder / "test" / "class0" / "same.png").write_bytes(image)
    (folder / "test" / "class1" / "odd.png").write_bytes(image)
    data = prepare(f"folder:{folder}", folder.parent, 8)
    found = {"images": 2, "of_another_class": 1, "example": ["test/class1/odd.png", "train/class0/001.png"]}
    assert data.reading["test_images_in_train"] == found
    assert "2 of 6 test images are training images too, pixel by pixel, 1 of them in another class: " in "".join(
        remarks(data)
    )
    # read from the cache it says the same
    assert prepare(f"folder:{folder}", folder.parent, 8).reading == data.reading


def test_the_same_image_in_two_classes_of_the_training_set_is_said(folder):
    def said():
        return [line for line in remarks(prepare(f"folder:{folder}", folder.parent, 8)) if "classes" in line]

    image = (folder / "train" / "class0" / "001.png").read_bytes()
    (folder / "train" / "class0" / "twin.png").write_bytes(image)
    assert said() == []
    (folder / "train" / "class1" / "odd.png").write_bytes(image)
    line = (
        "3 of 8 training images are in several classes, pixel by pixel: for example train/class0/001.png and "
        "train/class1/odd.png"
    )
    assert said() == [line]
    # read from the cache it says the same
    assert said() == [line]


def test_further_frames_and_transparency_are_said(folder, capsys):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (9, 99, 200)]
    for i, (format, suffix) in enumerate((("GIF", "gif"), ("TIFF", "tif"), ("PNG", "png"), ("WEBP", "webp"))):
        frames[0].save(folder / "train" / "class0" / f"a{i}.{suffix}", format, save_all=True, append_images=frames[1:])
    Image.new("RGBA", (8, 8), (1, 2, 3, 100)).save(folder / "train" / "class0" / "clear.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(folder / "train" / "class0" / "solid.png")
    (folder / "train" / "class0" / "Thumbs.db").write_text("")
    main(["data", f"folder:{folder}", f"--root={folder.parent}", "--image-size=8"])
    assert capsys.readouterr().err.splitlines() == [
        f"note: folder:{folder}: left out: 1 .db",
        f"note: folder:{folder}: of 4 files with several frames or pages the first one is read",
        f"note: folder:{folder}: of 1 images the transparency is dropped",
    ]
    assert train_images(folder)[3].float().mean() == pytest.approx(9, abs=1)


# ---------------------------------------------------------------- mirrored images


@pytest.mark.parametrize(
    ("dataset", "flip", "expected"),
    [
        ("digits", "auto", False),
        ("digits", "horizontal", True),
        ("folder", "auto", False),
        ("folder", "horizontal", True),
        ("folder", "none", False),
    ],
)
def test_images_are_mirrored_only_where_that_is_asked_for(folder, dataset, flip, expected):
    name = f"folder:{folder}" if dataset == "folder" else dataset
    spec = make_spec({"dataset": name, "flip": flip, "batch_size": 2, "validation": 0.0})
    assert load(spec, folder.parent, torch.device("cpu")).flip is expected


def test_flip_needs_augment():
    words = r"flip is 'horizontal', but has no effect unless augment is true\."
    with pytest.raises(UserError, match=words):
        make_spec({"flip": "horizontal", "augment": False})


def test_a_photo_of_a_phone_as_a_whole(folder):
    """The suffix of another program's JPEG, turned, in a folder of a folder, of a size of its own."""
    into = folder / "train" / "class0" / "camera" / "2024"
    into.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 8
    saved(into / "IMG.JFIF", photo(64)[:, :48], "JPEG", exif=exif)
    images = train_images(folder, 16)
    shown = Image.fromarray(np.ascontiguousarray(SHOWN[8](photo(64)[:, :48]))).resize(
        (16, 16), Image.Resampling.BILINEAR
    )
    assert len(images) == 7
    assert np.abs(images[3].permute(1, 2, 0).numpy().astype(int) - np.asarray(shown.resize((16, 16), 2))).max() <= 4
