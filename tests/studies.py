"""Studies for the tests: their config, and the workflow that makes them."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def config_of(name: str, study: dict[str, Any], **others: Any) -> dict[str, Any]:
    """A config with one study."""
    folders = {"results": "results", "reports": "reports", "data_root": "data"}
    return {"study": name, **folders, "evaluation": {"samples": 2, "bins": 15}, **others, "studies": {name: study}}


def write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def copy_project(folder: Path) -> Path:
    """A copy of the code and of the workflow, to be changed; `environment` and `command` run it."""
    for name in ("ssvi", "workflow", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy2(ROOT / name, folder)
    return folder


def environment(root: Path = ROOT) -> dict[str, str]:
    """Of a workflow as a user starts it: with the `ssvi` of `root` on the path, and nothing of who runs the tests."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "SNAKEMAKE", "SSVI_"))}
    return clean | {"PATH": f"{BIN}{os.pathsep}{clean['PATH']}", "PYTHONPATH": str(root)}


def command(folder: Path, *arguments: str, cores: int = 2, root: Path = ROOT) -> list[str | Path]:
    """The call of Snakemake for the config in a folder; `cores` 0 leaves them out."""
    start = [BIN / "snakemake", "--snakefile", root / "Snakefile", "--directory", folder]
    start += ["--cores", str(cores)] if cores else []
    return [*start, "--configfile", folder / "config.yaml", *arguments]
