"""WFDB records (PhysioNet): a header, signal files, annotations; by the wfdb package, with its own damage named."""

from __future__ import annotations

import functools
import re
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.data.annotation import Event, Events
from crnn.data.dataset import Dataset, Problem, Target
from crnn.data.readers.files import LabelledFile, labelled_files, walk
from crnn.data.readers.reader import Reader, ReadOptions, Source
from crnn.data.readers.recordings import Recording, recordings_dataset
from crnn.errors import DataError, MissingExtraError

HEADER = ".hea"
BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Annotation codes that mark a beat (PhysioNet, 'WFDB annotation codes'); the others say something between beats."""
CODES = BEATS | frozenset("~|sT*D=p^t+u![]x")
COMMENT = '"'
RHYTHM = "rhythm"
"""A target: intervals between changes of rhythm, by the auxiliary notes of '+' annotations."""
RECORD = "record"
"""A group: every record by itself."""
DIAGNOSES = "Dx"
"""Header field of the PhysioNet/CinC challenges: codes of diagnoses, separated by commas."""
_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12}
_FLAC = ("508", "516", "524")
_PARSING = (ValueError, IndexError, KeyError, TypeError, AttributeError, OSError, EOFError, RuntimeError, struct.error)
"""What the package raises when it stumbles over a damaged file."""
_OTHER_EXTENSIONS = {".dat", ".hea", ".mat", ".edf", ".txt", ".csv", ".md", ".html", ".xws", ".png", ".json", ".sha256"}


def read_wfdb(source: Source, options: ReadOptions) -> Dataset:
    """Read a record, a list of headers, or a folder of them; only headers and annotations are opened.

    A labels table or a pattern gives the targets where there is one. Else `target` names an annotator ('atr'),
    'rhythm', or a field of the headers ('Dx'); else it is the annotator whose files lie there, 'atr' first, and without
    annotations the diagnoses of the headers. The beats of an annotation file are events of one frame; where it has no
    beats, all of its annotations are. The group 'record' keeps every record by itself, and a field of the headers
    groups by its value.

    Raises:
        MissingExtraError: wfdb is not installed.
    """
    outside = options.labels is not None or options.pattern is not None
    own_target = None if outside or options.target is None else options.target[0]
    own_group = None if outside else options.group
    plain = options if outside else replace(options, target=None, group=None)
    found = labelled_files(source, (HEADER,), plain)
    problems = found.problems
    in_table = found.how.startswith("labels from") and not found.how.startswith("labels from sub-folders")
    headers: list[tuple[LabelledFile, Any]] = []
    for file in found.files:
        try:
            headers.append((file, read_header(file.path)))
        except DataError as error:
            problems.append(Problem(str(file.path), str(error).removeprefix(f"{file.path}: ")))
    how = found.how
    target = own_target
    if not in_table and target is None:
        target = _usual_target(headers)
    if target is not None:
        how = f"annotations .{target}" if _is_annotator(target, headers) else f"header field {target}"
        how = "changes of rhythm" if target == RHYTHM else how
    recordings = []
    for file, header in headers:
        try:
            recordings.append(_recording(file, header, target, own_group))
        except DataError as error:
            problems.append(Problem(str(file.path), str(error).removeprefix(f"{file.path}: ")))
    name = str(source) if isinstance(source, Path) else f"{len(source)} records"
    return recordings_dataset(recordings, problems, options, f"{name} ({how})")


def _recording(file: LabelledFile, header: Any, target: str | None, group: str | None) -> Recording:
    path = file.path.with_suffix("")
    value: Target = file.target
    if target is not None:
        value = _target(path, header, target)
    if group == RECORD:
        own_group: str | None = path.name
    else:
        own_group = file.group if group is None else _field(header, group, file.path)
    segments = hasattr(header, "get_sig_name")  # a record of several segments names its signals there
    names = [str(name) for name in (header.get_sig_name() if segments else header.sig_name)]
    leads = tuple(name if names.count(name) == 1 else f"{name}#{i}" for i, name in enumerate(names))
    identity = file.id.removesuffix(HEADER)
    return Recording(
        id=identity,
        where=str(file.path),
        leads=leads,
        rate=float(header.fs),
        frames=int(header.sig_len),
        read=functools.partial(_read_part, path, leads),
        target=value,
        group=own_group,
        split=file.split,
    )


def read_header(path: Path) -> Any:
    """A record's header, its signal files checked against it as far as possible without decoding them.

    Raises:
        DataError: unreadable; no signals; a signal file that is missing or shorter than the header says.
    """
    wfdb = import_wfdb()
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the header of a record")
    try:
        header = wfdb.rdheader(str(path.with_suffix("")), rd_segments=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the header of its segment {Path(str(error.filename)).name} is missing") from None
    except _PARSING as error:
        raise DataError(f"{path}: not a WFDB header ({type(error).__name__}: {error}); get the file again") from None
    if not header.n_sig or not header.sig_len:
        raise DataError(f"{path}: found {header.n_sig or 0} signals of {header.sig_len or 0} samples; expected some")
    if not header.fs or header.fs <= 0:
        raise DataError(f"{path}: found a sampling rate of {header.fs} Hz, expected more than 0")
    for part in getattr(header, "segments", None) or [header]:
        if part is not None and getattr(part, "file_name", None):
            _check_signal_files(path, part)
    return header


def _check_signal_files(path: Path, header: Any) -> None:
    for name in dict.fromkeys(header.file_name):
        if name == "~":  # a gap, or the layout of a record of several segments
            continue
        file = path.parent / name
        signals = [i for i, other in enumerate(header.file_name) if other == name]
        if not file.is_file():
            raise DataError(f"{path}: its signal file {name} is missing; get it, or remove the header")
        format_ = str(header.fmt[signals[0]])
        frame = sum(header.samps_per_frame[i] or 1 for i in signals)
        expected = header.sig_len * frame
        if format_ in _FLAC:
            decoded = _flac_frames(path, file)
            unit = header.samps_per_frame[signals[0]] or 1
            if decoded < header.sig_len * unit:
                raise DataError(_truncated(path, name, f"{header.sig_len * unit} samples", decoded))
        elif format_ in _BITS:
            needed = (expected * _BITS[format_] + 7) // 8 + (header.byte_offset[signals[0]] or 0)
            size = file.stat().st_size
            if size < needed:
                raise DataError(_truncated(path, name, f"{needed} bytes", size))


def _flac_frames(path: Path, file: Path) -> int:
    """Frames of a FLAC file that can be decoded, seen at its last one."""
    try:
        import soundfile
    except ImportError:
        raise MissingExtraError(f"{path}: FLAC signals need soundfile; pip install crnn[ecg]") from None
    try:
        with soundfile.SoundFile(file) as sound:
            sound.seek(max(sound.frames - 1, 0))
            return int(sound.frames) if len(sound.read(1, dtype="int32")) else 0
    except (soundfile.LibsndfileError, RuntimeError):
        return 0


def _truncated(path: Path, name: str, expected: str, found: int) -> str:
    return f"{path}: its signal file {name} is truncated: the header needs {expected}, found {found}; get it again"


def _read_part(
    path: Path, leads: tuple[str, ...], wanted: tuple[str, ...], start: int, end: int
) -> NDArray[np.float32]:
    """Samples in physical units, (end - start, wanted)."""
    wfdb = import_wfdb()
    channels = [leads.index(name) for name in wanted]
    order = sorted(set(channels))
    try:
        record = wfdb.rdrecord(str(path), sampfrom=start, sampto=end, channels=order, return_res=32)
    except _PARSING as error:
        raise DataError(f"{path}{HEADER}: cannot be read ({type(error).__name__}: {error}); get it again") from None
    data = np.asarray(record.p_signal, np.float32)
    if len(data) != end - start:
        raise DataError(f"{path}{HEADER}: decoded {len(data)} samples, expected {end - start}; get it again")
    return np.ascontiguousarray(data[:, [order.index(i) for i in channels]])


def _usual_target(headers: Sequence[tuple[LabelledFile, Any]]) -> str | None:
    """The annotator that most records have, 'atr' before others; else diagnoses; else nothing."""
    counts: dict[str, int] = {}
    for file, _ in headers:
        for beside in file.path.parent.glob(f"{_escaped(file.path.stem)}.*"):
            suffix = beside.suffix
            if re.fullmatch(r"\.[a-z][a-z0-9_]*", suffix) and suffix not in _OTHER_EXTENSIONS:
                counts[suffix[1:]] = counts.get(suffix[1:], 0) + 1
    if "atr" in counts:
        return "atr"
    if counts:
        return max(counts, key=lambda name: (counts[name], name))
    if any(DIAGNOSES in _fields(header) for _, header in headers):
        return DIAGNOSES
    return None


def _escaped(stem: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", stem)


def _is_annotator(target: str, headers: Sequence[tuple[LabelledFile, Any]]) -> bool:
    return any(file.path.with_suffix(f".{target}").is_file() for file, _ in headers)


def _fields(header: Any) -> dict[str, str]:
    """'# Dx: 1,2' lines of a header as fields."""
    pairs = (line.partition(":") for line in header.comments or ())
    return {name.strip().lstrip("#").strip(): value.strip() for name, colon, value in pairs if colon}


def _field(header: Any, name: str, path: Path) -> str:
    fields = _fields(header)
    if name not in fields:
        known = ", ".join(fields) or "none"
        raise DataError(f"{path}: its header has no field {name!r} (has: {known}); expected 'record', or one of them")
    return fields[name]


def _target(path: Path, header: Any, target: str) -> Target:
    if target == RHYTHM:
        return _rhythms(path, header)
    annotations = path.with_name(f"{path.name}.{target}")
    if annotations.is_file():
        return _events(path, header, target)
    fields = _fields(header)
    if target == DIAGNOSES and DIAGNOSES in fields:
        codes = (code.strip() for code in fields[DIAGNOSES].split(","))
        return tuple(code for code in codes if code and code.lower() != "unknown")
    return fields.get(target) or None


def read_annotations(path: Path, annotator: str, rate: float) -> list[tuple[int, str, str]]:
    """(sample, code, auxiliary note) of each annotation, in samples at `rate`.

    Raises:
        DataError: the file cannot be read.
    """
    wfdb = import_wfdb()
    try:
        with _without_warnings():
            found = wfdb.rdann(str(path), annotator)
    except _PARSING as error:
        place = path.with_name(f"{path.name}.{annotator}")
        raise DataError(f"{place}: not a WFDB annotation file ({type(error).__name__}: {error})") from None
    samples = np.asarray(found.sample, np.float64)
    if found.fs and found.fs != rate:
        samples = samples * rate / found.fs
    notes = found.aux_note or [""] * len(samples)
    places = samples.round().astype(np.int64).tolist()
    return [
        (place, code, note.rstrip("\0").strip()) for place, code, note in zip(places, found.symbol, notes, strict=True)
    ]


def _events(path: Path, header: Any, annotator: str) -> Events:
    """Beats; where there are none, all annotations, a comment by its text."""
    found = read_annotations(path, annotator, float(header.fs))
    beats = [(place, code) for place, code, _ in found if code in BEATS]
    if not beats:
        beats = [(place, note or code) for place, code, note in found]
    if not beats:
        raise DataError(f"its annotation file {path.name}.{annotator} is empty; annotate it, or remove the record")
    first = min(beats)[0]
    if first < 0:
        raise DataError(f"its annotation file {path.name}.{annotator} has an annotation at sample {first}, before 0")
    return Events(tuple(Event(place, place + 1, label) for place, label in beats))


def _rhythms(path: Path, header: Any) -> Events:
    """Intervals from one '+' annotation with a note such as '(AFIB' to the next."""
    found = read_annotations(path, "atr", float(header.fs))
    changes = [(place, note.lstrip("(")) for place, code, note in found if code == "+" and note]
    if not changes:
        raise DataError(f"its annotation file {path.name}.atr says nothing of rhythm; leave the record out")
    ends = [place for place, _ in changes[1:]] + [int(header.sig_len)]
    return Events(
        tuple(Event(start, end, name) for (start, name), end in zip(changes, ends, strict=True) if end > start)
    )


def write_record(
    path: Path,
    signal: NDArray[np.floating],
    *,
    leads: Sequence[str],
    rate: float,
    format: str = "16",
    gain: float = 1000.0,
    comments: Sequence[str] = (),
) -> None:
    """Write a signal in mV, (frames, leads), as a WFDB record: path.hea and path.dat.

    Args:
        format: '16', '212' or '516' (FLAC).
        gain: steps of the written integers in a millivolt.
        comments: lines for the header, such as 'Dx: 426783006'.
    """
    count = len(leads)
    with _without_warnings():
        import_wfdb().wrsamp(
            path.name,
            fs=rate,
            units=["mV"] * count,
            sig_name=list(leads),
            p_signal=np.asarray(signal, np.float64),
            fmt=[format] * count,
            adc_gain=[gain] * count,
            baseline=[0] * count,
            comments=list(comments),
            write_dir=str(path.parent),
        )


def write_annotations(path: Path, events: Events, rate: float) -> None:
    """Write events as a WFDB annotation file, such as 100.atr or 100.crnn.atr.

    A label that is a WFDB code becomes that code, any other a comment with the label as its text. An interval becomes
    two annotations, '(' and ')', with the label beside them.

    Raises:
        DataError: no events, and the format cannot hold none.
    """
    wfdb = import_wfdb()
    if not events.items:
        raise DataError(f"{path}: found no events, and WFDB has no annotation file without any; nothing is written")
    rows: list[tuple[int, str, str]] = []
    for start, end, label in events.items:
        code, note = (label, "") if label in CODES else (COMMENT, label)
        if end > start + 1:
            rows += [(start, "(", label), (end - 1, ")", label)]
        else:
            rows.append((start, code, note))
    rows.sort(key=lambda row: row[0])
    samples, codes, notes = zip(*rows, strict=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, _without_warnings():
        wfdb.wrann("x", "atr", np.array(samples), list(codes), aux_note=list(notes), fs=rate, write_dir=folder)
        Path(folder, "x.atr").replace(path)  # the package takes plain names only


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The package uses what newer versions of pandas warn of; a user can do nothing about that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_wfdb() -> ModuleType:
    """wfdb, which the extra 'ecg' brings."""
    try:
        import wfdb
    except ImportError:
        raise MissingExtraError("WFDB records need wfdb, which is not installed; pip install crnn[ecg]") from None
    return wfdb  # type: ignore[no-any-return]


def _claims(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() == HEADER
    return path.is_dir() and any(name.lower().endswith(HEADER) for name in walk(path))


WFDB = Reader(
    name="wfdb",
    suffixes=(HEADER,),
    claims=_claims,
    read=read_wfdb,
    options=frozenset({"labels", "target", "group", "pattern", "sample_rate"}),
    many_files=True,
)
