"""Files that cannot be read, also where the tests are run by root, whom no permission stops."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

VERSION = 0x20080522  # of the kernel's capabilities, <linux/capability.h>
OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextlib.contextmanager
def unreadable(*paths: Path) -> Iterator[None]:
    """Take all permissions from these files and folders, and from root what makes up for them."""
    before = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0)
    head, held = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None)
    if os.geteuid() == 0 and libc.capget(head, held):
        pytest.skip("root is stopped by no permission here")
    effective = held[0]
    try:
        held[0] = effective & ~OVERRIDES
        if os.geteuid() == 0 and libc.capset(head, held):
            pytest.skip("root is stopped by no permission here")
        yield
    finally:
        held[0] = effective
        if os.geteuid() == 0:
            libc.capset(head, held)
        for path, mode in before.items():
            path.chmod(mode)
