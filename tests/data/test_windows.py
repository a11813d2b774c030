import numpy as np
import pytest

from crnn.data.annotation import Event, Events, StepLabels
from crnn.data.dataset import Dataset, array_example
from crnn.data.windows import windows
from crnn.errors import ConfigError


def recording(length, target):
    x = np.arange(length, dtype=np.float32)[:, None]
    return Dataset((array_example("r", "r.hea", x, target=target, group="p"),), "series", ("x",), 10.0, "made")


def test_windows_cover_everything_and_cut_their_events():
    data = windows(recording(25, Events((Event(3, 4, "N"), Event(12, 13, "V"), Event(24, 25, "N")))), 10)
    assert [example.id for example in data] == ["r[0:10]", "r[5:15]", "r[10:20]", "r[15:25]"]
    assert [example.load()[0, 0] for example in data] == [0, 5, 10, 15]
    assert [[(e.start, e.label) for e in example.target.items] for example in data] == [
        [(3, "N")],
        [(7, "V")],
        [(2, "V")],
        [(9, "N")],
    ]
    assert {example.group for example in data} == {"p"}
    assert data[1].read_part(2, 4).ravel().tolist() == [7, 8]


def test_windows_of_labels():
    data = windows(recording(7, StepLabels(np.array([0, 0, 1, 1, -1, 0, 1]), ("a", "b"))), 4, hop=4)
    assert [example.target.codes.tolist() for example in data] == [[0, 0, 1, 1], [1, -1, 0, 1]]


def test_what_is_short_stays_whole():
    data = recording(7, None)
    assert windows(data, 7)[0] is data[0]


@pytest.mark.parametrize(("size", "hop"), [(0, 1), (5, 6), (5, 0)])
def test_windows_that_skip_frames_are_refused(size, hop):
    with pytest.raises(ConfigError, match="expected at least 1, and a hop of at most the size"):
        windows(recording(7, None), size, hop=hop)
