"""Folders of one sequence a file: find the files, and what class folders, a labels table and file names say of each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import polars as pl

from crnn.config import nearest
from crnn.data.dataset import Problem, Target
from crnn.data.readers.columns import (
    CLASS_NAMES,
    FILE_NAMES,
    SPLIT_COLUMNS,
    has_intervals,
    pick_column,
    pick_targets,
    splits_of,
    targets_of,
    texts_of,
)
from crnn.data.readers.layout import ROW
from crnn.data.readers.official import SPLIT_NAMES
from crnn.data.readers.reader import ReadOptions, Source, Split
from crnn.data.readers.table import load_frame
from crnn.data.readers.transcripts import Transcripts, is_text_column, read_transcript
from crnn.errors import DataError

INDEX_NAMES = ("index", "labels", "metadata", "transcripts", "transcriptions")
"""Names of tables that are taken for the labels table when they lie in the folder and have a file and target column."""


_TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class LabelledFile:
    """A file of one sequence and what is known about it before it is opened."""

    path: Path
    id: str
    target: Target = None
    group: str | None = None
    split: Split = None
    part: tuple[float, float | None] | None = None
    """Seconds from and to, where only a part of a recording is the sequence."""
    named_in: str | None = None
    """The row that names it, for messages."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path}" if self.named_in is None else f"{self.named_in} ({self.path.name})"


@dataclass
class FoundFiles:
    """Files in order, what was wrong, and one line on where targets came from."""

    files: list[LabelledFile] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    how: str = ""


@dataclass
class Row:
    """What a labels table says about one file."""

    where: str
    target: Target
    group: str | None
    split: Split


def walk(folder: Path) -> Iterator[str]:
    """Paths of all files below, relative, with '/', sorted; hidden ones are left out, linked folders are followed."""
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = (
            sorted(name for name in folders if name[0] != "." and name != "__MACOSX") if real not in seen else []
        )
        if real in seen:
            continue
        seen.add(real)
        inside = os.path.relpath(root, folder).replace(os.sep, "/")
        yield from (name if inside == "." else f"{inside}/{name}" for name in sorted(names) if name[0] != ".")


def labelled_files(source: Source, suffixes: tuple[str, ...], options: ReadOptions) -> FoundFiles:
    """All files with these suffixes, with their targets, groups and splits.

    What says more wins: the labels table, then the pattern's {label}, then a text beside each file (a.txt or a.gt.txt
    for a.wav), then the class sub-folder. Top folders named train, test and validation give the split.
    Raises:
        DataError: no files; a labels table or pattern that cannot be used; a group that nothing gives.
    """
    root = source if isinstance(source, Path) and source.is_dir() else None
    if root is not None:
        names = [name for name in walk(root) if name.lower().endswith(suffixes)]
        given = None if options.labels is None else _labels_path(root, options)
        paths = {name: root / name for name in names if not is_labels_table(name) and root / name != given}
    else:
        paths = {str(path): path for path in (source if isinstance(source, tuple) else (source,))}
    if not paths:
        raise DataError(f"{source}: found no files ending in {', '.join(suffixes)}, in sub-folders neither")
    found = FoundFiles()
    labels = Labels(paths, root, options, found.problems)
    for name, path in paths.items():
        try:
            found.files.append(labels.about(name, path))
        except DataError as error:
            found.problems.append(Problem(str(path), str(error)))
    found.how = labels.how
    return found


