"""Recordings of several leads with annotations (WFDB, EDF): leads by name, one rate, events that keep their place."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from crnn.config import nearest
from crnn.data.annotation import Event, Events
from crnn.data.dataset import Dataset, Example, Problem, Target
from crnn.data.readers.reader import ReadOptions, Split, make_dataset
from crnn.errors import DataError

OPTIONAL = "?"
"""Behind the name of a lead: NaN in the recordings that lack it; it stays in the name, and so with a trained model."""
MOST_RATIO = 10_000
"""Largest whole number in a ratio of two rates, as resampling takes it."""

ReadPart = Callable[[tuple[str, ...], int, int], NDArray[np.float32]]
"""(leads, start, end) -> (end - start, leads), at the recording's own rate; NaN where a sample is missing."""


@dataclass(frozen=True)
class Recording:
    """What a file's header says of one recording, and how to read its samples."""

    id: str
    where: str
    leads: tuple[str, ...]
    rate: float
    frames: int
    read: ReadPart
    target: Target = None
    """Events in frames of the file; or what the whole recording is."""
    group: str | None = None
    split: Split = None


def recordings_dataset(
    recordings: Sequence[Recording], problems: Sequence[Problem], options: ReadOptions, source: str
) -> Dataset:
    """Recordings as one data set: the same leads in the same order, one rate.

    Leads are those asked for, in that order ('V1?' is NaN where a recording lacks V1); else those that all have. The
    rate is the one asked for, to which all are resampled; else the usual one, and others are bad places.

    Raises:
        DataError: no lead that all recordings have.
    """
    found = list(problems)
    leads = _choose_leads(recordings, options, found, source)
    recordings = _with_leads(recordings, leads, found)
    rate = options.sample_rate or _usual_rate(recordings, found)
    examples = []
    for recording in recordings:
        if not options.sample_rate and recording.rate != rate:
            continue
        try:
            examples.append(_example(recording, leads, rate))
        except DataError as error:
            found.append(Problem(recording.where, str(error)))
    return make_dataset(
        examples,
        found,
        kind="series",
        channel_names=leads,
        source=source,
        sample_rate=rate if examples else None,
        in_memory=False,
    )


def _choose_leads(
    recordings: Sequence[Recording], options: ReadOptions, found: list[Problem], source: str
) -> tuple[str, ...]:
    if options.channels:
        return options.channels
    counts = Counter(lead for recording in recordings for lead in dict.fromkeys(recording.leads))
    first = recordings[0].leads if recordings else ()
    common = tuple(lead for lead in dict.fromkeys(first) if counts[lead] == len(recordings))
    if recordings and not common:
        listed = ", ".join(f"{lead} in {count}" for lead, count in counts.most_common(6))
        raise DataError(
            f"{source}: no lead stands in all {len(recordings)} recordings ({listed}); name some as channels, with a "
            "question mark where one may be missing, such as 'II,V1?'"
        )
    partial = {lead: count for lead, count in counts.most_common() if lead not in common}
    if partial:
        listed = ", ".join(f"{lead} ({count})" for lead, count in partial.items())
        what = (
            f"leads {listed} stand in some of {len(recordings)} recordings and are not used; to use one, name it with "
            f"a question mark: channels '{','.join([*common, f'{next(iter(partial))}?'])}'"
        )
        found.append(Problem(source, what, "warning"))
    return common


def _with_leads(recordings: Sequence[Recording], leads: tuple[str, ...], found: list[Problem]) -> list[Recording]:
    """The recordings that have all leads which may not be missing."""
    kept = []
    for recording in recordings:
        missing = [lead for lead in leads if not lead.endswith(OPTIONAL) and lead not in recording.leads]
        if missing:
            what = (
                f"has no lead {missing[0]!r}{nearest(missing[0], list(recording.leads))}; write '{missing[0]}?' to "
                "read it as missing (NaN) there, or leave the recording out"
            )
            found.append(Problem(recording.where, what))
        else:
            kept.append(recording)
    return kept


def _usual_rate(recordings: Sequence[Recording], found: list[Problem]) -> float:
    counts = Counter(recording.rate for recording in recordings)
    if not counts:
        return 1.0
    rate = max(counts, key=lambda rate: (counts[rate], rate))
    for recording in recordings:
        if recording.rate != rate:
            what = (
                f"{recording.rate:g} Hz, while {counts[rate]} of {len(recordings)} recordings have {rate:g} Hz; give "
                f"sample_rate={rate:g} to resample, or leave it out"
            )
            found.append(Problem(recording.where, what))
    return rate


