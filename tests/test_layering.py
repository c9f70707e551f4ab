"""Imports run one way: errors, registry, plugins -> machine, core -> runs -> data, methods -> training -> bench ->
doctor -> cli, and runs -> analysis beside them. What a room may import is a line of `MAY_IMPORT`."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from places import ROOT

PACKAGE = ROOT / "ssvi"
TABLE_HALF = {"pandas", "matplotlib", "mlflow", "filelock", "snakemake", "seaborn"}
TRAINING_HALF = {"torch", "torchvision", "sklearn", "safetensors", "PIL", "rich"}
PLANNING = {"yaml", "jsonschema", "numpy", "scipy"}

# room: the rooms it may import beside itself, `errors`, and the face to those who extend it, `registry` and `plugins`,
# which know nothing of the others.
MAY_IMPORT = {
    "errors": set(),
    "registry": set(),
    "plugins": set(),
    "machine": set(),
    "core": set(),
    "runs": {"machine"},
    "data": {"core", "runs", "machine"},
    "methods": {"core", "runs"},
    "training": {"methods", "data", "core", "runs", "machine"},
    "uncertainty": {"training", "methods", "data", "core", "runs", "machine"},
    "serving": {"training", "methods", "data", "core", "runs", "machine"},
    "analysis": {"runs", "machine"},
    "bench": {"training", "methods", "data", "core", "runs", "machine"},
    "doctor": {"bench", "training", "methods", "data", "core", "runs", "machine", "analysis"},
    "cli": {
        "uncertainty",
        "serving",
        "doctor",
        "bench",
        "training",
        "methods",
        "data",
        "core",
        "runs",
        "machine",
        "analysis",
    },
    "__init__": {"core", "serving"},  # for checkers of types, or when a name is first used
    "__main__": {"cli"},
}
# What a room may load of other packages: planning loads neither half, analysis no torch, and training no pandas.
FORBIDDEN = {
    **dict.fromkeys(("errors", "registry", "plugins", "machine"), TRAINING_HALF | TABLE_HALF | PLANNING),
    "core": TABLE_HALF | {"PIL", "rich", "torchvision", "yaml", "jsonschema"},
    "runs": TRAINING_HALF | TABLE_HALF,
    "analysis": TRAINING_HALF,
    **dict.fromkeys(
        ("data", "methods", "training", "uncertainty", "serving", "bench", "doctor", "cli", "__init__", "__main__"),
        TABLE_HALF,
    ),
}
# Clocks, files and processes, which the core is to know nothing of.
NOT_IN_THE_CORE = {"os", "time", "datetime", "pathlib", "json", "csv", "tempfile", "shutil", "subprocess", "signal"}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in FILES} == MAY_IMPORT.keys() == FORBIDDEN.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    room, found = room_of(path), imports(path)
    parts = [name.split(".") for name in found]
    # `from ssvi import __version__` is of no room
    own = {p[1] for p in parts if p[0] == "ssvi" and len(p) > 1 and p[1] in MAY_IMPORT}
    assert own <= MAY_IMPORT[room] | {room, "errors", "registry", "plugins"}, f"{room} imports {own}"
    outside = {p[0] for p in parts}
    assert not outside & FORBIDDEN[room], f"{room} imports {outside & FORBIDDEN[room]}"
    assert room != "core" or not outside & NOT_IN_THE_CORE
    # within the analysis
    assert "mlflow" not in outside or path.parent.name == "tracking"
    if path.parent.name == "figures":
        assert not any(name.startswith("ssvi.analysis.tables") for name in found)


def test_no_circle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {room for room, uses in MAY_IMPORT.items() if room not in done and uses <= done}
        assert ready, MAY_IMPORT.keys() - done
        done |= ready


@pytest.mark.parametrize("path", sorted((ROOT / "workflow").rglob("*.py")), ids=lambda p: p.name)
def test_workflow_scripts_know_no_torch(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & TRAINING_HALF


def loaded(code: str) -> set[str]:
    """Top-level modules in memory after running `code`."""
    program = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_planning_loads_no_heavy_module_and_training_no_table_half() -> None:
    planning = "import ssvi.runs.config, ssvi.cli, ssvi.machine.devices, ssvi.runs.plugins as p; p.load()"
    assert not loaded(planning) & (TRAINING_HALF | TABLE_HALF)
    assert not loaded("import ssvi; dir(ssvi)") & (TRAINING_HALF | TABLE_HALF | {"numpy"})
    predicting = "ssvi.serving.predictor, ssvi.serving.rows, ssvi.serving.sheet, ssvi.serving.progress"
    training = loaded(f"import ssvi.training.trainer, ssvi.training.evaluate, ssvi.training.network, {predicting}")
    assert "torch" in training
    assert not training & (TABLE_HALF | {"torchvision", "sklearn", "scipy", "rich", "pyarrow", "PIL"})
    tables = loaded("import ssvi.analysis.tables, ssvi.analysis.figures, ssvi.analysis.collect")
    assert not tables & (TRAINING_HALF - {"PIL"} | {"mlflow", "seaborn"})  # matplotlib itself loads PIL


def test_conda_environment_is_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in conda if isinstance(item, dict))
    assert pip == ["-c ssvi/constraints.txt", "-e .[pipeline]"]
    assert f"python{project['requires-python']}" in conda


FUNCTIONS = [
    (path, node)
    for path in FILES
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef)
]


def test_public_functions_are_typed() -> None:
    for path, node in FUNCTIONS:
        assert node.name.startswith("_") or node.returns is not None, f"{path}: {node.name}"


def test_functions_are_short() -> None:
    """Without what they say of themselves."""
    for path, node in FUNCTIONS:
        lines = node.end_lineno - node.lineno + 1 - _docstring_lines(node)
        assert lines <= 50, f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"


def _docstring_lines(node: ast.FunctionDef) -> int:
    return node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) is not None else 0
