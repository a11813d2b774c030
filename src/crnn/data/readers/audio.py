"""Audio files: wav, flac, ogg, mp3 and aiff through libsndfile, to mono at one rate; headers first, samples on load."""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crnn.data.dataset import Dataset, Example, Problem
from crnn.data.readers.files import FoundFiles, labelled_files, walk
from crnn.data.readers.intervals import Intervals, find_intervals, is_interval_table
from crnn.data.readers.reader import Reader, ReadOptions, Source, make_dataset
from crnn.errors import ConfigError, DataError, MissingExtraError

COMMON = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".aifc")
SUFFIXES = (*COMMON, ".oga", ".opus", ".au", ".caf", ".w64", ".rf64", ".sph")
UNREADABLE = (".m4a", ".aac", ".wma", ".amr", ".mp4", ".webm", ".mka", ".ape", ".3gp", ".ra")
"""Audio that libsndfile cannot decode: named, not ignored."""
_LOSSY = (".mp3", ".ogg", ".oga", ".opus")
_LOSSY_SLACK = 1152
"""Frames that a lossy decoder may give less than its header says: one mp3 frame, of encoder delay."""


class AudioHeader(NamedTuple):
    """What a file says before it is decoded."""

    frames: int
    sample_rate: int
    start: int = 0
    """First frame that is used, of a part."""
    channels: int = 1


def _part(header: AudioHeader, part: tuple[float, float | None]) -> AudioHeader:
    """What of a recording is used, in frames.

    Raises:
        DataError: it lies behind the end.
    """
    start = round(part[0] * header.sample_rate)
    end = header.frames if part[1] is None else round(part[1] * header.sample_rate)
    if start >= header.frames or end > header.frames + header.sample_rate // 20:  # rounded times may pass the end
        seconds = header.frames / header.sample_rate
        raise DataError(f"part from {part[0]:g} to {part[1]} s, but the recording has {seconds:.2f} s; correct the row")
    return AudioHeader(min(end, header.frames) - start, header.sample_rate, start, header.channels)


def read_audio(source: Source, options: ReadOptions) -> Dataset:
    """Read a folder of audio (or one file, or a list of files); only headers are opened.

    Raises:
        MissingExtraError: soundfile or soxr is not installed.
        ConfigError: the sample rate is not a whole number.
    """
    if options.sample_rate is not None and not options.sample_rate.is_integer():
        raise ConfigError(f"sample_rate: found {options.sample_rate}, expected a whole number of Hz for audio")
    in_intervals = options.labels is not None and is_interval_table(options.labels)
    found = labelled_files(source, SUFFIXES, replace(options, labels=None) if in_intervals else options)
    intervals = find_intervals(source, options.labels, {file.id: file.path for file in found.files}, found.problems)
    if isinstance(source, Path) and source.is_dir():
        found.problems += _unreadable_kinds(source)
    name = str(source) if isinstance(source, Path) else f"{len(source)} files"
    return read_found(found, options, name, intervals)


def read_found(found: FoundFiles, options: ReadOptions, source: str, intervals: Intervals | None = None) -> Dataset:
    """The same for files that are known already, parts of recordings among them; `intervals` are their targets."""
    problems = found.problems
    headers: dict[str, AudioHeader] = {}
    for file in found.files:
        try:
            header, warning = read_header(file.path)
            headers[file.id] = header if file.part is None else _part(header, file.part)
        except DataError as error:
            problems.append(Problem(file.where, str(error).removeprefix(f"{file.path}: ")))
            continue
        if warning:
            problems.append(Problem(file.where, warning, "warning"))
    rate = int(options.sample_rate or usual_rate(headers.values(), source, problems))
    several = [file for file in found.files if file.id in headers and headers[file.id].channels > 1]
    if several:
        what = f"{headers[several[0].id].channels} channels, averaged to one; give one channel where they differ"
        more = f" and {len(several) - 1} more" if len(several) > 1 else ""
        problems.append(Problem(f"{several[0].where}{more}", what, "warning"))
    examples = []
    for file in found.files:
        if file.id not in headers:
            continue
        header = headers[file.id]
        length = resampled_length(header.frames, header.sample_rate, rate)
        if length == 0:
            problems.append(Problem(file.where, f"found {header.frames} frames, none left at {rate} Hz; remove it"))
            continue
        load = functools.partial(load_audio, file.path, header, rate)
        target = file.target
        if intervals is not None:
            try:
                target = intervals.events(file.id, rate, length)
            except DataError as error:
                problems.append(Problem(file.where, str(error)))
                continue
        examples.append(Example(file.id, file.where, length, load, target, file.group, file.split, files=(file.path,)))
    return make_dataset(
        examples,
        problems,
        kind="audio",
        channel_names=("audio",),
        source=f"{source} ({found.how if intervals is None else intervals.how})",
        sample_rate=float(rate),
        in_memory=False,
    )


