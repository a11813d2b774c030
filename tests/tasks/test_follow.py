"""News of streams: the same in any chunks, and where a stream was saved and goes on."""

import numpy as np
import pytest

from crnn.nn.layers import Timing
from crnn.tasks.follow import Changes

OUTPUTS = np.array([[0.0, 1.0], [0.2, 0.3], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def follower():
    return Changes(["rest", "beat"], Timing(3, 5, 2), 100.0)


@pytest.mark.parametrize("cuts", [[], [1, 2, 3, 4], [0, 0, 3], [2, 5]])
def test_labels_are_told_when_they_change(cuts):
    one, news = follower(), []
    for part in np.split(OUTPUTS, cuts):
        news += one.push(part)
        other = follower()
        other.restore(one.state())
        one = other
    assert news + one.finish(15) == [
        {"frame": 0, "seconds": 0.0, "label": "beat"},
        {"frame": 6, "seconds": 0.06, "label": "rest"},
        {"frame": 12, "seconds": 0.12, "label": "beat"},
    ]


def test_without_a_rate_there_are_no_seconds():
    assert Changes(["rest", "beat"], Timing(), None).push(OUTPUTS[:1]) == [{"frame": 0, "label": "beat"}]
