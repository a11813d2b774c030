"""Memory of large arrays, which is used again: to take it anew for every training step costs as much as to compute.

A new page has to be cleared, and on a virtual machine often to be fetched from the host first.
"""

from __future__ import annotations

import math
import mmap
import weakref

import torch
from torch import Tensor

LARGE = 2**22
"""Bytes from which memory is kept here; below, torch's own allocator does so."""
MOST_KEPT = 2**30
"""Bytes that are kept while nothing uses them; what was given back first goes first."""

_free: list[mmap.mmap] = []  # appended to and removed from by single calls, which threads cannot divide


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """As torch.empty on the CPU; the memory comes back here when the last tensor that views it is gone."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or not hasattr(mmap, "MAP_PRIVATE"):  # as on Windows
        return torch.empty(shape, dtype=dtype)
    memory = _take(size)
    view = memoryview(memory)[:size]
    weakref.finalize(view, _give_back, memory).atexit = False
    return torch.frombuffer(view, dtype=dtype).view(shape)  # which holds the view for as long as itself


def _take(size: int) -> mmap.mmap:
    """The smallest that is free and fits without wasting half of it, or a new one."""
    for memory in sorted(_free, key=len):
        if size <= len(memory) <= 2 * size:
            try:
                _free.remove(memory)
            except ValueError:  # another thread was faster
                continue
            return memory
    memory = mmap.mmap(-1, -(-size // LARGE) * LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without huge pages: the same memory, a little slower
            return memory
    return memory


def _give_back(memory: mmap.mmap) -> None:
    _free.append(memory)
    while sum(map(len, _free)) > MOST_KEPT:
        _free.pop(0)
