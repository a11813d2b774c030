"""What a data frame means: a row a frame (long), a row a sequence (wide), or whole sequences in cells (nested)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crnn.data.annotation import UNLABELLED, StepLabels
from crnn.data.dataset import Dataset, Example, Problem, Target, array_example
from crnn.data.readers.columns import (
    ID_NAMES,
    SPLIT_COLUMNS,
    TIME_NAMES,
    pick_column,
    pick_targets,
    splits_of,
    targets_of,
    texts_of,
)
from crnn.data.readers.reader import (
    ReadOptions,
    make_dataset,
    number_channels,
    odd_channel_counts,
    trim_missing_end,
)
from crnn.data.readers.symbols import RawSequence, symbols_dataset
from crnn.errors import DataError

DATA_NAMES = ("data", "values", "x", "sequence", "value")
"""Columns that may hold a whole sequence as a list."""
SEQUENCE_NAMES = ("sequence", "seq", "dna", "rna", "protein", "peptide", "sequences")
"""Columns that may hold a whole biological sequence as text."""
ROW, FILE, SPLIT, ORDER = "__row__", "__file__", "__split__", "__order__"
"""Columns of our own: row number as an editor counts it, file, split by file name, number of the sequence."""


def read_frame(frame: pl.DataFrame, options: ReadOptions, source: str, problems: Sequence[Problem] = ()) -> Dataset:
    """A data frame as a data set.

    Symbols where a column named sequence, dna, ... holds letters; long where it has an id and a time column; nested
    where a column named data, values or x holds lists; else wide:
    every remaining numeric column is a time step, and empty cells at the end of a row make it shorter.

    Raises:
        DataError: no such column, no numeric columns, ids that repeat without a time column.
    """
    if frame.height == 0:
        raise DataError(f"{source}: found a table without rows, expected at least one sequence")
    if ROW not in frame.columns:
        frame = frame.with_row_index(ROW, offset=1)
    if FILE not in frame.columns:
        frame = frame.with_columns(pl.lit(source).alias(FILE), pl.lit(None, dtype=pl.String).alias(SPLIT))
    roles = Roles(frame.columns, options, source)
    if frame[SPLIT].null_count() == frame.height and roles.split is not None:
        given = splits_of(frame, roles.split, source)
        frame = frame.with_columns(pl.Series(SPLIT, given, dtype=pl.String))
    letters = _sequence_column(frame, roles, options)
    if letters is not None:
        return _read_letters(frame, letters, roles, options, source, problems)
    nested = next((name for name in roles.data if name.lower() in DATA_NAMES and _holds_lists(frame[name])), None)
    if nested is not None:
        return _read_nested(frame, nested, roles, options, source, problems)
    if roles.id is not None and roles.time is not None:
        return _read_long(frame, roles, options, source, problems)
    return _read_wide(frame, roles, options, source, problems)


class Roles:
    """Which column is what; the rest are data."""

    def __init__(self, names: Sequence[str], options: ReadOptions, source: str):
        columns = [name for name in names if name not in (ROW, FILE, SPLIT)]
        known = [name for name in options.channels or () if name in columns]
        given = known if len(known) == len(options.channels or ()) else []
        columns = [name for name in columns if name not in given]
        self.targets = pick_targets(columns, options.target, source)
        self.group = pick_column(columns, options.group, (), source, "group")
        self.split = pick_column(columns, None, SPLIT_COLUMNS, source, "split")
        self.id = pick_column(columns, options.id, ID_NAMES, source, "id")
        self.time = pick_column(columns, options.time, TIME_NAMES, source, "time")
        used = {*self.targets, self.group, self.split, self.id, self.time}
        self.data = given or [name for name in columns if name not in used]


def _place(frame: pl.DataFrame, row: int) -> str:
    return f"{frame[FILE][row]} row {frame[ROW][row]}"


def _holds_lists(column: pl.Series) -> bool:
    return column.dtype == pl.Object or isinstance(column.dtype, (pl.List, pl.Array))


def _numbers(
    frame: pl.DataFrame, names: Sequence[str], source: str, what: str
) -> tuple[NDArray[np.float32], list[str], dict[int, str], list[Problem]]:
    """Columns as (rows, columns) float32; the names used; bad cells by row; warnings for columns left out."""
    used, series, warnings = [], [], []
    bad: dict[int, str] = {}
    for name in names:
        column = frame[name]
        if column.dtype == pl.String:
            cast = column.str.strip_chars().cast(pl.Float64, strict=False)
            filled = column.len() - column.null_count()
            if filled and cast.len() - cast.null_count() < filled / 2:
                column = cast.clear()
            else:
                for i in (cast.is_null() & column.is_not_null()).arg_true().to_list():
                    bad.setdefault(i, f"column {name!r} is {column[i]!r}, expected a number")
                column = cast
        if column.len() < frame.height or not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            message = f"column {name!r} holds no numbers and is not used; name it as target or group if it is one"
            warnings.append(Problem(source, message, "warning"))
            continue
        used.append(name)
        series.append(column.cast(pl.Float32, strict=False).fill_null(float("nan")).to_numpy())
    if not used:
        columns = [name for name in frame.columns if name not in (ROW, FILE, SPLIT, ORDER)]
        raise DataError(f"{source}: found no numeric columns for {what} among {', '.join(columns[:10])}")
    return np.stack(series, axis=1), used, bad, warnings


def _sequence_column(frame: pl.DataFrame, roles: Roles, options: ReadOptions) -> str | None:
    """The column of text that holds biological sequences: by name and letters, or where an alphabet is asked for."""
    texts = [name for name in roles.data if frame[name].dtype == pl.String]
    named = [name for name in texts if name.strip().lower() in SEQUENCE_NAMES]
    for name in named or (texts if options.alphabet else []):
        if bool(frame[name].drop_nulls().str.contains(r"^\s*[A-Za-z.*-]+\s*$").all()):
            return name
    return None


def _read_letters(
    frame: pl.DataFrame, column: str, roles: Roles, options: ReadOptions, source: str, problems: Sequence[Problem]
) -> Dataset:
    """Rows whose cell is a sequence of letters; an empty one is a bad row."""
    names = texts_of(frame, roles.id)
    targets, groups = targets_of(frame, roles.targets, source), texts_of(frame, roles.group)
    rows = [
        RawSequence(name or Path(where).name, where, (text or "").strip(), target, group, split)
        for name, where, text, target, group, split in zip(
            names,
            [_place(frame, i) for i in range(frame.height)],
            frame[column].to_list(),
            targets,
            groups,
            frame[SPLIT].to_list(),
            strict=True,
        )
    ]
    unused = [name for name in roles.data if name != column]
    found = [*problems]
    if unused:
        what = f"columns beside {column!r} are not used: {', '.join(unused[:5])}; name them as target or group if so"
        found.append(Problem(source, what, "warning"))
    return symbols_dataset(rows, found, alphabet=options.alphabet, source=f"{source} (column {column!r})")


def _read_wide(
    frame: pl.DataFrame, roles: Roles, options: ReadOptions, source: str, problems: Sequence[Problem]
) -> Dataset:
    names = texts_of(frame, roles.id)
    _refuse_repeated(names, roles, source)
    if roles.time is not None:
        raise DataError(
            f"{source}: found a time column {roles.time!r} but no id column; expected one (id, series, case, or "
            "id=) that tells the sequences apart, or one row a sequence without a time column"
        )
    values, used, bad, warnings = _numbers(frame, roles.data, source, "the time steps")
    targets, groups = targets_of(frame, roles.targets, source), texts_of(frame, roles.group)
    splits, places = frame[SPLIT].to_list(), [_place(frame, i) for i in range(frame.height)]
    found = [*problems, *warnings]
    examples: list[Example] = []
    for i, where in enumerate(places):
        data = trim_missing_end(values[i, :, None])
        if i in bad or not len(data):
            found.append(Problem(where, bad.get(i, "every time step is empty, expected at least one number")))
            continue
        name = names[i] or f"{Path(where).name}"
        examples.append(array_example(name, where, data, target=targets[i], group=groups[i], split=splits[i]))
    return make_dataset(
        examples,
        found,
        kind="series",
        channel_names=number_channels(1),
        source=f"{source} (wide table: one row a sequence, {len(used)} time steps {used[0]} to {used[-1]})",
        sample_rate=options.sample_rate,
    )


def _refuse_repeated(names: Sequence[str | None], roles: Roles, source: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"{source}: {roles.id} {name!r} stands in several rows but there is no time column; expected one row a "
                f"sequence, or a column named {', '.join(TIME_NAMES[:4])} (or time=) that orders its frames"
            )
        if name is not None:
            seen.add(name)


def _read_nested(
    frame: pl.DataFrame, column: str, roles: Roles, options: ReadOptions, source: str, problems: Sequence[Problem]
) -> Dataset:
    """Rows whose cell is [v, v, ...] or [[c, c], [c, c], ...], time first."""
    names = texts_of(frame, roles.id)
    _refuse_repeated(names, roles, source)
    targets, groups = targets_of(frame, roles.targets, source), texts_of(frame, roles.group)
    splits, places = frame[SPLIT].to_list(), [_place(frame, i) for i in range(frame.height)]
    found = list(problems)
    examples: list[Example] = []
    for i, (where, cell) in enumerate(zip(places, frame[column].to_list(), strict=True)):
        try:
            data = _cell_array(cell)
            name = names[i] or Path(where).name
            examples.append(array_example(name, where, data, target=targets[i], group=groups[i], split=splits[i]))
        except DataError as error:
            found.append(Problem(where, str(error).removeprefix(f"{where}: ")))
    counts = [example.load().shape[1] for example in examples]
    odd = odd_channel_counts([example.where for example in examples], counts)
    kept = [i for i in range(len(examples)) if i not in odd]
    return make_dataset(
        [examples[i] for i in kept],
        [*found, *odd.values()],
        kind="series",
        channel_names=number_channels(counts[kept[0]] if kept else 1),
        source=f"{source} (column {column!r} holds the sequences)",
        sample_rate=options.sample_rate,
    )


def _cell_array(cell: Any) -> NDArray[np.float32]:
    if cell is None:
        raise DataError("found no data, expected a list of numbers or of frames")
    try:
        with np.errstate(over="ignore"):
            data = np.array(cell, dtype=np.float32)  # None becomes NaN
    except (ValueError, TypeError):
        raise DataError("data is ragged or not numeric; expected [v, v, ...] or equal frames [[c, c], ...]") from None
    if data.ndim not in (1, 2):
        raise DataError(f"data has {data.ndim} axes, expected (time,) or (time, channels)")
    return data[:, None] if data.ndim == 1 else data


def _read_long(
    frame: pl.DataFrame, roles: Roles, options: ReadOptions, source: str, problems: Sequence[Problem]
) -> Dataset:
    assert roles.id is not None
    assert roles.time is not None
    frame, found = _drop_unplaced(frame, roles, [*problems])
    if frame.height == 0:
        raise DataError(f"{source}: no row has both {roles.id} and {roles.time}; expected both in every row")
    frame = _ordered(frame, roles, source)
    values, used, bad, warnings = _numbers(frame, roles.data, source, "the channels")
    starts, ends = _runs(frame[ORDER].to_numpy())
    bad_of = {_run(starts, row): f"{what} ({_place(frame, row)})" for row, what in bad.items()}
    bad_of |= _repeated_times(frame, roles, starts)
    bad_of |= _changing_facts(frame, [*([roles.group] if roles.group else []), SPLIT], roles, starts)
    heads = frame[starts.tolist()]
    changing = _changing_facts(frame, roles.targets, roles, starts)
    targets: Sequence[Target]
    if len(roles.targets) == 1 and len(changing) > len(starts) / 2:  # no slip of the pen: a label a frame
        targets = _step_labels(frame[roles.targets[0]], starts, ends)
    else:
        bad_of |= changing
        targets = targets_of(heads, roles.targets, source)
    groups = texts_of(heads, roles.group)
    splits, names = heads[SPLIT].to_list(), texts_of(heads, roles.id)
    examples: list[Example] = []
    for i, name in enumerate(names):
        where = f"{source} {roles.id} {name}"
        if i in bad_of:
            found.append(Problem(where, bad_of[i]))
            continue
        data = values[starts[i] : ends[i]]
        examples.append(array_example(str(name), where, data, target=targets[i], group=groups[i], split=splits[i]))
    return make_dataset(
        examples,
        [*found, *warnings],
        kind="series",
        channel_names=used,
        source=f"{source} (long table: id {roles.id}, time {roles.time}, channels {', '.join(used[:8])}"
        f"{', ...' if len(used) > 8 else ''})",
        sample_rate=options.sample_rate,
    )


def _step_labels(column: pl.Series, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> list[Target]:
    """A label for every frame of each sequence; an empty cell leaves its frame unlabelled."""
    texts = column.cast(pl.String).str.strip_chars().replace("", None)
    names = sorted(texts.drop_nulls().unique().to_list(), key=lambda name: (len(name), name))
    place = {name: code for code, name in enumerate(names)}
    codes = np.array([UNLABELLED if text is None else place[text] for text in texts.to_list()], np.int16)
    return [StepLabels(codes[start:end], tuple(names)) for start, end in zip(starts, ends, strict=True)]


def _drop_unplaced(frame: pl.DataFrame, roles: Roles, found: list[Problem]) -> tuple[pl.DataFrame, list[Problem]]:
    """Rows without an id or a time are named and left out."""
    assert roles.id is not None
    assert roles.time is not None
    for name in (roles.id, roles.time):
        empty = frame[name].is_null().arg_true().to_list()
        found += [Problem(_place(frame, row), f"{name} is empty, expected a value in every row") for row in empty]
    return frame.drop_nulls([roles.id, roles.time]), found


def _ordered(frame: pl.DataFrame, roles: Roles, source: str) -> pl.DataFrame:
    """Rows by sequence, sequences in order of first appearance, frames by time; column __order__ numbers sequences."""
    assert roles.id is not None
    assert roles.time is not None
    if frame[roles.time].dtype == pl.String:
        frame = frame.with_columns(_as_time(frame[roles.time], source))
    order = frame.select(roles.id).unique(maintain_order=True).with_row_index(ORDER)
    return frame.join(order, on=roles.id, how="left").sort(ORDER, roles.time, maintain_order=True)


def _as_time(column: pl.Series, source: str) -> pl.Series:
    """Dates and numbers in text, so that step 10 comes after step 9."""
    for convert in (lambda: column.cast(pl.Float64), lambda: column.str.to_datetime()):
        try:
            return convert()
        except pl.exceptions.PolarsError:
            continue
    raise DataError(f"{source}: time column {column.name!r} holds {column[0]!r}, expected numbers or ISO dates")


def _runs(order: NDArray[np.generic]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Starts and ends of the runs of equal values."""
    changes = np.flatnonzero(order[1:] != order[:-1]) + 1
    return np.concatenate([[0], changes]), np.concatenate([changes, [len(order)]])


