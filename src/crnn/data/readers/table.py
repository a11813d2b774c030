"""Table files: CSV, TSV, Parquet and JSON lines, alone or as train and test tables."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from crnn.data.dataset import Dataset, Problem
from crnn.data.readers.layout import DATA_NAMES, FILE, ROW, SPLIT, Roles, read_frame
from crnn.data.readers.official import official_parts
from crnn.data.readers.reader import (
    Reader,
    ReadOptions,
    Source,
)
from crnn.data.readers.text import is_number
from crnn.data.readers.transcripts import is_text_column
from crnn.errors import DataError

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "None", "?"]


def read_table(source: Source, options: ReadOptions) -> Dataset:
    """Read a table file, or the train and test tables of a folder or prefix."""
    assert isinstance(source, Path)
    parts = official_parts(source, SUFFIXES)
    frames, problems = [], []
    for path, split in parts:
        frame, bad = load_frame(path)
        problems += bad
        frames.append(frame.with_columns(pl.lit(str(path)).alias(FILE), pl.lit(split, dtype=pl.String).alias(SPLIT)))
    if len(frames) == 1:
        return read_frame(frames[0], options, str(source), problems)
    try:
        whole = pl.concat(_with_distinct_ids(frames, options, source), how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{source}: its tables do not fit together ({error}); give them equal columns") from None
    return read_frame(whole, options, f"{source} ({', '.join(path.name for path, _ in parts)})", problems)


def _with_distinct_ids(frames: list[pl.DataFrame], options: ReadOptions, source: Path) -> list[pl.DataFrame]:
    """Train and test tables that both count their sequences from 0 hold different sequences."""
    names = [Roles(frame.columns, options, str(source)).id for frame in frames]
    if None in names:
        return frames
    columns = [frame[name].cast(pl.String).rename("id") for frame, name in zip(frames, names, strict=True) if name]
    if pl.concat([column.unique() for column in columns]).is_unique().all():
        return frames
    return [
        frame.with_columns((Path(frame[FILE][0]).name + ":" + column).alias(str(name)))
        for frame, name, column in zip(frames, names, columns, strict=True)
    ]


def load_frame(
    path: Path, *, header: Literal["required", "optional"] = "required"
) -> tuple[pl.DataFrame, list[Problem]]:
    """A table file as a data frame with a column of row numbers, and the lines of JSON that could not be used.

    Args:
        header: 'optional' takes a first line of numbers for data, and then names columns column_1, column_2, ...
    Raises:
        DataError: the file is not such a table, is empty, or has no header.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a table (.csv, .tsv, .parquet, .jsonl)")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: found an empty file, expected a table")
    problems: list[Problem] = []
    try:
        if _kind(path) == ".parquet":
            frame = pl.read_parquet(path).with_row_index(ROW, offset=1)
        elif _kind(path) in (".jsonl", ".ndjson"):
            frame, problems = _load_json_lines(path)
        else:
            frame = _load_csv(path, header)
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0]
        if "utf-8" in first:
            raise DataError(_not_utf8(path)) from None
        raise DataError(
            f"{path}: cannot be read as a table: {first}; expected one header line and equal columns"
        ) from None
    return frame, problems


def _not_utf8(path: Path) -> str:
    """A message that names the first line which is not UTF-8, and what it would say as Latin-1."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                legacy = line.decode("latin-1").strip()
                return (
                    f"{path} line {number}: is no UTF-8; as Latin-1 it would be {legacy[:40]!r}; save the file as UTF-8"
                )
    return f"{path}: found text that is no UTF-8; save the file as UTF-8"


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return name[name.rfind(".") :]


def _load_csv(path: Path, header: Literal["required", "optional"]) -> pl.DataFrame:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            first = file.readline().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{path}: the header is not UTF-8 text; save the table as UTF-8") from None
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error}); get the file again") from None
    separator = "\t" if _kind(path) == ".tsv" else max(",;\t|", key=first.count)
    has_header = not all(is_number(name) for name in first.strip("\r\n").split(separator))
    if not has_header and header == "required":
        _refuse_missing_header(path, first.strip("\r\n").split(separator))
        has_header = True
    frame = pl.read_csv(path, separator=separator, null_values=NULLS, infer_schema_length=None, has_header=has_header)
    free = [name for name in frame.columns if is_text_column(name)]
    if free and has_header:  # "007" and "None" are text there
        frame = frame.with_columns(pl.read_csv(path, separator=separator, columns=free, infer_schema=False))
    return frame.with_row_index(ROW, offset=2 if has_header else 1)  # as an editor counts


def _refuse_missing_header(path: Path, names: Sequence[str]) -> None:
    """A first line of numbers is data, unless it counts the time steps: 0,1,2,... or 1,2,3,..."""
    if list(names) in [[str(i + start) for i in range(len(names))] for start in (0, 1)]:
        return
    raise DataError(
        f"{path}: the first line holds numbers only, expected a header that names the columns; "
        "add one, such as target,0,1,2,... with one column a time step"
    )


def _load_json_lines(path: Path) -> tuple[pl.DataFrame, list[Problem]]:
    """Records of one line each, with their line numbers."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    records, rows, problems = [], [], []
    for number, line in enumerate(raw.decode("utf-8-sig", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.append(Problem(f"{path} row {number}", f"not JSON ({error}); expected one object a line"))
            continue
        if not isinstance(record, dict):
            problems.append(Problem(f"{path} row {number}", f"found {line[:30]!r}, expected one JSON object a line"))
            continue
        records.append(record)
        rows.append(number)
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {ROW: pl.Series(ROW, rows, dtype=pl.UInt32)}
    for name in names:
        cells = [record.get(name) for record in records]
        if any(isinstance(cell, list) for cell in cells) and name.lower() in DATA_NAMES:
            columns[name] = pl.Series(name, cells, dtype=pl.Object)  # ragged lists with null inside fit no other type
        elif any(isinstance(cell, list) for cell in cells):  # several labels
            joined = ["|".join(map(str, cell)) if isinstance(cell, list) else cell for cell in cells]
            columns[name] = pl.Series(name, joined, strict=False)
        elif any(isinstance(cell, str) for cell in cells):
            columns[name] = pl.Series(name, [None if cell is None else str(cell) for cell in cells])
        else:
            columns[name] = pl.Series(name, cells, strict=False)
    return pl.DataFrame(columns), problems


TABLE = Reader(
    name="table",
    suffixes=SUFFIXES,
    claims=lambda path: bool(official_parts(path, SUFFIXES)),
    read=read_table,
    options=frozenset({"target", "group", "sample_rate", "id", "time", "alphabet"}),
)
