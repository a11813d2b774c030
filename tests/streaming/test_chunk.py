"""Chunks as people have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crnn.errors import DataError, ShapeError
from crnn.streaming.chunk import as_frames


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (np.array([-32768, 0, 16384], np.int16), [-1.0, 0.0, 0.5]),
        (np.array([[-(2**31)], [2**30]], np.int32), [-1.0, 0.5]),
        ([0.25, -0.5], [0.25, -0.5]),
        (torch.tensor([0.25], dtype=torch.float64), [0.25]),
        (0.5, [0.5]),
        ([], []),
        (np.zeros((0, 7)), []),
    ],
)
def test_audio_is_scaled_to_one(chunk, expected):
    found = as_frames(chunk, "audio", 1)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert found.tolist() == [[value] for value in expected]


def test_one_frame_of_several_channels_is_a_frame():
    assert as_frames([1, 2, 3], "series", 3).tolist() == [[1, 2, 3]]
    assert as_frames([[1, 2, 3], [4, 5, 6]], "series", 3).shape == (2, 3)
    assert as_frames(np.arange(3, dtype=np.int16), "series", 3).tolist() == [[0, 1, 2]]  # only audio has a full scale


def test_gaps_stay_and_numbers_beyond_float32_become_infinite():
    found = as_frames([1e300, np.nan], "series", 1)
    assert found[0, 0] == np.inf
    assert np.isnan(found[1, 0])


def test_symbols_are_whole_numbers():
    assert as_frames([3, 1], "symbols", 0).tolist() == [3, 1]
    assert as_frames([3, 1], "symbols", 0).dtype == np.int64
    assert as_frames([], "symbols", 0).shape == (0,)
    with pytest.raises(DataError, match="expected whole numbers"):
        as_frames([0.5], "symbols", 0)


def test_audio_of_a_type_without_a_full_scale_is_refused():
    with pytest.raises(DataError, match=r"audio samples of type uint8, expected -1\.\.1 as floats, or int16 or int32"):
        as_frames(np.zeros(3, np.uint8), "audio", 1)
    with pytest.raises(DataError, match="of type int64"):
        as_frames([1, 2], "audio", 1)


def test_stereo_for_mono_says_what_is_expected():
    with pytest.raises(ShapeError, match=r"shape \(5, 2\), expected \(n, 1\) or \(n,\)"):
        as_frames(np.zeros((5, 2)), "audio", 1)
