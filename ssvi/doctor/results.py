"""The results folder: what a run folder needs of its file system, tried in a folder that goes again."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from ssvi.doctor import study
from ssvi.doctor.base import Asked, Result, worst
from ssvi.doctor.probing import nearest, scratch
from ssvi.machine.disk import try_lock
from ssvi.runs.files import METRICS

MIB, GIB = 2**20, 2**30
MOUNTS = Path("/proc/self/mounts")
NETWORK = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "smbfs", "glusterfs", "afs", "panfs",
           "9p", "virtiofs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone")  # fmt: skip
# What is written to see whether anything can be: statvfs knows no quota.
TRIED = 4 * MIB
# Of networks of width 1 on images of 32 x 32 pixels; bytes a weight when a run is finished (means, rho, mask) and of
# the checkpoints of one in training (two and the next one); of its other files.
WEIGHTS = {"resnet18": 11.2e6, "resnet8": 78e3, "mlp": 860e3}
# What a plugin's network is taken for.
LARGEST = max(WEIGHTS, key=WEIGHTS.get)
FINISHED, LIVE, SMALL_FILES = 10, 70, MIB // 4
FILES = 15
LEAST_FREE = GIB
RENAMES = 100
# A server may take that long to let go of the lock of a process that was killed.
LET_GO_SECONDS = 5.0
# What host and file server may be apart.
SKEW_SECONDS = 1.0
MOST_PATH, BESIDE_RUN = 4096, len("/runs/") + len("/live/checkpoint.previous.pt.0123456789.tmp")


def folder(asked: Asked) -> Result:
    """Whether it is there or can be made, written, and shared with a group as its permissions say."""
    path, there = asked.results, nearest(asked.results)
    known = there == Path(os.path.abspath(path))
    if known and not path.is_dir():
        return Result("failed", f"{path} is a file", "no run can be written", "name another results folder")
    os.umask(umask := os.umask(0))
    with scratch(path, asked):
        pass
    mode = there.stat().st_mode
    found = [Result("ok", f"{path}: {'writable' if known else f'can be made in {there}'}, umask {umask:03o}")]
    if mode & 0o2000 and mode & 0o020 and umask & 0o020:
        meaning = "it is shared with a group (setgid), but nobody else of it can go on with what is trained here"
        found.append(Result("warning", f"umask {umask:03o} takes the group's right to write", meaning, "umask 002"))
    return worst(found)


def system(asked: Asked) -> Result:
    """The kind of file system, by its name and its mount's options."""
    mount = mount_of(nearest(asked.results))
    if mount is None:
        return Result("skipped", "the system does not list what is mounted")
    place, kind, options = mount
    told = f"{kind} at {place}"
    here_alone = "nolock" in options or options & {"local_lock=all", "local_lock=flock", "localflock"}
    if "ro" in options:
        return Result("failed", f"{told} is read-only", "nothing can be written", "name another results folder")
    if kind in NETWORK and here_alone:
        meaning = "locks hold on this host alone, so that trainings on two hosts could work on one run"
        return Result("warning", f"{told} ({', '.join(sorted(options))})", meaning, "mount it with locks of the server")
    if kind.startswith("nfs") and "soft" in options:
        meaning = "a server that is slow makes writes fail, and a training with them"
        return Result("warning", f"{told} (soft)", meaning, "mount it hard")
    if kind in ("tmpfs", "ramfs"):
        return Result("warning", told, "it lies in memory, and is gone after a restart", "name another results folder")
    if kind == "overlay":
        return Result("note", told, "a container's own layer: what is in it goes with the container")
    if kind in NETWORK or kind.startswith("fuse."):
        return Result("note", f"{told}, a network file system", "what it can do is tried in the next lines")
    return Result("ok", told)


def mount_of(path: Path) -> tuple[str, str, set[str]] | None:
    """Mount point, kind and options of the file system that a path lies on; None where that is not listed."""
    found, real = None, os.path.realpath(path)
    for line in MOUNTS.read_text(errors="replace").splitlines() if MOUNTS.exists() else []:
        _, escaped, kind, options, *_ = line.split(" ")
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), escaped)
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and (found is None or len(place) >= len(found[0])):  # what is mounted later hides what was there
            found = place, kind, set(options.split(","))
    return found


def space(asked: Asked) -> Result:
    """Free bytes and files against what the study still has to write; and that something can be written at all."""
    try:
        with scratch(asked.results, asked) as place, (place / "file").open("wb") as file:
            file.write(b"0" * TRIED)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno == errno.EFBIG:
            said = f"{TRIED // MIB} MiB cannot be written: {error.strerror}"
            return Result("failed", said, "no checkpoint can be written", "raise the limit: ulimit -f unlimited")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # what else is refused, the other lines tell
            said = f"{TRIED // MIB} MiB cannot be written: {error.strerror}"
            return Result("failed", said, "trainings end, and go on once there is room", "make space")
    found = os.statvfs(nearest(asked.results))
    free, files = found.f_bavail * found.f_frsize, found.f_favail
    told = f"{free / GIB:.1f} GiB free" + (f", {files} files" if found.f_files else "")
    specs = study.specs(asked)
    left = {run: spec for run, spec in specs.items() if not (asked.results / "runs" / run / METRICS).is_file()}
    weights = [WEIGHTS.get(spec.model, WEIGHTS[LARGEST]) * spec.width**2 for spec in left.values()]
    needed = sum(SMALL_FILES + FINISHED * n for n in weights) + LIVE * max(weights, default=0)
    asks = f"; {len(left)} runs left need about {needed / GIB:.1f} GiB and {FILES * len(left)} files" if left else ""
    if free < needed or (found.f_files and files < FILES * len(left)):
        meaning = "the study will stop for want of space, and go on once there is room"
        return Result("warning", told + asks, meaning, "make space, or name another results folder")
    if free < LEAST_FREE:
        meaning = "a ResNet-18 needs that while it trains"
        return Result("warning", told + asks, meaning, f"make space: {LEAST_FREE / GIB:g} GiB")
    return Result("ok", told + asks)


