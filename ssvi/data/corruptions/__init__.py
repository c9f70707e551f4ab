"""Test images made worse, in the families of Hendrycks & Dietterich (ICLR 2019): noise, blur, weather, digital.

Their names and their idea, five severities of each; every corruption is written anew for images of any side, grey or
colour, and its levels are this package's own, so figures from here are not those of CIFAR-10-C. Where the published
arrays are at hand, `published` reads them.
"""

from ssvi.data.corruptions.published import Published, published
from ssvi.data.corruptions.registry import CORRUPTIONS, FAMILIES, SEVERITIES, Corruption, corrupted

__all__ = ["CORRUPTIONS", "FAMILIES", "SEVERITIES", "Corruption", "Published", "corrupted", "published"]
