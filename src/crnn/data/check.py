"""Check: everything a training run would trip over, found before it, in one pass over the data."""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.data.batch import load_example
from crnn.data.dataset import Dataset, Example, Problem, content_hash
from crnn.data.similar import near_copies
from crnn.data.split import Duplicate, find_duplicates, groups_on_two_sides, official_sides, why_not_by_group
from crnn.data.summary import and_more, count_classes, summarise, summary_lines
from crnn.errors import DataError

Level = Literal["error", "warning"]
Bounds = NDArray[np.float64]
"""One value a channel."""
OutLengths = Callable[[Tensor], Tensor]
"""Frames that a network leaves of frames it is given, such as `Network.out_lengths`."""

SHOWN = 10
"""Places that `Check.lines` lists for the same problem; `Check.problems` has them all."""
SPARSE = 0.5
"""More missing values than this are worth a warning."""
CLIPPED = 0.999
"""Audio this near to full scale counts as clipped, if at least CLIPPED_SHARE of a recording is."""
CLIPPED_SHARE = 0.001
SILENT = 1e-4
"""Audio that never exceeds this (-80 dB) is silence."""
HALF_INK, MOSTLY_INK = 0.5, 0.6
"""A pixel this dark is ink; a line with a larger share of ink than that is odd."""
OUTLIER = 1000
"""A sequence this many times longer or shorter than the median is suspect."""
ALIKE = 0.8
"""Similarity of two labels (difflib ratio) from which the rare one may be a typing error."""
RARE = 0.05
"""It is taken for one only if it has at most this share of the examples of the other."""
NO_TARGET = (
    "no example has a target: good for predict, not for training; to train, give class sub-folders, a labels table, a "
    "target column, or a pattern such as '{label}_{take}'"
)
MOST_LABELS = 2000
"""Above this many classes, labels are not compared with each other."""


@dataclass(frozen=True)
class Check:
    """What was found in a data set."""

    summary: dict[str, Any]
    """Counts, lengths, channels, targets, groups, sizes: plain values for JSON."""
    problems: tuple[Problem, ...]
    """Errors first; an error would stop or spoil training, a warning should be looked at."""

    @property
    def exit_code(self) -> int:
        """1 if there is an error, else 0."""
        return int(any(problem.level == "error" for problem in self.problems))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        problems = [{"level": p.level, "where": p.where, "what": p.what} for p in self.problems]
        return {"exit_code": self.exit_code, "summary": self.summary, "problems": problems}

    def lines(self) -> list[str]:
        """The summary and the problems as lines of text; of many alike, the first few and their number."""
        alike: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems:
            alike.setdefault((problem.level, problem.what), []).append(problem)
        lines = summary_lines(self.summary)
        for problems in alike.values():
            lines += [f"{problem.level}: {problem}" for problem in problems[:SHOWN]]
            if len(problems) > SHOWN:
                lines.append(f"{problems[0].level}: the same in {len(problems) - SHOWN} more places")
        return lines


def check(
    data: Dataset,
    *,
    classes: bool = True,
    out_lengths: OutLengths | None = None,
    macs_per_frame: float | None = None,
    trained_frames: float | None = None,
    batch_size: int = 32,
    texts: bool = False,
    on_example: Callable[[int, int], None] | None = None,
) -> Check:
    """Load every example once, one at a time, and say what is in the data and what is wrong with it.

    Args:
        data: as read with on_bad="skip", so that what the reader left out is in `data.problems` and is listed as well.
        classes: whether targets are classes, label sets or numbers, which are looked through; a task of texts or
            annotations looks at its own.
        out_lengths: of the network that shall be trained; finds sequences of which its pooling leaves nothing.
        macs_per_frame: multiply-adds of that network for one input frame; adds an estimate of training time.
        trained_frames: input frames that training goes through in all; None for 50 epochs.
        batch_size: for the estimate of memory.
        texts: whether targets are transcripts; the summary then says how many and in which letters.
        on_example: called with (examples done, examples in all), for a progress bar.
    """
    if len(data) == 0:
        nothing = Problem(data.source, "found no examples; expected at least two, of two classes or values")
        return Check(summarise(data, unreadable=0, missing_share=0.0, texts=texts), (nothing, *data.problems))
    scan = _scan(data, on_example)
    problems = [
        *data.problems,
        *scan.findings.problems(len(data)),
        *_check_channels(data, scan),
        *_check_targets(data, classes),
        *_check_groups(data),
        *_check_lengths(data, out_lengths),
        *_check_duplicates(data.subset(scan.readable), scan.hashes),
        *_check_near_copies(data.subset(scan.readable)),
    ]
    problems.sort(key=lambda problem: problem.level != "error")
    summary = summarise(
        data,
        unreadable=len(data) - len(scan.readable),
        missing_share=scan.missing_share,
        macs_per_frame=macs_per_frame,
        trained_frames=trained_frames,
        batch_size=batch_size,
        texts=texts,
    )
    return Check(summary, tuple(problems))