def _example(recording: Recording, leads: tuple[str, ...], rate: float) -> Example:
    """One recording at `rate`, its events with it.

    Raises:
        DataError: events past the end; a ratio of rates that cannot be used.
    """
    target = recording.target
    if isinstance(target, Events):
        _check_events(target, recording)
    if rate == recording.rate:
        part = functools.partial(_read, recording, leads)
        load: Callable[[], NDArray[np.float32]] = functools.partial(part, 0, recording.frames)
        length = recording.frames
    else:
        ratio = _ratio(rate, recording.rate)
        part = None
        length = max(round(recording.frames * ratio), 1)
        load = functools.partial(_load_resampled, recording, leads, ratio, length)
        target = resample_events(target, ratio, length) if isinstance(target, Events) else target
    return Example(recording.id, recording.where, length, load, target, recording.group, recording.split, part)


def _check_events(events: Events, recording: Recording) -> None:
    past = [event for event in events.items if event.end > recording.frames]
    if past:
        raise DataError(
            f"{len(past)} of {len(events.items)} annotations past the end (first: {past[0].label!r} at sample "
            f"{past[0].start} of {recording.frames}); the annotations are of another recording, or it is truncated"
        )


def _ratio(rate: float, from_rate: float) -> Fraction:
    """Frames that come out for one that goes in."""
    ratio = (Fraction(rate) / Fraction(from_rate)).limit_denominator(MOST_RATIO)
    if not ratio or abs(float(ratio) * from_rate / rate - 1) > 1e-6 or ratio.numerator > MOST_RATIO:
        raise DataError(
            f"{from_rate:g} Hz cannot be resampled to {rate:g} Hz; choose a rate of simple proportion to it"
        )
    return ratio


def resample_events(events: Events, ratio: Fraction, length: int) -> Events:
    """The same moments in a sequence of `length` frames at `ratio` times the rate; a point stays a point."""

    def moved(event: Event) -> Event:
        start = min(round(event.start * ratio), length - 1)
        if event.end == event.start + 1:
            return Event(start, start + 1, event.label)
        return Event(start, min(max(round(event.end * ratio), start + 1), length), event.label)

    return Events(tuple(moved(event) for event in events.items))


def _read(recording: Recording, leads: tuple[str, ...], start: int, end: int) -> NDArray[np.float32]:
    """Frames of the leads asked for, at the recording's own rate."""
    names = [lead.removesuffix(OPTIONAL) for lead in leads]
    present = tuple(name for name in names if name in recording.leads)
    data = recording.read(present, start, end) if present else np.empty((end - start, 0), np.float32)
    if len(present) == len(names):
        return data
    whole = np.full((end - start, len(names)), np.nan, np.float32)
    whole[:, [names.index(name) for name in present]] = data
    return whole


def _load_resampled(recording: Recording, leads: tuple[str, ...], ratio: Fraction, length: int) -> NDArray[np.float32]:
    return resample(_read(recording, leads, 0, recording.frames), ratio, length)


def resample(data: NDArray[np.float32], ratio: Fraction, length: int) -> NDArray[np.float32]:
    """(time, channels) at `ratio` times the rate, by a polyphase filter that keeps what is below both half rates.

    Missing samples are bridged by lines for the filter, and missing again afterwards.
    """
    missing = np.isnan(data)
    if missing.any():
        data = np.stack([_bridged(data[:, i], missing[:, i]) for i in range(data.shape[1])], axis=1)
    out = resample_poly(data, ratio.numerator, ratio.denominator, axis=0, padtype="edge").astype(np.float32)
    out = out[:length] if len(out) >= length else np.pad(out, ((0, length - len(out)), (0, 0)), mode="edge")
    if missing.any():
        nearest_in = np.minimum((np.arange(length) / float(ratio)).round().astype(np.int64), len(data) - 1)
        out[missing[nearest_in]] = np.nan
    return np.ascontiguousarray(out)


def _bridged(lead: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float32]:
    if missing.all() or not missing.any():
        return np.zeros_like(lead) if missing.all() else lead
    time = np.arange(len(lead))
    return np.interp(time, time[~missing], lead[~missing]).astype(np.float32)
