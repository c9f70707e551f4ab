"""Where published data sets lie, in the folder of the data and beside it; what is there without looking into it.

Standard library only.
"""

from __future__ import annotations

from pathlib import Path

# What they are called there: a folder as torchvision makes it, or as one would, and the archive it comes in.
PUBLISHED = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
    "mnist": ("MNIST/raw", "mnist"),
    "kmnist": ("KMNIST/raw", "kmnist"),
    "fashion": ("FashionMNIST/raw", "fashion"),
}
# Where a package of the operating system has one (Debian's dataset-fashion-mnist).
INSTALLED = {"fashion": "/usr/share/datasets/fashion-mnist"}


def at_hand(dataset: str, root: Path) -> bool:
    """Whether a data set needs no download: it is prepared already, its files are there, or it has none.

    Args:
        dataset: one of `DATASETS`.
        root: folder of the data.
    """
    if dataset not in PUBLISHED or any((root / "cache").glob(f"{dataset}-*.safetensors")):
        return True
    installed = [Path(INSTALLED[dataset])] if dataset in INSTALLED else []
    return any(place.exists() for place in [*(root / name for name in PUBLISHED[dataset]), *installed])
