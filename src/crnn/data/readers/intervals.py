"""Labels of intervals beside recordings: onset and offset in seconds, one table for all files or one beside each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from crnn.data.annotation import Event, Events
from crnn.data.dataset import Problem
from crnn.data.readers.columns import (
    FILE_NAMES,
    OFFSETS,
    ONSETS,
    TARGET_NAMES,
    has_intervals,
    pick_column,
    texts_of,
)
from crnn.data.readers.files import FileIndex, is_labels_table
from crnn.data.readers.layout import ROW
from crnn.data.readers.reader import Source
from crnn.data.readers.table import load_frame
from crnn.data.readers.text import is_number
from crnn.errors import DataError

LABELS = ("event_label", "event", *TARGET_NAMES)
BESIDE = (".tsv", ".csv")
"""Suffixes of a table that lies beside its recording under the same name."""
FILES = (*FILE_NAMES, "audio_filename", "wav", "filename")


@dataclass(frozen=True)
class Interval:
    """One labelled interval, in seconds."""

    onset: float
    offset: float
    label: str
    where: str


@dataclass
class Intervals:
    """Intervals by file; a file that stands there without any is silent throughout."""

    by_file: dict[str, list[Interval]] = field(default_factory=dict)
    how: str = ""

    def events(self, name: str, rate: float, length: int) -> Events | None:
        """Those of one file in frames at `rate`, or None where nothing is said of it.

        An offset up to a tenth of a second past the end is taken for the end: tables round.
        Raises:
            DataError: an interval that does not lie in the recording; says which.
        """
        if name not in self.by_file:
            return None
        events = []
        for interval in self.by_file[name]:
            start, end = round(interval.onset * rate), round(interval.offset * rate)
            if start >= length or end > length + 0.1 * rate:
                raise DataError(
                    f"{interval.where}: {interval.label!r} from {interval.onset:g} to {interval.offset:g} s, but "
                    f"{name} has {length / rate:.3f} s; correct the row, or get the recording again"
                )
            events.append(Event(start, min(max(end, start + 1), length), interval.label))
        return Events(tuple(events))


def find_intervals(
    source: Source, labels: Path | None, files: dict[str, Path], problems: list[Problem]
) -> Intervals | None:
    """The intervals of the table that was given, or that lies in the folder under a usual name, or beside the files.

    None where there are none. Rows that cannot be used are problems.
    """
    if labels is not None:
        return read_intervals(labels, files, problems) if is_interval_table(labels) else None
    if isinstance(source, Path) and source.is_dir():
        for path in sorted(source.iterdir()):
            if is_labels_table(path.name) and is_interval_table(path):
                return read_intervals(path, files, problems)
    return _intervals_beside(files, problems)


def is_interval_table(path: Path) -> bool:
    """Whether a table has columns for onset and offset."""
    try:
        return has_intervals([name for name in load_frame(path)[0].columns if name != ROW])
    except DataError:
        return False  # whoever reads it says what is wrong


def _columns(names: list[str], where: str) -> tuple[str, str, str] | None:
    onset = pick_column(names, None, ONSETS, where, "onset")
    offset = pick_column(names, None, OFFSETS, where, "offset")
    label = pick_column([name for name in names if name not in (onset, offset)], None, LABELS, where, "label")
    return None if onset is None or offset is None or label is None else (onset, offset, label)


def read_intervals(path: Path, files: dict[str, Path], problems: list[Problem]) -> Intervals:
    """One table for all files: columns for file, onset, offset and label; a row without a label names a silent file.

    Rows that cannot be used are problems.

    Raises:
        DataError: a column is missing.
    """
    frame, bad = load_frame(path)
    problems += bad
    names = [name for name in frame.columns if name != ROW]
    columns = _columns(names, str(path))
    file_column = pick_column(names, None, FILES, str(path), "file")
    if columns is None or file_column is None:
        raise DataError(f"{path}: found columns {', '.join(names)}; expected file, onset, offset and label")
    index = FileIndex(files)
    found = Intervals(how=f"intervals from {path}")
    for row, text in enumerate(texts_of(frame, file_column)):
        where = f"{path} row {frame[ROW][row]}"
        name = index.find(text) if text else None
        if name is None:
            what = f"file {text!r} is not there" if text else f"{file_column} is empty"
            problems.append(Problem(where, f"{what}; correct the name, or remove the row"))
            continue
        found.by_file.setdefault(name, [])
        _add(found, name, frame, row, columns, where, problems)
    return found


def _intervals_beside(files: dict[str, Path], problems: list[Problem]) -> Intervals | None:
    """Tables that lie beside their recordings, a.tsv beside a.wav; None where there are none."""
    found = Intervals(how="intervals from tables beside the files")
    for name, path in files.items():
        table = next((path.with_suffix(s) for s in BESIDE if path.with_suffix(s).is_file()), None)
        if table is None:
            continue
        try:
            frame = _label_track(table) if _is_label_track(table) else load_frame(table)[0]
            columns = _columns([column for column in frame.columns if column != ROW], str(table))
            if columns is None:
                continue
        except DataError as error:
            problems.append(Problem(str(table), str(error).removeprefix(f"{table}: ")))
            continue
        found.by_file[name] = []
        for row in range(frame.height):
            _add(found, name, frame, row, columns, f"{table} row {frame[ROW][row]}", problems)
    return found if found.by_file else None


def _is_label_track(path: Path) -> bool:
    """Whether a table begins with numbers, as the label tracks that Audacity exports: onset, offset, label."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        cells = file.readline().split("\t")
    return len(cells) == 3 and is_number(cells[0]) and is_number(cells[1])


def _label_track(path: Path) -> pl.DataFrame:
    """Rows of onset, offset and label without a header; lines that begin with a backslash give frequencies."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    kept = [(i, *line.split("\t", 2)) for i, line in enumerate(lines, 1) if line.count("\t") >= 2 and line[0] != "\\"]
    schema = {ROW: pl.Int64, "onset": pl.String, "offset": pl.String, "label": pl.String}
    return pl.DataFrame(kept, schema=schema, orient="row")


def _add(
    found: Intervals,
    name: str,
    frame: pl.DataFrame,
    row: int,
    columns: tuple[str, str, str],
    where: str,
    problems: list[Problem],
) -> None:
    onset_text, offset_text, label = (frame[column][row] for column in columns)
    if label is None or str(label).strip() == "":
        return
    try:
        onset, offset = float(onset_text), float(offset_text)
    except (TypeError, ValueError):
        onset = offset = math.nan
    if not 0 <= onset <= offset < math.inf:
        what = f"from {onset_text!r} to {offset_text!r}, expected seconds, 0 <= onset <= offset; correct the row"
        problems.append(Problem(where, what))
        return
    found.by_file[name].append(Interval(onset, offset, str(label).strip(), where))


def write_intervals(path: Path, files: Sequence[str], found: Sequence[Events], rate: float | None) -> None:
    """Write events as a table with columns file, onset, offset and label, as `read_intervals` reads it.

    Times are in seconds; in frames where no rate is known. A file without events has one row without a label.
    """
    rows: list[tuple[str, float | None, float | None, str | None]] = []
    for file, events in zip(files, found, strict=True):
        rows += [(file, start / (rate or 1), end / (rate or 1), label) for start, end, label in events.items]
        if not events.items:
            rows.append((file, None, None, None))
    columns = {"file": pl.String, "onset": pl.Float64, "offset": pl.Float64, "label": pl.String}
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(path, separator="\t", float_precision=6)
