"""Sparse Subspace Variational Inference: Bayesian networks that stay sparse from the first step on.

Importing this module imports nothing else: the workflow reads `ssvi.runs.spec` without loading torch, which comes with
the first use of a public name.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssvi.core.convert import sparsify as sparsify
    from ssvi.core.loop import Subspace as Subspace
    from ssvi.core.loop import kl as kl
    from ssvi.core.loop import parameter_groups as parameter_groups
    from ssvi.core.natural import IVON as IVON
    from ssvi.core.prediction import Prediction as Prediction
    from ssvi.core.prediction import predict as predict
    from ssvi.core.prediction import sample as sample
    from ssvi.serving.predictor import load as load

__version__ = "0.1.0"

# The public names, and the module that has each.
PUBLIC = {
    "sparsify": "ssvi.core.convert",
    "parameter_groups": "ssvi.core.loop",
    "Subspace": "ssvi.core.loop",
    "IVON": "ssvi.core.natural",
    "kl": "ssvi.core.loop",
    "predict": "ssvi.core.prediction",
    "sample": "ssvi.core.prediction",
    "Prediction": "ssvi.core.prediction",
    "load": "ssvi.serving.predictor",
}
__all__ = [*PUBLIC]


def __getattr__(name: str) -> object:
    """A public name, when it is first used.

    Raises:
        AttributeError: for any other.
    """
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