class Labels:
    """All that is said about files outside of them: a labels table, a pattern, folders."""

    def __init__(self, files: dict[str, Path], root: Path | None, options: ReadOptions, problems: list[Problem]):
        self.options, self.in_folder = options, root is not None
        self.splits = folder_splits(list(files)) if root is not None else {}
        self.pattern = FilePattern(options.pattern) if options.pattern else None
        self.label_field = _label_field(self.pattern, options) if self.pattern else None
        self.table = _labels_path(root, options)
        self.rows: dict[str, Row] = {}
        self.table_has_target = False
        self.root = root
        self.transcripts: Transcripts | None = None
        if root is not None and self.table is None and self.label_field is None:
            self.transcripts = Transcripts(files, walk(root))
        if self.table is not None:
            self.rows, self.table_has_target = read_labels(self.table, files, options, self.pattern, problems)
        _refuse_unknown_group(options, self.pattern, self.table is not None)
        _refuse_unknown_target(options, self.pattern, self.table is not None)

    @property
    def how(self) -> str:
        """Where targets come from, for the report."""
        if self.table_has_target:
            how = f"labels from {self.table}"
        elif self.label_field is not None:
            how = f"labels from file names {self.options.pattern}"
        elif self.transcripts is not None and self.transcripts.found:
            how = "text from files beside them"
        else:
            how = "labels from sub-folders" if self.in_folder else "no labels"
        return f"{how}, split by folders {', '.join(self.splits)}" if self.splits else how

    def about(self, name: str, path: Path) -> LabelledFile:
        """What is known about one file.

        Raises:
            DataError: its name does not match the pattern, or it stands in no row of the table.
        """
        fields = self.pattern.parse(name) if self.pattern else {}
        row = self.rows.get(name)
        if self.table is not None and row is None:
            raise DataError(f"stands in no row of {self.table}; add a row, or remove the file")
        target: Target = _class_folder(name, self.splits) if self.in_folder else None
        if row is not None and self.table_has_target:
            target = row.target
        elif self.label_field is not None:
            target = fields[self.label_field]
        elif self.transcripts is not None and self.transcripts.found and self.root is not None:
            target = read_transcript(self.root / self.transcripts.name_for(name))
        group = fields.get(self.options.group or "")
        split = self.splits.get(name.split("/")[0].lower())
        if "split" in fields:
            if fields["split"].lower() not in SPLIT_NAMES:
                raise DataError(f"split in its name is {fields['split']!r}, expected train, validation or test")
            split = SPLIT_NAMES[fields["split"].lower()]
        if row is not None:
            group, split = row.group if group is None else group, row.split or split
        return LabelledFile(path, name, target, group, split)


def _labels_path(root: Path | None, options: ReadOptions) -> Path | None:
    """The labels table that was given, also relative to the folder of data; else one that lies there."""
    if options.labels is None:
        return find_index(root, options) if root is not None and options.pattern is None else None
    if not options.labels.exists() and root is not None and (root / options.labels).exists():
        return root / options.labels
    return options.labels


def folder_splits(names: list[str]) -> dict[str, Split]:
    """Top folders that are splits, in lower case; none unless every top folder is one and no file lies beside them."""
    tops = {name.split("/")[0] for name in names if "/" in name and not name.startswith("/")}
    if not tops or any("/" not in name for name in names) or not all(top.lower() in SPLIT_NAMES for top in tops):
        return {}
    return {top.lower(): SPLIT_NAMES[top.lower()] for top in sorted(tops)}


def _class_folder(name: str, splits: dict[str, Split]) -> str | None:
    """The first folder, below the split's."""
    folders = name.split("/")[:-1]
    folders = folders[1:] if folders and folders[0].lower() in splits else folders
    return folders[0] if folders else None


def _label_field(pattern: FilePattern, options: ReadOptions) -> str | None:
    if options.target is not None and options.target[0] in pattern.fields:
        return options.target[0]
    return next((name for name in CLASS_NAMES if name in pattern.fields), None)


def _refuse_unknown_group(options: ReadOptions, pattern: FilePattern | None, has_table: bool) -> None:
    if options.group is None or has_table or (pattern is not None and options.group in pattern.fields):
        return
    if pattern is not None:
        raise DataError(
            f"group {options.group!r} is not a field of {pattern.text!r}{nearest(options.group, pattern.fields)}"
        )
    raise DataError(
        f"group {options.group!r}: nothing names it; give a labels table with that column, "
        f"or a pattern such as '{{label}}_{{{options.group}}}_{{take}}'"
    )


