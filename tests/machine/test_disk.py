"""What is asked of file systems: nothing foreign replaced, leftovers told from work, refusals borne, errors not."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import TESTS

from ssvi.errors import UserError
from ssvi.machine import disk
from ssvi.runs import files
from ssvi.runs.records import check_record
from ssvi.runs.runfolder import SIGNS, check_own
from ssvi.training import lock

REFUSALS = [errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP]
FAILURES = [errno.EIO, errno.ENOSPC, errno.EDQUOT]


def in_the_way(kind: str, path: Path) -> None:
    """Something that is no plain file."""
    if kind == "a folder":
        path.mkdir()
        (path / "mine").write_text("mine")
    elif kind == "a link to a file":
        path.with_name("target").write_text("mine")
        path.symlink_to(path.with_name("target"))
    elif kind == "a link to a folder":
        path.with_name("target").mkdir()
        path.symlink_to(path.with_name("target"))
    elif kind == "a dangling link":
        path.symlink_to(path.with_name("target"))
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as held:
            held.bind(str(path))


THINGS = ("a folder", "a link to a file", "a link to a folder", "a dangling link", "a pipe", "a socket")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """All that is in a folder: names, kinds, contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        found[str(path.relative_to(folder))] = (mode, path.read_bytes() if stat.S_ISREG(mode) else None)
    return found


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


# What may be replaced -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", THINGS)
def test_only_a_plain_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path, source = tmp_path / "out", tmp_path / "source"
    in_the_way(kind, path)
    source.write_text("new")
    before = snapshot(tmp_path)
    said = kind if kind in ("a folder", "a pipe", "a socket") else "a symbolic link"
    for write in (
        lambda: disk.write_text(path, "new"),
        lambda: disk.replace(source, path),
        lambda: check_record(path, "when"),
    ):
        with pytest.raises(UserError, match=f"^{path}: is {said}, which is not replaced by a file;"):
            write()
    assert snapshot(tmp_path) == before


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(UserError, match=r"^/dev/null: is a device, which is not replaced by a file;"):
        disk.check_replaceable(Path("/dev/null"))


def test_a_link_above_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "results").symlink_to("big")
    disk.write_text(tmp_path / "results/runs/a", "new")
    assert (tmp_path / "big/runs/a").read_text() == "new"


@pytest.mark.parametrize(
    ("content", "own"),
    [("", True), ('{"when": 1, "figures": []}', True), ('{"when": 1}', False), ("study: mine", False), ("[]", False)],
)
def test_a_record_only_replaces_a_record(tmp_path: Path, content: str, own: bool) -> None:
    path = tmp_path / "record.json"
    check_record(path, "when", "figures")
    path.write_text(content)
    if own:
        check_record(path, "when", "figures")
    else:
        with pytest.raises(UserError, match=f"^{path}: holds something else than such a record"):
            check_record(path, "when", "figures")


@pytest.mark.parametrize("name", SIGNS)
def test_a_run_does_not_begin_where_something_else_has_files_of_its_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("my own notes, 3,000 words")
    with pytest.raises(UserError, match=f"^{path}: was not written by ssvi, and a training here would replace it;"):
        check_own(tmp_path)
    path.write_text("")
    check_own(tmp_path)
    path.write_text("damaged")
    own = tmp_path / (files.OWNER if name == files.SPEC else files.SPEC)
    own.parent.mkdir(exist_ok=True)
    own.write_text('{"spec": {}, "process": 1}')
    if name != own.name:
        check_own(tmp_path)  # a run folder, of which a file is damaged
    path.unlink()
    path.symlink_to("elsewhere")
    with pytest.raises(UserError, match="is a symbolic link"):
        check_own(tmp_path)


def test_files_of_old_runs_are_known_by_themselves(tmp_path: Path) -> None:
    """What is left of a run when a workflow has deleted what it is about to make anew."""
    for path in (TESTS / "format_1").iterdir():
        if path.name not in (files.SPEC, files.OWNER):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    check_own(tmp_path)


