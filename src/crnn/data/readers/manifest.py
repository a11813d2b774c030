"""Manifests: a table that names a file of its own and a text (or label) in each row, such as clips and transcripts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl

from crnn.data.dataset import Dataset, Problem
from crnn.data.readers import audio, images
from crnn.data.readers.columns import (
    FILE_NAMES,
    SPLIT_COLUMNS,
    pick_column,
    pick_targets,
    splits_of,
    targets_of,
    texts_of,
)
from crnn.data.readers.files import FoundFiles, LabelledFile
from crnn.data.readers.layout import ROW
from crnn.data.readers.reader import Reader, ReadOptions, Source
from crnn.data.readers.table import load_frame
from crnn.data.readers.transcripts import checked_text, is_text_column
from crnn.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
START_NAMES, END_NAMES = ("start", "offset", "begin"), ("end", "stop")
KINDS = {"audio": (audio.SUFFIXES, audio.read_found), "image": (images.SUFFIXES, images.read_found)}
"""By kind of the files that are named: their suffixes, and what makes a data set of them."""


def read_manifest(source: Source, options: ReadOptions) -> Dataset:
    """Read the files that a table names; paths are relative to the table, or whole.

    Columns are found by usual names: audio, path, file, ... for the file; text, transcript, ... for the target, else
    label; split; start and end (or offset and duration) in seconds for a part of a recording.
    Raises:
        DataError: no such column; files of several kinds.
    """
    assert isinstance(source, Path)
    frame, problems = load_frame(source)
    names = [name for name in frame.columns if name != ROW]
    file_column = pick_column(names, None, FILE_NAMES, str(source), "file")
    assert file_column is not None, "claims has seen it"
    others = [name for name in names if name != file_column]
    targets = pick_targets(others, options.target, str(source))
    group = pick_column(others, options.group, (), str(source), "group")
    split = pick_column(others, None, SPLIT_COLUMNS, str(source), "split")
    found = FoundFiles(problems=problems, how=f"{len(frame)} rows" + (f", {', '.join(targets)}" if targets else ""))
    is_text = len(targets) == 1 and is_text_column(targets[0])
    values = zip(
        frame[ROW].to_list(),
        texts_of(frame, file_column),
        targets_of(frame, targets, str(source)),
        texts_of(frame, group),
        splits_of(frame, split, str(source)),
        _parts(frame, others),
        strict=True,
    )
    seen: set[str] = set()
    for row, name, target, of_group, of_split, part in values:
        where = f"{source} row {row}"
        try:
            path = _path(source, name)
            if is_text:
                target = checked_text(target if isinstance(target, str) else None)
            if isinstance(part, str):
                raise DataError(part)
        except DataError as error:
            found.problems.append(Problem(where, str(error)))
            continue
        id = str(name) if part is None else f"{name}[{part[0]:g}:{'' if part[1] is None else format(part[1], 'g')}]"
        if id in seen:
            found.problems.append(Problem(where, f"{id} already stands in another row; keep one of them"))
            continue
        seen.add(id)
        found.files.append(LabelledFile(path, id, target, of_group, of_split, part, where))
    kind = _kind_of([file.path.name for file in found.files], str(source))
    return KINDS[kind][1](found, options, str(source))


def _path(manifest: Path, name: str | None) -> Path:
    if not name:
        raise DataError("found no file name; fill it in, or remove the row")
    path = manifest.parent / name
    if not path.is_file():
        raise DataError(f"file {name!r} is not there (looked for {path}); correct the name, or remove the row")
    return path


def _parts(frame: pl.DataFrame, names: list[str]) -> list[Any]:
    """(start, end) in seconds for each row, None for whole files; a message where they make no part."""
    start = pick_column(names, None, START_NAMES, "", "start")
    end = pick_column(names, None, END_NAMES, "", "end")
    size = pick_column(names, None, ("duration",), "", "duration")
    if start is None:  # a duration alone describes the whole file
        return [None] * frame.height
    parts: list[Any] = []
    columns = [frame[c].to_list() if c is not None else [None] * frame.height for c in (start, end, size)]
    for first, last, length in zip(*columns, strict=True):
        begin = float(first or 0.0)
        stop = float(last) if last is not None else None if length is None else begin + float(length)
        if begin < 0 or (stop is not None and stop <= begin):
            parts.append(f"part from {begin:g} to {stop:g} s is empty; expected 0 <= start < end")
        else:
            parts.append((begin, stop))
    return parts


def _kind_of(names: list[str], source: str) -> str:
    kinds = {kind for name in names for kind, (suffixes, _) in KINDS.items() if name.lower().endswith(suffixes)}
    if len(kinds) > 1:
        raise DataError(f"{source}: names files of several kinds ({', '.join(sorted(kinds))}); make a manifest of each")
    return next(iter(kinds), "audio")


def _first_row(path: Path) -> dict[str, str]:
    """Column -> first cell, read without the rest of the table; empty where there is none."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first, second = file.readline(), file.readline()
    except (OSError, UnicodeDecodeError):
        return {}
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        try:
            record = json.loads(first)
        except json.JSONDecodeError:
            return {}
        return {str(k): str(v) for k, v in record.items()} if isinstance(record, dict) else {}
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=first.count)
    names, cells = (next(csv.reader([line], delimiter=separator), []) for line in (first, second))
    return dict(zip(names, cells, strict=False))


def _claims(path: Path) -> bool:
    """A table whose first row names a recording or image."""
    if not path.is_file() or not path.name.lower().endswith(SUFFIXES):
        return False
    row = _first_row(path)
    column = pick_column(list(row), None, FILE_NAMES, str(path), "file") if row else None
    suffixes = tuple(suffix for known, _ in KINDS.values() for suffix in known)
    return column is not None and row[column].lower().endswith(suffixes)


MANIFEST = Reader(
    name="manifest",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_manifest,
    options=frozenset({"target", "group", "sample_rate", "height"}),
)
