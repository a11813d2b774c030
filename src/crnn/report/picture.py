"""Pictures in a report: line images as small PNGs inside of the page, written with the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREYS = 16
"""Levels of grey that are kept: four bits a pixel."""
MAX_COLUMNS = 1600
"""Of a picture; a longer line is thinned."""


def line_picture(frames: NDArray[Any]) -> str:
    """A line image (width, 1, height), ink 1, as a data URI that an <img> shows: ink dark, paper white."""
    step = -(-len(frames) // MAX_COLUMNS)
    darkness = np.nan_to_num(frames[::step, 0].T.astype(np.float32)).clip(0, 1)
    return "data:image/png;base64," + base64.b64encode(png(1 - darkness)).decode("ascii")


def png(brightness: NDArray[np.float32]) -> bytes:
    """(rows, columns) of 0 (black) to 1 (white) as a PNG of four bits a pixel.

    Source: the PNG specification, W3C 2003: signature, then chunks of length, name, content and CRC; each row of pixels
    behind a byte that names its filter, here none.
    """
    rows, columns = brightness.shape
    levels = np.rint(brightness * (GREYS - 1)).astype(np.uint8)
    if columns % 2:
        levels = np.pad(levels, ((0, 0), (0, 1)))
    packed = levels[:, ::2] << 4 | levels[:, 1::2]
    raw = np.pad(packed, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", columns, rows, 4, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
