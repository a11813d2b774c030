"""Read any source as a Dataset: a file, a folder, several files, a data frame, arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crnn.config import nearest
from crnn.data.annotation import Annotation
from crnn.data.cache import cached
from crnn.data.dataset import Dataset, Example, Kind, Problem, Target, array_example
from crnn.data.readers.columns import target_series
from crnn.data.readers.layout import read_frame
from crnn.data.readers.npy import array_targets, split_array
from crnn.data.readers.official import SPLIT_NAMES
from crnn.data.readers.reader import (
    Reader,
    ReadOptions,
    Source,
    make_dataset,
    number_channels,
    odd_channel_counts,
)
from crnn.data.readers.registry import all_readers, find_reader
from crnn.errors import ConfigError, DataError

OnBad = Literal["fail", "skip"]
MAX_SHOWN = 50
"""Bad places that one error lists; all of them are in `problems` with on_bad='skip'."""
_ARCHIVES = (".zip", ".tgz", ".tar.gz", ".7z", ".rar", ".tar.bz2", ".tar.xz")


def read(
    source: Any,
    *,
    labels: str | Path | Sequence[Any] | NDArray[Any] | None = None,
    target: str | Sequence[str] | None = None,
    group: str | Sequence[Any] | NDArray[Any] | None = None,
    pattern: str | None = None,
    sample_rate: float | None = None,
    id: str | None = None,
    time: str | None = None,
    lengths: Sequence[int] | NDArray[Any] | None = None,
    channels: Sequence[str] | None = None,
    height: int | None = None,
    format: str | None = None,
    alphabet: str | None = None,
    cache: str | Path | None = None,
    targets: bool = True,
    on_bad: OnBad = "fail",
) -> Dataset:
    """Read sequences, their targets and groups.

    Args:
        source: a file, a folder, a prefix (X for X_TRAIN.ts and X_TEST.ts), a list of files of one sequence each, a
            polars, pandas or pyarrow table, a list of arrays, or an array (n, time) or (n, time, channels).
        labels: a table of file names and targets; for arrays the targets themselves.
        target: name of the target column, or several names (or 'a,b') of 0/1 columns; a field of the pattern.
        group: name of the group column or pattern field; for arrays the groups themselves.
        pattern: fields in file names, such as '{label}_{speaker}_{take}'; '{take:d}' is digits only.
        sample_rate: audio is resampled to it (default: the most frequent rate); for series it is only recorded.
        id: column of a long table that tells sequences apart; usual names are found.
        time: column of a long table that orders frames; usual names are found.
        lengths: for a padded array, the frames of each sequence.
        channels: columns of a table that are its data, in this order, where it has all of them; others are left out.
        height: pixels to which images of lines are scaled; 32 when None.
        format: name of the reader; found from the source when None.
        alphabet: what the letters of biological sequences mean: 'dna', 'rna' or 'protein'; recognised when None.
        cache: a folder for decoded data: files are decoded once, and from then on mapped into memory. A file that has
            changed, or other settings, are seen.
        targets: False for prediction: targets are left out, and none is missed.
        on_bad: 'fail' raises one error that lists the bad places; 'skip' leaves them out and keeps them in `problems`.
    Raises:
        DataError: nothing there, no such column, bad places with on_bad='fail', or nothing left without them.
        ConfigError: an option that the format cannot use.
        MissingExtraError: the format needs a package that is not installed.
    """
    if on_bad not in ("fail", "skip"):
        raise ConfigError(f"on_bad: found {on_bad!r}, expected 'fail' or 'skip'")
    if source is None or isinstance(source, (dict, bytes)) or (isinstance(source, str) and not source):
        raise ConfigError(f"source: found {source!r:.40}, expected a path, a table or arrays")
    if _is_path(source) or (isinstance(source, (list, tuple)) and source and all(_is_path(item) for item in source)):
        if lengths is not None:
            raise ConfigError("lengths: files know their lengths; expected an array as source")
        options = _options(labels, target, group, pattern, sample_rate, id, time, channels, height, alphabet)
        data = _read_files(source, options, format)
        if cache is not None:
            data = cached(data, Path(cache), _cache_settings(source, options, format))
        return settle(data, on_bad, targets=targets)
    for name, value in {"pattern": pattern, "format": format, "height": height, "cache": cache}.items():
        if value is not None:
            raise ConfigError(f"{name}: only for files; the source is {type(source).__name__}")
    frame = as_frame(source)
    if frame is not None:
        if labels is not None or lengths is not None:
            raise ConfigError("labels and lengths: not for a table; name its target column as target")
        options = _options(None, target, group, None, sample_rate, id, time, channels, None, alphabet)
        return settle(read_frame(frame, options, "table"), on_bad, targets=targets)
    for name, column in {"target": target, "id": id, "time": time, "alphabet": alphabet}.items():
        if column is not None:
            raise ConfigError(f"{name}: names a column, but the source is {type(source).__name__}; give labels=")
    if isinstance(labels, (str, Path)) or isinstance(group, str):
        raise ConfigError("labels and group: for arrays expected one value a sequence, found a name")
    return from_arrays(source, labels, lengths=lengths, groups=group, sample_rate=sample_rate, on_bad=on_bad)


def settle(data: Dataset, on_bad: OnBad, *, targets: bool = True) -> Dataset:
    """The data set as it is, or one error for its bad places.

    Args:
        targets: an example without a target is a bad place where others have one; False leaves all targets out.
    Raises:
        DataError: errors with on_bad='fail', or no examples.
    """
    data = _all_or_none_targeted(data) if targets else replace(data, examples=tuple(map(_untargeted, data)))
    errors = [problem for problem in data.problems if problem.level == "error"]
    listed = "".join(f"\n  {problem}" for problem in errors[:MAX_SHOWN])
    if len(errors) > MAX_SHOWN:
        listed += f"\n  ... and {len(errors) - MAX_SHOWN} more"
    if not data.examples:
        found = f"none of {len(errors)} can be used:{listed}" if errors else "found no sequences"
        raise DataError(f"{data.source}: {found}")
    if errors and on_bad == "fail":
        if len(errors) == 1:
            raise DataError(f"{errors[0]} (on_bad='skip' leaves it out)")
        total = len(errors) + len(data)
        raise DataError(
            f"{data.source}: {len(errors)} of {total} places cannot be used (on_bad='skip' leaves them out):{listed}"
        )
    return data


def _all_or_none_targeted(data: Dataset) -> Dataset:
    """Without the examples that have no target where others have one; they stand in `problems`."""
    without = [example for example in data if example.target is None]
    if not without or len(without) == len(data):
        return data
    what = "no target, while other places have one; give it one, or remove it"
    problems = [Problem(example.where, what) for example in without]
    kept = tuple(example for example in data if example.target is not None)
    return replace(data, examples=kept, problems=(*data.problems, *problems))


def _untargeted(example: Example) -> Example:
    return replace(example, target=None)


def verify(example: Example) -> Problem | None:
    """Decode an example in full and say what is wrong with it, or None: headers do not show all damage."""
    try:
        data = example.load()
    except DataError as error:
        return Problem(example.where, str(error).removeprefix(f"{example.where}: "))
    if len(data) != example.length:
        return Problem(example.where, f"decoded {len(data)} frames, expected {example.length}; read the data again")
    return None


def from_arrays(
    x: Any,
    y: Sequence[Any] | NDArray[Any] | None = None,
    *,
    lengths: Sequence[int] | NDArray[Any] | None = None,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    splits: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
    channel_names: Sequence[str] | None = None,
    kind: Kind = "series",
    sample_rate: float | None = None,
    source: str = "arrays",
    on_bad: OnBad = "fail",
) -> Dataset:
    """Arrays in memory as a data set.

    Args:
        x: a list of (time,) or (time, channels) arrays; or one array (n, time) or (n, time, channels) with `lengths`,
            or with NaN in every channel past each end.
        kind: 'audio' for waveforms of one channel at `sample_rate`.
        y: a target each: text is a class, a tuple or list of texts a set of labels; numbers as in a table's target
            column; a matrix of 0 and 1 is one class or a set of classes a row; StepLabels or Events say something about
            parts of a sequence.
    Raises:
        DataError: sizes that do not fit; bad sequences with on_bad='fail'.
        ConfigError: symbols, whose vocabulary arrays do not carry; lengths of a list.
    """
    if kind == "symbols":
        raise ConfigError("kind: found 'symbols', expected 'series' or 'audio': arrays of ids carry no vocabulary")
    if isinstance(x, (list, tuple)):
        if lengths is not None:
            raise ConfigError("lengths: a list of arrays knows its lengths; expected one padded array")
        sequences, problems = _sequence_list(x, source)
    else:
        sequences, problems = dict(enumerate(split_array(_as_array(x, source), lengths, source))), []
    count = len(x) if lengths is None else len(lengths)
    for what, values in {"targets": y, "groups": groups, "splits": splits, "ids": ids}.items():
        if values is not None and len(values) != count:
            raise DataError(f"{source}: {count} sequences but {len(values)} {what}; expected equal numbers")
    for name in splits or ():
        if name is not None and name not in SPLIT_NAMES.values():
            raise DataError(f"{source}: split {name!r}, expected train, validation or test")
    targets = _targets(y, source) if y is not None else [None] * count
    examples = []
    for i, data in sequences.items():
        where = f"{source} sequence {i}"
        if len(data) == 0:
            problems.append(Problem(where, "found a sequence of length 0, expected at least 1 frame; remove it"))
            continue
        group = None if groups is None else str(groups[i])
        split: Any = None if splits is None else splits[i]
        name = str(i) if ids is None else str(ids[i])
        examples.append(array_example(name, where, data, target=targets[i], group=group, split=split))
    counts = [example.load().shape[1] for example in examples]
    odd = odd_channel_counts([example.where for example in examples], counts)
    kept = [i for i in range(len(examples)) if i not in odd]
    channels = counts[kept[0]] if kept else 1
    if kind == "audio" and channels != 1:
        raise DataError(f"{source}: found {channels} channels, expected 1 as audio; average them first")
    if channel_names is not None and len(channel_names) != channels:
        raise DataError(f"{source}: {len(channel_names)} channel names for {channels} channels; expected equal numbers")
    data_set = make_dataset(
        [examples[i] for i in kept],
        [*problems, *odd.values()],
        kind=kind,
        channel_names=channel_names or (("audio",) if kind == "audio" else number_channels(channels)),
        source=source,
        sample_rate=sample_rate,
    )
    return settle(data_set, on_bad)


def _targets(y: Sequence[Any] | NDArray[Any], source: str) -> list[Target]:
    """Targets in any usual form; rows of numbers are a matrix of 0 and 1, rows of text are sets of labels."""
    if isinstance(y, np.ndarray):
        return array_targets(y, source)
    if any(isinstance(target, Annotation) for target in y):
        return list(y)
    if all(isinstance(row, (list, tuple)) and row and not any(isinstance(cell, str) for cell in row) for row in y):
        return array_targets(_as_array(y, source), source)
    return target_series(y, source)


def _sequence_list(x: Sequence[Any], source: str) -> tuple[dict[int, NDArray[np.float32]], list[Problem]]:
    """Sequences by position, and those that are no (time,) or (time, channels) of numbers."""
    sequences: dict[int, NDArray[np.float32]] = {}
    problems = []
    for i, item in enumerate(x):
        where = f"{source} sequence {i}"
        try:
            array = _as_array(item, where)
        except DataError as error:
            problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
            continue
        if array.dtype.kind not in "fiub" or array.ndim not in (1, 2):
            what = f"found {array.dtype} of shape {array.shape}, expected numbers, (time,) or (time, channels)"
            problems.append(Problem(where, what))
            continue
        with np.errstate(over="ignore"):  # beyond float32: infinite
            array = array.astype(np.float32)
        sequences[i] = array[:, None] if array.ndim == 1 else array
    return sequences, problems


def _as_array(x: Any, where: str) -> NDArray[Any]:
    if hasattr(x, "detach"):  # a torch tensor, on any device
        x = x.detach().cpu()
    try:
        return np.asarray(x)
    except ValueError:
        raise DataError(f"{where}: found a ragged list, expected numbers, (time,) or (time, channels)") from None


def _cache_settings(source: Any, options: ReadOptions, format: str | None) -> dict[str, Any]:
    """What decides the decoded data, besides what the data set says of itself."""
    paths = [str(Path(path).absolute()) for path in ([source] if _is_path(source) else source)]
    names = ("sample_rate", "id", "time", "channels", "height", "alphabet")
    return {"source": paths, "format": format, **{name: getattr(options, name) for name in names}}


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, Path))


def _options(
    labels: Any,
    target: Any,
    group: Any,
    pattern: str | None,
    sample_rate: float | None,
    id: str | None,
    time: str | None,
    channels: Sequence[str] | None,
    height: int | None,
    alphabet: str | None,
) -> ReadOptions:
    if labels is not None and not _is_path(labels):
        raise ConfigError(f"labels: found {type(labels).__name__}, expected the path of a table")
    if group is not None and not isinstance(group, str):
        raise ConfigError(f"group: found {type(group).__name__}, expected the name of a column or pattern field")
    if sample_rate is not None and sample_rate <= 0:
        raise ConfigError(f"sample_rate: found {sample_rate}, expected frames per second, more than 0")
    names = target.split(",") if isinstance(target, str) else target
    return ReadOptions(
        labels=None if labels is None else Path(labels),
        target=None if names is None else tuple(name.strip() for name in names),
        group=group,
        pattern=pattern,
        sample_rate=None if sample_rate is None else float(sample_rate),
        id=id,
        time=time,
        channels=None if channels is None else tuple(channels),
        height=height,
        alphabet=alphabet,
    )


def _read_files(source: Any, options: ReadOptions, format: str | None) -> Dataset:
    paths: Source = Path(source) if _is_path(source) else tuple(Path(item) for item in source)
    reader = find_reader(format) if format else choose_reader(paths)
    if isinstance(paths, tuple) and (not reader.many_files or any(path.is_dir() for path in paths)):
        if len(paths) > 1:
            return _read_each(paths, options, format)
        paths = paths[0]
    given = {name for name, value in vars(options).items() if value is not None} - {"channels"}
    for name in sorted(given - reader.options):
        raise ConfigError(
            f"{name}: not used by format {reader.name!r}, which takes {', '.join(sorted(reader.options))}"
        )
    if isinstance(paths, Path) and format and not (_has_suffix(paths, reader) or reader.claims(paths)):
        raise DataError(f"{paths}: nothing there that format {format!r} reads ({', '.join(reader.suffixes)})")
    return reader.read(paths, options)


def _read_each(paths: tuple[Path, ...], options: ReadOptions, format: str | None) -> Dataset:
    """Several folders or files, each a data set of its own, as one; ids begin with the path that was given.

    Raises:
        DataError: they are of different kinds, channels or rates; says which.
    """
    parts = [_read_files(path, options, format) for path in paths]
    for path, data in zip(paths, parts, strict=True):
        for what, found, expected in (
            ("kind of data", data.kind, parts[0].kind),
            ("channels", len(data.channel_names), len(parts[0].channel_names)),
            ("frames per second", data.sample_rate, parts[0].sample_rate),
            ("pixels of height", data.height, parts[0].height),
            ("symbols", "".join(data.vocabulary), "".join(parts[0].vocabulary)),
        ):
            if found != expected:
                raise DataError(f"{path}: {what}: found {found}, expected {expected} as in {paths[0]}; read them apart")
    examples = [
        replace(example, id=example.id if example.id.startswith(f"{path}") else f"{path}/{example.id}")
        for path, data in zip(paths, parts, strict=True)
        for example in data
    ]
    return make_dataset(
        examples,
        [problem for data in parts for problem in data.problems],
        kind=parts[0].kind,
        channel_names=parts[0].channel_names,
        source=f"{paths[0]} and {len(paths) - 1} more",
        sample_rate=parts[0].sample_rate,
        in_memory=all(data.in_memory for data in parts),
        height=parts[0].height,
        vocabulary=parts[0].vocabulary,
    )


def options_of(source: Any, format: str | None = None) -> frozenset[str]:
    """What the reader of a path, or of several, can be told, such as 'sample_rate'.

    Raises:
        DataError: as choose_reader.
    """
    paths: Source = Path(source) if _is_path(source) else tuple(Path(item) for item in source)
    return (find_reader(format) if format else choose_reader(paths)).options


def choose_reader(source: Source) -> Reader:
    """The first reader that claims the source.

    Raises:
        DataError: nothing there, or nothing that any reader knows; says what was looked for.
    """
    first = source[0] if isinstance(source, tuple) else source
    for reader in all_readers():
        if isinstance(source, tuple) and len(source) > 1 and reader.many_files and _has_suffix(first, reader):
            return reader
    for reader in all_readers():
        if reader.claims(first):
            return reader
    known = ", ".join(f"{reader.name} ({' '.join(reader.suffixes[:5])})" for reader in all_readers())
    if first.is_dir():
        below = [path for path in sorted(first.iterdir()) if path.is_dir() and path.name[0] != "."]
        data_sets = [path for path in below if any(reader.claims(path) for reader in all_readers())]
        if data_sets:
            names = ", ".join(path.name for path in data_sets[:8])
            raise DataError(f"{first}: holds {len(data_sets)} data sets ({names}); give one, such as {data_sets[0]}")
        inside = sorted({path.suffix or path.name for path in first.rglob("*") if path.is_file()})
        found = f"found only {', '.join(inside[:8])}" if inside else "the folder is empty"
        found += "; unpack the archive first" if any(suffix in _ARCHIVES for suffix in inside) else ""
        raise DataError(f"{first}: {found}; looked for {known}, in sub-folders too for audio and npy")
    if not first.exists():
        beside = [path.name for path in first.parent.iterdir()] if first.parent.is_dir() else []
        hint = nearest(first.name, sorted(beside)[:500]) if beside else ""
        raise DataError(f"{first}: no such file or folder{hint if 'did you mean' in hint else '; check the path'}")
    if first.name.lower().endswith(_ARCHIVES):
        raise DataError(f"{first}: is an archive; unpack it and give the folder")
    raise DataError(f"{first}: unknown format {first.suffix or 'without suffix'!r}; expected {known}")


def _has_suffix(path: Path, reader: Reader) -> bool:
    return path.is_file() and path.name.lower().endswith(reader.suffixes)


def as_frame(source: Any) -> pl.DataFrame | None:
    """A polars, pandas or pyarrow table as polars; None for anything else."""
    if isinstance(source, pl.LazyFrame):
        return source.collect()
    if isinstance(source, pl.DataFrame):
        return source
    home = type(source).__module__.split(".")[0]
    if home == "pyarrow" and hasattr(source, "column_names"):
        frame = pl.from_arrow(source)
        assert isinstance(frame, pl.DataFrame)
        return frame
    if home == "pandas" and hasattr(source, "columns"):
        return pl.DataFrame([_pandas_column(str(name), source[name]) for name in source.columns])
    return None


def _pandas_column(name: str, column: Any) -> pl.Series:
    """Without pyarrow, which pl.from_pandas needs for text."""
    values = column.to_numpy()
    if values.dtype.kind in "biufM":
        return pl.Series(name, values)
    cells = [None if cell is None or cell != cell else cell for cell in column.tolist()]
    return pl.Series(name, cells, strict=False)