def _refuse_unknown_target(options: ReadOptions, pattern: FilePattern | None, has_table: bool) -> None:
    if options.target is None or has_table:
        return
    name = options.target[0]
    if pattern is None:
        raise DataError(f"target {name!r}: nothing names it; give a labels table with that column, or a pattern")
    if name not in pattern.fields:
        raise DataError(f"target {name!r} is not a field of {pattern.text!r}{nearest(name, pattern.fields)}")


class FieldPattern:
    """Named fields in a text: '{label}_{speaker}_{take}'; '{take:d}' takes digits only.

    A text that can be read in two ways is refused rather than guessed.

    Args:
        inside: what one character of a field may be, as a regular expression.
        rest: what may follow the last field, as a regular expression.
    Raises:
        DataError: no fields, a field twice, a field without a name.
    """

    def __init__(self, text: str, *, inside: str = "[^/]", rest: str = ""):
        self.text = text
        pieces = re.split(r"\{([^{}]*)\}", text)
        self.fields = [piece.split(":")[0] for piece in pieces[1::2]]
        if (
            not self.fields
            or len(set(self.fields)) < len(self.fields)
            or not all(f.isidentifier() for f in self.fields)
        ):
            raise DataError(
                f"pattern {text!r}: expected different named fields, such as '{{label}}_{{speaker}}_{{take}}'"
            )
        if any(piece.partition(":")[2] not in ("", "d") for piece in pieces[1::2]):
            raise DataError(f"pattern {text!r}: after ':' expected d, for digits")
        self._shortest, self._longest = (self._compile(pieces, f"{inside}{more}", rest) for more in ("+?", "+"))

    @staticmethod
    def _compile(pieces: list[str], anything: str, rest: str) -> re.Pattern[str]:
        parts = []
        for i, piece in enumerate(pieces):
            name, _, digits = piece.partition(":")
            parts.append(f"(?P<{name}>{r'[0-9]+' if digits else anything})" if i % 2 else re.escape(piece))
        return re.compile("".join(parts) + rest)

    def match(self, text: str) -> dict[str, str]:
        """The fields of a text.

        Raises:
            DataError: it does not match, or can be read in two ways.
        """
        match, longest = self._shortest.fullmatch(text), self._longest.fullmatch(text)
        if match is None or longest is None:
            raise DataError(f"name does not match the pattern {self.text!r}; rename it, or change the pattern")
        if match.groupdict() != longest.groupdict():
            raise DataError(
                f"name fits the pattern {self.text!r} in two ways ({match.groupdict()} and {longest.groupdict()}); "
                "mark a field of digits, such as '{take:d}', or rename it"
            )
        return match.groupdict()


class FilePattern(FieldPattern):
    """Fields in file names, matched without the suffix, and against as many folders as the pattern has."""

    def __init__(self, text: str):
        self.depth = text.count("/") + 1
        super().__init__(re.sub(r"\.(?!.*[{}])\w+$", "", text))
        self.text = text

    def parse(self, name: str) -> dict[str, str]:
        """The fields of a file; raises as `match`."""
        return self.match(str(PurePosixPath(*PurePosixPath(name).parts[-self.depth :]).with_suffix("")))


def is_labels_table(name: str) -> bool:
    """Whether a file (relative to its folder) has the place and name of a labels table, not of a sequence."""
    path = PurePosixPath(name)
    return len(path.parts) == 1 and path.stem.lower() in INDEX_NAMES and path.suffix.lower() in _TABLE_SUFFIXES


def find_index(root: Path, options: ReadOptions) -> Path | None:
    """A labels table that lies in the folder under a usual name and has the columns it needs."""
    for path in sorted(root.iterdir()):
        if not is_labels_table(path.name):
            continue
        names = [name for name in load_frame(path)[0].columns if name != ROW]
        if has_intervals(names):
            continue
        has_target = options.target is not None and set(options.target) <= set(names)
        has_target = has_target or (options.target is None and bool(pick_targets(names, None, str(path))))
        if has_target and pick_column(names, None, FILE_NAMES, str(path), "file"):
            return path
    return None


