"""Segment overlap, worked out by hand from its definition."""

import pytest

from crnn.metrics.segments import segment_overlap

CODES = {"C": 0, "H": 1, "E": 2, "?": -1}


def overlap(true, found):
    total, weight = segment_overlap([CODES[c] for c in true], [CODES[c] for c in found])
    return 100 * total / weight


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        # one helix broken into five: H 5 * 10 * 1/10 of 5 * 10; C 1 + 1/2 of 2
        ("CHHHHHHHHHHC", "CHCHCHCHCHCC", 100 * (5 + 1.5) / (50 + 2)),
        # one helix found too short: H 10 * (5 + 2) / 10; C 1/3 + 1/4
        ("CHHHHHHHHHHC", "CCCHHHHHCCCC", 100 * (7 + 1 / 3 + 1 / 4) / 12),
        ("CCHHHHEEEC", "CCHHHHEEEC", 100.0),
        ("HHHH", "EEEE", 0.0),
        # as many residues are right, but the unresolved ones count neither as segment nor as extent
        ("CC??HHHH", "CCHHHHHH", 100.0),
    ],
)
def test_segment_overlap(true, found, expected):
    assert overlap(true, found) == pytest.approx(expected)


def test_an_empty_chain_counts_for_nothing():
    assert segment_overlap([-1, -1], [0, 1]) == (0.0, 0.0)
