"""Folders of Parquet parts: a row a sequence, larger than memory; columns of labels are read, sequences when needed."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Problem, Target
from crnn.data.readers.audio import AudioHeader, decode_audio, import_audio, resampled_length, usual_rate
from crnn.data.readers.columns import (
    ID_NAMES,
    SPLIT_COLUMNS,
    pick_column,
    pick_targets,
    splits_of,
    targets_of,
    texts_of,
)
from crnn.data.readers.files import walk
from crnn.data.readers.layout import DATA_NAMES, ROW
from crnn.data.readers.official import is_official, split_of_shard
from crnn.data.readers.reader import (
    Reader,
    ReadOptions,
    Source,
    Split,
    make_dataset,
    number_channels,
    odd_channel_counts,
)
from crnn.errors import DataError

SUFFIXES = (".parquet",)
AUDIO_NAMES = ("audio", "recording", "clip", "bytes", "wav", "flac")
"""Columns that may hold files of audio as bytes, by themselves or as the field `bytes` of a struct."""
LENGTH = "__length__"
"""Column of our own."""
ROWS_AT_ONCE = 64
"""Rows of audio whose headers are read together."""


class Place(NamedTuple):
    """Where a sequence lies."""

    path: Path
    column: str
    row: int
    field: str | None
    """Of a struct."""

    @property
    def where(self) -> str:
        return f"{self.path} row {self.row + 1}"

    def cell(self) -> pl.Series:
        """The one cell, as a column of length 1; only the rows around it are decoded."""
        column = pl.col(self.column) if self.field is None else pl.col(self.column).struct.field(self.field)
        try:
            return pl.scan_parquet(self.path).select(column.alias("x")).slice(self.row, 1).collect()["x"]
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{self.where}: cannot be read ({str(error).splitlines()[0]}); get the file again"
            ) from None


def read_parquet_parts(source: Source, options: ReadOptions) -> Dataset:
    """Read a folder of Parquet files of one schema: a column of lists, or of audio as bytes, and columns of facts.

    A part named train-..., validation-... or test-... gives the split, as data hubs write them.

    Raises:
        DataError: parts of different columns, no column of sequences, a column that is not there.
    """
    assert isinstance(source, Path)
    paths = [source / name for name in walk(source) if name.lower().endswith(SUFFIXES)]
    column, field = _sequences(paths[0])
    frames, rows = [], []
    for path in paths:
        frame = _facts(path, column, field, paths[0])
        frames.append(frame)
        rows += [Place(path, column, row, field) for row in range(frame.height)]
    whole = pl.concat(frames, how="diagonal_relaxed")
    names = [name for name in whole.columns if name != LENGTH]
    ids = texts_of(whole, pick_column(names, options.id, ID_NAMES, str(source), "id"))
    given = splits_of(whole, pick_column(names, None, SPLIT_COLUMNS, str(source), "split"), str(source))
    about = list(
        zip(
            targets_of(whole, pick_targets(names, options.target, str(source)), str(source)),
            texts_of(whole, pick_column(names, options.group, (), str(source), "group")),
            [own or split_of_shard(place.path) for own, place in zip(given, rows, strict=True)],
            strict=True,
        )
    )
    named = [
        f"{place.path.relative_to(source).as_posix()}:{name or place.row}"
        for place, name in zip(rows, ids, strict=True)
    ]
    what = f"{source} ({len(paths)} Parquet parts, column {column!r} holds the sequences)"
    problems: list[Problem] = []
    if field is not None or whole[LENGTH].null_count() == whole.height:
        return _audio(rows, named, about, problems, what, options)
    return _lists(rows, named, about, whole[LENGTH].to_list(), problems, what, options)


About = list[tuple[Target, str | None, Split]]
"""Target, group and split of each row."""


def _sequences(path: Path) -> tuple[str, str | None]:
    """The column that holds sequences, and the field of a struct.

    Raises:
        DataError: there is none.
    """
    schema = _schema(path)
    for name, dtype in schema.items():
        if name.lower() in DATA_NAMES and isinstance(dtype, (pl.List, pl.Array)):
            return name, None
        if name.lower() in AUDIO_NAMES and dtype == pl.Binary:
            return name, None
        if name.lower() in AUDIO_NAMES and isinstance(dtype, pl.Struct) and "bytes" in [f.name for f in dtype.fields]:
            return name, "bytes"
    raise DataError(
        f"{path}: found columns {', '.join(schema)}, expected one of lists named {', '.join(DATA_NAMES)}, or of audio "
        f"bytes named {', '.join(AUDIO_NAMES)}"
    )


def _schema(path: Path) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({str(error).splitlines()[0]}); get it again") from None


def _facts(path: Path, column: str, field: str | None, first: Path) -> pl.DataFrame:
    """All columns but that of the sequences, of which only the lengths are kept."""
    schema = _schema(path)
    if column not in schema:
        raise DataError(
            f"{path}: found columns {', '.join(schema)}, expected {column!r} as in {first}; read them apart"
        )
    dtype = schema[column]
    length = pl.lit(None, pl.Int64)
    if isinstance(dtype, pl.List):
        length = pl.col(column).list.len().cast(pl.Int64)
    elif isinstance(dtype, pl.Array):
        length = pl.when(pl.col(column).is_not_null()).then(dtype.shape[0]).cast(pl.Int64)
    plain = [name for name, kind in schema.items() if name != column and not kind.is_nested() and kind != pl.Binary]
    rows = pl.scan_parquet(path).with_row_index(ROW)  # so that there are rows where no column is read
    return rows.select(*plain, ROW, length.alias(LENGTH)).collect(engine="streaming").drop(ROW)


def _lists(
    rows: list[Place],
    named: list[str],
    about: About,
    lengths: list[int | None],
    problems: list[Problem],
    source: str,
    options: ReadOptions,
) -> Dataset:
    examples, counts = [], []
    channels = {path: _channels(path, rows[0].column) for path in dict.fromkeys(place.path for place in rows)}
    for place, name, (target, group, split), length in zip(rows, named, about, lengths, strict=True):
        if not length:
            problems.append(Problem(place.where, "found no frames, expected at least one; remove the row"))
            continue
        load = functools.partial(_load_list, place)
        examples.append(Example(name, place.where, length, load, target, group, split, files=(place.path,)))
        counts.append(channels[place.path])
    odd = odd_channel_counts([example.where for example in examples], counts)
    kept = [i for i in range(len(examples)) if i not in odd]
    return make_dataset(
        [examples[i] for i in kept],
        [*problems, *odd.values()],
        kind="series",
        channel_names=number_channels(counts[kept[0]] if kept else 1),
        source=source,
        sample_rate=options.sample_rate,
        in_memory=False,
    )


def _channels(path: Path, column: str) -> int:
    """Of the frames of a part: those of its first frame."""
    dtype = _schema(path)[column]
    assert isinstance(dtype, (pl.List, pl.Array))
    inner = dtype.inner
    if not isinstance(inner, (pl.List, pl.Array)):
        return 1
    first = pl.scan_parquet(path).select(pl.col(column)).drop_nulls().head(1).collect()[column]
    frames = first.explode().drop_nulls() if len(first) else first
    return len(frames[0]) if len(frames) else 1


def _load_list(place: Place) -> NDArray[np.float32]:
    """One cell as (time, channels) float32; None becomes NaN."""
    cell = place.cell().to_list()[0]
    try:
        with np.errstate(over="ignore"):  # beyond float32: infinite
            data = np.array(cell, dtype=np.float32)
    except (ValueError, TypeError):
        raise DataError(f"{place.where}: is ragged or not numeric; expected [v, v, ...] or equal frames") from None
    return data[:, None] if data.ndim == 1 else data


def _audio(
    rows: list[Place], named: list[str], about: About, problems: list[Problem], source: str, options: ReadOptions
) -> Dataset:
    headers: dict[int, AudioHeader] = {}
    for i, content in enumerate(_contents(rows)):
        try:
            headers[i] = _header(content)
        except DataError as error:
            problems.append(Problem(rows[i].where, str(error)))
    rate = int(options.sample_rate or usual_rate(headers.values(), source, problems))
    examples = []
    for i, header in headers.items():
        length = resampled_length(header.frames, header.sample_rate, rate)
        if length == 0:
            problems.append(Problem(rows[i].where, f"found {header.frames} frames, none left at {rate} Hz; remove it"))
            continue
        load = functools.partial(_load_audio, rows[i], header, rate)
        examples.append(Example(named[i], rows[i].where, length, load, *about[i], files=(rows[i].path,)))
    return make_dataset(
        examples,
        problems,
        kind="audio",
        channel_names=("audio",),
        source=source,
        sample_rate=float(rate),
        in_memory=False,
    )


def _contents(rows: list[Place]) -> Iterator[bytes | None]:
    """The files of audio one after the other, a few in memory at a time."""
    for path in dict.fromkeys(place.path for place in rows):
        of_path = [place for place in rows if place.path == path]
        column = pl.col(of_path[0].column)
        column = column if of_path[0].field is None else column.struct.field(of_path[0].field)
        for begin in range(0, len(of_path), ROWS_AT_ONCE):
            part = pl.scan_parquet(path).select(column.alias("x")).slice(begin, ROWS_AT_ONCE).collect()["x"]
            yield from part.to_list()


def _header(content: bytes | None) -> AudioHeader:
    soundfile = import_audio("soundfile")
    if not content:
        raise DataError("found no audio, expected the bytes of a file; remove the row")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as audio:
            header = AudioHeader(audio.frames, audio.samplerate)
    except soundfile.LibsndfileError as error:
        raise DataError(
            f"unreadable ({str(error.error_string).strip() or 'cannot be decoded'}); expected audio"
        ) from None
    if header.frames == 0:
        raise DataError("found audio of 0 frames, expected at least 1; remove it")
    return header


def _load_audio(place: Place, header: AudioHeader, rate: int) -> NDArray[np.float32]:
    content = place.cell()[0]
    return decode_audio(io.BytesIO(content or b""), place.where, ".mp3", header, rate)  # as lossy as it may be


def _claims(path: Path) -> bool:
    """A folder of Parquet files with a column of sequences."""
    if not path.is_dir():
        return False
    names = [name for name in walk(path) if name.lower().endswith(SUFFIXES)]
    if not names or all(is_official(Path(name), SUFFIXES) for name in names):  # one table a side: read whole
        return False
    try:
        _sequences(path / names[0])
    except DataError:
        return False
    return True


PARQUET = Reader(
    name="parquet",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_parquet_parts,
    options=frozenset({"target", "group", "sample_rate", "id"}),
)