class _Findings:
    """Problems of single examples: every error by itself, and one warning for what many examples have in common."""

    def __init__(self) -> None:
        self.errors: list[Problem] = []
        self.first: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def error(self, where: str, what: str) -> None:
        self.errors.append(Problem(where, what))

    def warning(self, where: str, what: str) -> None:
        self.first.setdefault(what, where)
        self.counts[what] += 1

    def problems(self, examples: int) -> Iterator[Problem]:
        yield from self.errors
        for what, where in self.first.items():
            count = self.counts[what]
            place = where if count == 1 else f"{count} of {examples} examples, the first {where}"
            yield Problem(place, what, "warning")


@dataclass
class _Scan:
    """What one pass over the data leaves behind; its size does not depend on the lengths."""

    low: Bounds
    high: Bounds
    """Smallest and largest finite value of each channel over all examples."""
    findings: _Findings = field(default_factory=_Findings)
    readable: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    values: int = 0
    missing: int = 0

    @property
    def missing_share(self) -> float:
        return self.missing / max(1, self.values)


def _scan(data: Dataset, on_example: Callable[[int, int], None] | None) -> _Scan:
    channels = len(data.channel_names)
    scan = _Scan(np.full(channels, np.inf), np.full(channels, -np.inf))
    for i, example in enumerate(data):
        try:
            frames = load_example(example, data)
        except DataError as error:
            scan.findings.error(example.where, str(error).removeprefix(f"{example.where}: "))
        else:
            if len(frames) == 0:
                scan.findings.error(example.where, "has no frames, expected at least 1; remove it")
            else:
                scan.readable.append(i)
                scan.hashes.append(_hash(example, frames))
                _look_at(example, frames, data, scan)
        if on_example is not None:
            on_example(i + 1, len(data))
    return scan


def _hash(example: Example, frames: NDArray[np.generic]) -> str:
    """Its content hash, without loading it again."""
    return content_hash(replace(example, load=lambda: frames))


def _look_at(example: Example, frames: NDArray[np.generic], data: Dataset, scan: _Scan) -> None:
    scan.values += frames.size
    if data.kind == "symbols":
        return
    if data.kind == "image":
        frames = frames.transpose(0, 2, 1).reshape(-1, frames.shape[1])  # one value a pixel and channel
    finite, missing = np.isfinite(frames), np.isnan(frames)
    low = np.where(finite, frames, np.inf).min(0)
    high = np.where(finite, frames, -np.inf).max(0)
    scan.missing += int(missing.sum())
    np.minimum(scan.low, low, out=scan.low)
    np.maximum(scan.high, high, out=scan.high)
    if not bool((finite | missing).all()):
        what = "has infinite values; replace them by numbers, or leave them empty as missing"
        scan.findings.error(example.where, what)
    if bool(missing.all()):
        scan.findings.error(example.where, "has no value at all; remove it")
        return
    if data.kind == "audio":
        oddities = _odd_sound(frames, low, high)
    elif data.kind == "image":
        oddities = _odd_image(frames)
    else:
        oddities = _odd_series(data, example.length, low, high)
    for what in oddities:
        scan.findings.warning(example.where, what)


def _odd_sound(frames: NDArray[np.generic], low: Bounds, high: Bounds) -> Iterator[str]:
    if max(high.max(), -low.min()) < SILENT:
        yield "silence; remove it, unless silence is a class"
    elif float((np.abs(frames) >= CLIPPED).mean()) >= CLIPPED_SHARE:
        yield "clipped audio (recorded too loud); the network will learn the distortion"


def _odd_image(pixels: NDArray[np.generic]) -> Iterator[str]:
    ink = float((np.asarray(pixels, np.float32) > HALF_INK).mean())
    if ink == 0:
        yield "no ink: the image is empty, or too faint to tell writing from paper; look at it"
    elif ink > MOSTLY_INK:
        yield f"more than {MOSTLY_INK:.0%} of the image is ink; a line of text has less: look at it"


def _odd_series(data: Dataset, length: int, low: Bounds, high: Bounds) -> Iterator[str]:
    for name, least, most in zip(data.channel_names, low.tolist(), high.tolist(), strict=True):
        if least > most:
            yield f"channel {name!r} has no value here"
    if length > 1 and bool((low >= high).all()):
        yield "every channel is constant; a sequence without change tells little"


