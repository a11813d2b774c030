"""Drawings are clean SVG: one element, no ids that clash, ink in the page's colour, text as text."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from crnn.report import plots

HISTORY = [
    {"epoch": i, "train_loss": 1 / i, "validation_loss": None if i == 2 else 2 / i, "metrics": {"accuracy": i / 4},
     "is_best": i == 3}
    for i in (1, 2, 3)
]  # fmt: skip

DRAWINGS = {
    "curves": lambda: plots.learning_curves(HISTORY, "accuracy", "accuracy")[0],
    "confusion": lambda: plots.confusion_matrix([[3, 1], [0, 2]], ["a<b", "$x^2$"]),
    "reliability": lambda: plots.reliability([(0.4, 0.5, 3), (0.9, 0.8, 7)], [(0.5, 0.5, 3), (0.8, 0.8, 7)]),
    "length": lambda: plots.error_by_length([(1, 2), (3, 3)], [0.1, 0.2], [5, 6], "steps", "share wrong"),
    "distribution": lambda: plots.class_distribution({"train": {"a": 3}, "test": {"b": 2}}, ["a", "b"]),
    "scatter": lambda: plots.values_scatter([1, 2, 3], [1.1, 2.5, 2.9])[0],
    "signal": lambda: plots.signal([[0, 1, None, 2], [1, 1, 1, 1]], 0.4, "seconds"),
    "bars": lambda: plots.metric_bars(["majority", "this model"], [0.5, 0.8], 0.7, 0.9, "accuracy"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_one_clean_element(name):
    before = dict(matplotlib.rcParams)
    svg = DRAWINGS[name]()
    assert dict(matplotlib.rcParams) == before
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("aria-label")
    assert "currentColor" in svg
    assert "http" not in svg
    assert plots.INK not in svg
    assert len(svg) < 40_000


def test_labels_stay_text_as_they_were_written():
    svg = DRAWINGS["confusion"]()
    texts = ["".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter("text")]
    assert {"a<b", "$x^2$", "3", "1", "2"} <= set(texts)


def test_labels_of_any_script_draw_without_a_warning():
    assert "語" in plots.confusion_matrix([[1, 0], [0, 1]], ["語", "ا"])


def test_tick_numbers_are_not_cut():
    svg = plots.values_scatter([0.04301, 0.04302], [0.04301, 0.04302])[0]
    texts = ["".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter("text")]
    ticks = [t for t in texts if t.startswith(("0.043", "1", "2"))]
    assert len(set(ticks)) >= 2


def test_the_same_data_draws_the_same_bytes():
    assert DRAWINGS["curves"]() == DRAWINGS["curves"]()


def test_nothing_to_draw_gives_nothing():
    assert plots.learning_curves(HISTORY[:1], "accuracy", "accuracy") == []
    assert plots.confusion_matrix([[0] * 61] * 61, ["x"] * 61) == ""
    assert plots.class_distribution({}, []) == ""
    assert plots.values_scatter([], []) == []
    assert plots.signal([], 1, "steps") == ""


def test_a_signal_is_scaled_to_its_box_and_broken_at_gaps():
    svg = plots.signal([[0, 1, None, 2, 1]], 0.5, "seconds")
    lines = [node.get("points") for node in ElementTree.fromstring(svg).iter("polyline")]
    assert lines == ["0.0,48.0 75.0,25.0", "225.0,2.0 300.0,25.0"]
    assert ">0.5 seconds<" in svg
    assert plots.signal([[None, None]], 1, "steps").count("polyline") == 0


def test_long_labels_are_cut_with_an_ellipsis():
    assert plots.shorten("a very long label indeed") == "a very long label…"
