"""NumPy files: one .npy of all sequences (memory-mapped), one .npy a sequence, or an .npz with x, y and lengths."""

from __future__ import annotations

import functools
import math
import re
import tokenize
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Problem, Target, array_example
from crnn.data.readers.columns import (
    SPLIT_COLUMNS,
    pick_column,
    pick_targets,
    splits_of,
    target_series,
    targets_of,
    texts_of,
)
from crnn.data.readers.files import labelled_files, walk
from crnn.data.readers.layout import ROW
from crnn.data.readers.official import SPLIT_NAMES
from crnn.data.readers.reader import (
    Reader,
    ReadOptions,
    Source,
    Split,
    make_dataset,
    number_channels,
    odd_channel_counts,
    trim_missing_end,
)
from crnn.data.readers.table import load_frame
from crnn.errors import DataError

_ROLES = {
    "data": ("x", "data", "series", "sequences", "inputs", "signals"),
    "target": ("y", "label", "labels", "target", "targets"),
    "lengths": ("length", "lengths", "len", "lens"),
    "group": ("group", "groups", "subject", "subjects", "speaker", "patient"),
}


class NpyHeader(NamedTuple):
    """Shape and type of a .npy file, and how many bytes its header takes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_npy(source: Source, options: ReadOptions) -> Dataset:
    """Read one .npy or .npz of many sequences, or a folder or list of .npy files of one sequence each."""
    if isinstance(source, Path) and source.is_file():
        return read_npz(source, options) if source.suffix.lower() == ".npz" else read_npy_stack(source, options)
    if isinstance(source, Path) and not any(name.lower().endswith(".npy") for name in walk(source)):
        archives = sorted(path for path in source.iterdir() if path.suffix.lower() == ".npz")
        if len(archives) != 1:
            names = ", ".join(path.name for path in archives) or "none"
            raise DataError(f"{source}: expected one .npz file at its top, found {names}; give the file itself")
        return read_npz(archives[0], options)
    return read_npy_files(source, options)


def read_header(path: Path) -> NpyHeader:
    """Shape and type, checked against the size of the file; no data is read.

    Raises:
        DataError: empty, not .npy, truncated, of objects or text.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise DataError(f"{path}: found {'an empty file' if path.is_file() else 'no such file'}, expected .npy data")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            start = file.tell()
    except (ValueError, OSError, EOFError, tokenize.TokenError) as error:
        raise DataError(f"{path}: not a .npy file ({str(error).splitlines()[0]}); save it with numpy.save") from None
    if any(size < 0 for size in shape):
        raise DataError(f"{path}: not a .npy file (shape {shape}); save it with numpy.save")
    if dtype.kind not in "fiub":
        what = "Python objects, which are not read because unpickling can run code" if dtype.hasobject else str(dtype)
        raise DataError(
            f"{path}: holds {what}; expected an array of numbers (save lists of sequences as one file each)"
        )
    needed = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if path.stat().st_size < needed:
        raise DataError(f"{path}: truncated: shape {shape} needs {needed} bytes, found {path.stat().st_size}")
    return NpyHeader(shape, dtype)


def read_npy_files(source: Source, options: ReadOptions) -> Dataset:
    """One sequence a file, (time,) or (time, channels); labels as for audio. Only headers are read."""
    found = labelled_files(source, (".npy",), options)
    problems, examples, counts = found.problems, [], []
    for file in found.files:
        where = str(file.path)
        try:
            shape = read_header(file.path).shape
        except DataError as error:
            problems.append(Problem(where, str(error).removeprefix(f"{where}: ")))
            continue
        if len(shape) not in (1, 2) or shape[0] == 0:
            problems.append(Problem(where, f"has shape {shape}, expected (time,) or (time, channels), time at least 1"))
            continue
        load = functools.partial(load_npy, file.path, shape)
        about = file.target, file.group, file.split
        examples.append(Example(file.id, where, shape[0], load, *about, files=(file.path,)))
        counts.append(shape[1] if len(shape) == 2 else 1)
    odd = odd_channel_counts([example.where for example in examples], counts)
    kept = [i for i in range(len(examples)) if i not in odd]
    return make_dataset(
        [examples[i] for i in kept],
        [*problems, *odd.values()],
        kind="series",
        channel_names=number_channels(counts[kept[0]] if kept else 1),
        source=f"{source if isinstance(source, Path) else f'{len(source)} files'} ({found.how})",
        sample_rate=options.sample_rate,
        in_memory=False,
    )


