"""Small image data sets made on the spot."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_image_folder(
    path: Path,
    classes: int = 3,
    train: int = 12,
    test: int = 6,
    size: tuple[int, int] = (16, 16),
    seed: int = 0,
) -> Path:
    """Write path/{train,test}/<class>/NNN.png, `train` and `test` images a class, and return `path`.

    A class has a colour and a stripe pattern of its own, under noise: easy to learn, but not by one pixel.
    """
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(1).uniform(70, 185, (classes, 3))
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    for part, number in (("train", train), ("test", test)):
        for label in range(classes):
            folder = path / part / f"class{label}"
            folder.mkdir(parents=True)
            angle = np.pi * label / classes
            for i in range(number):
                phase = rng.uniform(0, 2 * np.pi)
                stripes = 45 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 1.2 + phase)
                pixels = colours[label] + stripes[:, :, None] + rng.normal(0, 15, (height, width, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
    return path
