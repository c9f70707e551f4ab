"""What compiling needs: a compiler that works, Python's headers, Triton, folders for what is compiled."""

from __future__ import annotations

import ctypes
import getpass
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ssvi.doctor.base import Asked, Result, worst
from ssvi.doctor.gpu import device_of
from ssvi.doctor.probing import PREFIX, nearest
from ssvi.doctor.results import GIB, mount_of
from ssvi.runs.versions import installed

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

NAMES = {"CXX": ("c++", "g++", "clang++"), "CC": ("cc", "gcc", "clang")}
SOURCE = {
    "CXX": ("test.cpp", 'extern "C" int answer() { return 42; }'),
    "CC": ("test.c", "int answer() { return 42; }"),
}
SLOWER = "nothing is compiled: on a GPU steps take longer; results stay right"
# What is compiled for a training of a ResNet-18, several times over.
NEEDED = GIB // 2


def compiler(asked: Asked) -> Result:
    """The compilers that torch and Triton call, tried: compile, link, load."""
    found = [_tried(variable, asked) for variable in NAMES]
    if not (header := Path(sysconfig.get_path("include"), "Python.h")).exists():
        advice = "install the headers of this Python (python3-dev, python3-devel)"
        found.append(Result("warning", f"{header} is not there", SLOWER, advice))
    return worst(found)


def _tried(variable: str, asked: Asked) -> Result:
    named = shlex.split(os.environ.get(variable, ""))
    command = named or [path for name in NAMES[variable] if (path := shutil.which(name))][:1]
    if not command:
        said = f"no {'C++' if variable == 'CXX' else 'C'} compiler ({', '.join(NAMES[variable])})"
        return Result("warning", said, SLOWER, "install g++, or load the cluster's module for it")
    shown = f"{variable}={' '.join(named)}" if named else command[0]
    advice = f"set {variable} to a compiler that works, and TMPDIR to a folder whose files may be run"
    name, source = SOURCE[variable]
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{asked.token}-") as folder:
        (Path(folder) / name).write_text(source)
        try:
            done = subprocess.run(
                [*command, "-shared", "-fPIC", name, "-o", "test.so"], capture_output=True, text=True, cwd=folder
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
                return Result("failed", f"{shown} compiles nothing: {lines[0]}", SLOWER, advice)
            answer = ctypes.CDLL(str(Path(folder) / "test.so")).answer()
        except OSError as error:
            return Result("failed", f"{shown}: what it compiles does not run: {error}", SLOWER, advice)
    if answer != 42:
        return Result("failed", f"{shown} compiles wrong code", "compiled trainings would be wrong", advice)
    return Result("ok", shown)


def cache(_: Asked) -> Result:
    """Where what is compiled is kept."""
    temporary = Path(tempfile.gettempdir())
    inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or temporary / f"torchinductor_{getpass.getuser()}"
    places = {
        "TMPDIR": temporary,
        "TORCHINDUCTOR_CACHE_DIR": Path(inductor),
        "TRITON_CACHE_DIR": Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache"),
    }
    found = []
    for variable, place in places.items():
        there = nearest(place)
        mount, advice = mount_of(there), f"set {variable} to a folder on a local disk"
        size = os.statvfs(there)
        if not os.access(there, os.W_OK | os.X_OK):
            found.append(Result("failed", f"{variable}: {place} cannot be written", SLOWER, advice))
        elif mount is not None and "noexec" in mount[2]:
            said = f"{variable}: {place} is mounted noexec: what is compiled there cannot be loaded"
            found.append(Result("failed", said, SLOWER, advice))
        elif (free := size.f_bavail * size.f_frsize) < NEEDED:
            said = f"{variable}: {place} has {free / GIB:.2f} GiB free"
            found.append(Result("warning", said, "compiling may fail for want of space", advice))
    return worst(found or [Result("ok", f"{', '.join(str(place) for place in places.values())}: writable")])


def triton(asked: Asked) -> Result:
    """The version that this torch was built for."""
    wanted = _wanted()
    here = next((version for name in ("triton", "pytorch-triton") if (version := installed(name))), None)
    if device_of(asked).type == "cpu":
        return Result("skipped", "Triton compiles for GPUs alone")
    if here is None:
        return Result("warning", "Triton is not installed", SLOWER, f"pip install triton{wanted or ''}")
    if wanted and here not in wanted:
        meaning = "compiling for the GPU may fail, or compute something else"
        return Result(
            "warning", f"triton {here}, but this torch asks for {wanted}", meaning, f"pip install triton{wanted}"
        )
    return Result("ok", f"triton {here}{f', as torch asks for ({wanted})' if wanted else ''}")


def _wanted() -> SpecifierSet | None:
    """The versions of Triton that torch's own metadata ask for; None where they name none."""
    from packaging.requirements import Requirement

    for line in metadata.requires("torch") or []:
        asked = Requirement(line)
        if asked.name in ("triton", "pytorch-triton") and (
            asked.marker is None or asked.marker.evaluate({"extra": ""})
        ):
            return asked.specifier
    return None