def usual_rate(headers: Iterable[AudioHeader], where: str, problems: list[Problem]) -> int:
    """The most frequent rate, the higher one of two equally frequent; a warning where rates are mixed."""
    counts = Counter(header.sample_rate for header in headers)
    if not counts:
        return 1
    rate = max(counts, key=lambda rate: (counts[rate], rate))
    if len(counts) > 1:
        shown = ", ".join(f"{count} files at {hz} Hz" for hz, count in counts.most_common())
        what = f"mixed sample rates ({shown}): all are resampled to {rate} Hz; give sample_rate to choose another"
        problems.append(Problem(where, what, "warning"))
    return rate


def _unreadable_kinds(folder: Path) -> list[Problem]:
    """One warning for audio files in formats that cannot be decoded."""
    names = [name for name in walk(folder) if name.lower().endswith(UNREADABLE)]
    if not names:
        return []
    what = (
        f"{len(names)} audio files in formats that cannot be read (first {names[0]}) are left out; convert them to flac"
    )
    return [Problem(str(folder), what, "warning")]


def read_header(path: Path) -> tuple[AudioHeader, str]:
    """Frames and rate, checked as far as possible without decoding, and a warning or ''.

    Truncated wav and aiff are seen in their chunk sizes, flac and mp3 by decoding the last frame, ogg by its missing
    end-of-stream mark.
    Raises:
        DataError: unreadable, truncated, or no frames.
    """
    soundfile = import_audio("soundfile")
    size = path.stat().st_size if path.is_file() else -1
    if size <= 0:
        raise DataError(f"{path}: found {'no such file' if size else 'an empty file'}, expected audio; remove it")
    suffix = path.suffix.lower()
    try:
        with soundfile.SoundFile(path) as file:
            header = AudioHeader(file.frames, file.samplerate, channels=file.channels)
            if header.frames == 0:
                raise DataError(f"{path}: found audio of 0 frames, expected at least 1; remove it")
            if suffix in (".flac", ".mp3"):
                file.seek(max(0, header.frames - 1 - (_LOSSY_SLACK if suffix == ".mp3" else 0)))
                if len(file.read(1)) == 0:
                    raise DataError(_truncated(path, header.frames))
    except soundfile.LibsndfileError as error:
        if error.code == 39 or "seek" in str(error).lower():
            raise DataError(_truncated(path, header.frames)) from None
        what = str(error.error_string).strip() or "cannot be decoded"
        raise DataError(f"{path}: unreadable ({what}); expected {suffix[1:]} audio; get the file again") from None
    if suffix in (".wav", ".aiff", ".aif", ".aifc"):
        declared = _declared_end(path)
        if declared > size:
            raise DataError(f"{path}: truncated: its header needs {declared} bytes, found {size}; get the file again")
    if suffix in (".ogg", ".oga", ".opus") and not _has_last_page(path, size):
        return header, f"no end-of-stream mark, probably truncated; its {header.frames} readable frames are used"
    return header, ""


