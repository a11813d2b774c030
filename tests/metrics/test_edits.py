"""Edit distances, against worked examples, a plain recursion and jiwer."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn.metrics.edits import Edits, align_units, count_edits, distance
from crnn.metrics.text import PROFILES, script_of

TEXT = st.text(alphabet="abc ", max_size=8)


def test_changes_are_told_apart():
    pairs = align_units("sitting", "kitten")
    assert count_edits(pairs) == Edits(insertions=0, deletions=1, substitutions=2, length=7)
    assert count_edits(align_units("ab", "axbc")) == Edits(2, 0, 0, 2)
    assert count_edits(align_units("", "ab")).total == 2
    assert count_edits(align_units("abcd", "")).rate == 1.0


@given(TEXT, TEXT)
def test_distance_is_that_of_the_plain_recursion(a, b):
    @functools.cache
    def plain(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(plain(i - 1, j) + 1, plain(i, j - 1) + 1, plain(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    pairs = align_units(a, b)
    assert distance(a, b) == count_edits(pairs).total == plain(len(a), len(b))
    assert "".join(x or "" for x, _ in pairs) == a
    assert "".join(y or "" for _, y in pairs) == b


@given(TEXT, TEXT)
def test_error_rates_are_those_of_jiwer(a, b):
    jiwer = pytest.importorskip("jiwer")
    a = f"x{a}y"  # jiwer strips its texts
    assert count_edits(align_units(a, f"x{b}y")).rate == pytest.approx(jiwer.cer(a, f"x{b}y"))
    assert count_edits(align_units(a.split(), b.split())).rate == pytest.approx(jiwer.wer(a, b))


def test_profiles():
    text = "“Don’t” – ſay ﬁne…"
    assert PROFILES["exact"](text) == text
    assert PROFILES["plain"](text) == '"Don\'t" - say fine...'
    assert PROFILES["caseless"]("STRAßE") == "strasse"
    assert PROFILES["letters"](text) == "don t say fine"


def test_scripts():
    assert [script_of(c) for c in "aΩж5,א "] == [
        "Latin",
        "Greek",
        "Cyrillic",
        "digits",
        "punctuation",
        "Hebrew",
        "spaces",
    ]
