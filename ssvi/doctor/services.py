"""What a study needs beside trainings: Snakemake with its plugins, an MLflow store. Neither is imported for that."""

from __future__ import annotations

import base64
import http.client
import os
import re
import shutil
import socket
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ssvi.analysis.address import given_address
from ssvi.analysis.passwords import one_line, without_password
from ssvi.doctor.base import Asked, Result
from ssvi.doctor.probing import nearest
from ssvi.errors import UserError
from ssvi.machine.extras import install
from ssvi.runs.versions import installed, tested

PLUGIN = "snakemake-executor-plugin-"
# A server has so long for each part of its answer.
SECONDS = 4.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
ADVICE = "start it, correct MLFLOW_TRACKING_URI, or unset that to mirror into the results folder"
MEANING = "runs are not mirrored there until it answers; nothing else is lost"


def snakemake(_: Asked) -> Result:
    """Snakemake, its executors and, where Slurm is, the one for it."""
    if (version := installed("snakemake")) is None:
        meaning = "single trainings run here, studies do not"
        return Result("note", "snakemake is not installed", meaning, install("pipeline"))
    names = [name for one in metadata.distributions() if (name := one.metadata["Name"] or "").startswith(PLUGIN)]
    plugins = {name.removeprefix(PLUGIN): installed(name) for name in sorted(set(names))}
    told = f"snakemake {version}, executors: {', '.join(f'{n} {v}' for n, v in plugins.items()) or 'local alone'}"
    sbatch = shutil.which("sbatch")
    if sbatch and "slurm" not in plugins:
        meaning = "Slurm is here, but profiles/slurm cannot be used"
        return Result("warning", told, meaning, 'pip install -e ".[slurm]" -c ssvi/constraints.txt')
    where = "sbatch is here" if sbatch else "no sbatch: jobs run on this machine"
    if version != (known := tested().get("snakemake")):
        meaning = "it trains and mirrors by rules that were not tried with it"
        return Result("note", f"{told} (tested: {known}); {where}", meaning)
    return Result("ok", f"{told}; {where}")


def mlflow(asked: Asked) -> Result:
    """Where runs are mirrored to, whether that answers, and its version beside the one that is here."""
    here = installed("mlflow")
    if here is None:
        return Result("skipped", "mlflow is not installed: runs are not mirrored from here")
    try:
        uri = given_address()
    except UserError as error:
        return Result("failed", str(error).rstrip("."), "no workflow starts with it", "correct it, or unset it")
    if not uri:
        return _file(asked.results / "mlflow" / "mlflow.db", "the results folder", here)
    shown = without_password(uri)
    if uri.startswith("sqlite:///"):
        return _file(Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])), shown, here)
    try:
        return _server(uri, shown, here) if uri.startswith("http") else _database(uri, shown, here)
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", None)  # urllib wraps what the system says
        said = one_line(cause if isinstance(cause, BaseException) else error, uri)
        return Result("failed", f"{shown} does not answer: {said}", MEANING, ADVICE)


def _file(path: Path, shown: str, here: str) -> Result:
    there = nearest(path)
    if not os.access(there, os.W_OK):
        said = f"mlflow {here}: {shown}: {there} cannot be written"
        return Result("failed", said, "runs are not mirrored", "name another results folder or MLFLOW_TRACKING_URI")
    return Result("ok", f"mlflow {here}, a file in {shown}")


def _server(uri: str, shown: str, here: str) -> Result:
    parts = urlsplit(uri)
    name = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
    request = urllib.request.Request(f"{address}/version")
    if name:
        request.add_unredirected_header(
            "Authorization", f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"
        )
    elif token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            said = answer.read(200).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            advice = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the token"
            return Result("failed", f"{shown} refuses this user ({error.code})", "runs are not mirrored", advice)
        said = f"HTTP {error.code}"
    if not re.fullmatch(r"\d[\w.+-]*", said):
        meaning = "an old server, or something else than MLflow"
        return Result("warning", f"{shown} answers, but does not say its version", meaning, "look at it in a browser")
    told = f"mlflow {here}, server {shown} has {said}"
    if said.split(".")[0] != here.split(".")[0]:
        meaning = "versions that far apart may not understand each other"
        return Result("warning", told, meaning, "install the server's version here, or update the server")
    return Result("ok", told)


def _database(uri: str, shown: str, here: str) -> Result:
    parts = urlsplit(uri)
    kind = parts.scheme.partition("+")[0]
    port = parts.port or PORTS.get(kind)
    if not parts.hostname or not port:
        return Result("note", f"mlflow {here}, {shown}: its address does not say whom to ask")
    socket.create_connection((parts.hostname, port), timeout=SECONDS).close()
    return Result("ok", f"mlflow {here}, database {shown} takes connections")