def _truncated(path: Path, frames: int) -> str:
    return (
        f"{path}: truncated: its header says {frames} frames, but the last ones cannot be decoded; get the file again"
    )


def _declared_end(path: Path) -> int:
    """Where the data chunk of a RIFF or AIFF file should end; 0 where it does not say (written to a pipe)."""
    with path.open("rb") as file:
        magic = file.read(12)
        big_endian = magic[:4] == b"FORM"
        if magic[:4] not in (b"RIFF", b"FORM"):
            return 0  # RF64 and others keep their sizes elsewhere
        while len(chunk := file.read(8)) == 8:
            name, size = chunk[:4], struct.unpack(">I" if big_endian else "<I", chunk[4:])[0]
            if name in (b"data", b"SSND"):
                return 0 if size >= 0x7FFFF000 else file.tell() + size
            file.seek(size + size % 2, 1)
    return 0


def _has_last_page(path: Path, size: int) -> bool:
    """Whether the last Ogg page is marked as the end of the stream (bit 2 of its flags)."""
    with path.open("rb") as file:
        file.seek(max(0, size - 65536))  # a page is shorter than that
        tail = file.read()
    at = tail.rfind(b"OggS")
    return at >= 0 and len(tail) > at + 5 and bool(tail[at + 5] & 4)


def resampled_length(frames: int, rate_in: int, rate_out: int) -> int:
    """round(frames * rate_out / rate_in), halves up, without floating point."""
    return (2 * frames * rate_out + rate_in) // (2 * rate_in)


def load_audio(path: Path, header: AudioHeader, rate: int) -> NDArray[np.float32]:
    """Decode to (frames, 1) float32 at `rate`; channels are averaged.

    Raises:
        DataError: the file cannot be decoded any more, or gives fewer frames than its header says.
    """
    return decode_audio(path, str(path), path.suffix.lower(), header, rate)


def decode_audio(file: Path | BinaryIO, where: str, suffix: str, header: AudioHeader, rate: int) -> NDArray[np.float32]:
    """As load_audio, from a path or from what is open already.

    Args:
        where: for messages.
        suffix: lower case, with the dot.
    """
    soundfile = import_audio("soundfile")
    try:
        stop = header.start + header.frames if header.start else None
        data, rate_in = soundfile.read(file, dtype="float32", always_2d=True, start=header.start, stop=stop)
    except soundfile.LibsndfileError as error:
        what = str(error.error_string).strip() or "cannot be decoded"
        raise DataError(f"{where}: unreadable ({what}); it is truncated or damaged: get the file again") from None
    slack = _LOSSY_SLACK if suffix in _LOSSY else 0
    if len(data) + slack < header.frames or rate_in != header.sample_rate:
        raise DataError(
            f"{where}: decoded {len(data)} frames at {rate_in} Hz, expected {header.frames} at {header.sample_rate} Hz "
            "as its header said; it is truncated, or has changed since it was read"
        )
    mono = data[:, 0] if data.shape[1] == 1 else data.mean(axis=1, dtype=np.float32)
    mono = _fit(mono, header.frames)
    if rate != rate_in:
        mono = _fit(import_audio("soxr").resample(mono, rate_in, rate), resampled_length(header.frames, rate_in, rate))
    return np.ascontiguousarray(mono[:, None])


def _fit(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut, or pad with silence: decoders and resamplers differ by a few samples at the end."""
    if len(samples) >= length:
        return samples[:length]
    return np.pad(samples, (0, length - len(samples)))


def import_audio(name: str) -> ModuleType:
    """soundfile or soxr, which the extra 'audio' brings."""
    try:
        return __import__(name)
    except ImportError:
        raise MissingExtraError(f"audio files need {name}, which is not installed; pip install crnn[audio]") from None


def _claims(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return path.is_dir() and any(name.lower().endswith(SUFFIXES) for name in walk(path))


AUDIO = Reader(
    name="audio",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_audio,
    options=frozenset({"labels", "target", "group", "pattern", "sample_rate"}),
    many_files=True,
)
