"""Tar shards as WebDataset has them: files of one name belong together, the data beside its label."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Problem
from crnn.data.readers.audio import COMMON, AudioHeader, decode_audio, import_audio, resampled_length, usual_rate
from crnn.data.readers.columns import SPLIT_COLUMNS, pick_column, pick_targets, splits_of, targets_of, texts_of
from crnn.data.readers.files import walk
from crnn.data.readers.official import split_of_shard
from crnn.data.readers.reader import Reader, ReadOptions, Source, make_dataset, number_channels, odd_channel_counts
from crnn.errors import DataError

SUFFIXES = (".tar",)
ARRAYS = (".npy",)
LABELS = {".cls": "label", ".txt": "text", ".label": "label", ".target": "target"}
"""Members that hold one value, and the column that it stands in."""
MOST_LABEL_BYTES = 1 << 20
"""A longer label is none."""


class Member(NamedTuple):
    """Where a file of a shard lies."""

    shard: Path
    begin: int
    size: int


@dataclass
class _Sample:
    """The files of one name."""

    shard: Path
    id: str
    name: str
    data: Member | None = None
    suffix: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def where(self) -> str:
        return f"{self.shard}: {self.name}"


class Section(io.RawIOBase):
    """A part of a file that is read as a file of its own; closing it closes the whole."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self._file = member.shard.open("rb")
        self._begin, self._size, self._at = member.begin, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._begin + self._at)
        count = self._file.readinto(view[: max(0, min(len(view), self._size - self._at))])
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def read_tar(source: Source, options: ReadOptions) -> Dataset:
    """Read shards: 0001.wav beside 0001.cls or 0001.json; only headers are read, and every file can be reached at once.

    Data is audio or a .npy of (time,) or (time, channels). A label stands in .cls, .txt, .label or .target, or in the
    fields of a .json, whose names are those of a table's columns. A shard named train-..., validation-... or test-...
    gives the split.

    Raises:
        DataError: no data in the shards, both audio and arrays, a field that is not there.
    """
    assert isinstance(source, Path)
    shards = [source] if source.is_file() else [source / name for name in walk(source) if name.endswith(".tar")]
    samples, problems = [], []
    for shard in shards:
        try:
            samples += _index(shard, shard.name if shard == source else shard.relative_to(source).as_posix())
        except (tarfile.TarError, OSError, EOFError) as error:
            problems.append(Problem(str(shard), f"cannot be read as tar ({error}); uncompressed shards are expected"))
    problems += [Problem(sample.where, sample.problem) for sample in samples if sample.problem]
    samples = [sample for sample in samples if sample.data is not None and not sample.problem]
    kinds = {sample.suffix in ARRAYS for sample in samples}
    if len(kinds) == 2:
        raise DataError(f"{source}: found both audio and .npy data in the shards, expected one of them")
    if not samples:
        raise DataError(_nothing(source, problems))
    about = _About(samples, options, str(source))
    if kinds == {True}:
        return _read_arrays(samples, about, problems, source, options)
    return _read_audio(samples, about, problems, source, options)


def _index(shard: Path, place: str) -> list[_Sample]:
    """The samples of a shard, in its order."""
    samples: dict[str, _Sample] = {}
    with tarfile.open(shard, "r:") as archive:
        for info in archive:
            folder, _, base = info.name.rpartition("/")
            if not info.isfile() or base.startswith("."):
                continue
            stem, _, ending = base.partition(".")
            name, suffix = f"{folder}/{stem}" if folder else stem, f".{ending.lower()}"
            sample = samples.setdefault(name, _Sample(shard, f"{place}/{name}", name))
            member = Member(shard, info.offset_data, info.size)
            if suffix in (*COMMON, *ARRAYS):
                if sample.data is not None:
                    sample.problem = f"found data twice ({sample.suffix}, {suffix}), expected one file of data a name"
                sample.data, sample.suffix = member, suffix
            elif suffix in (*LABELS, ".json"):
                _add_facts(sample, suffix, member)
    return list(samples.values())


def _add_facts(sample: _Sample, suffix: str, member: Member) -> None:
    if member.size > MOST_LABEL_BYTES:
        sample.problem = f"{suffix} has {member.size} bytes, expected a label"
        return
    with Section(member) as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig").strip()
        facts = json.loads(text) if suffix == ".json" else {LABELS[suffix]: _number(text)}
    except ValueError as error:  # of the encoding, or of JSON
        sample.problem = f"{suffix} cannot be read ({error}); expected UTF-8 text"
        return
    if isinstance(facts, dict):
        sample.facts |= {str(name): _cell(value) for name, value in facts.items()}
    else:
        sample.problem = f".json holds a {type(facts).__name__}, expected an object with fields such as label"


def _number(text: str) -> int | str:
    """A class by number stays one, so that it is sorted as such."""
    return int(text) if text.isascii() and text.isdigit() else text


def _cell(value: Any) -> Any:
    """A field as the cell of a table: several labels are joined."""
    return "|".join(map(str, value)) if isinstance(value, list) else value if not isinstance(value, dict) else None


class _About:
    """Targets, groups and splits of samples, by the rules of a table's columns."""

    def __init__(self, samples: list[_Sample], options: ReadOptions, source: str) -> None:
        names = list(dict.fromkeys(name for sample in samples for name in sample.facts))
        frame = pl.DataFrame({name: _column([sample.facts.get(name) for sample in samples]) for name in names})
        frame = frame if names else pl.DataFrame({"": [None] * len(samples)})
        self.targets = targets_of(frame, pick_targets(names, options.target, source), source)
        self.groups = texts_of(frame, pick_column(names, options.group, (), source, "group"))
        given = splits_of(frame, pick_column(names, None, SPLIT_COLUMNS, source, "split"), source)
        self.splits = [own or split_of_shard(sample.shard) for own, sample in zip(given, samples, strict=True)]


