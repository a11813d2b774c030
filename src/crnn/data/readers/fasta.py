"""FASTA: biological sequences; what their headers, a table, folders or the files themselves say of each."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from crnn.config import nearest
from crnn.data.annotation import UNLABELLED, StepLabels
from crnn.data.dataset import Dataset, Problem, Target
from crnn.data.readers.columns import (
    CLASS_NAMES,
    FILE_NAMES,
    ID_NAMES,
    SPLIT_COLUMNS,
    pick_column,
    pick_targets,
    splits_of,
    targets_of,
    texts_of,
)
from crnn.data.readers.files import FieldPattern, LabelledFile, labelled_files
from crnn.data.readers.layout import ROW
from crnn.data.readers.official import SPLIT_NAMES, stem
from crnn.data.readers.reader import Reader, ReadOptions, Source, Split
from crnn.data.readers.symbols import RawSequence, symbols_dataset
from crnn.data.readers.table import load_frame
from crnn.data.readers.text import read_lines
from crnn.errors import DataError

_PLAIN = (".fasta", ".fa", ".fna", ".faa", ".ffn", ".frn", ".fas", ".fsa")
SUFFIXES = (*_PLAIN, *(f"{suffix}.gz" for suffix in _PLAIN))
_TEXT = (".txt", ".txt.gz")
"""FASTA when the first character says so."""
_FACT = re.compile(r"(?<!\S)(\w+)=(\S+)")
UNKNOWN_LABELS = "?."
"""Marks of a symbol that has no label."""
_SPLIT_KEYS = ("set", *SPLIT_COLUMNS)
_OFFICIAL = re.compile(rf"(?:.*[_.-])?({'|'.join(SPLIT_NAMES)})", re.IGNORECASE)
"""File names that say a split and no class: train.fa, promoters_test.fa."""


@dataclass(frozen=True)
class Record:
    """One sequence of a file."""

    header: str
    """Without '>'."""
    line: int
    text: str

    @property
    def id(self) -> str:
        """The first word of the header."""
        return self.header.split(maxsplit=1)[0] if self.header else f"line {self.line}"


@dataclass(frozen=True)
class _Facts:
    """What is said about one record."""

    target: Target = None
    group: str | None = None
    split: Split = None


def read_records(path: Path, problems: list[Problem]) -> Iterator[Record]:
    """The sequences of a FASTA file, wrapped lines joined and spaces removed; comments (;) are left out.

    Raises:
        DataError: the file is damaged, or empty.
    """
    header, start, parts = "", 0, list[str]()
    lines = read_lines(path)
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: found an empty file, expected sequences, each after a line that begins with '>'")
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line.startswith(">"):
            if start:
                yield Record(header, start, "".join(parts))
            header, start, parts = line[1:].strip(), number, []
        elif line and line[0] != ";":
            if start:
                parts.append("".join(line.split()))
            elif not parts:
                what = f"found {line[:30]!r} before the first header, expected a line that begins with '>'"
                problems.append(Problem(f"{path} line {number}", what))
                parts = [line]  # said once
    if start:
        yield Record(header, start, "".join(parts))


def read_fasta(source: Source, options: ReadOptions) -> Dataset:
    """Read a FASTA file, several of them, or a folder of them.

    A labels file that is FASTA itself holds a letter for every symbol; a mask beside it says which of them count. What
    says more wins: the labels file, then the pattern, then key=value in the header, then the class sub-folder,
    then, of several files, the file.
    """
    files, how = _files(source, options)
    problems: list[Problem] = []
    about = _About(options, problems)
    rows: list[RawSequence] = []
    for file in files:
        for record in read_records(file.path, problems):
            where = f"{file.path} line {record.line} (>{record.id})"
            try:
                facts = about.record(record)
            except DataError as error:
                problems.append(Problem(where, str(error)))
                continue
            name = record.id if len(files) == 1 else f"{file.id}:{record.id}"
            target = file.target if facts.target is None else facts.target
            rows.append(RawSequence(name, where, record.text, target, facts.group, facts.split or file.split))
    about.refuse_unused()
    source_text = str(source[0] if isinstance(source, tuple) else source)
    if isinstance(source, tuple) and len(source) > 1:
        source_text += f" and {len(source) - 1} more"
    said = [about.how or how] if about.how or how else []
    return symbols_dataset(rows, problems, alphabet=options.alphabet, source=", ".join([source_text, *said]))


def _files(source: Source, options: ReadOptions) -> tuple[list[LabelledFile], str]:
    """The FASTA files of a source, each with its class and split as folders and file names say; and how, in words."""
    found = labelled_files(source, SUFFIXES + _TEXT, ReadOptions())
    given = None if options.labels is None else options.labels.resolve()
    files = [file for file in found.files if _is_fasta(file.path) and file.path.resolve() != given]
    if not files:
        raise DataError(f"{source}: found no FASTA files ({', '.join(_PLAIN)})")
    if len(files) == 1 and files[0].target is None:
        return files, ""
    if any(file.target is not None for file in files):
        return files, "classes from sub-folders"
    stems = {file.path: stem(file.path, _PLAIN + _TEXT) or file.path.name for file in files}
    splits = {path: _OFFICIAL.fullmatch(name) for path, name in stems.items()}
    if all(splits.values()) and not any(file.split for file in files):
        marked = [(file, match) for file in files if (match := splits[file.path])]
        return [
            LabelledFile(file.path, file.id, None, None, SPLIT_NAMES[match[1].lower()]) for file, match in marked
        ], "split by files"
    classes = [LabelledFile(file.path, file.id, stems[file.path], None, file.split) for file in files]
    names = sorted(set(stems.values()))
    return classes, f"classes from files: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"


class _About:
    """What a labels file, a pattern and the headers say about records."""

    def __init__(self, options: ReadOptions, problems: list[Problem]) -> None:
        self.options = options
        self.pattern = (
            FieldPattern(options.pattern, inside=r"\S", rest=r"(?:\s.*)?") if options.pattern is not None else None
        )
        self.rows: dict[str, _Facts] | None = None
        self.table_has_target = False
        self.mask: Path | None = None
        if options.labels is not None and _begins_as_fasta(options.labels):
            self.mask = _mask_beside(options.labels)
            self.rows, self.table_has_target = self._read_labels(options.labels, problems), True
        elif options.labels is not None:
            self.rows, self.table_has_target = _read_table(options.labels, options, problems)
        self.target_keys = CLASS_NAMES if options.target is None else (options.target[0].lower(),)
        self.used: set[str] = set()
        self.keys: set[str] = set()

    @property
    def how(self) -> str:
        """Where targets come from; empty where nothing here gave any."""
        if self.table_has_target:
            mask = f", mask from {self.mask}" if self.mask else ""
            return f"labels from {self.options.labels}{mask}"
        return "classes from headers" if "target" in self.used else ""

    def _read_labels(self, path: Path, problems: list[Problem]) -> dict[str, _Facts]:
        """A label for every symbol of each record, by its id; group and split as the headers there say."""
        records = {record.id: record for record in read_records(path, problems)}
        masks = {} if self.mask is None else {record.id: record.text for record in read_records(self.mask, problems)}
        names = tuple(sorted(set().union(*(record.text for record in records.values())) - set(UNKNOWN_LABELS)))
        rows = {}
        for record in records.values():
            fields = {name.lower(): text for name, text in _FACT.findall(record.header)}
            codes = np.array([names.index(label) if label in names else UNLABELLED for label in record.text], np.int16)
            mask = masks.get(record.id)
            if mask is not None and len(mask) != len(codes):
                what = f"found {len(mask)} marks of {self.mask} for {len(codes)} labels; expected one a label"
                problems.append(Problem(f"{path} line {record.line} (>{record.id})", what))
                continue
            if mask is not None:
                codes[np.array(list(mask)) == "0"] = UNLABELLED
            group = fields.get((self.options.group or "").lower())
            rows[record.id] = _Facts(StepLabels(codes, names), group, self._split(fields))
        return rows

    def record(self, record: Record) -> _Facts:
        """What is known about one record.

        Raises:
            DataError: its header does not match the pattern, names no split, or it stands in no row of the table.
        """
        fields = self.pattern.match(record.header) if self.pattern else dict(_FACT.findall(record.header))
        fields = {name.lower(): text for name, text in fields.items()}
        self.keys |= fields.keys()
        target = next((fields[key] for key in self.target_keys if key in fields), None)
        group = fields.get((self.options.group or "").lower())
        split = self._split(fields)
        if self.rows is not None:
            row = self.rows.get(record.id) or self.rows.get(fields.get("id", ""))
            if row is None:
                raise DataError(f"stands not in {self.options.labels}; add it there, or remove it")
            target = row.target if self.table_has_target else target
            group, split = group or row.group, row.split or split
        self.used |= {name for name, value in (("target", target), ("group", group)) if value is not None}
        return _Facts(target, group, split)

    def _split(self, fields: dict[str, str]) -> Split:
        text = next((fields[key] for key in _SPLIT_KEYS if key in fields), None)
        if fields.get("validation", "").lower() in ("true", "1", "yes"):
            return "validation"
        if text is None:
            return None
        if text.lower() not in SPLIT_NAMES:
            if self.pattern is None:
                return None  # a key of another meaning
            raise DataError(f"split in its header is {text!r}, expected train, validation or test")
        return SPLIT_NAMES[text.lower()]

    def refuse_unused(self) -> None:
        """Raises DataError where a target or group was asked for that no record has."""
        for name, asked in (
            ("target", self.options.target and self.options.target[0]),
            ("group", self.options.group),
        ):
            if asked and name not in self.used:
                raise DataError(
                    f"{name} {asked!r}: no header says it{nearest(asked, sorted(self.keys))}; write it there as "
                    f"{asked}=..., give a pattern such as '{{id}}|{{{asked}}}', or a labels table with that column"
                )


def _read_table(path: Path, options: ReadOptions, problems: list[Problem]) -> tuple[dict[str, _Facts], bool]:
    """Rows of a labels table by the id they name, and whether it gives targets.

    Raises:
        DataError: no such table, column of ids, or column that was asked for.
    """
    frame, bad = load_frame(path)
    problems += bad
    names = [name for name in frame.columns if name != ROW]
    ids = pick_column(names, options.id, (*ID_NAMES, "name", "header", *FILE_NAMES), str(path), "id")
    if ids is None:
        raise DataError(f"{path}: found no column of ids among {', '.join(names)}; expected one named id")
    asked = options.target if options.target is None or options.target[0] in names else ()
    targets = pick_targets([name for name in names if name != ids], asked, str(path))
    group = options.group if options.group in names else None
    rows: dict[str, _Facts] = {}
    for number, name, facts in zip(frame[ROW].to_list(), texts_of(frame, ids), _facts(frame, targets, group, path),
                                   strict=True):  # fmt: skip
        if not name or name in rows:
            what = f"{name!r} stands in two rows; keep one" if name else f"{ids} is empty; fill it, or remove the row"
            problems.append(Problem(f"{path} row {number}", what))
        else:
            rows[name] = facts
    return rows, bool(targets)


def _facts(frame: pl.DataFrame, targets: tuple[str, ...], group: str | None, path: Path) -> Iterator[_Facts]:
    split = pick_column(frame.columns, None, SPLIT_COLUMNS, str(path), "split")
    columns = targets_of(frame, targets, str(path)), texts_of(frame, group), splits_of(frame, split, str(path))
    for target, group_name, side in zip(*columns, strict=True):
        yield _Facts(target, group_name, side)


def _is_fasta(path: Path) -> bool:
    """By its suffix, or by the first character of a text file."""
    name = path.name.lower()
    return name.endswith(SUFFIXES) or (name.endswith(_TEXT) and _begins_as_fasta(path))


def _begins_as_fasta(path: Path) -> bool:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            return file.read(64).lstrip()[:1] == b">"
    except OSError:
        return False


def _mask_beside(labels: Path) -> Path | None:
    """A file named mask in the folder of the labels: 1 where a label counts, 0 where it does not."""
    return next((path for suffix in SUFFIXES if (path := labels.parent / f"mask{suffix}").is_file()), None)


def _claims(path: Path) -> bool:
    if path.is_file():
        return _is_fasta(path)
    if not path.is_dir():
        return False
    return any(_is_fasta(file) for pattern in ("*", "*/*", "*/*/*") for file in path.glob(pattern) if file.is_file())


FASTA = Reader(
    name="fasta",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_fasta,
    options=frozenset({"labels", "target", "group", "pattern", "id", "alphabet"}),
    many_files=True,
)
