"""EDF and EDF+ recordings (European Data Format): signals by name, annotations as events; by the edfio package."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.data.annotation import Event, Events
from crnn.data.dataset import Dataset, Problem
from crnn.data.readers.files import LabelledFile, labelled_files, walk
from crnn.data.readers.reader import Reader, ReadOptions, Source
from crnn.data.readers.recordings import Recording, recordings_dataset, resample
from crnn.errors import DataError, MissingExtraError

SUFFIXES = (".edf", ".bdf")
ANNOTATIONS = "annotations"
"""A target: the annotations of EDF+ files."""
RECORD, PATIENT = "record", "patient"
"""Groups: every recording by itself, or by the patient that its header names."""
_HEADER_BYTES = 256


def read_edf(source: Source, options: ReadOptions) -> Dataset:
    """Read a recording, a list of them, or a folder; signals are read when they are needed.

    A labels table or pattern gives the targets where there is one; else they are the annotations. Signals of the
    recording's highest rate are used; one of a lower rate, asked for by name, is brought to it. The group 'record'
    keeps every recording by itself, 'patient' goes by the code or name in its header.

    Raises:
        MissingExtraError: edfio is not installed.
    """
    outside = options.labels is not None or options.pattern is not None
    own_group = options.group in (RECORD, PATIENT) and not outside
    plain = options if outside else replace(options, target=None, group=None if own_group else options.group)
    found = labelled_files(source, SUFFIXES, plain)
    problems = found.problems
    in_table = found.how.startswith("labels from") and not found.how.startswith("labels from sub-folders")
    asked = None if in_table or options.target is None else options.target[0]
    if asked not in (None, ANNOTATIONS):
        raise DataError(f"{source}: target {asked!r}: EDF files have 'annotations'; give others in a labels table")
    recordings = []
    has_annotations = False
    for file in found.files:
        try:
            recording = _recording(file, options, in_table, options.group if own_group else None)
        except DataError as error:
            problems.append(Problem(str(file.path), str(error).removeprefix(f"{file.path}: ")))
            continue
        has_annotations |= isinstance(recording.target, Events)
        recordings.append(recording)
    name = str(source) if isinstance(source, Path) else f"{len(source)} recordings"
    how = "annotations" if has_annotations else found.how
    return recordings_dataset(recordings, problems, options, f"{name} ({how})")


def _recording(file: LabelledFile, options: ReadOptions, in_table: bool, group: str | None) -> Recording:
    edf = open_edf(file.path)
    if not edf.is_continuous:
        raise DataError(f"{file.path}: EDF+D with gaps in time; expected a continuous recording (EDF+C)")
    rates = [float(signal.sampling_frequency) for signal in edf.signals]
    if not rates:
        raise DataError(f"{file.path}: found no signals, expected at least one; remove the file")
    rate = max(rates)
    frames = round(edf.num_data_records * edf.data_record_duration * rate)
    counts = Counter(edf.labels)
    names = tuple(label if counts[label] == 1 else f"{label}#{i}" for i, label in enumerate(edf.labels))
    asked = {lead.removesuffix("?") for lead in options.channels or ()}
    leads = tuple(name for name, its in zip(names, rates, strict=True) if its == rate or name in asked)
    value = file.target
    if not in_table:
        value = _events(edf, rate) or value
    own_group = file.group
    if group == RECORD:
        own_group = file.path.stem
    elif group == PATIENT:
        own_group = _patient(edf, file.path)
    return Recording(
        id=file.id,
        where=str(file.path),
        leads=leads,
        rate=rate,
        frames=frames,
        read=functools.partial(_read_part, file.path, names, rate),
        target=value,
        group=own_group,
        split=file.split,
    )


def open_edf(path: Path) -> Any:
    """A file with its header read and its size checked; the samples stay on disk.

    Raises:
        DataError: unreadable, or shorter than its header says.
        MissingExtraError: edfio is not installed.
    """
    edfio = import_edfio()
    size = path.stat().st_size if path.is_file() else 0
    if size < _HEADER_BYTES:
        raise DataError(f"{path}: found {size} bytes, expected an EDF header of at least {_HEADER_BYTES}; remove it")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            signals, records = int(header[252:256]), int(header[236:244])
            file.seek(_HEADER_BYTES + 216 * signals)
            per_record = sum(int(file.read(8)) for _ in range(signals))
        width = 3 if header[0] == 0xFF else 2  # BDF keeps 24 bits a sample
        needed = _HEADER_BYTES * (signals + 1) + max(records, 0) * per_record * width
        if size < needed:
            raise DataError(f"{path}: truncated: its header needs {needed} bytes, found {size}; get the file again")
        read = edfio.read_bdf if width == 3 else edfio.read_edf
        return read(path, lazy_load_data=True)
    except (ValueError, KeyError, IndexError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not an EDF file ({type(error).__name__}: {error}); get the file again") from None


def _events(edf: Any, rate: float) -> Events | None:
    """EDF+ annotations in frames; those without a duration are points."""
    events = []
    for annotation in edf.annotations:
        start = round(annotation.onset * rate)
        if start < 0:
            raise DataError(f"annotation {annotation.text!r} at {annotation.onset} s, before the recording begins")
        end = start + max(round((annotation.duration or 0) * rate), 1)
        events.append(Event(start, end, annotation.text))
    return Events(tuple(events)) if events else None


def _patient(edf: Any, path: Path) -> str:
    code = str(edf.patient.code) if str(edf.patient.code) not in ("", "X") else str(edf.patient.name)
    if code in ("", "X"):
        raise DataError(f"{path}: its header names no patient; group by 'record', or give a labels table")
    return code


def _read_part(
    path: Path, names: tuple[str, ...], rate: float, wanted: tuple[str, ...], start: int, end: int
) -> NDArray[np.float32]:
    """Samples in physical units, (end - start, wanted)."""
    edf = open_edf(path)
    columns = []
    for name in wanted:
        signal = edf.signals[names.index(name)]
        if signal.sampling_frequency == rate:
            columns.append(signal.get_data_slice(start / rate, end / rate))
        else:
            ratio = Fraction(rate / signal.sampling_frequency).limit_denominator(1000)
            whole = resample(signal.data.astype(np.float32)[:, None], ratio, round(len(signal.data) * ratio))
            columns.append(whole[start:end, 0])
    data = np.stack(columns, axis=1).astype(np.float32)
    if len(data) != end - start:
        raise DataError(f"{path}: decoded {len(data)} samples, expected {end - start}; get the file again")
    return np.ascontiguousarray(data)


def import_edfio() -> ModuleType:
    """edfio, which the extra 'ecg' brings."""
    try:
        import edfio
    except ImportError:
        raise MissingExtraError("EDF files need edfio, which is not installed; pip install crnn[ecg]") from None
    return edfio


def _claims(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return path.is_dir() and any(name.lower().endswith(SUFFIXES) for name in walk(path))


EDF = Reader(
    name="edf",
    suffixes=SUFFIXES,
    claims=_claims,
    read=read_edf,
    options=frozenset({"labels", "target", "group", "pattern", "sample_rate"}),
    many_files=True,
)
