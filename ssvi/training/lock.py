"""One process at a time on a run folder: a second one waits for its turn, and a dead one holds nothing."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import platform
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ssvi.errors import UserError
from ssvi.machine.disk import make_folder, try_lock, write_json
from ssvi.runs.files import LIVE, LOCK, OWNER, remove_live
from ssvi.runs.records import read_record

POLL_SECONDS = 1.0


@contextlib.contextmanager
def claimed(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only process that trains in this run folder; wait until the one that does has ended.

    The kernel (on shared file systems their server) lets go of the lock of a process that has died, however it died.

    Args:
        folder: the run folder; made if it is not there.
        say: told in a line for whom this waits, or that the file system has no locks.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    handle = _acquire(folder, say)
    try:
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_json(folder / OWNER, {"host": platform.node(), "process": os.getpid(), "started": started})
        yield
    finally:
        _leave_no_empty_folder(folder, made)
        os.close(handle)  # and so unlock


def _acquire(folder: Path, say: Callable[[str], None]) -> int:
    """The open and locked file; it stays locked until it is closed or the process ends."""
    path, waits = folder / LOCK, False
    while True:
        make_folder(path.parent)
        try:
            handle = _open(path)
        except FileNotFoundError:
            continue  # another process just took the folder away, because it is empty or the run evaluated
        locked = try_lock(handle)
        if locked is None:
            # some mounts of Lustre, NFS without its lock service
            say(f"{folder}: this file system has no locks; let nobody else train here.")
            return handle
        if not locked:
            os.close(handle)
            if not waits:
                say(f"{folder}: {_owner(folder)} trains this run; waiting for it to end (Ctrl-C stops the waiting).")
            waits = True
            time.sleep(POLL_SECONDS)
            continue
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # a file that nobody else can find any more is no lock


def _open(path: Path) -> int:
    """The file of the lock, made if it is not there, for all whom the umask lets."""
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags | os.O_RDWR, 0o666)
    except PermissionError:
        # somebody else's; most file systems lock it all the same, and those that do not say so
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path}: is a symbolic link, and must be a file.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path}: is no file, and must be one.")
    return handle


def _leave_no_empty_folder(folder: Path, made: list[Path]) -> None:
    """After a mistake that was noticed before the training began; `made` is what was not there before, inmost first."""
    live, own = folder / LIVE, {folder / LOCK, folder / OWNER}
    # gone already, if the run was evaluated meanwhile; the run folder itself may hold more than this process made
    with contextlib.suppress(OSError):
        if own >= set(live.iterdir()):
            remove_live(folder)
            for path in made:
                path.rmdir()


def _owner(folder: Path) -> str:
    """Who holds the lock, as far as is known: the file may be about to be written."""
    try:
        owner = read_record(folder / OWNER, "process", "host", "started")
    except UserError:
        return "another process"
    return f"process {owner['process']} on {owner['host']} (since {owner['started']})"
