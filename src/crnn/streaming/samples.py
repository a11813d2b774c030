"""Raw samples, and WAV as recorders write it into a pipe, as blocks of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crnn.errors import DataError
from crnn.streaming.tail import Tail

Block = NDArray[np.float32]
UNKNOWN_LENGTH = 0x7FFF0000
"""Recorders that write into a pipe give a data length of 0, or one from here on: they do not know it yet."""


@dataclass(frozen=True)
class Samples:
    """How samples stand in bytes: channels side by side, little-endian."""

    encoding: str
    """u8, s16, s24, s32, f32 or f64."""
    channels: int
    rate: float | None

    @property
    def frame_bytes(self) -> int:
        return int(self.encoding[1:]) // 8 * self.channels

    def decode(self, data: bytes) -> Block:
        """Whole frames as (n, channels) in -1..1."""
        return DECODERS[self.encoding](data).reshape(-1, self.channels)


def _whole(data: bytes, kind: str) -> Block:
    """Signed little-endian numbers over their full scale."""
    numbers = np.frombuffer(data, kind)
    return (numbers / 2.0 ** (8 * numbers.itemsize - 1)).astype(np.float32)


def _s24(data: bytes) -> Block:
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return _whole(wide.tobytes(), "<i4")


DECODERS: dict[str, Callable[[bytes], Block]] = {
    "u8": lambda data: ((np.frombuffer(data, np.uint8) - 128.0) / 128).astype(np.float32),
    "s16": lambda data: _whole(data, "<i2"),
    "s24": _s24,
    "s32": lambda data: _whole(data, "<i4"),
    "f32": lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    "f64": lambda data: np.frombuffer(data, "<f8").astype(np.float32),
}
WAV_FORMATS = {(1, 8): "u8", (1, 16): "s16", (1, 24): "s24", (1, 32): "s32", (3, 32): "f32", (3, 64): "f64"}
"""(format tag, bits) of a WAV header -> encoding."""


def read_wav_header(tail: Tail) -> tuple[Samples, int | None]:
    """Read up to the first sample; returns what the samples are, and how many bytes of them follow, if that is known.

    Raises:
        DataError: no WAV, compressed samples, or an end before the samples.
    """
    start = tail.read(12)
    if start[:4] != b"RIFF" or start[8:12] != b"WAVE":
        raise DataError(f"{tail.name}: found no WAV header; for raw samples say --format s16le --rate RATE")
    samples = None
    while True:
        head = tail.read(8)
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            break
        body = tail.read(size + size % 2)
        if len(head) < 8 or len(body) < size:
            raise DataError(f"{tail.name}: the WAV header ends before its samples; the file is truncated")
        if head[:4] == b"fmt ":
            samples = _wav_samples(body, tail.name)
    if samples is None:
        raise DataError(f"{tail.name}: the WAV header says nothing about its samples; the file is damaged")
    return samples, size if 0 < size < UNKNOWN_LENGTH else None


def _wav_samples(body: bytes, name: str) -> Samples:
    tag, channels = (int.from_bytes(body[i : i + 2], "little") for i in (0, 2))
    rate, bits = int.from_bytes(body[4:8], "little"), int.from_bytes(body[14:16], "little")
    if tag == 0xFFFE:  # extensible: the real tag stands further back
        tag = int.from_bytes(body[24:26], "little")
    if (tag, bits) not in WAV_FORMATS or channels < 1:
        raise DataError(
            f"{name}: WAV format {tag} with {bits} bits and {channels} channels cannot be read live; "
            "use plain samples of 8 to 32 bits, or floats"
        )
    return Samples(WAV_FORMATS[tag, bits], channels, rate)


def read_samples(tail: Tail, samples: Samples, block: int, total: int | None = None) -> Iterator[Block]:
    """Blocks of `block` frames; the last one may be shorter.

    Args:
        total: bytes to read; None for all there are.
    Raises:
        DataError: the bytes end inside of a frame, or before there were `total`.
    """
    size, found = block * samples.frame_bytes, 0
    while total is None or found < total:
        wanted = size if total is None else min(size, total - found)
        data = tail.read(wanted)
        found += len(data)
        rest = len(data) % samples.frame_bytes
        if len(data) > rest:
            yield samples.decode(data[: len(data) - rest])
        if tail.interrupted:
            return  # what is left of a frame was still being written
        if total is not None and len(data) < wanted:
            raise DataError(
                f"{tail.name}: truncated: its header says {total} bytes of samples, found {found}; get the file again"
            )
        if rest:
            raise DataError(f"{tail.name}: ends {rest} bytes into a frame of {samples.frame_bytes}; check --format")
        if len(data) < size:
            return
