"""Chunks as people have them (arrays, lists, tensors, 16-bit audio) -> the frames that a network takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.data.dataset import Kind
from crnn.errors import DataError, ShapeError

FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31}
"""Whole-number audio samples that stand for 1; files in these formats are read by the same scale."""


def as_frames(chunk: Any, kind: Kind, num_channels: int) -> NDArray[Any]:
    """(n, channels) float32, n >= 0; (n,) int64 for symbols.

    Args:
        chunk: (n,) for one channel, (n, channels), a single frame (channels,), or anything empty. Audio is in -1..1, or
            int16 or int32 samples, which are scaled to it.
    Raises:
        ShapeError: another number of channels. DataError: no numbers, or audio samples of another whole-number type.
    """
    if isinstance(chunk, np.ndarray) and _is_ready(chunk, kind, num_channels):
        return chunk
    array = _as_array(chunk)
    if kind == "symbols":
        return _as_symbols(array)
    if array.size == 0:
        return np.zeros((0, num_channels), np.float32)
    if array.dtype.kind not in "fiub":
        raise DataError(f"chunk: found values of type {array.dtype}, expected numbers")
    if kind == "audio" and array.dtype.kind in "iub":
        if array.dtype.name not in FULL_SCALE:
            raise DataError(
                f"chunk: found audio samples of type {array.dtype}, expected -1..1 as floats, or int16 or int32; "
                "convert them, so that their scale is clear"
            )
        array = array / np.float32(FULL_SCALE[array.dtype.name])
    shaped = _by_channels(array, num_channels)
    with np.errstate(over="ignore"):  # beyond float32: infinite, as when it is read from a file
        return np.ascontiguousarray(shaped, dtype=np.float32)


def _is_ready(chunk: NDArray[Any], kind: Kind, num_channels: int) -> bool:
    """As the network takes it; a step of a small one is shorter than looking closely would be."""
    right = chunk.dtype == np.float32 and chunk.ndim == 2 and chunk.shape[1] == num_channels
    return kind != "symbols" and right and chunk.flags.c_contiguous


def _as_array(chunk: Any) -> NDArray[Any]:
    if hasattr(chunk, "detach"):  # a torch tensor, on any device
        chunk = chunk.detach().cpu().numpy()
    try:
        return np.asarray(chunk)
    except ValueError:
        raise DataError("chunk: found a ragged list, expected numbers, (n,) or (n, channels)") from None


def _by_channels(array: NDArray[Any], num_channels: int) -> NDArray[Any]:
    if array.ndim <= 1 and (num_channels == 1 or array.shape == (num_channels,)):
        return array.reshape(-1, num_channels)
    if array.ndim == 2 and array.shape[1] == num_channels:
        return array
    expected = f"(n, {num_channels})" + (" or (n,)" if num_channels == 1 else f" or one frame ({num_channels},)")
    turned = array.ndim == 2 and array.shape[0] == num_channels
    hint = "turn it: chunk.T" if turned else "give the channels that the model was trained on, in their order"
    raise ShapeError(f"chunk: found an array of shape {array.shape}, expected {expected}; {hint}")


def _as_symbols(array: NDArray[Any]) -> NDArray[Any]:
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise DataError(
            f"chunk: found {array.dtype} of shape {array.shape}, expected whole numbers (n,), the ids of symbols"
        )
    return array.reshape(-1).astype(np.int64)


def check_symbols(ids: NDArray[np.int64], vocabulary: int) -> None:
    """Refuse what is no id of the vocabulary.

    Raises:
        DataError: the first such id, and where it stands in the chunk.
    """
    wrong = np.flatnonzero((ids < 0) | (ids >= vocabulary))
    if wrong.size:
        raise DataError(
            f"chunk: found symbol id {ids[wrong[0]]} at {wrong[0]}, expected 0 to {vocabulary - 1}; "
            "map unknown symbols to an id of their own"
        )
