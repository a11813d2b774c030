"""ARFF: one row a series or a biological sequence, or one relational attribute for several channels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn.config import nearest
from crnn.data.dataset import Dataset, Problem, Target, array_example
from crnn.data.readers.columns import ID_NAMES
from crnn.data.readers.official import official_parts, read_official
from crnn.data.readers.reader import (
    Reader,
    ReadOptions,
    Source,
    make_dataset,
    number_channels,
    odd_channel_counts,
    trim_missing_end,
)
from crnn.data.readers.symbols import RawSequence, symbols_dataset
from crnn.data.readers.text import parse_numbers, read_lines
from crnn.errors import DataError

SUFFIXES = (".arff",)
_NUMERIC = ("numeric", "real", "integer")
_CELL = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|((?!['"])[^,]*?))\s*(?:,|$)""", re.DOTALL)
_ATTRIBUTE = re.compile(r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"([^"]*)"|(\S+))\s+(.+)""", re.IGNORECASE)
_ROW_NAMES = ("instance_name", "instance", *ID_NAMES, "name")
_TARGET_NAMES = ("target", "label", "class", "y")


@dataclass
class Attribute:
    """A column: its name and 'numeric', 'relational', 'string' or the tuple of its nominal values."""

    name: str
    type: str | tuple[str, ...]


def read_arff(source: Source, options: ReadOptions) -> Dataset:
    """Read an .arff file, or the _TRAIN.arff and _TEST.arff files of a folder or prefix."""
    return read_official(source, SUFFIXES, read_arff_file, options)


def read_arff_file(path: Path, options: ReadOptions) -> Dataset:
    """Read one .arff file; '?' inside a series is NaN, '?' at its end is padding.

    Single-letter or string attributes are a biological sequence.
    The target is `options.target`, else the last attribute when it is nominal or named target, label, class or y.
    Raises:
        DataError: the header cannot be used, the target is unknown, an input attribute is not numeric.
    """
    lines = read_lines(path)
    attributes, start = _parse_header(path, lines)
    target = _target_position(path, attributes, options)
    inputs = [i for i in range(len(attributes)) if i != target]
    letters = _letter_inputs(attributes, inputs)
    if letters:
        return _read_letters(path, lines[start:], start, attributes, target, letters, options)
    relational = len(inputs) == 1 and attributes[inputs[0]].type == "relational"
    for i in inputs:
        if attributes[i].type not in _NUMERIC and not relational:
            raise DataError(
                f"{path}: attribute {attributes[i].name!r} is {_describe(attributes[i].type)}, "
                "expected numeric inputs, or one relational attribute"
            )
    examples, problems, counts = [], [], []
    case = 0
    for number, line in enumerate(lines[start:], start + 1):
        line = line.strip()
        if not line or line.startswith("%"):
            continue
        case += 1
        where = f"{path} line {number} (case {case})"
        try:
            cells = _split_row(line, len(attributes))
            label = None if target is None else _parse_target(cells[target], attributes[target])
            data = _parse_relation(cells[inputs[0]]) if relational else _parse_row([cells[i] for i in inputs])
            examples.append(array_example(f"{path.name}:{case}", where, trim_missing_end(data), target=label))
        except DataError as error:
            problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
            continue
        counts.append(data.shape[1])
    odd = odd_channel_counts([example.where for example in examples], counts)
    kept = [i for i in range(len(examples)) if i not in odd]
    return make_dataset(
        [examples[i] for i in kept],
        [*problems, *odd.values()],
        kind="series",
        channel_names=number_channels(counts[kept[0]] if kept else 1),
        source=str(path),
        sample_rate=options.sample_rate,
    )


def _letter_inputs(attributes: list[Attribute], inputs: list[int]) -> list[int]:
    """The attributes that together spell a sequence: each of single letters, or one of text; none where inputs differ.

    An attribute that names rows, such as Instance_name, is not one of them.
    """
    rest = [i for i in inputs if attributes[i].name.lower() not in _ROW_NAMES]
    kinds = [attributes[i].type for i in rest]
    if len(rest) == 1 and kinds[0] == "string":
        return rest
    spells = all(isinstance(kind, tuple) and all(len(v) == 1 and v.isalpha() for v in kind) for kind in kinds)
    return rest if len(rest) > 1 and spells else []


def _read_letters(
    path: Path,
    lines: list[str],
    start: int,
    attributes: list[Attribute],
    target: int | None,
    inputs: list[int],
    options: ReadOptions,
) -> Dataset:
    """Rows as biological sequences, such as the splice junctions of UCI."""
    name = next((i for i, attribute in enumerate(attributes) if attribute.name.lower() in _ROW_NAMES), None)
    rows, problems = [], []
    case = 0
    for number, line in enumerate(lines, start + 1):
        line = line.strip()
        if not line or line.startswith("%"):
            continue
        case += 1
        where = f"{path} line {number} (case {case})"
        try:
            cells = _split_row(line, len(attributes))
            label = None if target is None else _parse_target(cells[target], attributes[target])
        except DataError as error:
            problems.append(Problem(where, str(error)))
            continue
        row_name = f"{path.name}:{case}" if name is None else cells[name]
        rows.append(RawSequence(row_name, where, "".join(cells[i] for i in inputs), label))
    return symbols_dataset(rows, problems, alphabet=options.alphabet, source=str(path))