def test_only_what_a_training_put_there_is_deleted_in_live(tmp_path: Path) -> None:
    live = tmp_path / files.LIVE
    live.mkdir()
    for name in files.IN_LIVE:
        (tmp_path / name).write_text("own")
    (live / "photo.jpg").write_text("mine")
    files.remove_live(tmp_path)
    assert [path.name for path in live.iterdir()] == ["photo.jpg"]
    (live / "photo.jpg").unlink()
    files.remove_live(tmp_path)
    assert not live.exists()


@pytest.mark.parametrize("kind", THINGS)
def test_the_lock_is_a_file(tmp_path: Path, kind: str) -> None:
    (tmp_path / files.LIVE).mkdir()
    in_the_way(kind, tmp_path / files.LOCK)
    before = snapshot(tmp_path)
    with pytest.raises((UserError, OSError), match="lock"), lock.claimed(tmp_path, print):
        raise AssertionError
    assert snapshot(tmp_path) == before


# Permissions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_follow_the_umask(tmp_path: Path, umask: Callable[[int], int], mask: int, mode: int) -> None:
    umask(mask)
    disk.write_text(tmp_path / "run/metrics.json", "{}")
    with lock.claimed(tmp_path / "run", print):
        for name in (files.LOCK, files.OWNER, "metrics.json"):
            assert stat.S_IMODE((tmp_path / "run" / name).stat().st_mode) == mode
    with disk.scratch(tmp_path, "room") as room:
        assert stat.S_IMODE(room.stat().st_mode) == 0o777 & ~mask


def test_somebody_elses_lock_that_only_can_be_read_is_locked(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / files.LIVE).mkdir()
    (tmp_path / files.LOCK).touch()
    really = os.open

    def open_for_others(path, flags, *mode):
        if str(path).endswith(files.LOCK) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, flags, *mode)

    monkeypatch.setattr(os, "open", open_for_others)
    with lock.claimed(tmp_path, print), (tmp_path / files.LOCK).open() as other:
        assert disk.try_lock(other.fileno()) is False


# What file systems refuse -------------------------------------------------------------------------


def failing(code: int, kind: Callable[[int], bool] = lambda mode: True) -> Callable[[int], None]:
    """An fsync that fails for files of this kind."""
    really = os.fsync

    def fsync(handle: int) -> None:
        if kind(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        really(handle)

    return fsync


@pytest.mark.parametrize("kind", [stat.S_ISREG, stat.S_ISDIR])
@pytest.mark.parametrize("code", [*REFUSALS, *FAILURES])
def test_a_refused_fsync_is_borne_and_a_failed_one_is_not(tmp_path: Path, monkeypatch, code, kind) -> None:
    path = tmp_path / "new" / "file"
    monkeypatch.setattr(os, "fsync", failing(code, kind))
    if code in REFUSALS:
        disk.write_text(path, "new")
        assert path.read_text() == "new"
    else:
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            disk.write_text(path, "new")
        assert caught.value.errno == code
    assert not list(tmp_path.rglob(".ssvi-*"))


def test_file_then_name_then_every_new_folder_reach_the_disk(tmp_path: Path, monkeypatch) -> None:
    done: list[tuple[str, bool]] = []
    path, really = tmp_path / "a/b/file", os.fsync

    def fsync(handle: int) -> None:
        done.append((os.readlink(f"/proc/self/fd/{handle}"), path.exists()))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    disk.write_text(path, "new")
    names = [(name if ".ssvi-" not in name else "unfinished", there) for name, there in done]
    folders = [str(tmp_path / "a"), str(tmp_path)]
    assert names == [*((folder, False) for folder in folders), ("unfinished", False), (str(tmp_path / "a/b"), True)]


@pytest.mark.parametrize("code", [*REFUSALS, errno.ENOLCK, errno.EIO])
def test_locks_that_a_file_system_has_not(tmp_path: Path, monkeypatch, code: int) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    if code == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            disk.write_text(tmp_path / "file", "new")
        return
    disk.write_text(tmp_path / "file", "new")
    with disk.scratch(tmp_path, "room") as room:
        assert room.is_dir()
    said: list[str] = []
    with lock.claimed(tmp_path, said.append):
        assert said == [f"{tmp_path}: this file system has no locks; let nobody else train here."]


# Leftovers ----------------------------------------------------------------------------------------

WRITES = """
import sys; from pathlib import Path; from ssvi.machine import disk
path = Path(sys.argv[1])
def parts():
    yield b"half"
    print("writing", flush=True)
    sys.stdin.read()
    yield b" and half"
with disk.scratch(path.parent, "room") as room:
    (room / "unpacked").touch()
    disk.write_bytes(path, parts())
"""


def test_what_a_killed_process_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITES, str(tmp_path / "file")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen(words, **pipes) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == "writing\n"
    assert len(list(tmp_path.glob(".ssvi-*"))) == 4
    disk.remove_leftovers(tmp_path)
    assert len(list(tmp_path.glob(".ssvi-*"))) == 4
    writers[0].kill()
    writers[0].communicate()
    disk.write_text(tmp_path / "another", "new")
    assert len(list(tmp_path.glob(".ssvi-*"))) == 2
    writers[1].communicate("")
    assert (tmp_path / "file").read_text() == "half and half"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "another"}