def load_npy(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One file as (time, channels) float32.

    Raises:
        DataError: the file has gone, or changed its shape, since it was read.
    """
    if read_header(path).shape != shape:
        raise DataError(f"{path}: its shape has changed from {shape} since it was read; read the data again")
    with np.errstate(over="ignore"):  # beyond float32: infinite
        data = np.load(path, allow_pickle=False).astype(np.float32)
    return np.ascontiguousarray(data[:, None] if data.ndim == 1 else data)


def read_npy_stack(path: Path, options: ReadOptions) -> Dataset:
    """One .npy of shape (n, time) or (n, time, channels), memory-mapped; labels= has one row (or number) for each.

    Frames at the end that are NaN in every channel are padding.
    """
    header = read_header(path)
    if len(header.shape) not in (2, 3) or 0 in header.shape:
        raise DataError(
            f"{path}: has shape {header.shape}, expected (n, time) or (n, time, channels) of one or more sequences; "
            "a single sequence is read from a folder or list of .npy files"
        )
    x = np.load(path, mmap_mode="r", allow_pickle=False)
    targets, groups, splits = _row_labels(path, len(x), options)
    examples, problems = [], []
    ends = (
        np.isnan(x[:, -1].reshape(len(x), -1)).all(axis=1) if header.dtype.kind == "f" else np.zeros(len(x), dtype=bool)
    )
    for i in range(len(x)):
        where = f"{path} row {i}"
        length = len(trim_missing_end(_frames(x, i))) if ends[i] else x.shape[1]
        if length == 0:
            problems.append(Problem(where, "every value is NaN, expected at least one number"))
            continue
        load = functools.partial(_frames, x, i, length)
        about = targets[i], groups[i], splits[i]
        examples.append(Example(f"{path.name}:{i}", where, length, load, *about, files=(path,)))
    return make_dataset(
        examples,
        problems,
        kind="series",
        channel_names=number_channels(x.shape[2] if x.ndim == 3 else 1),
        source=f"{path} (shape {header.shape}, memory-mapped)",
        sample_rate=options.sample_rate,
        in_memory=False,
    )


def _frames(x: NDArray[np.generic], i: int, length: int | None = None) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        data = x[i, :length].astype(np.float32)
    return data[:, None] if data.ndim == 1 else data


def _row_labels(path: Path, count: int, options: ReadOptions) -> tuple[list[Target], list[str | None], list[Split]]:
    """Targets, groups and splits of the rows of a stacked array."""
    if options.labels is None:
        if options.group or options.target:
            raise DataError(f"{path}: target and group need labels=, a table (or .npy of targets) with {count} rows")
        return [None] * count, [None] * count, [None] * count
    if options.labels.suffix.lower() == ".npy":
        read_header(options.labels)
        targets = array_targets(np.load(options.labels, allow_pickle=False), str(options.labels))
        groups: list[str | None] = [None] * len(targets)
        splits: list[Split] = [None] * len(targets)
    else:
        frame, bad = load_frame(options.labels)
        if bad:
            raise DataError(f"{bad[0]}; every row of {path} needs its label")
        names, where = [name for name in frame.columns if name != ROW], str(options.labels)
        targets = targets_of(frame, pick_targets(names, options.target, where), where)
        groups = texts_of(frame, pick_column(names, options.group, (), where, "group"))
        splits = splits_of(frame, pick_column(names, None, SPLIT_COLUMNS, where, "split"), where)
    if len(targets) != count:
        raise DataError(
            f"{options.labels}: found {len(targets)} rows, but {path} has {count} sequences; expected equal"
        )
    return targets, groups, splits


def array_targets(y: NDArray[np.generic], where: str) -> list[Target]:
    """(n,) by the rules of a target column; (n, classes) of 0 and 1 as one class, or as sets of them."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 1:
        return target_series(y, where)
    if y.ndim != 2 or not np.isin(y, (0, 1)).all():
        raise DataError(f"{where}: targets have shape {y.shape}, expected (n,), or (n, classes) of 0 and 1")
    sets = [tuple(str(i) for i in np.flatnonzero(row)) for row in y]
    return [labels[0] for labels in sets] if (y.sum(axis=1) == 1).all() else list(sets)


def read_npz(path: Path, options: ReadOptions) -> Dataset:
    """Read x, y and optional lengths and groups, for each of train, validation and test where the names say so.

    Names may be x, X, data, y, labels, lengths, group, with or without a split (x_train, test_y, ...); x beside x_test
    is the training set. With lengths, x is padded (n, time, ...), or all frames in a row (frames, ...).
    Raises:
        DataError: not .npz, no x, sizes that do not fit, arrays of objects.
    """
    arrays = _load_arrays(path)
    parts = _by_split(path, arrays, options)
    examples, problems = [], []
    channels = None
    for split, part in parts.items():
        name = f"{path} {part['data'][0]}"
        y = array_targets(part["target"][1], f"{path} {part['target'][0]}") if "target" in part else None
        lengths = part["lengths"][1] if "lengths" in part else None
        groups = [str(group) for group in part["group"][1].tolist()] if "group" in part else None
        sequences = split_array(part["data"][1], lengths, name)
        for what, values in (("targets", y), ("groups", groups)):
            if values is not None and len(values) != len(sequences):
                raise DataError(f"{name}: {len(sequences)} sequences but {len(values)} {what}; expected equal numbers")
        for i, data in enumerate(sequences):
            where = f"{name} row {i}"
            if len(data) == 0:
                problems.append(Problem(where, "found a sequence of length 0, expected at least 1 frame; remove it"))
                continue
            target, group = y[i] if y else None, groups[i] if groups else None
            mark = split if len(parts) > 1 else None
            id = f"{path.name}:{split or 'row'}:{i}" if len(parts) > 1 else f"{path.name}:{i}"
            examples.append(array_example(id, where, data, target=target, group=group, split=mark))
        if channels is not None and sequences and sequences[0].shape[1] != channels:
            raise DataError(
                f"{name}: found {sequences[0].shape[1]} channels, expected {channels} as in the other split"
            )
        channels = sequences[0].shape[1] if sequences else channels
    return make_dataset(
        examples,
        problems,
        kind="series",
        channel_names=number_channels(channels or 1),
        source=f"{path} ({', '.join(part['data'][0] for part in parts.values())})",
        sample_rate=options.sample_rate,
    )


Arrays = dict[str, NDArray[Any]]


def _load_arrays(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        hint = "it holds Python objects, which are not read" if "pickle" in str(error) else "is it truncated?"
        raise DataError(
            f"{path}: cannot be read as .npz ({error}); {hint}; save plain arrays with numpy.savez"
        ) from None


def _by_split(path: Path, arrays: Arrays, options: ReadOptions) -> dict[Split, dict[str, tuple[str, NDArray[Any]]]]:
    """Arrays by split and role; each with its name."""
    parts: dict[Split, dict[str, tuple[str, NDArray[Any]]]] = {}
    other: dict[Split, list[str]] = {}
    for name, array in arrays.items():
        words = [word for word in re.split(r"[_\-. ]+", name.lower()) if word]
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)
        rest = [word for word in words if word not in SPLIT_NAMES]
        role = next((role for role, names in _ROLES.items() if rest and rest[-1] in names), None)
        role = "target" if options.target == (name,) else "group" if options.group == name else role
        if role is None:
            other.setdefault(split, []).append(name)
        else:
            parts.setdefault(split, {}).setdefault(role, (name, array))
    for split, part in parts.items():  # x may have a name of its field, such as train_pose, where it is the only one
        large = [name for name in other.get(split, []) if arrays[name].ndim >= 2 and arrays[name].dtype.kind in "fiu"]
        if "data" not in part and len(large) == 1:
            part["data"] = (large[0], arrays[large[0]])
    parts = {split: part for split, part in parts.items() if "data" in part}
    if not parts:
        shown = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise DataError(f"{path}: found {shown}; expected x and y, or x_train, y_train, x_test and y_test")
    if None in parts and len(parts) > 1:
        parts = {"train" if split is None else split: part for split, part in parts.items()}
    return parts


def split_array(x: NDArray[Any], lengths: Sequence[int] | NDArray[Any] | None, where: str) -> list[NDArray[np.float32]]:
    """Sequences of (time, channels) float32 from one array; further axes become channels.

    Args:
        lengths: of each sequence, where x is padded to (n, time, ...) or holds all frames in a row, (frames, ...).
            Without them, frames at the end that are NaN in every channel are padding.
    Raises:
        DataError: not numbers, fewer than two axes, lengths that do not fit.
    """
    if x.dtype.kind not in "fiub":
        raise DataError(f"{where}: holds {x.dtype}, expected numbers")
    if lengths is not None:
        lengths = np.asarray(lengths)
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
            raise DataError(
                f"{where}: lengths are {lengths.dtype} of shape {lengths.shape}, expected whole numbers, (n,)"
            )
        if len(lengths) != len(x) and int(lengths.sum()) == len(x):
            with np.errstate(over="ignore"):
                frames = x.reshape(len(x), math.prod(x.shape[1:])).astype(np.float32)
            return np.split(frames, np.cumsum(lengths)[:-1])
    if x.ndim < 2:
        raise DataError(f"{where}: has shape {x.shape}, expected (n, time) or (n, time, channels)")
    with np.errstate(over="ignore"):  # beyond float32: infinite
        flat = x.reshape(*x.shape[:2], math.prod(x.shape[2:])).astype(np.float32)
    if lengths is None:
        return [trim_missing_end(data) for data in flat]
    if len(lengths) != len(x) or (len(lengths) and (lengths.min() < 0 or lengths.max() > x.shape[1])):
        raise DataError(
            f"{where}: {len(lengths)} lengths (sum {int(lengths.sum())}) do not fit shape {x.shape}; "
            "expected one a row, at most the time axis, or that add up to the number of frames"
        )
    return [data[:length] for data, length in zip(flat, lengths.tolist(), strict=True)]


def _claims(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in (".npy", ".npz")
    return path.is_dir() and any(name.lower().endswith((".npy", ".npz")) for name in walk(path))


NPY = Reader(
    name="npy",
    suffixes=(".npy", ".npz"),
    claims=_claims,
    read=read_npy,
    options=frozenset({"labels", "target", "group", "pattern", "sample_rate"}),
    many_files=True,
)
