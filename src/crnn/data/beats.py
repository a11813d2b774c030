"""Sequences of heartbeats made of ECG recordings whose beats are known: rhythm, shape, and change against the usual.

A frame is a beat. What it is told by are the quantities that the literature of inter-patient classification rests on:
intervals against the patient's own usual ones (with the rate beside them, so that none is lost in seconds), and how far
the shape of the beat is from the running median of the last beats.
But for the filter of the signal, which runs both ways, nothing looks further ahead than two beats.

Source: the intervals of de Chazal, O'Dwyer & Reilly 2004, IEEE TBME 51(7), 1196-1206 (means over the record and over
ten beats), here running and beside medians; shape against a running median is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.signal import butter, sosfiltfilt

from crnn.data.aami import AAMI
from crnn.data.annotation import UNLABELLED, Events, StepLabels
from crnn.data.dataset import Dataset, Example, Problem, array_example
from crnn.errors import DataError

BEFORE, AFTER, POINTS = 0.30, 0.40, 42
"""Seconds of a beat before and after its mark, and the points that describe them."""
LAST, LONG = 11, 301
"""Beats whose median interval is the usual one, lately and over minutes."""
LOUD = 5.0
"""Factor of logarithms, so that an early beat weighs as much as an odd shape: nothing has to be normalised, for that
would raise the noise of points where beats are flat."""
NORMAL = 41
"""Beats whose median shape is the usual one."""
RHYTHM = (
    *("before", "after", "before_long", "after_long", "change", "rate", "next"),
    *("before_mean", "after_mean", "before_long_mean", "after_long_mean"),
)
CHANGE = ("far", "farthest", "wider")


def beats(
    data: Dataset,
    *,
    turns: Sequence[float | None] = (0.0,),
    classes: Sequence[str] = ("N", "S", "V", "F"),
    points: bool = False,
) -> Dataset:
    """Recordings with beats as sequences of beats.

    Channels: logarithms of intervals (before the beat and after it against the median, and the mean, of the last 11 and
    of the last 301; one against the other; the rate; the next one); then of each lead how far the shape of the beat is
    from the median of the last 41, on average and at most, and by how much it is wider; with `points` also that shape
    itself, over 0.7 s in units of the usual height, and its difference from the median.

    Args:
        data: recordings in one or two leads; NaN counts as zero. Events are WFDB codes or AAMI classes.
        turns: angles in degrees by which the two leads are turned into each other, one sequence for each: hearts seen
            by electrodes at other places, for training; None leaves the first lead alone.
        classes: beats of other classes are unlabelled.
        points: also the shape in 42 points a lead, and as many of the difference. From a few dozen patients these are
            learned rather than the classes: unseen patients are told better without.
    Raises:
        DataError: no recording with two beats; recordings without a rate, or of more than two leads.
    """
    rate = data.sample_rate
    if rate is None or len(data.channel_names) > 2:
        found = "no sample rate" if rate is None else f"{len(data.channel_names)} leads"
        raise DataError(f"{data.source}: found {found}, expected recordings of one or two leads at a known rate")
    names = _channels(len(data.channel_names), points)
    examples: list[Example] = []
    problems = list(data.problems)
    for example in data:
        if not isinstance(example.target, Events) or len(example.target.items) < 2:
            problems.append(Problem(example.where, "fewer than two beats are annotated; leave it out"))
            continue
        places = np.array([event.start for event in example.target.items])
        labels = [AAMI.get(event.label, event.label) for event in example.target.items]
        codes = [classes.index(label) if label in classes else UNLABELLED for label in labels]
        target = StepLabels(np.array(codes, np.int16), tuple(classes))
        signal = np.nan_to_num(np.asarray(example.load(), np.float64))
        for turn in turns:
            id_ = example.id if turn == 0 else f"{example.id} {'alone' if turn is None else f'turned {turn:g}'}"
            made = array_example(
                id_, example.where, describe_beats(_turned(signal, turn), places, rate, points=points),
                target=target, group=example.group, split=example.split,
            )  # fmt: skip
            examples.append(made)
    if not examples:
        raise DataError(f"{data.source}: found no recording with two beats or more")
    return replace(
        data,
        examples=tuple(examples),
        channel_names=names,
        sample_rate=None,
        source=f"{data.source}, beat by beat",
        in_memory=True,
        problems=tuple(problems),
    )


def _channels(leads: int, points: bool) -> tuple[str, ...]:
    names = [f"interval_{name}" for name in RHYTHM]
    names += [f"{name}_{lead}" for lead in range(leads) for name in CHANGE]
    kinds = ("shape", "change") if points else ()
    return (*names, *(f"{kind}_{lead}_{i}" for kind in kinds for lead in range(leads) for i in range(POINTS)))


def _turned(signal: NDArray[np.float64], degrees: float | None) -> NDArray[np.float64]:
    if degrees is None:
        return np.asarray(signal * (np.arange(signal.shape[1]) == 0))
    if degrees == 0 or signal.shape[1] == 1:
        return signal
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return np.asarray(signal @ np.array([[cosine, -sine], [sine, cosine]]))


def describe_beats(
    signal: NDArray[np.float64], places: NDArray[np.int64], rate: float, *, points: bool = False
) -> NDArray[np.float32]:
    """(beats, channels) of one recording, as `beats` says.

    Args:
        signal: (frames, leads), without NaN.
        places: frames of the beats, ascending, two at least.
    """
    count = len(places)
    shape = _shapes(signal, places, rate)  # (beats, points, leads)
    height = running_median(np.abs(shape).max(1), NORMAL) + 0.05  # of 0.05 mV and less nothing is told
    usual = running_median(shape.reshape(count, -1), NORMAL).reshape(shape.shape)
    change = (shape - usual) / height[:, None]
    far, farthest = np.abs(change).mean(1), np.abs(change).max(1)
    wider = _width(shape) - _width(usual)
    told = np.stack([far, farthest, wider], axis=2).reshape(count, -1)  # lead by lead
    parts = [_rhythm(places, rate), np.clip(told, -4, 4)]
    if points:
        pointwise = np.stack([shape / height[:, None], change], axis=1)  # (beats, 2, points, leads)
        parts.append(np.clip(pointwise, -4, 4).transpose(0, 1, 3, 2).reshape(count, -1))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _rhythm(places: NDArray[np.int64], rate: float) -> NDArray[np.float64]:
    between = np.maximum(np.diff(places) / rate, 0.1)
    before, after = np.concatenate([between[:1], between]), np.concatenate([between, between[-1:]])
    following = np.concatenate([after[1:], after[-1:]])
    lately, long = running_median(before[:, None], LAST)[:, 0], running_median(before[:, None], LONG)[:, 0]
    mean, long_mean = running_mean(before, LAST), running_mean(before, LONG)  # pauses count here, in medians hardly
    ratios = (before / lately, after / lately, before / long, after / long, after / before, lately / 0.8,
              following / lately, before / mean, after / mean, before / long_mean, after / long_mean)  # fmt: skip
    return np.asarray(np.clip(LOUD * np.log(np.stack(ratios, axis=1)), -4, 4))


def _shapes(signal: NDArray[np.float64], places: NDArray[np.int64], rate: float) -> NDArray[np.float64]:
    """(beats, points, leads): the signal around each beat, between 0.5 and 40 Hz."""
    band = butter(2, (0.5, min(40.0, 0.45 * rate)), "band", fs=rate, output="sos")
    flat = uniform_filter1d(sosfiltfilt(band, signal, axis=0), max(round(rate / 60), 1), axis=0)
    at = np.linspace(-BEFORE * rate, AFTER * rate, POINTS).round().astype(np.int64)
    return np.asarray(flat[np.clip(places[:, None] + at, 0, len(flat) - 1)])


def _width(shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """(beats, leads): share of the points above a third of the largest."""
    return np.asarray((np.abs(shape) > 0.3 * np.abs(shape).max(1, keepdims=True)).mean(1))


def running_median(rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The median of each row and the `count` - 1 before it, an odd number; fewer at the beginning."""
    filtered = [median_filter(column, count, origin=count // 2, mode="nearest") for column in rows.T]
    out = np.stack(filtered, axis=1)
    for i in range(min(count, len(rows))):  # fewer rows than the filter is long
        out[i] = np.median(rows[: i + 1], axis=0)
    return out


def running_mean(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The mean of each value and the `count` - 1 before it; fewer at the beginning."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - count, 0)
    return np.asarray((total[end] - total[start]) / (end - start))
