"""Windows of long recordings: what a network is trained on where a whole recording is hours long."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crnn.data.annotation import Annotation
from crnn.data.dataset import Dataset, Example
from crnn.errors import ConfigError


def windows(data: Dataset, size: int, *, hop: int | None = None) -> Dataset:
    """Examples longer than `size` as windows of `size` frames, annotations cut with them; shorter ones as they are.

    The last window ends where the recording does, so that nothing is left out; each is read by itself.

    Args:
        hop: frames from one window to the next; half a window when None.
    Raises:
        ConfigError: a size or hop below 1, or a hop beyond the size, which would skip frames.
    """
    hop = max(size // 2, 1) if hop is None else hop
    if size < 1 or not 1 <= hop <= size:
        raise ConfigError(f"windows of {size} frames every {hop}; expected at least 1, and a hop of at most the size")
    return replace(data, examples=tuple(window for example in data for window in _windows(example, size, hop)))


def beginnings(data: Dataset, size: int) -> Dataset:
    """Every example, cut to its first `size` frames where it is longer."""
    return replace(data, examples=tuple(e if e.length <= size else _window(e, 0, size) for e in data))


def _windows(example: Example, size: int, hop: int) -> list[Example]:
    if example.length <= size:
        return [example]
    starts = [*range(0, example.length - size, hop), example.length - size]
    return [_window(example, start, start + size) for start in starts]


def _window(example: Example, start: int, end: int) -> Example:
    target = example.target
    return replace(
        example,
        id=f"{example.id}[{start}:{end}]",
        where=f"{example.where} frames {start} to {end}",
        length=end - start,
        load=functools.partial(example.read_part, start, end),
        part=functools.partial(_inner_part, example, start),
        target=target.between(start, end) if isinstance(target, Annotation) else target,
    )


def _inner_part(example: Example, offset: int, start: int, end: int) -> NDArray[np.generic]:
    return example.read_part(offset + start, offset + end)
