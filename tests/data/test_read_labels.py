"""A long table whose target changes within a sequence: a label for every frame."""

import polars as pl
import pytest

from crnn.data.read import read
from crnn.errors import DataError


def nights(stages):
    rows = [
        {"id": f"n{i}", "time": t, "x": float(t), "stage": stage or None}
        for i, night in enumerate(stages)
        for t, stage in enumerate(night)
    ]
    return pl.DataFrame(rows)


def test_a_target_that_changes_gives_labels_of_frames():
    data = read(nights([["W", "W", "R"], ["R", "", "W", "W"]]), target="stage")
    assert [example.target.names for example in data] == [("R", "W"), ("R", "W")]
    assert [example.target.codes.tolist() for example in data] == [[1, 1, 0], [0, -1, 1, 1]]


def test_whole_numbers_are_labels_too():
    frame = nights([["1", "2", "1"], ["2", "2", "1"]]).with_columns(pl.col("stage").cast(pl.Int64))
    assert read(frame, target="stage")[0].target.codes.tolist() == [0, 1, 0]


def test_one_sequence_that_differs_is_still_a_mistake():
    with pytest.raises(DataError, match="stage changes from 'W' to 'R'"):
        read(nights([["W", "W"], ["R", "R"], ["W", "R"]]), target="stage")
