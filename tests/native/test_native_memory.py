"""Large arrays: their memory is theirs alone while they live, and the next one's afterwards."""

import pytest
import torch

from crnn.native import memory


@pytest.fixture(autouse=True)
def _nothing_free(monkeypatch):
    monkeypatch.setattr(memory, "_free", [])
    monkeypatch.setattr(memory, "LARGE", 2**12)
    monkeypatch.setattr(memory, "MOST_KEPT", 2**14)


def make(kilobytes):
    return memory.empty((kilobytes, 256), torch.float32)


def test_memory_lives_as_long_as_the_last_view_of_it():
    tensors = [make(4).fill_(i) for i in range(3)]
    part, addresses = tensors[1][2:3, 5:9], {tensor.data_ptr() for tensor in tensors}
    del tensors
    new = [make(4).fill_(-1) for _ in range(3)]
    assert part.tolist() == [[1.0] * 4]
    assert len(addresses & {tensor.data_ptr() for tensor in new}) == 2


def test_what_was_given_back_serves_a_smaller_array_too_but_no_tiny_one():
    address = make(12).data_ptr()
    assert make(7).data_ptr() == address
    assert make(5).data_ptr() != address


def test_no_more_is_kept_than_allowed():
    tensors = [make(8) for _ in range(5)]
    assert memory._free == []
    del tensors
    assert sum(map(len, memory._free)) == 2**14


def test_small_arrays_are_torchs_own():
    assert memory.empty((3, 2), torch.float64).shape == (3, 2)
    assert memory._free == []