def _column(values: list[Any]) -> pl.Series:
    if any(isinstance(value, str) for value in values):
        values = [None if value is None else str(value) for value in values]
    return pl.Series(values, strict=False)


def _read_audio(
    samples: list[_Sample], about: _About, problems: list[Problem], source: Path, options: ReadOptions
) -> Dataset:
    headers: dict[int, AudioHeader] = {}
    for i, sample in enumerate(samples):
        try:
            headers[i] = _audio_header(sample)
        except DataError as error:
            problems.append(Problem(sample.where, str(error)))
    rate = int(options.sample_rate or usual_rate(headers.values(), str(source), problems))
    examples = []
    for i, header in headers.items():
        sample = samples[i]
        assert sample.data is not None
        length = resampled_length(header.frames, header.sample_rate, rate)
        if length == 0:
            problems.append(Problem(sample.where, f"found {header.frames} frames, none left at {rate} Hz; remove it"))
            continue
        load = functools.partial(_load_audio, sample.data, sample.where, sample.suffix, header, rate)
        examples.append(_example(samples, about, i, length, load))
    return make_dataset(
        examples,
        problems,
        kind="audio",
        channel_names=("audio",),
        source=f"{source} ({_count(samples)})",
        sample_rate=float(rate),
        in_memory=False,
    )


def _audio_header(sample: _Sample) -> AudioHeader:
    soundfile = import_audio("soundfile")
    assert sample.data is not None
    try:
        with Section(sample.data) as file, soundfile.SoundFile(cast("BinaryIO", file)) as audio:
            header = AudioHeader(audio.frames, audio.samplerate)
    except soundfile.LibsndfileError as error:
        what = str(error.error_string).strip() or "cannot be decoded"
        raise DataError(f"unreadable ({what}); expected {sample.suffix[1:]} audio; write the shard again") from None
    if header.frames == 0:
        raise DataError("found audio of 0 frames, expected at least 1; remove it")
    return header


def _load_audio(member: Member, where: str, suffix: str, header: AudioHeader, rate: int) -> NDArray[np.float32]:
    with Section(member) as file:
        content = io.BytesIO(file.read())  # libsndfile would ask for every few bytes
    return decode_audio(content, where, suffix, header, rate)


def _read_arrays(
    samples: list[_Sample], about: _About, problems: list[Problem], source: Path, options: ReadOptions
) -> Dataset:
    examples, counts = [], []
    for i, sample in enumerate(samples):
        assert sample.data is not None
        try:
            shape = _array_shape(sample.data)
        except ValueError as error:
            problems.append(Problem(sample.where, f".npy cannot be read ({error}); expected an array of numbers"))
            continue
        if len(shape) not in (1, 2) or shape[0] == 0:
            what = f"has shape {shape}, expected (time,) or (time, channels), time at least 1"
            problems.append(Problem(sample.where, what))
            continue
        load = functools.partial(_load_array, sample.data)
        examples.append(_example(samples, about, i, shape[0], load))
        counts.append(shape[1] if len(shape) == 2 else 1)
    odd = odd_channel_counts([example.where for example in examples], counts)
    kept = [i for i in range(len(examples)) if i not in odd]
    return make_dataset(
        [examples[i] for i in kept],
        [*problems, *odd.values()],
        kind="series",
        channel_names=number_channels(counts[kept[0]] if kept else 1),
        source=f"{source} ({_count(samples)})",
        sample_rate=options.sample_rate,
        in_memory=False,
    )


def _array_shape(member: Member) -> tuple[int, ...]:
    with Section(member) as file:
        version = np.lib.format.read_magic(cast("BinaryIO", file))
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(cast("BinaryIO", file))
    if dtype.kind not in "fiub":
        raise ValueError(f"it holds {'Python objects' if dtype.hasobject else dtype}")
    return shape


def _load_array(member: Member) -> NDArray[np.float32]:
    with Section(member) as file, np.errstate(over="ignore"):  # beyond float32: infinite
        data = np.load(io.BytesIO(file.read()), allow_pickle=False).astype(np.float32)
    return np.ascontiguousarray(data[:, None] if data.ndim == 1 else data)


def _example(samples: list[_Sample], about: _About, i: int, length: int, load: Any) -> Example:
    sample = samples[i]
    facts = about.targets[i], about.groups[i], about.splits[i]
    return Example(sample.id, sample.where, length, load, *facts, files=(sample.shard,))


def _count(samples: list[_Sample]) -> str:
    shards = len({sample.shard for sample in samples})
    return f"{shards} tar shard{'s' if shards > 1 else ''}"


def _nothing(source: Path, problems: list[Problem]) -> str:
    first = f"; {problems[0]}" if problems else ""
    return f"{source}: found no data in its shards; expected files such as 0001.wav or 0001.npy beside 0001.cls{first}"


def _shards(path: Path) -> Iterator[str]:
    return (name for name in walk(path) if name.lower().endswith(SUFFIXES))


def _claims(path: Path) -> bool:
    if path.is_file():
        return path.name.lower().endswith(SUFFIXES)
    return path.is_dir() and any(_shards(path))


TAR = Reader(
    name="tar",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_tar,
    options=frozenset({"target", "group", "sample_rate"}),
)
