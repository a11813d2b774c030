"""Summary: what a data set holds, as plain values and as lines of text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from crnn.data.annotation import Annotation, Events, StepLabels
from crnn.data.dataset import Dataset, Target
from crnn.data.split import official_sides

MACS_PER_SECOND = 5e9
"""Multiply-adds that one core trains in a second, roughly: for an estimate of time only."""
EPOCHS = 50
"""For an estimate of time where the plan is not known."""
SHOWN_CLASSES = 12
SHOWN_LETTERS = 60


def summarise(
    data: Dataset,
    *,
    unreadable: int,
    missing_share: float,
    macs_per_frame: float | None = None,
    trained_frames: float | None = None,
    batch_size: int = 32,
    texts: bool = False,
) -> dict[str, Any]:
    """Counts, lengths, channels, targets, groups and sizes; plain values for JSON, None where it does not apply.

    Args:
        unreadable: examples that could not be loaded.
        missing_share: part of all values that is NaN.
        macs_per_frame: multiply-adds of a network for one input frame; adds an estimate of training time.
        trained_frames: input frames that training goes through in all; None for 50 epochs of all of `data`.
        texts: whether targets are transcripts, not classes.
    """
    lengths = data.lengths if len(data) else np.zeros(1, dtype=np.int64)
    groups = Counter(example.group for example in data if example.group is not None)
    frame_bytes = data.num_bytes / max(1, int(lengths.sum()))
    frames = {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())}
    rate = data.sample_rate
    trained_frames = EPOCHS * float(lengths.sum()) if trained_frames is None else trained_frames
    macs = None if macs_per_frame is None else 3 * macs_per_frame * trained_frames  # back costs twice
    return {
        "source": data.source,
        "kind": data.kind,
        "examples": len(data),
        "unreadable": unreadable,
        "left_out": sum(problem.level == "error" for problem in data.problems),
        "channels": list(data.channel_names),
        "symbols": len(data.vocabulary) if data.kind == "symbols" else None,
        "sample_rate": rate,
        "length": frames,
        "seconds": {name: value / rate for name, value in frames.items()} if rate else None,
        "targets": _text_summary(data) if texts else _target_summary(data),
        "groups": {"count": len(groups), "smallest": min(groups.values()), "largest": max(groups.values())}
        if groups
        else None,
        "splits": {side: len(part) for side, part in official_sides(data).items()} or None,
        "missing_share": missing_share,
        "memory": {
            "decoded_bytes": data.num_bytes,
            "largest_batch_bytes": int(min(batch_size, len(data)) * frames["max"] * frame_bytes),
        },
        "training_seconds": None if macs is None else macs / MACS_PER_SECOND,
    }


def count_classes(targets: Sequence[Target]) -> Counter[str]:
    """Examples of each class; of each label where there are several."""
    counts: Counter[str] = Counter()
    for target in targets:
        counts.update(_labels_of(target))
    return counts


def _labels_of(target: Target) -> list[str]:
    if target is None:
        return []
    if isinstance(target, Events):
        return [event.label for event in target.items]
    if isinstance(target, StepLabels):
        return sorted(target.labels)
    return list(target) if isinstance(target, tuple) else [str(target)]


def and_more(count: int, shown: int = 1) -> str:
    """What a message leaves out, such as ' and 7 more'; nothing if that is nothing."""
    return f" and {count - shown} more" if count > shown else ""


def _target_summary(data: Dataset) -> dict[str, Any]:
    targets = [target for target in data.targets if target is not None]
    if not targets:
        return {"kind": "none"}
    numbers = [float(t) for t in targets if isinstance(t, (int, float)) and math.isfinite(t)]
    if len(numbers) > len(targets) / 2:
        values = np.array(numbers)
        parts = {"min": values.min(), "median": np.median(values), "max": values.max(), "std": values.std()}
        return {"kind": "numbers", **{name: float(value) for name, value in parts.items()}}
    if all(isinstance(target, Annotation) for target in targets):
        return {"kind": "frame labels or events", "counts": dict(sorted(count_classes(targets).items()))}
    kind = "labels" if any(isinstance(target, tuple) for target in targets) else "classes"
    return {"kind": kind, "counts": dict(sorted(count_classes(targets).items()))}


def _text_summary(data: Dataset) -> dict[str, Any]:
    """Transcripts: how many, how long, in which letters; line breaks and the like count as spaces."""
    texts = [" ".join(target.split()) for target in data.targets if isinstance(target, str)]
    if not texts:
        return {"kind": "none"}
    lengths = np.array([len(text) for text in texts])
    return {
        "kind": "texts",
        "count": len(texts),
        "characters": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        "alphabet": sorted(set().union(*texts)),
    }


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """A summary as lines to print."""
    lines = [f"{summary['source']}: {summary['examples']} examples, {_content(summary)}"]
    if summary["unreadable"] or summary["left_out"]:
        lines.append(f"unusable: {summary['unreadable'] + summary['left_out']}, listed below")
    if summary["examples"]:
        lines.append("length: {min} to {max} frames, median {median:g}".format(**summary["length"]))
        if summary["seconds"]:
            lines[-1] += " ({min:.3g} to {max:.3g} s, median {median:.3g} s)".format(**summary["seconds"])
        lines.append(_target_line(summary["targets"]))
    if summary["groups"]:
        lines.append("groups: {count}, of {smallest} to {largest} examples".format(**summary["groups"]))
    if summary["splits"]:
        lines.append("official split: " + ", ".join(f"{side} {count}" for side, count in summary["splits"].items()))
    if summary["missing_share"]:
        lines.append(f"missing values: {summary['missing_share']:.2%}")
    memory = summary["memory"]
    lines.append(
        f"memory: {_size(memory['decoded_bytes'])} decoded, {_size(memory['largest_batch_bytes'])} in the largest batch"
    )
    if summary["training_seconds"]:
        lines.append(f"training: about {_duration(summary['training_seconds'])} on one core")
    return lines


def _content(summary: dict[str, Any]) -> str:
    if summary["kind"] == "symbols":
        return f"sequences of {summary['symbols']} different symbols"
    count = len(summary["channels"])
    rate = f", {summary['sample_rate']:g} Hz" if summary["sample_rate"] else ""
    return f"{summary['kind']} of {count} channel{'s' if count != 1 else ''}{rate}"


def _target_line(targets: dict[str, Any]) -> str:
    if targets["kind"] == "none":
        return "targets: none"
    if targets["kind"] == "numbers":
        return "targets: numbers, {min:.4g} to {max:.4g}, median {median:.4g}, std {std:.4g}".format(**targets)
    if targets["kind"] == "texts":
        letters = targets["alphabet"]
        shown = "".join(letters[:SHOWN_LETTERS]) + and_more(len(letters), SHOWN_LETTERS)
        length = "{min} to {max} characters, median {median:g}".format(**targets["characters"])
        return f"targets: {targets['count']} texts of {length}; {len(letters)} letters: {shown!r}"
    counts = Counter(targets["counts"])
    shown = ", ".join(f"{label} {count}" for label, count in counts.most_common(SHOWN_CLASSES))
    return f"targets: {len(counts)} {targets['kind']}: {shown}{and_more(len(counts), SHOWN_CLASSES)}"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _duration(seconds: float) -> str:
    for unit, size in (("seconds", 60), ("minutes", 60), ("hours", 24)):
        if seconds < 2 * size:
            count = math.ceil(seconds)
            return f"{count} {unit if count != 1 else unit[:-1]}"
        seconds /= size
    return f"{math.ceil(seconds)} days"
