"""What only a part of ssvi needs, and which extra of the installation brings it.

Standard library only.
"""

from __future__ import annotations

import importlib.util
import sys

# Packages by the names under which they are imported; a test keeps them those of pyproject.toml.
EXTRAS = {
    "cifar": ("torchvision",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "pipeline": (
        *("snakemake", "yaml", "jsonschema", "pandas", "matplotlib", "jinja2", "mlflow", "filelock", "pygments"),
        "pyarrow",
    ),
}


def told(error: ImportError, what: str) -> str | None:
    """What is missing to `what`, and how it is installed; None if it is nothing of an extra, or a part of a package
    that is there, which is broken and not missing."""
    for extra, names in EXTRAS.items():
        if isinstance(error, ModuleNotFoundError) and error.name in names:
            return _line([error.name], extra, what)
    return None


def end_if_missing(extra: str, what: str) -> None:
    """End with one line if a package of an extra is not installed; none of them is imported for that."""
    if missing := [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]:
        sys.exit(f"ssvi: {_line(missing, extra, what)}")


def install(extra: str) -> str:
    """The command that brings an extra."""
    return f'pip install "ssvi[{extra}]"'


def _line(missing: list[str], extra: str, what: str) -> str:
    names, verb = ", ".join(missing), "is" if len(missing) == 1 else "are"
    return f"{what} needs {names}, which {verb} not installed here: {install(extra)}"
