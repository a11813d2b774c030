"""Windows that follow each other: every frame once, in order, as many each epoch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crnn.data.consecutive import ConsecutiveWindows
from crnn.data.dataset import Dataset, array_example
from crnn.errors import ConfigError

LENGTHS = [30, 7, 25, 8, 100, 61, 10, 33, 31, 30]


def make(lengths=LENGTHS):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((n, 2)).astype(np.float32) for n in lengths]
    examples = [array_example(f"e{i}", f"row {i}", array) for i, array in enumerate(arrays)]
    return Dataset(tuple(examples), "series", ("x", "y"), None, "made")


def test_every_frame_comes_once_in_order_and_windows_are_of_one_length_but_for_the_last():
    data = make()
    windows = ConsecutiveWindows(data, 4, frames=10, seed=0)
    for n in range(4):
        seen = {i: [] for i in range(len(data))}
        rows = None
        steps = list(windows.steps(n))
        assert len(steps) == len(windows)
        for window in steps:
            indices = window.indices.tolist()
            assert window.is_first == (rows is None)
            assert rows in (None, indices)
            rows = [i for i, ends in zip(indices, window.ends.tolist(), strict=True) if not ends] or None
            for i, row, ends in zip(indices, window.x.unpad(), window.ends.tolist(), strict=True):
                seen[i].append(row)
                assert len(row) == 10 or (ends and (len(row) < 20))
        for i, parts in seen.items():
            assert torch.equal(torch.cat(parts), torch.from_numpy(data[i].load()))


def test_of_recordings_that_can_be_read_in_parts_no_more_is_read():
    data, read = make(), []

    def part(i):
        return lambda start, end: (read.append((i, start, end)), data[i].load()[start:end])[1]

    examples = [replace(example, part=part(i)) for i, example in enumerate(data)]
    parted = ConsecutiveWindows(replace(data, examples=tuple(examples)), 4, frames=10, seed=0)
    for found, expected in zip(parted.steps(0), ConsecutiveWindows(data, 4, frames=10, seed=0).steps(0), strict=True):
        assert torch.equal(found.x.data, expected.x.data)
    assert (4, 40, 50) in read
    assert all(end - start < 20 for _, start, end in read)


def test_the_order_depends_on_seed_and_epoch_alone():
    windows, again = ConsecutiveWindows(make(), 4, frames=10, seed=0), ConsecutiveWindows(make(), 4, frames=10, seed=0)
    before = [w.indices.tolist() for w in windows.steps(1)]
    assert [w.indices.tolist() for w in again.steps(0)] != before
    assert [w.indices.tolist() for w in again.steps(1)] == before
    assert [w.indices.tolist() for w in again.steps(1, start=5)] == before[5:]
    assert [i.tolist() for _, i in again.epoch(1, start=5)] == before[5:]


def test_equal_recordings_are_mixed_anew_each_epoch():
    windows = ConsecutiveWindows(make([40] * 12), 4, frames=10, seed=0)
    partners = {frozenset(group.tolist()) for n in range(5) for group in windows.groups(n)}
    assert len(partners) > 10
    assert len(windows) == 3 * 4


@pytest.mark.parametrize("options", [{"frames": 0}, {"batch_size": 0, "frames": 3}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected at least 1"):
        ConsecutiveWindows(make(), **{"batch_size": 2, "seed": 0, **options})
