"""Data sets: prepared once into a cache file, then resident on the device as uint8 tensors."""

from ssvi.data.batches import Data, load
from ssvi.data.cache import Prepared
from ssvi.data.folders import remarks
from ssvi.data.sources import prepare

__all__ = ["Data", "Prepared", "load", "prepare", "remarks"]
