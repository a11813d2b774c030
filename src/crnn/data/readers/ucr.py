"""The UCR archive's text files: no header, the class first, then one series a line, NaN at the end where shorter."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from crnn.data.dataset import Dataset, Problem, Target, array_example
from crnn.data.readers.official import official_parts, read_official
from crnn.data.readers.reader import Reader, ReadOptions, Source, make_dataset, number_channels, trim_missing_end
from crnn.data.readers.text import parse_numbers, read_lines
from crnn.errors import DataError

SUFFIXES = (".tsv", ".txt")


def read_ucr(source: Source, options: ReadOptions) -> Dataset:
    """Read a UCR .tsv (or older .txt) file, or the TRAIN and TEST files of a folder or prefix."""
    return read_official(source, SUFFIXES, read_ucr_file, options)


def read_ucr_file(path: Path, options: ReadOptions) -> Dataset:
    """Read one file; NaN inside a series is a missing value, NaN at its end is padding."""
    examples, problems = [], []
    case = 0
    for number, line in enumerate(read_lines(path), 1):
        line = line.strip("\r\n ")  # a tab at the end is a missing value
        if not line:
            continue
        case += 1
        where = f"{path} line {number} (case {case})"
        cells = line.split("\t") if "\t" in line else line.replace(",", " ").split()
        try:
            text = "\t".join(cell or "nan" for cell in cells[1:])
            data = trim_missing_end(parse_numbers(text, "series", "\t")[:, None])
            target = class_label(cells[0])
            examples.append(array_example(f"{path.name}:{case}", where, data, target=target))
        except DataError as error:
            problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
    return make_dataset(
        examples,
        problems,
        kind="series",
        channel_names=number_channels(1),
        source=str(path),
        sample_rate=options.sample_rate,
    )


def class_label(cell: str) -> Target:
    """A class as text: '1.0000000e+00' and '1' are the same class; NaN or nothing is no class."""
    cell = cell.strip()
    try:
        value = float(cell)
    except ValueError:
        return cell or None
    if np.isnan(value):
        return None
    return str(int(value)) if value.is_integer() else cell


def _claims(path: Path) -> bool:
    try:
        parts = official_parts(path, SUFFIXES)
    except DataError:  # several files: tables may be meant, whose readers say what is wrong
        return False
    if not parts or (
        path.is_file() and path.suffix.lower() == ".txt" and not path.stem.upper().endswith(("_TRAIN", "_TEST"))
    ):
        return False
    return all(_is_plain_numbers(part) for part, _ in parts)


def _is_plain_numbers(path: Path) -> bool:
    """Whether the first line is a class and numbers: a table with a header is not of this format."""
    if path.suffix.lower() == ".gz":
        first = next((line for line in read_lines(path) if line.strip()), "")
    else:
        with path.open(encoding="latin-1") as file:
            first = next((line for line in itertools.islice(file, 100) if line.strip()), "")
    cells = first.split("\t") if "\t" in first else first.replace(",", " ").split()
    if len(cells) < 3:
        return False
    try:
        parse_numbers("\t".join(cell.strip() or "nan" for cell in cells[1:]), "series", "\t")
    except DataError:
        return False
    return True


UCR = Reader(
    name="ucr",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_ucr,
    options=frozenset({"sample_rate"}),
)
