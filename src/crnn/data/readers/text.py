"""Lines and numbers of text files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, .gz included; Latin-1 where it is not UTF-8 (old archive headers).

    Raises:
        DataError: the file is damaged.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); get the file again") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.split("\n")


def parse_numbers(text: str, name: str, separator: str = ",") -> NDArray[np.float32]:
    """Separated numbers, '?' for NaN; values beyond float32 become infinite.

    Raises:
        DataError: a cell is not a number: which.
    """
    if not text.strip():
        return np.zeros(0, dtype=np.float32)
    cells = text.replace("?", "nan").split(separator)
    with np.errstate(over="ignore"):
        try:
            return np.array([float(cell) for cell in cells]).astype(np.float32)
        except ValueError:
            i = next(i for i, cell in enumerate(cells) if not is_number(cell))
            raise DataError(f"{name} value {i + 1} is {cells[i][:30]!r}, expected a number or '?'") from None


def is_number(cell: str) -> bool:
    """Whether a cell is a number, in any usual spelling."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
