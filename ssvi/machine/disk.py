"""What is asked of file systems, of which many refuse something: files written whole or not at all, what may be
replaced, what killed processes have left, locks, folders of this user's alone.

A file is written beside its place under a name of its own, `.ssvi-KERNEL-RANDOM-NAME`, and is locked until it has
that place. So what a killed process has left is told from what another one is writing just now: nobody holds its lock.
As locks of some network file systems do not reach other machines, that decides at once only for what was begun under
this very kernel; of any other it must also have lain untouched for a day.

Permissions are what the umask leaves. Of what a file system refuses, only that is borne which nothing depends on.

Standard library only: both halves of the package meet here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ssvi.errors import UserError

# What a file system answers that cannot do what it is asked, which is no failure of a disk.
REFUSED = frozenset(
    {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOTTY}
)
# What else it answers of a folder that is to be opened and written to the disk.
FOLDERS_REFUSED = REFUSED | {errno.EACCES, errno.EBADF, errno.EISDIR}
HELD = (errno.EAGAIN, errno.EACCES)
LEFTOVER = re.compile(r"\.ssvi-(?P<kernel>[0-9a-f]{8})-[0-9a-f]{8}-.*", re.DOTALL)
ABANDONED_SECONDS = 86400.0
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


# Writing ------------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes | Iterable[bytes | memoryview], keep: Path | None = None) -> None:
    """Write a file atomically and durably: a reader sees the old one or the new one, never a part.

    When this returns, file and name are on the disk, as far as the file system can be asked for that.

    Args:
        path: of the file.
        data: its content, in one piece or several.
        keep: where the old one is moved to, once the new one is written.

    Raises:
        OSError: naming `path`, if it cannot be written; what was there is then as it was.
        UserError: if something is there that is not a file.
    """
    name = None
    try:
        check_replaceable(path)
        make_folder(path.parent)
        remove_leftovers(path.parent)
        handle, name = _begin(path)
        with os.fdopen(handle, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            _sync(file.fileno(), REFUSED)
            if keep is not None and path.exists():
                check_replaceable(keep)
                os.replace(path, keep)
            os.replace(name, path)
        sync_folder(path.parent)
    except BaseException as error:
        if name is not None:
            name.unlink(missing_ok=True)
        if isinstance(error, OSError):
            # a full disk tells neither the file nor, of a temporary one, a name that anybody knows
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; NaN and infinity are refused, because they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def replace(source: Path, path: Path) -> None:
    """Give a finished file its place, durably.

    Raises:
        OSError: if that cannot be.
        UserError: if something is there that is not a file.
    """
    check_replaceable(path)
    os.replace(source, path)
    sync_folder(path.parent)


def check_replaceable(path: Path) -> None:
    """Refuse to replace what is no plain file, and so was not written here: a link, a folder, a pipe, a device.

    Raises:
        UserError: naming it and what it is.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        kind = next((name for is_one, name in KINDS if is_one(mode)), "a device")
        raise UserError(f"{path}: is {kind}, which is not replaced by a file; move it away, or name another place.")


def make_folder(folder: Path) -> None:
    """Make a folder and those around it, durably, where they are not there."""
    made = []
    for path in (folder, *folder.parents):
        if os.path.isdir(path):
            break
        made.append(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
    for path in made:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where its file system can be asked for that."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in FOLDERS_REFUSED:
            raise
        return
    try:
        _sync(handle, FOLDERS_REFUSED)
    finally:
        os.close(handle)


def _sync(handle: int, borne: frozenset[int]) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in borne:
            raise


# What is not finished, and what is left of it -----------------------------------------------------


def try_lock(handle: int) -> bool | None:
    """Lock an open file until it is closed; whether that is so now, or None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno in REFUSED:
            return None
        raise
    return True


def _begin(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, open for writing and locked, and its name."""
    while True:
        name = _name(path)
        # 0o666 is what the umask, or the folder's own rules, take from
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if _is_mine(handle):
            return handle, name
        os.close(handle)


def _name(path: Path) -> Path:
    # file systems take 255 bytes, and a letter may have four
    return path.with_name(f".ssvi-{_kernel()}-{secrets.token_hex(4)}-{path.name[:50]}")


def _is_mine(handle: int) -> bool:
    """Whether what was just made is locked now and still there: another process may have taken it for a leftover."""
    try:
        # a folder cannot be locked where locks need something that can be written to
        mine = try_lock(handle)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        mine = None
    return mine is not False and os.fstat(handle).st_nlink > 0


@contextlib.contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """A folder in `folder` for what is not finished, deleted in the end, or once its process was killed."""
    make_folder(folder)
    remove_leftovers(folder)
    room = _name(folder / name)
    room.mkdir()
    handle = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _is_mine(handle)
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed have left unfinished in this folder; what cannot be deleted stays."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if found := LEFTOVER.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_if_dead(Path(entry.path), found["kernel"] == _kernel())


def _remove_if_dead(path: Path, here: bool) -> None:
    """`here`: whether it was begun under this kernel, where its writer's lock is certainly seen."""
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return
    access = os.O_RDONLY if stat.S_ISDIR(mode) else os.O_RDWR  # some network file systems lock only what is writable
    handle = os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        free = try_lock(handle)
        untouched = time.time() - os.fstat(handle).st_mtime > ABANDONED_SECONDS
        if free is False or not (untouched or (free and here)):
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)


@functools.cache
def _kernel() -> str:
    """Which running kernel this is; containers of a machine share it, and locks are seen from one to the other."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]


# Folders of this user's alone ---------------------------------------------------------------------


def runtime_folder() -> Path:
    """A folder on this machine that only this user can reach: for sockets, and for what processes tell each other.

    It is the one that the system made for that (`XDG_RUNTIME_DIR`, or where that is on most systems), else `ssvi-UID`
    among the temporary files, made if need be.

    Raises:
        OSError: if the latter cannot be made, or is there and is a link, somebody else's, or open to others.
    """
    for given in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.getuid()}"):
        if given and os.path.isabs(given) and is_private(Path(given)):
            return Path(given)
    folder = Path(tempfile.gettempdir(), f"ssvi-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not is_private(folder):
        raise PermissionError(errno.EPERM, "is not a folder that is this user's alone (mode 0700)", str(folder))
    return folder


def is_private(folder: Path) -> bool:
    """Whether this is a folder, no link to one, that belongs to this user and that nobody else can enter."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
