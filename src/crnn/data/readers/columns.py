"""Columns by name: which one is the id, the time, the target; and what the cells of each mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crnn.config import nearest
from crnn.data.dataset import Target
from crnn.data.readers.official import SPLIT_NAMES
from crnn.data.readers.reader import Split
from crnn.data.readers.transcripts import TEXT_NAMES, is_text_column
from crnn.errors import DataError

TARGET_NAMES = ("target", "label", "class", "category", "y", "labels", "targets", *TEXT_NAMES)
CLASS_NAMES = ("label", "class", "category", "labels")
"""Whole numbers in a column of this name are classes, however many there are."""
ID_NAMES = ("id", "series", "case", "sample", "series_id", "case_id", "sample_id", "sequence_id")
TIME_NAMES = ("time", "t", "timestamp", "step", "frame", "time_step", "timestep", "date", "datetime")
FILE_NAMES = (
    *("file", "filename", "file_name", "path", "filepath", "fname", "audio", "recording", "clip"),
    *("audio_filepath", "audio_path", "audio_file", "wav", "image", "image_path", "image_file", "img"),
)
SPLIT_COLUMNS = ("split", "subset", "fold_name")
ONSETS = ("onset", "start", "begin", "start_time", "begin time (s)")
OFFSETS = ("offset", "end", "stop", "end_time", "end time (s)")
"""Where an interval begins and ends, in seconds, in a table with a row an interval."""
SEPARATORS = ("|", ";")
"""Between several labels in one cell."""


def pick_column(columns: Sequence[str], asked: str | None, usual: Sequence[str], where: str, option: str) -> str | None:
    """The column that was asked for, else the first with a usual name (case does not matter), else None.

    Raises:
        DataError: the column asked for is not there; names the nearest.
    """
    if asked is not None:
        if asked not in columns:
            raise DataError(f"{where}: {option} {asked!r} is not a column{nearest(asked, list(columns))}")
        return asked
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def has_intervals(columns: Sequence[str]) -> bool:
    """Whether a table has a row an interval: columns for onset and offset."""
    found = {column.strip().lower() for column in columns}
    return bool(found & set(ONSETS)) and bool(found & set(OFFSETS))


def pick_targets(columns: Sequence[str], asked: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    """The target columns: those asked for, else one with a usual name, else none."""
    if asked is not None:
        return tuple(str(pick_column(columns, name, (), where, "target")) for name in asked)
    found = pick_column(columns, None, TARGET_NAMES, where, "target")
    return () if found is None else (found,)


def targets_of(frame: pl.DataFrame, names: tuple[str, ...], where: str) -> list[Target]:
    """The target of each row; None where a cell is empty.

    One column of text: classes, or sets of labels where a cell holds '|' or ';'. Whole numbers and booleans: classes
    where the column is named label or class, or where there are at most 20 of them with two rows or more each on
    average; else numbers. Other numbers stay numbers. A column named text, transcript, ... is free text, as it stands.
    Several columns of 0 and 1: the names of the columns that are 1.

    Raises:
        DataError: several columns that are not all 0 and 1.
    """
    if not names:
        return [None] * frame.height
    if len(names) > 1:
        return _several_columns(frame, names, where)
    column = frame[names[0]]
    if is_text_column(names[0]):
        return [text or None for text in column.cast(pl.String).to_list()]
    if column.dtype == pl.Boolean or column.dtype.is_integer():
        values = column.to_list()
        distinct = column.drop_nulls().n_unique()
        few = distinct <= 20 and column.len() - column.null_count() >= 2 * distinct
        if column.dtype == pl.Boolean or few or names[0].strip().lower() in CLASS_NAMES:
            return [None if value is None else str(value) for value in values]
        return [None if value is None else float(value) for value in values]
    if column.dtype.is_numeric():
        return [None if value is None or not math.isfinite(value) else float(value) for value in column.to_list()]
    texts = column.cast(pl.String).to_list()
    separator = next((mark for mark in SEPARATORS if any(text and mark in text for text in texts)), None)
    if separator is None:
        return [text or None for text in texts]
    return [
        None if not text else tuple(part.strip() for part in text.split(separator) if part.strip()) for text in texts
    ]


def _several_columns(frame: pl.DataFrame, names: tuple[str, ...], where: str) -> list[Target]:
    for name in names:
        found = set(frame[name].drop_nulls().unique().to_list())
        if not found <= {0, 1}:
            odd = next(iter(found - {0, 1}))
            raise DataError(
                f"{where}: target column {name!r} holds {odd!r}; several target columns must be 0 or 1 each"
            )
    rows = frame.select(names).rows()
    return [None if None in row else tuple(name for name, on in zip(names, row, strict=True) if on) for row in rows]


def texts_of(frame: pl.DataFrame, name: str | None) -> list[str | None]:
    """Cells as text, for groups and ids; None where empty or without a column."""
    if name is None:
        return [None] * frame.height
    return [None if value is None else str(value) for value in frame[name].to_list()]


def splits_of(frame: pl.DataFrame, name: str | None, where: str) -> list[Split]:
    """Cells of a split column as train, validation or test.

    Raises:
        DataError: another word.
    """
    splits: list[Split] = []
    for i, text in enumerate(texts_of(frame, name)):
        if text is not None and text.strip().lower() not in SPLIT_NAMES:
            raise DataError(f"{where}: {name} of row {i + 1} is {text!r}, expected train, validation or test")
        splits.append(None if text is None else SPLIT_NAMES[text.strip().lower()])
    return splits


def target_series(values: Sequence[Any] | NDArray[np.generic], where: str) -> list[Target]:
    """Targets given as a list or array: the rules of a table's target column; tuples are sets of labels."""
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if any(isinstance(value, (tuple, list, set)) for value in plain):
        sets = [sorted(value) if isinstance(value, set) else value for value in plain]
        return [None if labels is None else tuple(str(label) for label in labels) for labels in sets]
    column = pl.Series("y", plain, strict=False)
    if any(isinstance(value, str) for value in plain):
        column = pl.Series("y", [None if value is None else str(value) for value in plain])
    return targets_of(column.to_frame(), ("y",), where)
