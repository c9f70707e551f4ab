"""Try PyTorch's versions: the tests of the training half, and the search for bad shapes, in an environment of each.

    python tests/versions/run.py [VERSION ...]     default: the oldest of pyproject.toml's range, 2.11, the newest

The environments, `.venv-torch-VERSION`, stay for the next time (`make clean` removes them); what the tests need beside
PyTorch, which brings its own dependencies, is as in ssvi/constraints.txt. Exit code 1 if anything failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "ssvi" / "constraints.txt"
# What the training half and its tests need beside PyTorch.
NEEDED = (
    "numpy",
    "safetensors",
    "pillow",
    "scikit-learn",
    "scipy",
    "packaging",
    "pyyaml",
    "rich",
    "pytest",
    "hypothesis",
)
TESTS = (
    *("step", "layers", "noise", "flat", "precision", "network", "structure", "gates", "samplers", "subspace"),
    *("published_updates", "criteria", "evaluate", "methods", "trainer"),
    *("operations", "convert_forms", "convert_attention", "loop", "loop_calls", "loop_states", "distributed"),
)
# Under 2.11 compiled passes once lost the gradients of local reparameterisation.
MIDDLING = "2.11.0"
SHAPES = 800


def allowed() -> str:
    """The requirement of pyproject.toml."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return next(line for line in lines if re.match(r"torch\b", line))


def versions() -> list[str]:
    """Requirements to try."""
    oldest = re.search(r">=([\d.]+)", allowed())[1]
    return [f"torch=={oldest}.0", f"torch=={MIDDLING}", allowed()]


def environment(requirement: str) -> Path:
    """The Python of an environment with this PyTorch."""
    name = re.sub(r"[^\w.]+", "-", requirement.replace("torch==", "")).strip("-")
    folder = ROOT / f".venv-torch-{name}"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, clear=True)
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith(NEEDED)]
    (folder / "constraints.txt").write_text("\n".join(pins))
    # also where it is there: a range may have a newer version by now
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([*command, "-c", folder / "constraints.txt", requirement, *NEEDED], check=True)
    return python


def attempt(title: str, command: list[str | Path], log: Path) -> bool:
    """Run a command, its words in a file; says how it ended."""
    print(f"  {title:<22}", end="", flush=True)
    here = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        done = subprocess.run(command, cwd=ROOT, env=here, stdout=file, stderr=subprocess.STDOUT)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    print("passed" if done.returncode == 0 else f"FAILED ({log})", "|", lines[-1][:120] if lines else "")
    return done.returncode == 0


def main() -> None:
    """Try them all."""
    wanted = [f"torch=={version}" for version in sys.argv[1:]] or versions()
    passed = []
    for requirement in wanted:
        print(f"{requirement}: installing", flush=True)
        python = environment(requirement)
        folder = python.parents[1]
        said = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True)
        print(f"torch {said.stdout.strip()}", flush=True)
        tests = [f"tests/test_{name}.py" for name in TESTS]
        pytest = [python, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-W", "ignore", "--all-trials"]
        # the mistakes on a command line are also those of commands of the table half, which is not here
        passed.append(attempt("tests", [*pytest, *tests, "-k", "not mistake"], folder / "tests.log"))
        search = [python, "tests/versions/shapes.py", f"--sample={SHAPES}"]
        passed.append(attempt("search for bad shapes", search, folder / "shapes.log"))
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
