"""Which arithmetic this is, and which versions of other packages it was tested with.

Standard library only; `constraints.txt` beside this file is made by `make lock`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from ssvi.runs.options import FOLDER_PREFIX
from ssvi.runs.spec import RunSpec

# Raised whenever the same spec would give other bytes; kept in spec.json and training.json, 1 where they say none.
#   2: 1x1 convolutions with a stride are formed without one; `grow_sigma: mean_rho` averages over weights that were
#      removed and added again too; `score_arithmetic: naive` by the error function; float32 is never TF32 on CUDA.
#   3: of folder:PATH alone: images are read as viewers show them, and mirrored only where `flip` asks for it.
#   3 (of folder:PATH 4): sums over the weights of a layer, at updates of the subspace and in SBP's KL, are taken in
#      another order, so last digits differ; a removed weight is +0; in a global subspace, a layer that lost all its
#      weights takes the mean sigma of the weights kept elsewhere; cuDNN's kernels are repeatable.
#   4 (of folder:PATH 5): with a Gaussian posterior, the KL's gradient is added to that of the data term after each has
#      passed through sigma's function of rho, not before, so last digits differ; the bytes of other methods are those
#      of 3.
NUMERICS = 4
NUMERICS_OF_FOLDERS = 5
# The same for metrics made of the same trained network, kept in metrics.json and samples.csv.
#   2: the last bin of `ece` is closed; 1x1 convolutions and float32 as above.
EVALUATION = 2

# The same for what the suite makes of the same evaluated network, kept in uncertainty.csv: its images, too, count.
SUITE = 1

CONSTRAINTS = Path(__file__).parent.with_name("constraints.txt")
# What a training and its evaluation compute with.
COMPUTING = ("torch", "numpy", "safetensors", "pillow", "scikit-learn", "scipy")


def numerics(spec: RunSpec) -> int:
    """The version of the arithmetic by which this version trains a spec."""
    return NUMERICS_OF_FOLDERS if spec.dataset.startswith(FOLDER_PREFIX) else NUMERICS


@cache
def tested() -> dict[str, str]:
    """Versions by package (names in lower case with hyphens), as `make test` was passed with on this Python."""
    from packaging.requirements import Requirement

    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = [one for one in found if one.marker is None or one.marker.evaluate()]
    return {one.name.lower().replace("_", "-"): str(one.specifier).removeprefix("==") for one in here}


def installed(package: str) -> str | None:
    """The version that is here, without what names its build; None if it is not here."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return None


def untested(packages: Iterable[str] = COMPUTING) -> dict[str, dict[str, str | None]]:
    """Of these packages those that are here in another version than was tested: both versions by name."""
    known = tested()
    pairs = {name: {"here": installed(name), "tested": known.get(name)} for name in packages}
    return {name: pair for name, pair in pairs.items() if pair["here"] not in (None, pair["tested"])}