def _parse_header(path: Path, lines: list[str]) -> tuple[list[Attribute], int]:
    """The top-level attributes and the position of the first line after @data."""
    attributes: list[Attribute] = []
    inside = False  # between "@attribute x relational" and "@end x": its columns are time steps, not attributes
    for number, line in enumerate(lines, 1):
        line = line.strip()
        word = line.split(maxsplit=1)[0].lower() if line else ""
        if word == "@data":
            return attributes, number
        if word == "@end":
            inside = False
        elif word == "@attribute" and not inside:
            match = _ATTRIBUTE.match(line)
            if match is None:
                raise DataError(f"{path} line {number}: found {line[:60]!r}, expected @attribute NAME TYPE")
            name, kind = next(part for part in match.groups()[:3] if part is not None), match[4].strip()
            inside = kind.lower() == "relational"
            if kind.startswith("{"):
                values = _split_row(kind.strip("{} \t"), None)
                attributes.append(Attribute(name, tuple(values)))
            else:
                attributes.append(Attribute(name, kind.split()[0].lower()))
        elif word and not word.startswith(("%", "@relation", "@attribute")):
            raise DataError(f"{path} line {number}: found {line[:40]!r} before @data; expected @attribute or @data")
    raise DataError(f"{path}: found no @data line in {len(lines)} lines; expected an ARFF file")


def _target_position(path: Path, attributes: list[Attribute], options: ReadOptions) -> int | None:
    names = [attribute.name for attribute in attributes]
    if not names:
        raise DataError(f"{path}: found no @attribute lines; expected an ARFF file with attributes")
    if options.target:
        if len(options.target) > 1 or options.target[0] not in names:
            raise DataError(f"{path}: no attribute {options.target[0]!r}{nearest(options.target[0], names)}")
        return names.index(options.target[0])
    last = attributes[-1]
    return len(names) - 1 if isinstance(last.type, tuple) or last.name.lower() in _TARGET_NAMES else None


def _describe(kind: str | tuple[str, ...]) -> str:
    return f"nominal {{{', '.join(kind[:4])}}}" if isinstance(kind, tuple) else kind


def _split_row(line: str, expected: int | None) -> list[str]:
    """Cells of a row, quotes removed, backslash escapes still in place."""
    if line.startswith("{"):
        raise DataError("sparse rows {index value, ...} are not supported; expected plain rows")
    if "'" not in line and '"' not in line:
        cells = [cell.strip() for cell in line.split(",")]
    else:
        cells, at = [], 0
        while at < len(line):
            match = _CELL.match(line, at)
            if match is None:
                raise DataError(f"a quote is not closed near {line[at : at + 30]!r}")
            cells.append(next(part for part in match.groups() if part is not None))
            at = match.end()
    if expected is not None and len(cells) != expected:
        raise DataError(f"found {len(cells)} cells, expected {expected} as the attributes say")
    return cells


def _parse_row(cells: list[str]) -> NDArray[np.float32]:
    return parse_numbers(",".join(cells), "series")[:, None]


def _parse_relation(cell: str) -> NDArray[np.float32]:
    """Channels as lines of one quoted string, the newline written as backslash n."""
    rows = [parse_numbers(row, f"channel {i}") for i, row in enumerate(cell.split("\\n"), 1) if row.strip()]
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"channels have {min(map(len, rows))} to {max(map(len, rows))} values; expected equal lengths")
    return np.ascontiguousarray(np.array(rows, dtype=np.float32).T)


def _parse_target(cell: str, attribute: Attribute) -> Target:
    if cell in ("?", ""):
        return None
    if isinstance(attribute.type, tuple):
        if cell not in attribute.type:
            raise DataError(
                f"label {cell!r} is not among those that @attribute {attribute.name} declares"
                f"{nearest(cell, list(attribute.type))}"
            )
        return cell
    if attribute.type not in _NUMERIC:
        return cell
    value = float(parse_numbers(cell, "target")[0])
    if not np.isfinite(value):
        raise DataError(f"target is {cell!r}, expected a finite number")
    return value


ARFF = Reader(
    name="arff",
    suffixes=SUFFIXES,
    claims=lambda path: bool(official_parts(path, SUFFIXES)),
    read=read_arff,
    options=frozenset({"sample_rate", "target", "alphabet"}),
)
