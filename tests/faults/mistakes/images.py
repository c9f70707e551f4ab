"""Mistakes in folders of images, archives and caches."""

from __future__ import annotations

import pickle

from spoiling import (
    Trap,
    blank,
    encoded,
    flipped,
    half,
    link,
    make_folder,
    pipe,
    png,
    remove,
    unreadable,
    write,
)

from mistakes.kinds import IMAGE, LAYOUT, LINKS, NO_IMAGE, NOT_REPLACED, PETS, TEXT_BOMB, TRAIN, Bad, image_row

IMAGES = [
    Bad("no folder", PETS, f"pets: no such folder; {LAYOUT}", remove("pets")),
    Bad("a file for the folder", "ssvi data folder:config.yaml", f"config.yaml: is a file; {LAYOUT}"),
    Bad("no test images", PETS, f"HERE/pets: has no folder test/; {LAYOUT}", remove("pets/test")),
    Bad(
        "one class",
        PETS,
        "HERE/pets/train: has only one class folder, 'class0', but at least 2 are needed, one for each class.",
        remove("pets/train/class1"),
    ),
    Bad(
        "a class in test only",
        PETS,
        "HERE/pets/test/clas2: class 'clas2' is not among the 2 classes in HERE/pets/train, did you mean ...?",
        write("pets/test/clas2/0.png", ""),
    ),
    Bad(
        "an empty class",
        PETS,
        "HERE/pets/train/new: has no images; files that end in .apng, .bmp, .gif, .jfif, .jpe, .jpeg, .jpg, .pbm, "
        ".pgm, .png, .pnm, .ppm, .tif, .tiff, .webp are read.",
        make_folder("pets/train/new"),
    ),
    image_row("text for an image", NO_IMAGE, write(IMAGE, "no image")),
    image_row("an empty file for an image", NO_IMAGE, write(IMAGE, "")),
    image_row(
        "a program for an image",
        NO_IMAGE,
        write(IMAGE, "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"),
    ),
    image_row("a folder for an image", "is named like an image, but is not a file.", make_folder(IMAGE)),
    image_row("a pipe for an image", "is named like an image, but is not a file.", pipe(IMAGE)),
    Bad(
        "half a JPEG",
        PETS,
        f"HERE/pets/train/class0/x.jpg: {NO_IMAGE}",
        write("pets/train/class0/x.jpg", half(encoded("JPEG"))),
    ),
    image_row("half a PNG", NO_IMAGE, write(IMAGE, half(encoded("PNG")))),
    image_row("a flipped bit in a PNG", NO_IMAGE, write(IMAGE, flipped(encoded("PNG")))),
    image_row(
        "2500 million pixels in a hundred bytes",
        "has more than 89478485 pixels, the most that is read; scale it down.",
        write(IMAGE, png(50_000, 50_000)),
    ),
    image_row(
        "a strip of 80 million pixels",
        "is 80000000 pixels across, but at most 65535 are read.",
        write(IMAGE, png(80_000_000, 1)),
    ),
    image_row(
        "80 million pixels that are not there",
        NO_IMAGE,
        write(IMAGE, png(8900, 8900)),
    ),
    image_row("a text of 20 MB in a PNG", NO_IMAGE, write(IMAGE, png(8, 8, b"", TEXT_BOMB))),
    Bad(
        "numbers of unknown range",
        PETS,
        "HERE/pets/train/class0/x.tif: has pixels of mode F, whose range is not known; save it with 8 bits.",
        write("pets/train/class0/x.tif", encoded("TIFF", "F")),
    ),
    image_row(
        "a link to a file elsewhere",
        f"is a link to HERE/config.yaml, outside HERE/pets; {LINKS}",
        link(IMAGE, "../../../config.yaml"),
    ),
    Bad(
        "a link to a folder elsewhere",
        PETS,
        f"HERE/pets/train/more: is a link to HERE/run, outside HERE/pets; {LINKS}",
        link("pets/train/more", "../../run"),
    ),
    image_row("a link to nothing", "is a link to none.png, which is not there; delete it.", link(IMAGE, "none.png")),
    image_row(
        "a link to itself for an image", "is a link to 000.png, which is not there; delete it.", link(IMAGE, "000.png")
    ),
    Bad(
        "a link to itself for a class",
        PETS,
        "HERE/pets/train/more: is a link to more, which is not there; delete it.",
        link("pets/train/more", "more"),
    ),
    Bad(
        "a link to nothing, links allowed",
        f"{PETS} --follow-links",
        f"HERE/{IMAGE}: is a link to none.png, which is not there; delete it.",
        link(IMAGE, "none.png"),
    ),
    image_row("an image nobody may read", "cannot be read (Permission denied).", unreadable(IMAGE)),
    image_row("half a PPM", NO_IMAGE, write(IMAGE, half(encoded("PPM")))),
    Bad(
        "signed numbers",
        PETS,
        "HERE/pets/train/class0/x.tif: has signed numbers, whose range is not known; save it with 8 bits.",
        write("pets/train/class0/x.tif", encoded("TIFF", "L", tiffinfo={339: 2})),
    ),
    Bad(
        "test images that show nothing",
        PETS,
        "HERE/pets/test: its images show next to nothing: over all of their pixels the sd of each colour is below 1 of "
        "255 (0; transparency is not read); save them with the contrast that is to be seen.",
        blank("pets/test"),
    ),
    Bad(
        "mirrored without augmentation",
        f"{TRAIN} --dataset=folder:pets --augment=false --flip=horizontal",
        "command line: flip is 'horizontal', but has no effect unless augment is true.",
    ),
    Bad(
        "a name in two lines",
        PETS,
        f"HERE/pets/train/class0/a\\nb.png: {NO_IMAGE}",
        write("pets/train/class0/a\nb.png", ""),
    ),
    Bad(
        "a bad image in a training",
        f"{TRAIN} --dataset=folder:pets",
        f"HERE/{IMAGE}: {NO_IMAGE}",
        write(IMAGE, "no image"),
    ),
    Bad(
        "no CIFAR",
        "ssvi data cifar10",
        "cifar10: not found, looked for data/cifar-10-batches-py and data/cifar-10-python.tar.gz. Run `ssvi data "
        "cifar10 --root data --download`, or put cifar-10-python.tar.gz (from ...) into data.",
    ),
    Bad(
        "half an archive",
        "ssvi data cifar10",
        "data/cifar-10-python.tar.gz: its checksum is wrong, the download was cut short. Delete it. Run ...",
        write("data/cifar-10-python.tar.gz", "half"),
    ),
    Bad(
        "half a folder of CIFAR",
        "ssvi data cifar10",
        "data/cifar-10-batches-py: a file is missing or its checksum is wrong. Delete it. Run ...",
        write("data/cifar-10-batches-py/data_batch_1", pickle.dumps(Trap())),
    ),
    Bad(
        "a folder for the cache",
        f"{TRAIN} --out=new",
        f"data/cache/digits-v3.safetensors: {NOT_REPLACED}",
        make_folder("data/cache/digits-v3.safetensors"),
    ),
]