def _check_channels(data: Dataset, scan: _Scan) -> Iterator[Problem]:
    if scan.missing_share > SPARSE:
        what = f"{scan.missing_share:.0%} of all values are missing; is the marker of missing values right?"
        yield Problem(data.source, what, "warning")
    if not scan.readable:
        return
    for name, low, high in zip(data.channel_names, scan.low.tolist(), scan.high.tolist(), strict=True):
        where = f"{data.source}: channel {name!r}"
        if low > high:
            yield Problem(where, "has no value in any example; leave the channel out")
        elif low == high:
            yield Problem(where, f"is {low:g} in every frame of every example; leave the channel out", "warning")


def _check_targets(data: Dataset, classes: bool) -> Iterator[Problem]:
    targets = data.targets
    without = [example.where for example in data if example.target is None]
    if len(without) == len(data):
        yield Problem(data.source, NO_TARGET, "warning")
        return
    if without:
        place = f"{without[0]}{and_more(len(without))}"
        yield Problem(place, f"{len(without)} of {len(data)} examples have no target; add it or leave them out")
    if not classes:
        return
    kinds = {"a number" if isinstance(t, (int, float)) else "text" for t in targets if t is not None}
    if len(kinds) > 1:
        odd = _rarer_kind(data)
        yield Problem(odd.where, f"target {odd.target!r} is of another kind than the rest: some are numbers, some text")
    elif kinds == {"a number"}:
        yield from _check_numbers(data)
    else:
        counts = count_classes(targets)
        yield from _check_classes(data, counts)
        yield from _check_spelling(data, counts)
        yield from _check_unseen_classes(data)


def _rarer_kind(data: Dataset) -> Example:
    numbers = [e for e in data if isinstance(e.target, (int, float))]
    texts = [e for e in data if e.target is not None and not isinstance(e.target, (int, float))]
    return min(numbers, texts, key=len)[0]


def _check_numbers(data: Dataset) -> Iterator[Problem]:
    values = [float(t) for t in data.targets if isinstance(t, (int, float))]
    bad = [e for e in data if isinstance(e.target, (int, float)) and not math.isfinite(e.target)]
    if bad:
        place = f"{bad[0].where}{and_more(len(bad))}"
        yield Problem(place, f"target {bad[0].target} is not a finite number; correct it or leave the example out")
    finite = [value for value in values if math.isfinite(value)]
    if finite and min(finite) == max(finite):
        yield Problem(
            data.source, f"every target is {finite[0]:g}, so there is nothing to predict; name another column"
        )


def _check_classes(data: Dataset, counts: Counter[str]) -> Iterator[Problem]:
    is_multi = any(isinstance(target, tuple) for target in data.targets)
    if len(counts) < 2 and not is_multi:
        only = repr(next(iter(counts)))
        yield Problem(data.source, f"every example is of the class {only}; training needs at least two classes")
        return
    labelled = sum(target is not None for target in data.targets)
    if not is_multi and len(counts) > max(10, labelled / 2):
        level: Level = "error" if len(counts) == labelled else "warning"
        what = f"{len(counts)} different targets in {labelled} examples: is this an id? name another target column"
        yield Problem(data.source, what, level)
        return
    single = [label for label, count in counts.items() if count == 1]
    if single:
        names = ", ".join(map(repr, sorted(single)[:5])) + and_more(len(single), 5)
        what = f"classes with one example: {names}; they can be learned or tested, not both; add examples or merge"
        yield Problem(data.source, what, "warning")


def _check_spelling(data: Dataset, counts: Counter[str]) -> Iterator[Problem]:
    """Labels that differ in case and spaces only, and rare labels that look like a frequent one."""
    if len(counts) > MOST_LABELS:
        return
    plain: dict[str, str] = {}
    for label, count in counts.most_common():
        usual = plain.setdefault(_plain(label), label)
        if usual != label:
            what = f"label {label!r} ({count} examples) differs from {usual!r} ({counts[usual]}) in case or spaces only"
            yield Problem(_where_of(data, label), f"{what}; spell them alike", "warning")
    labels = list(plain.values())
    for label in labels:
        usual = _looks_like(label, [other for other in labels if counts[label] <= RARE * counts[other]])
        if usual:
            what = f"label {label!r} ({counts[label]} examples) is nearly {usual!r} ({counts[usual]}); is it a typo?"
            yield Problem(_where_of(data, label), what, "warning")


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().replace("_", " ").replace("-", " ").split())


def _looks_like(label: str, others: list[str]) -> str:
    """The label that this one may be meant to be; labels that differ in a number are meant."""
    without_numbers = re.sub(r"\d+", "", label)
    others = [other for other in others if re.sub(r"\d+", "", other) != without_numbers]
    close = difflib.get_close_matches(label, others, n=1, cutoff=ALIKE)
    return close[0] if close and len(label) > 2 else ""


def _where_of(data: Dataset, label: str) -> str:
    return next(e.where for e in data if e.target == label or (isinstance(e.target, tuple) and label in e.target))


