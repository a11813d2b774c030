"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path

RELEASE_ABOVE = 1 << 30
"""Bytes that a process may hold before it is worth the time to give freed memory back in the midst of work."""


def release_memory(above: int = 0) -> None:
    """Give freed memory back to the system; does nothing where the C library is not glibc.

    Batches of ever different lengths leave holes in glibc's heap that later batches do not fit into, and glibc returns
    the end of its heap only: a process that needs half a gigabyte for each update grows beyond two within an epoch.

    Args:
        above: bytes that the process has to hold for it to be worth the time.
    """
    libc = _glibc()
    if libc is not None and (not above or _resident_pages() * 4096 > above):  # larger pages: later, never wrong
        libc.malloc_trim(0)


def _resident_pages() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # a container without /proc
        return 0


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    """The C library that is loaded already, where it has malloc_trim."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None  # musl has none
