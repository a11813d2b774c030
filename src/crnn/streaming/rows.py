"""Lines of a table as they come, as blocks of frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from crnn.config import nearest
from crnn.data.readers.reader import number_channels
from crnn.data.readers.recordings import OPTIONAL
from crnn.errors import DataError
from crnn.streaming.samples import Block
from crnn.streaming.tail import Tail


def read_rows(tail: Tail, channels: tuple[str, ...], block: int) -> Iterator[Block]:
    """Blocks of `block` rows of numbers separated by comma, semicolon or tab; the last one may be shorter.

    A first row of names chooses the columns; without one, there are as many columns as channels, in their order. An
    empty cell is a missing value.

    Raises:
        DataError: a column that is not there (with the nearest), or a row that is not numbers: which one.
    """
    head = tail.line()
    separator = max(",;\t", key=head.decode("utf-8", "replace").count)
    names = _cells(head, separator)
    is_data = not any(names) or all(_is_number(cell) for cell in names)
    columns: list[int | None] = list(range(len(channels))) if is_data else _columns(names, channels, tail.name)
    width = len(channels) if is_data else len(names)
    rows: list[list[float]] = []
    number, line = (1, head) if is_data else (2, tail.line())
    while line:
        if line.strip():
            rows.append(_row(_cells(line, separator), columns, width, f"{tail.name} row {number}"))
        if len(rows) == block:
            yield np.array(rows, np.float32)
            rows = []
        number, line = number + 1, tail.line()
    if rows:
        yield np.array(rows, np.float32)


def _cells(line: bytes, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.decode("utf-8-sig", "replace").strip("\r\n").split(separator)]


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _columns(names: list[str], channels: tuple[str, ...], where: str) -> list[int | None]:
    """Places of the channels among the columns, None for an optional one that is not there.

    Where the model knows no names, its channels are all the columns.
    """
    if channels == number_channels(len(channels)) and len(names) == len(channels):
        return list(range(len(channels)))
    for channel in channels:
        if channel.removesuffix(OPTIONAL) not in names and not channel.endswith(OPTIONAL):
            raise DataError(f"{where}: no column {channel!r}, which the model takes{nearest(channel, names)}")
    wanted = [channel.removesuffix(OPTIONAL) for channel in channels]
    return [names.index(channel) if channel in names else None for channel in wanted]


def _row(cells: list[str], columns: list[int | None], width: int, where: str) -> list[float]:
    if len(cells) != width:
        raise DataError(f"{where}: found {len(cells)} cells, expected {width}; write every row whole")
    found = ["" if column is None else cells[column] for column in columns]
    for cell in found:
        if not _is_number(cell):
            raise DataError(f"{where}: found {cell!r}, expected a number, or an empty cell for a missing one")
    return [float(cell or "nan") for cell in found]
