"""One table a sequence: a folder (or list) of CSV, TSV or Parquet files, a row a frame, a column a channel."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Problem
from crnn.data.readers.columns import TIME_NAMES, pick_column
from crnn.data.readers.files import is_labels_table, labelled_files, walk
from crnn.data.readers.layout import ROW
from crnn.data.readers.official import is_official
from crnn.data.readers.reader import Reader, ReadOptions, Source, make_dataset
from crnn.data.readers.table import load_frame
from crnn.data.readers.text import is_number
from crnn.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")


def read_frames(source: Source, options: ReadOptions) -> Dataset:
    """Read tables of one sequence each; labels as for audio.

    Numeric columns are channels, a time column (by its usual name, or `time`) orders the rows and is no channel. A file
    without a header is read by position. Files are read once for their lengths, and again on load.
    """
    found = labelled_files(source, SUFFIXES, options)
    shapes: dict[str, tuple[int, tuple[str, ...]]] = {}
    for file in found.files:
        try:
            data, names = load_columns(file.path, options.time)
            if len(data) == 0:
                raise DataError("found a sequence of length 0, expected at least 1 frame; remove it")
            shapes[file.id] = len(data), names
        except DataError as error:
            found.problems.append(Problem(str(file.path), str(error).removeprefix(f"{file.path}: ")))
    counts = Counter(names for _, names in shapes.values())
    usual = counts.most_common(1)[0][0] if counts else ()
    examples = []
    for file in found.files:
        length, names = shapes.get(file.id, (0, usual))
        if names != usual:
            what = (
                f"found columns {', '.join(names)}, expected {', '.join(usual)} as in {counts[usual]} of {len(shapes)}"
            )
            found.problems.append(Problem(str(file.path), f"{what} files; give all files the same columns"))
        elif length:
            load = functools.partial(load_table, file.path, options.time, (length, len(usual)))
            examples.append(
                Example(file.id, str(file.path), length, load, file.target, file.group, file.split, files=(file.path,))
            )
    return make_dataset(
        examples,
        found.problems,
        kind="series",
        channel_names=usual,
        source=f"{source if isinstance(source, Path) else f'{len(source)} files'} (a table a sequence, {found.how})",
        sample_rate=options.sample_rate,
        in_memory=False,
    )


def load_columns(path: Path, time: str | None) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """(time, channels) float32 and the names of the channels.

    Raises:
        DataError: not a table, no such time column, a column of text, no columns.
    """
    frame, _ = load_frame(path, header="optional")
    columns = [name for name in frame.columns if name != ROW]
    order = pick_column(columns, time, TIME_NAMES, str(path), "time")
    if order is not None:
        frame = frame.sort(order, maintain_order=True)
    names = [name for name in columns if name != order]
    for name in names:
        cells = frame[name].drop_nulls()
        if len(cells) and not (cells.dtype.is_numeric() or cells.dtype == pl.Boolean):
            text = next((cell for cell in cells if not is_number(str(cell))), cells[0])
            raise DataError(f"{path}: column {name!r} holds {text!r}, expected numbers only")
    if not names:
        raise DataError(f"{path}: found no columns of data, expected at least one")
    channels = [frame[name].cast(pl.Float32).fill_null(float("nan")).to_numpy() for name in names]
    return np.stack(channels, axis=1), tuple(names)


def load_table(path: Path, time: str | None, shape: tuple[int, int]) -> NDArray[np.float32]:
    """One file as (time, channels) float32.

    Raises:
        DataError: the file has gone, or changed, since it was read.
    """
    data, _ = load_columns(path, time)
    if data.shape != shape:
        raise DataError(f"{path}: its shape has changed from {shape} since it was read; read the data again")
    return data


def _claims(path: Path) -> bool:
    """Several tables in a folder, none named as a train or test set of many sequences."""
    if not path.is_dir():
        return False
    names = [name for name in walk(path) if name.lower().endswith(SUFFIXES) and not is_labels_table(name)]
    return len(names) > 1 and not any(is_official(Path(name), SUFFIXES) for name in names)


FRAMES = Reader(
    name="frames",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_frames,
    options=frozenset({"labels", "target", "group", "pattern", "sample_rate", "time"}),
    many_files=True,
)