def _check_unseen_classes(data: Dataset) -> Iterator[Problem]:
    sides = official_sides(data)
    if "train" not in sides:
        return
    known = set(count_classes(sides["train"].targets))
    for side in sides:
        unseen = sorted(set(count_classes(sides[side].targets)) - known)
        if unseen:
            names = ", ".join(map(repr, unseen[:5])) + and_more(len(unseen), 5)
            what = f"class {names} is in {side} but not in train, so it cannot be learned; correct it or leave it out"
            yield Problem(_where_of(sides[side], unseen[0]), what)


def _check_groups(data: Dataset) -> Iterator[Problem]:
    groups = {example.group for example in data}
    if groups == {None}:
        return
    without = [example.where for example in data if example.group is None]
    if without:
        place = f"{without[0]}{and_more(len(without))}"
        yield Problem(place, "no group, while others have one; each counts as a group of its own", "warning")
    elif len(groups) == 1:
        only = repr(next(iter(groups)))
        yield Problem(data.source, f"every example is of the group {only}, so none can be held out; drop the group")
    shared = groups_on_two_sides(official_sides(data))
    if shared:
        yield Problem(data.source, why_not_by_group(shared))


def _check_lengths(data: Dataset, out_lengths: OutLengths | None) -> Iterator[Problem]:
    lengths = data.lengths
    median = float(np.median(lengths))
    longest, shortest = int(lengths.argmax()), int(lengths.argmin())
    if lengths[longest] > OUTLIER * median:
        what = f"{lengths[longest]} frames, {lengths[longest] / median:.0f} times the median; is it one sequence?"
        yield Problem(data[longest].where, what, "warning")
    if 0 < lengths[shortest] * OUTLIER < median:
        what = f"{lengths[shortest]} frames, while the median is {median:.0f}; is it complete?"
        yield Problem(data[shortest].where, what, "warning")
    if out_lengths is not None:
        short = np.flatnonzero(out_lengths(torch.from_numpy(lengths)).numpy() < 1)
        if len(short):
            needed = _least_length(out_lengths, int(lengths.max()))
            place = f"{data[int(short[0])].where}{and_more(len(short))}"
            what = f"{lengths[short].min()} frames, while the network needs {needed}; use less pooling, or leave it out"
            yield Problem(place, what)


def _least_length(out_lengths: OutLengths, longest: int) -> str:
    """The fewest frames of which something is left; out_lengths never falls with length."""
    probe = out_lengths(torch.arange(1, 2 * longest + 2))
    enough = torch.nonzero(probe >= 1)
    return f"at least {int(enough[0]) + 1}" if len(enough) else f"more than {2 * longest}"


def _check_near_copies(data: Dataset) -> Iterator[Problem]:
    """Sequences that are nearly another one: across the official split, else anywhere, unless a group keeps them."""
    copies = [
        copy
        for copy in near_copies(data)
        if data[copy.first].group is None or data[copy.first].group != data[copy.second].group
    ]
    across = [copy for copy in copies if data[copy.first].split != data[copy.second].split]
    is_split = any(example.split for example in data)
    chosen = across if is_split else copies
    if chosen:
        worst = max(chosen, key=lambda copy: copy.shared)
        place = f"{data[worst.first].where} and {data[worst.second].where}{and_more(len(chosen))}"
        effect = "on two sides of the official split" if is_split else "and a random split may put them on two sides"
        what = f"share {worst.shared:.0%} of their words, {effect}, so the score flatters; name their family as group"
        yield Problem(place, what, "warning")


def _check_duplicates(data: Dataset, hashes: list[str]) -> Iterator[Problem]:
    """One problem for each kind of duplicate; `hashes` in the order of data."""
    places: list[str] = [example.split or "" for example in data]
    sides = {side: data.subset([i for i, s in enumerate(places) if s == side]) for side in dict.fromkeys(places)}
    found = {side: [h for h, s in zip(hashes, places, strict=True) if s == side] for side in sides}
    duplicates = find_duplicates(sides, found)
    conflicting = [d for d in duplicates if d.is_conflicting]
    across = [d for d in duplicates if d.is_across and not d.is_conflicting]
    inside = [d for d in duplicates if not d.is_across and not d.is_conflicting]
    kinds: list[tuple[list[Duplicate], str, Level]] = [
        (conflicting, "hold the same data under different targets; correct or remove them", "error"),
        (across, "hold the same data on two sides of the official split, so the score flatters", "warning"),
        (inside, "hold the same data, so a random split may put it on two sides; remove the copies", "warning"),
    ]
    for group, what, level in kinds:
        if group:
            pair = group[0].telling_pair
            first = " and ".join(group[0].where[i] for i in pair)
            targets = ": " + " and ".join(repr(group[0].targets[i]) for i in pair) if group[0].is_conflicting else ""
            sets = f" ({len(group)} such sets)" if len(group) > 1 else ""
            yield Problem(first, f"{what}{targets}{sets}", level)
