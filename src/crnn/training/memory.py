"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache


def release_memory() -> None:
    """Give freed memory back to the system; does nothing where the C library is not glibc.

    Batches of ever different lengths leave holes in glibc's heap that later batches do not fit into, and glibc returns
    the end of its heap only: a process that needs half a gigabyte for each update grows beyond two within an epoch.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    """The C library that is loaded already, where it has malloc_trim."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None  # musl has none
