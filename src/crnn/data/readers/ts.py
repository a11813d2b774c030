"""The .ts format of the UCR/UEA archive, sktime and aeon: classification and regression, equal and unequal lengths."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn.config import nearest
from crnn.data.dataset import Dataset, Example, Problem, Target, array_example
from crnn.data.readers.official import official_parts, read_official
from crnn.data.readers.reader import (
    Reader,
    ReadOptions,
    Source,
    make_dataset,
    number_channels,
    odd_channel_counts,
)
from crnn.data.readers.text import is_number, parse_numbers, read_lines
from crnn.errors import DataError

SUFFIXES = (".ts",)
_TAGS = {
    "problemname",
    "timestamps",
    "missing",
    "univariate",
    "dimension",
    "dimensions",
    "equallength",
    "serieslength",
    "classlabel",
    "targetlabel",
    "data",
}


@dataclass
class Header:
    """What the lines before @data declare."""

    classes: list[str] | None = None
    """Declared class labels; None without class labels."""
    is_regression: bool = False
    dimensions: int | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def has_target(self) -> bool:
        return self.classes is not None or self.is_regression


def read_ts(source: Source, options: ReadOptions) -> Dataset:
    """Read a .ts file, or the _TRAIN.ts and _TEST.ts files of a folder or prefix."""
    return read_official(source, SUFFIXES, read_ts_file, options)


def read_ts_file(path: Path, options: ReadOptions) -> Dataset:
    """Read one .ts file; '?' becomes NaN.

    Raises:
        DataError: the header cannot be used: no @data, time stamps, an unknown tag value.
    """
    lines = read_lines(path)
    header, start = _parse_header(path, lines)
    examples: list[Example] = []
    problems, counts = header.problems, []
    case = 0
    for number, line in enumerate(lines[start:], start + 1):
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        case += 1
        where = f"{path} line {number} (case {case})"
        try:
            data, target = _parse_case(line, header)
            example = array_example(f"{path.name}:{case}", where, data, target=target)
        except ValueError as error:  # DataError included
            problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
            continue
        examples.append(example)
        counts.append(data.shape[1])
    odd = _odd_channels(examples, counts, header)
    problems += odd.values()
    kept = [i for i in range(len(examples)) if i not in odd]
    channels = counts[kept[0]] if kept else header.dimensions or 1
    return make_dataset(
        [examples[i] for i in kept],
        problems,
        kind="series",
        channel_names=number_channels(channels),
        source=str(path),
        sample_rate=options.sample_rate,
    )


def _parse_header(path: Path, lines: list[str]) -> tuple[Header, int]:
    """The header and the position of the first line after @data."""
    header = Header()
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        where = f"{path} line {number}"
        if not line.startswith("@"):
            raise DataError(f"{where}: found {line[:40]!r} before @data; expected a header line that starts with @")
        tag, *values = line[1:].split() or [""]
        tag = tag.lower()
        if tag == "data":
            return header, number
        if tag not in _TAGS:
            what = f"unknown header tag @{tag}, ignored{nearest(tag, sorted(_TAGS))}"
            header.problems.append(Problem(where, what, "warning"))
        elif tag == "timestamps" and values[:1] and values[0].lower() == "true":
            raise DataError(f"{where}: time stamps are not supported; expected plain values (@timeStamps false)")
        elif tag in ("dimension", "dimensions"):
            if not values or not values[0].isdigit():
                raise DataError(f"{where}: found {line!r}, expected a number of dimensions")
            header.dimensions = int(values[0])
        elif tag == "univariate" and values[:1] and values[0].lower() == "true":
            header.dimensions = 1
        elif tag == "classlabel" and values[:1] and values[0].lower() == "true":
            header.classes = values[1:]
        elif tag == "targetlabel" and values[:1] and values[0].lower() == "true":
            header.is_regression = True
    raise DataError(f"{path}: found no @data line in {len(lines)} lines; expected a .ts file with a header and @data")


def _parse_case(line: str, header: Header) -> tuple[NDArray[np.float32], Target]:
    """One line: channels separated by ':', then the class label or target."""
    channels = line.split(":")
    target: Target = None
    if header.has_target:
        target = _parse_target(channels.pop().strip(), header)
    if not channels:
        raise DataError(f"found one field only, {line[:40]!r}; expected values:label")
    if "(" in channels[0]:
        raise DataError("time stamps are not supported; expected plain values separated by commas")
    rows = [parse_numbers(channel, f"channel {i}") for i, channel in enumerate(channels, 1)]
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        odd = next(i for i, length in enumerate(lengths) if length != lengths[0])
        raise DataError(
            f"channel 1 has {lengths[0]} values but channel {odd + 1} has {lengths[odd]}; expected equal lengths"
        )
    return np.ascontiguousarray(np.array(rows, dtype=np.float32).T), target


def _parse_target(text: str, header: Header) -> Target:
    if text in ("?", ""):
        return None
    if header.is_regression:
        value = float(text) if is_number(text) else float("nan")
        if not np.isfinite(value):
            raise DataError(f"target is {text!r}, expected a finite number")
        return value
    if header.classes and text not in header.classes:
        raise DataError(f"label {text!r} is not among those that @classLabel declares{nearest(text, header.classes)}")
    return text


def _odd_channels(examples: list[Example], counts: list[int], header: Header) -> dict[int, Problem]:
    """Cases with another number of channels than declared, or than usual where nothing is declared."""
    if header.dimensions is None:
        return odd_channel_counts([example.where for example in examples], counts)
    what = "found {} channels, expected {} as the header declares; correct the line or @dimensions"
    return {
        i: Problem(examples[i].where, what.format(count, header.dimensions))
        for i, count in enumerate(counts)
        if count != header.dimensions
    }


TS = Reader(
    name="ts",
    suffixes=SUFFIXES,
    claims=lambda path: bool(official_parts(path, SUFFIXES)),
    read=read_ts,
    options=frozenset({"sample_rate"}),
)