def _run(starts: NDArray[np.intp], row: int) -> int:
    """Number of the run that a row stands in."""
    return int(np.searchsorted(starts, row, side="right")) - 1


def _repeated_times(frame: pl.DataFrame, roles: Roles, starts: NDArray[np.intp]) -> dict[int, str]:
    assert roles.time is not None
    same = (frame[ORDER] == frame[ORDER].shift(1)) & (frame[roles.time] == frame[roles.time].shift(1))
    bad: dict[int, str] = {}
    for row in same.arg_true().to_list():
        sequence = _run(starts, row)
        what = f"{roles.time} {frame[roles.time][row]} stands twice ({_place(frame, row - 1)}, {_place(frame, row)})"
        bad.setdefault(sequence, f"{what}; expected one row a time step")
    return bad


def _changing_facts(
    frame: pl.DataFrame, names: Sequence[str], roles: Roles, starts: NDArray[np.intp]
) -> dict[int, str]:
    """Sequences whose target, group or split is not the same in all rows."""
    bad: dict[int, str] = {}
    for name in names:
        same_sequence = frame[ORDER] == frame[ORDER].shift(1)
        changes = same_sequence & frame[name].ne_missing(frame[name].shift(1))
        for row in changes.arg_true().to_list():
            sequence = _run(starts, row)
            shown = "split" if name == SPLIT else name
            bad.setdefault(
                sequence,
                f"{shown} changes from {frame[name][row - 1]!r} to {frame[name][row]!r} ({_place(frame, row)}); "
                "expected one value a sequence",
            )
    return bad