def rename(asked: Asked) -> Result:
    """A file that is replaced while it is read is the old one or the new one, whole, at every moment."""
    size, wrong, done = 4096, list[str](), threading.Event()
    with scratch(asked.results, asked) as place:
        path = place / "file"
        path.write_bytes(b"0" * size)

        def read() -> None:
            while not done.is_set():
                try:
                    content = path.read_bytes()
                except OSError as error:
                    wrong.append(f"while it was replaced, a file was {error.strerror}")
                    return
                if len(content) != size or len(set(content)) != 1:
                    wrong.append("while it was replaced, a file was neither the old one nor the new one")
                    return

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for i in range(RENAMES):
                new = place / "new"
                new.write_bytes(str(i % 10).encode() * size)
                os.replace(new, path)
        finally:
            done.set()
            reader.join()
    if wrong:
        meaning = "a checkpoint or a result can be lost when a process is killed"
        return Result("failed", wrong[0], meaning, "keep results on another file system")
    return Result("ok", "files are replaced whole: a reader sees the old one or the new one")


def sync(asked: Asked) -> Result:
    """Whether files and folders can be forced to the disk."""
    with scratch(asked.results, asked) as place:
        with (place / "file").open("wb") as file:
            file.write(b"0" * 4096)
            file.flush()
            try:
                os.fsync(file.fileno())
            except OSError as error:
                meaning = "a checkpoint may be empty after a power cut, and a training ends when it writes one"
                return Result("failed", f"fsync of a file: {error.strerror}", meaning, "keep results elsewhere")
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            meaning = "the last files written may be missing after a power cut; they are trained again"
            return Result(
                "warning", f"fsync of a folder: {error.strerror}", meaning, "keep results elsewhere if it may not"
            )
        finally:
            os.close(handle)
    return Result("ok", "fsync of files and folders: what is published outlives a power cut")


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


def locks(asked: Asked) -> Result:
    """A lock that another process holds is refused, and given when that process is killed."""
    meaning = "two processes could train one run at once and overwrite each other's checkpoints"
    advice = "see that nobody else trains there, keep results elsewhere, or have it mounted with locks (Lustre: flock)"
    with scratch(asked.results, asked) as place:
        path = place / "lock"
        path.touch()
        with path.open("r+") as file:
            if try_lock(file.fileno()) is None:
                return Result("failed", "the file system has no locks", meaning, advice)
        command = [sys.executable, "-c", HOLD, str(path)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with holder, path.open("r+") as file:
            try:
                assert holder.stdout is not None
                if holder.stdout.readline() != b"held\n":
                    return Result("failed", "another process could not take a lock that nobody holds", meaning, advice)
                if try_lock(file.fileno()):
                    return Result("failed", "two processes held one lock at once", meaning, advice)
            finally:
                holder.kill()
            until = time.monotonic() + LET_GO_SECONDS
            while not try_lock(file.fileno()):
                if time.monotonic() > until:
                    told = f"the lock of a process that was killed was not let go in {LET_GO_SECONDS:g} s"
                    meaning = "a training that was killed can keep the next one waiting"
                    return Result("failed", told, meaning, "keep results elsewhere")
                time.sleep(0.05)
    return Result("ok", "locks hold across processes of this host and end with them")


def times(asked: Asked) -> Result:
    """How fine the times of files are, and how far the file system's clock is from this host's."""
    with scratch(asked.results, asked) as place:
        path = place / "file"
        before = time.time()
        path.write_bytes(b"0")
        written, after = path.stat().st_mtime, time.time()
        skew = max(before - written, written - after, 0.0)
        os.utime(path, ns=(987_654_321, 987_654_321))
        lost = 987_654_321 - path.stat().st_mtime_ns
    told = f"times to {'the nanosecond' if not lost else f'within {lost / 1e9:.2g} s'}"
    if skew > SKEW_SECONDS:
        meaning = "Snakemake may take files that were just made for old ones, and make tables or runs again"
        said = f"its clock is {skew:.1f} s from this host's"
        return Result("warning", said, meaning, "set the clocks of host and file server by NTP")
    return Result("ok", f"{told}, the clock is this host's")


def names(asked: Asked) -> Result:
    """Whether names that differ in case are two files, and whether the study's longest ones fit."""
    found = []
    with scratch(asked.results, asked) as place:
        (place / "case").touch()
        if (place / "CASE").exists():
            meaning = "runs whose paths differ in case alone would share a folder, and the second is refused"
            found.append(Result("note", "upper and lower case are the same", meaning))
        runs = study.specs(asked)
        longest = max((part for run in runs for part in run.split("/")), key=len, default="r" * 200)
        try:
            (place / longest).mkdir()
        except OSError as error:
            said = f"a folder of {len(longest.encode())} bytes cannot be made: {error.strerror}"
            found.append(Result("failed", said, "such a run cannot be written", "keep results elsewhere"))
    path = len(os.path.abspath(asked.results)) + BESIDE_RUN + max((len(run) for run in runs), default=200)
    if path > MOST_PATH:
        said = f"a path of {path} bytes"
        found.append(Result("failed", said, "such a run cannot be written", "keep results in a folder nearer the root"))
    which = "the study's longest" if runs else "a long"
    return worst(found or [Result("ok", f"case matters; {which} name ({len(longest.encode())} bytes) fits")])
