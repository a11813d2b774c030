"""Official splits in file names: X_TRAIN.ts beside X_TEST.ts, train.csv beside test.csv."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from crnn.data.dataset import Dataset
from crnn.data.readers.reader import ReadOptions, Source, Split, join
from crnn.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of files, folders and cells (in lower case) that mean a split."""

_NAME = re.compile(rf"(?:(?P<prefix>.*)[_-])?(?P<split>{'|'.join(SPLIT_NAMES)})", re.IGNORECASE)


def stem(path: Path, suffixes: tuple[str, ...]) -> str | None:
    """The file name without its suffix (and .gz), or None when the suffix is not one of these."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return next((name[: -len(suffix)] for suffix in suffixes if name.lower().endswith(suffix)), None)


def is_official(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file is named as a train, validation or test set."""
    name = stem(path, suffixes)
    return name is not None and _NAME.fullmatch(name) is not None


def split_of_shard(path: Path) -> Split:
    """The split that the name of a shard begins with (train-00000-of-00010.parquet), or that of its folder; or None."""
    for name in (path.name, path.parent.name):
        word = re.split(r"[-_.]", name)[0].lower()
        if word in SPLIT_NAMES:
            return SPLIT_NAMES[word]
    return None


def official_parts(source: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, Split]]:
    """The files of a data set: one file as it is, or the TRAIN/TEST files of a folder or prefix with their splits.

    Returns an empty list when there are none.
    Raises:
        DataError: the folder holds several data sets.
    """
    if source.is_file():
        return [(source, None)] if stem(source, suffixes) is not None else []
    folder = source if source.is_dir() else source.parent
    if not folder.is_dir():
        return []
    pairs: dict[str, list[tuple[Path, Split]]] = {}
    for suffix in suffixes:  # the first suffix that has files wins: X_TRAIN.tsv beside the same data as X_TRAIN.txt
        single = []
        for path in sorted(folder.iterdir()):
            name = stem(path, (suffix,))
            if name is None or path.name.startswith("."):
                continue
            single.append(path)
            if match := _NAME.fullmatch(name):
                split = SPLIT_NAMES[match["split"].lower()]
                pairs.setdefault(match["prefix"] or "", []).append((path, split))
        if single:
            break
    order = ["train", "validation", "test"]
    pairs = {name: sorted(parts, key=lambda part: order.index(part[1])) for name, parts in pairs.items()}
    if not source.is_dir():
        return pairs.get(source.name, [])
    if len(pairs) > 1 and source.resolve().name in pairs:
        return pairs[source.resolve().name]  # beside it lie derived sets, such as XDimension1_TRAIN.arff
    if len(pairs) > 1:
        names = ", ".join(sorted(pairs))
        raise DataError(
            f"{source}: found {len(pairs)} data sets ({names}), expected one; "
            f"give one of them, such as {source / sorted(pairs)[0]}"
        )
    if pairs:
        return next(iter(pairs.values()))
    if len(single) > 1:
        raise DataError(
            f"{source}: found {len(single)} {suffix} files and no TRAIN/TEST pair ({single[0].name}, {single[1].name}"
            f"{', ...' if len(single) > 2 else ''}), expected one data set; give one file"
        )
    return [(path, None) for path in single]


def read_official(
    source: Source,
    suffixes: tuple[str, ...],
    read_file: Callable[[Path, ReadOptions], Dataset],
    options: ReadOptions,
) -> Dataset:
    """Read a file, or the TRAIN and TEST files of a folder or prefix, with Example.split set."""
    assert isinstance(source, Path)
    parts = official_parts(source, suffixes)
    read = [(read_file(path, options), split) for path, split in parts]
    if len(read) == 1:
        return join(read, read[0][0].source)
    return join(read, f"{source} ({', '.join(path.name for path, _ in parts)})")
