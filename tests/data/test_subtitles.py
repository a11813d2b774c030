"""Transcripts as CTM, SRT and text."""

import pytest

from crnn.data.subtitles import as_ctm, as_srt, as_text
from crnn.errors import DataError


def answer(*words, unit="seconds"):
    found = [{"text": t, "start": a, "end": b, "confidence": 0.9} for t, a, b in words]
    return {"text": " ".join(t for t, _, _ in words), "words": found, "unit": unit}


def test_ctm_has_one_word_a_line():
    text = as_ctm(["my clip.wav"], [answer(("yes", 0.5, 0.75), ("no", 1.0, 1.2))])
    assert text == "my_clip.wav 1 0.500 0.250 yes 0.900\nmy_clip.wav 1 1.000 0.200 no 0.900\n"


def test_subtitles_break_at_pauses_and_when_they_are_full():
    text = as_srt(answer(("one", 0.0, 0.4), ("two", 0.5, 1.0), ("three", 61.5, 62.0)))
    assert text == "1\n00:00:00,000 --> 00:00:01,000\none two\n\n2\n00:01:01,500 --> 00:01:02,000\nthree\n"
    long = as_srt(answer(*(("abcdefghij", i * 0.2, i * 0.2 + 0.1) for i in range(10))))
    assert next(line for line in long.splitlines() if line.startswith("a")).count("abcdefghij") == 7
    slow = as_srt(answer(*(("a", i * 1.0, i + 0.9) for i in range(12))))
    assert slow.count("-->") == 2


def test_texts_carry_their_ids_where_there_are_several():
    assert as_text(["a"], [answer(("x", 0, 1))]) == "x\n"
    assert as_text(["a", "b"], [answer(("x", 0, 1)), answer(("y", 0, 1))]) == "a\tx\nb\ty\n"


def test_times_in_pixels_are_no_subtitles():
    with pytest.raises(DataError, match="found times in frames, expected seconds"):
        as_srt(answer(("x", 0, 1), unit="frames"))
