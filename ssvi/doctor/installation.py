"""What is installed, beside what was tested."""

from __future__ import annotations

import platform

from ssvi import __version__
from ssvi.doctor.base import Asked, Result
from ssvi.runs.versions import (
    COMPUTING,
    CONSTRAINTS,
    EVALUATION,
    NUMERICS,
    NUMERICS_OF_FOLDERS,
    installed,
    tested,
    untested,
)

# Without these nothing trains; without the others of `COMPUTING` there are no digits.
NEEDED = ("torch", "numpy", "safetensors", "pillow")
INSTALL = 'pip install -e ".[pipeline]" -c ssvi/constraints.txt'
# Packages of other versions that are named.
NAMED = 8


def python(_: Asked) -> Result:
    """Which version of the arithmetic this is, under which Python."""
    numerics = f"numerics {NUMERICS} ({NUMERICS_OF_FOLDERS} of folder:PATH)"
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Result("ok", f"ssvi {__version__}, {numerics}, evaluation {EVALUATION}; {system}")


def packages(_: Asked) -> Result:
    """The versions that are here beside the ones that were tested."""
    if not CONSTRAINTS.is_file():
        return Result("warning", f"{CONSTRAINTS} is not there", "what was tested is not known", "install ssvi anew")
    if missing := [name for name in COMPUTING if installed(name) is None]:
        needed = [name for name in missing if name in NEEDED]
        return Result(
            "failed" if needed else "note",
            f"not installed: {', '.join(missing)}",
            "nothing trains" if needed else "the data set digits cannot be prepared here",
            INSTALL,
        )
    if not (different := untested(tested())):
        return Result("ok", "as tested")
    # those that compute first; of dozens a line would say nothing
    named = sorted(different, key=lambda name: (name not in COMPUTING, name))
    listed = ", ".join(f"{n} {different[n]['here']} (tested: {different[n]['tested']})" for n in named[:NAMED])
    listed += f", and {len(named) - NAMED} more" * (len(named) > NAMED)
    if set(different) & set(COMPUTING):
        meaning = "results may differ in their last digits from those of the versions that were tested"
        return Result("warning", listed, meaning, INSTALL)
    return Result("note", listed, "none of them computes results", INSTALL)


def torch_imports(_: Asked) -> Result:
    """Whether torch can be loaded at all."""
    try:
        import torch
    except Exception as error:  # a library that is missing, a build for another processor
        said = f"torch cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return Result("failed", said, "nothing trains", f"install it anew: {INSTALL}")
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return Result("ok", f"torch {torch.__version__}, built {build}")
