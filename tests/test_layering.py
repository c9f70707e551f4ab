"""Imports run one way: config -> spec -> trainer -> run folder -> tables -> figures -> mirror."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ssvi"

FILES_ONLY = {
    *("errors", "versions", "imports", "registry", "spec", "runs", "devices", "config", "plan", "preload", "process"),
    *("configfile", "arguments", "evaluated", "images", "changed", "ties", "disk", "extras", "plugins"),
}
TABLE_HALF = {"pandas", "matplotlib", "mlflow", "filelock", "snakemake", "seaborn"}
TRAINING_HALF = {"torch", "torchvision", "sklearn", "safetensors", "PIL", "rich"}

# module: the modules of this package it may import (beside `errors`, which all may).
MAY_IMPORT = {
    "__init__": {"convert", "loop", "prediction"},  # for checkers of types, or when a name is first used
    "__main__": {"cli"},
    "errors": set(),
    "imports": set(),
    "extras": set(),
    "disk": set(),
    "devices": {"disk"},
    "registry": set(),
    "spec": {"registry"},
    "plugins": {"imports", "registry", "spec"},
    "runs": {"", "spec", "disk", "plugins"},
    "ties": {"spec", "runs"},
    "images": {"spec", "runs"},
    "changed": {"spec", "runs", "images"},
    "config": {"", "spec", "registry", "configfile", "paths", "plugins"},
    "evaluated": {"spec", "registry", "runs", "ties"},
    "due": {"spec", "runs", "ties"},
    "paths": set(),
    "configfile": set(),
    "arguments": {"spec", "configfile", "paths"},
    "plan": {"spec", "runs"},
    "noise": set(),
    "criteria": {"registry"},
    "metrics": set(),
    "subspace": set(),
    "overlap": {"subspace"},
    "operations": set(),
    "layers": {"noise", "operations"},
    "models": {"registry", "layers"},
    "counting": {"layers"},
    "checkpoint": {"disk", "runs"},
    "lock": {"disk", "runs"},
    "tensors": set(),
    "provenance": {"", "precision", "process", "versions"},
    "watch": set(),
    "resume": {"plugins", "runs", "checkpoint", "process"},
    "versions": {"spec"},
    "doctor": {
        "", "registry", "spec", "paths", "configfile", "config", "versions", "precision", "process", "runs", "disk",
        "extras", "noise", "operations", "layers", "methods", "step", "data", "trainer", "progress", "bench",
        "analysis", "doctor",
    },
    "precision": set(),
    "selfcheck": {"layers", "flat", "methods", "step"},
    "process": set(),
    "flat": {"layers", "noise", "subspace"},
    "exchange": {"flat", "layers", "subspace"},
    "prediction": {"flat", "metrics", "noise"},
    "convert": {"flat", "layers", "noise", "operations", "subspace"},
    "loop": {"criteria", "exchange", "flat", "layers", "noise", "prediction", "subspace"},
    "gates": {"noise"},
    "samplers": {"noise"},
    "structure": {"layers"},
    "methods": {
        "spec", "registry", "noise", "operations", "layers", "flat", "exchange", "gates", "samplers",
        "structure", "counting", "criteria",
        "subspace", "overlap", "tensors", "methods",
    },
    "step": {"spec", "process", "noise", "precision", "data", "methods"},
    "network": {"convert", "tensors", "spec", "disk", "runs", "noise", "layers", "models", "methods"},
    "data": {"tensors", "spec", "disk", "runs", "images", "data"},
    "progress": {"methods"},
    "trainer": {
        "spec", "runs", "noise", "data", "methods", "network", "counting", "checkpoint", "progress", "provenance",
        "flat", "step", "process", "selfcheck", "versions", "layers", "registry", "resume", "watch", "ties",
        "plugins",
    },
    "evaluate": {"spec", "registry", "runs", "noise", "precision", "data", "methods", "metrics", "prediction",
        "network", "counting", "versions", "ties"},
    "analysis": {"spec", "registry", "disk", "runs", "ties", "config", "changed", "evaluated", "analysis"},
    "preload": {"disk"},
    "bench": {
        "", "spec", "devices", "process", "noise", "data", "models", "step", "trainer", "progress", "evaluate",
        "provenance", "bench",
    },
    "cli": {
        "", "registry", "devices", "preload", "process", "lock", "spec", "runs", "config", "data", "step", "trainer",
        "evaluate", "progress", "analysis", "bench", "doctor", "changed", "resume", "arguments", "evaluated", "ties",
        "disk", "extras", "plugins",
    },
}  # fmt: skip


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


def module_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    module = module_of(path)
    parts = [name.split(".") for name in imports(path)]
    own = {p[1] if len(p) > 1 and module_exists(p[1]) else "" for p in parts if p[0] == "ssvi"} - {"errors"}
    assert own <= MAY_IMPORT[module], f"{module} imports {own - MAY_IMPORT[module]}"
    outside = {p[0] for p in parts}
    if module == "analysis":
        assert not outside & TRAINING_HALF
    elif module in FILES_ONLY:
        assert not outside & (TRAINING_HALF | TABLE_HALF)
    else:
        assert not outside & TABLE_HALF
    assert "mlflow" not in outside or path.parent.name == "tracking"


def module_exists(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def test_no_cycles_but_within_a_folder() -> None:
    done: set[str] = {"__init__"}
    while len(done) < len(MAY_IMPORT):
        ready = {m for m, uses in MAY_IMPORT.items() if m not in done and uses - {m, ""} <= done | {"errors"}}
        assert ready, set(MAY_IMPORT) - done
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
    assert not loaded("import ssvi.config, ssvi.runs, ssvi.cli, ssvi.devices; ssvi.cli.plugins.load()") & (
        TRAINING_HALF | TABLE_HALF
    )
    assert not loaded("import ssvi; dir(ssvi)") & (TRAINING_HALF | TABLE_HALF | {"numpy"})
    training = loaded("import ssvi.trainer, ssvi.evaluate, ssvi.network")
    assert "torch" in training
    assert not training & (TABLE_HALF | {"torchvision", "sklearn", "rich"})
    tables = loaded("import ssvi.analysis.tables, ssvi.analysis.figures, ssvi.analysis.collect")
    assert not tables & (TRAINING_HALF - {"PIL"} | {"mlflow", "seaborn"})  # matplotlib itself loads PIL


def test_conda_environment_is_what_pyproject_asks_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in conda if isinstance(item, dict))
    assert pip == ["-c ssvi/constraints.txt", "-e .[pipeline]"]
    assert f"python{project['requires-python']}" in conda


def test_public_functions_are_typed() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert node.returns is not None, f"{path}: {node.name}"