@pytest.mark.parametrize("folder", [True, False])
def test_what_another_machine_writes_stays_for_a_day(tmp_path: Path, folder: bool) -> None:
    left = tmp_path / ".ssvi-0000ffff-00000000-history.csv"
    left.mkdir() if folder else left.touch()
    disk.remove_leftovers(tmp_path)
    assert left.exists()
    os.utime(left, (time.time() - 2 * disk.ABANDONED_SECONDS,) * 2)
    disk.remove_leftovers(tmp_path)
    assert not left.exists()


def test_without_locks_a_day_decides_too(tmp_path: Path, monkeypatch) -> None:
    left = disk._name(tmp_path / "file")
    left.touch()
    monkeypatch.setattr(disk, "try_lock", lambda handle: None)
    disk.remove_leftovers(tmp_path)
    assert left.exists()


@pytest.mark.parametrize(
    "name", [".history.csv.swp", ".history.csv.original", ".ssvi-notes", "ssvi-00000000-00000000-a"]
)
def test_no_other_hidden_file_is_a_leftover(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    os.utime(path, (0, 0))
    disk.remove_leftovers(tmp_path)
    assert path.exists()


@pytest.mark.parametrize("kind", THINGS[1:])
def test_nothing_but_files_and_folders_is_a_leftover(tmp_path: Path, kind: str) -> None:
    in_the_way(kind, disk._name(tmp_path / "x"))
    before = snapshot(tmp_path)
    disk.remove_leftovers(tmp_path)
    assert snapshot(tmp_path) == before


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    path = tmp_path / ("x" * 255)
    disk.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt):
        disk.write_bytes(path, breaks())
    assert snapshot(tmp_path).keys() == {path.name}
    assert path.read_text() == "old"


# Folders of this user's alone ---------------------------------------------------------------------


@pytest.fixture
def no_runtime_folder(monkeypatch, tmp_path: Path) -> Path:
    """A system that made none; the folder for temporary files."""
    really = disk.is_private
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(disk, "is_private", lambda folder: not str(folder).startswith("/run/user") and really(folder))
    monkeypatch.setattr(disk.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_runtime_folder_is_this_users_alone(no_runtime_folder: Path, monkeypatch, umask) -> None:
    umask(0)
    folder = disk.runtime_folder()
    assert folder == no_runtime_folder / f"ssvi-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    given = no_runtime_folder / "given"
    given.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(given))
    assert disk.runtime_folder() == given
    given.chmod(0o750)
    assert disk.runtime_folder() == folder
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="is not a folder that is this user's alone"):
        disk.runtime_folder()


@pytest.mark.parametrize("kind", THINGS)
def test_a_runtime_folder_that_somebody_else_made_is_refused(no_runtime_folder: Path, kind: str, umask) -> None:
    in_the_way(kind, no_runtime_folder / f"ssvi-{os.getuid()}")  # a folder: of mode 0755
    before = snapshot(no_runtime_folder)
    with pytest.raises(PermissionError, match="is not a folder that is this user's alone"):
        disk.runtime_folder()
    assert snapshot(no_runtime_folder) == before
