"""Transcripts as files that other programs take: CTM for scoring, SRT for subtitles, plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from crnn.errors import DataError

Answer = dict[str, Any]
"""What a transcriber predicts: {'text', 'words': [{'text', 'start', 'end', 'confidence'}], 'unit'}."""

LONGEST_CUE = 6.0
"""Seconds of a subtitle."""
WIDEST_CUE = 84
"""Characters of a subtitle: two lines of 42."""
PAUSE = 0.8
"""Seconds of silence at which a subtitle ends."""


def as_ctm(ids: Sequence[str], answers: Iterable[Answer]) -> str:
    """One word a line: recording, channel, start, duration, word, confidence (NIST's CTM)."""
    lines = []
    for name, answer in zip(ids, answers, strict=True):
        _check_seconds(answer)
        spoken = "_".join(name.split())  # fields are separated by spaces
        for word in answer["words"]:
            size = word["end"] - word["start"]
            lines.append(f"{spoken} 1 {word['start']:.3f} {size:.3f} {word['text']} {word['confidence']:.3f}\n")
    return "".join(lines)


def as_srt(answer: Answer) -> str:
    """Subtitles of one recording: words up to a pause, two lines of text or six seconds."""
    _check_seconds(answer)
    cues: list[list[dict[str, Any]]] = []
    for word in answer["words"]:
        if not cues or _is_full(cues[-1], word):
            cues.append([])
        cues[-1].append(word)
    blocks = [
        f"{n}\n{_time(cue[0]['start'])} --> {_time(cue[-1]['end'])}\n{' '.join(word['text'] for word in cue)}\n"
        for n, cue in enumerate(cues, 1)
    ]
    return "\n".join(blocks)


def as_text(ids: Sequence[str], answers: Iterable[Answer]) -> str:
    """One text a line, behind its id and a tab where there are several."""
    found = list(answers)
    if len(found) == 1:
        return f"{found[0]['text']}\n"
    return "".join(f"{name}\t{answer['text']}\n" for name, answer in zip(ids, found, strict=True))


def _is_full(cue: list[dict[str, Any]], word: dict[str, Any]) -> bool:
    width = sum(len(w["text"]) + 1 for w in cue) + len(word["text"])
    return word["start"] - cue[-1]["end"] > PAUSE or word["end"] - cue[0]["start"] > LONGEST_CUE or width > WIDEST_CUE


def _time(seconds: float) -> str:
    """00:01:02,345"""
    milliseconds = round(1000 * seconds)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d},{rest % 1000:03d}"


def _check_seconds(answer: Answer) -> None:
    if answer.get("unit") != "seconds":
        found = answer.get("unit", "no times")
        raise DataError(f"subtitles and CTM: found times in {found}, expected seconds of sound; write .jsonl or .txt")