def read_labels(
    path: Path,
    files: dict[str, Path],
    options: ReadOptions,
    pattern: FilePattern | None,
    problems: list[Problem],
) -> tuple[dict[str, Row], bool]:
    """Rows of a labels table by the file they name, and whether it gives targets.

    Rows that name no file, and files named twice, are problems.

    Raises:
        DataError: no such table or column, or no column holds file names.
    """
    frame, bad = load_frame(path)
    problems += bad
    names = [name for name in frame.columns if name != ROW]
    index = FileIndex(files)
    file_column = _file_column(frame, names, index, path)
    asked = options.target
    if asked is not None and pattern is not None and asked[0] in pattern.fields and asked[0] not in names:
        asked = ()
    target_names = pick_targets([name for name in names if name != file_column], asked, str(path))
    if not target_names and (pattern is None or _label_field(pattern, options) is None):
        raise DataError(f"{path}: found no target column among {', '.join(names)}; name one as target=")
    is_text = len(target_names) == 1 and is_text_column(target_names[0])
    in_pattern = pattern is not None and options.group in pattern.fields and options.group not in names
    group = None if in_pattern else pick_column(names, options.group, (), str(path), "group")
    split = pick_column(names, None, SPLIT_COLUMNS, str(path), "split")
    columns = zip(
        frame[ROW].to_list(),
        texts_of(frame, file_column),
        targets_of(frame, target_names, str(path)),
        texts_of(frame, group),
        splits_of(frame, split, str(path)),
        strict=True,
    )
    rows: dict[str, Row] = {}
    for number, text, target, row_group, row_split in columns:
        where = f"{path} row {number}"
        name = index.find(text) if text is not None else None
        if name is None:
            what = f"file {text!r} is not there" if text else f"{file_column} is empty"
            problems.append(Problem(where, f"{what}; correct the name, or remove the row"))
        elif is_text and not (isinstance(target, str) and target.strip()):
            problems.append(Problem(where, "found an empty transcript, expected text; write it, or remove the row"))
        elif name in rows:
            problems.append(Problem(where, f"file {text!r} already stands in {rows[name].where}; keep one of the rows"))
        else:
            rows[name] = Row(where, target, row_group, row_split)
    return rows, bool(target_names)


class FileIndex:
    """Finds a file by its relative path, its name, or its name without suffix where only one file has it."""

    def __init__(self, files: dict[str, Path]):
        self._exact = {**{str(path): name for name, path in files.items()}, **{name: name for name in files}}
        self._loose: dict[str, str] = {}
        short: list[tuple[str, str]] = []
        for name in files:
            path = PurePosixPath(name.replace("\\", "/"))
            short += {(path.name, name), (path.stem, name), (str(path.with_suffix("")), name)}
        count = Counter(key for key, _ in short)
        self._loose = {key: name for key, name in short if count[key] == 1}

    def find(self, text: str) -> str | None:
        text = text.strip().replace("\\", "/").removeprefix("./")
        return self._exact.get(text) or self._loose.get(text) or self._loose.get(text.rsplit("/", 1)[-1])


def _file_column(frame: pl.DataFrame, names: list[str], index: FileIndex, path: Path) -> str:
    """The column with a usual name, unless it names no file and another one does."""
    head = frame.head(200)
    hits = {name: sum(index.find(text or "") is not None for text in texts_of(head, name)) for name in names}
    usual = pick_column(names, None, FILE_NAMES, str(path), "file")
    if usual is not None and hits[usual]:
        return usual
    best = max(hits, key=lambda name: hits[name], default=None)
    if best is not None and hits[best]:
        return best
    if usual is None:
        raise DataError(f"{path}: found no column of file names among {', '.join(names)}; expected one named file")
    return usual
