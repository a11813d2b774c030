"""What training and scoring hold in memory, however large the data."""

import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from crnn.data import batch as batch_module
from crnn.data.batch import AHEAD, ONE_PASS_CACHE, ONE_PASS_VALUES, READERS, Batches
from crnn.data.dataset import Dataset, Example
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training import loop, memory
from crnn.training.config import TrainConfig
from crnn.training.loop import fit
from crnn.training.outputs import compute_outputs

FRAMES, CHANNELS, BATCH = 500, 2, 4
EXAMPLE = 4 * FRAMES * CHANNELS
"""Bytes of one decoded example."""


class Alive:
    """Counts the bytes of arrays until they are freed, and the most there ever were at once."""

    def __init__(self):
        self.lock = threading.RLock()  # an array may be freed while another is counted
        self.bytes = self.most = self.loads = 0

    def counted(self, array):
        self._add(array.nbytes)
        weakref.finalize(array, self._add, -array.nbytes)
        return array

    def _add(self, count):
        with self.lock:
            self.bytes += count
            self.most = max(self.most, self.bytes)

    def load(self, i):
        self.loads += 1
        return self.counted(np.full((FRAMES, CHANNELS), i % 2, np.float32))

    def zeros(self, data, *shape):
        """As crnn.data.batch._zeros; the tensor's storage keeps the array."""
        return torch.from_numpy(self.counted(np.zeros((*shape, *data.features), np.float32)))


@pytest.fixture
def alive(monkeypatch):
    counter = Alive()
    monkeypatch.setattr(batch_module, "_zeros", counter.zeros)
    return counter


def lazy(alive, count):
    examples = [Example(f"{i}", f"{i}.wav", FRAMES, lambda i=i: alive.load(i), "ab"[i % 2]) for i in range(count)]
    return Dataset(tuple(examples), "series", ("x", "y"), None, "folder", in_memory=False)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(CHANNELS, 2)

    def forward(self, x):
        return self.out(x.data.sum(1) / x.lengths[:, None])


def test_training_on_more_than_the_cache_holds_a_few_batches(alive, monkeypatch):
    train, validation = lazy(alive, 160), lazy(alive, 40)
    monkeypatch.setattr(loop, "TRAINING_CACHE", train.num_bytes // 2)
    monkeypatch.setattr(loop, "VALIDATION_CACHE", validation.num_bytes // 2)
    monkeypatch.setattr(loop, "VALIDATION_FRAMES", FRAMES * BATCH)
    task = Classify.from_targets(train.targets, ClassifyConfig())
    fit(Net(), task, train, validation, TrainConfig(epochs=3, batch_size=BATCH))
    batches = AHEAD + 2  # in the making or waiting, the one in use, and the one before it
    assert alive.loads >= 3 * 160
    assert alive.most <= (batches * BATCH + 2 * READERS) * EXAMPLE  # a reader still holds the example before
    assert alive.most < train.num_bytes // 5
    assert alive.bytes == 0  # nothing outlives the run


def test_what_fits_the_cache_is_read_once(alive):
    train = lazy(alive, 40)
    task = Classify.from_targets(train.targets, ClassifyConfig())
    fit(Net(), task, train, None, TrainConfig(epochs=3, batch_size=BATCH))
    assert alive.loads == 40
    assert alive.bytes == 0


def test_a_pass_for_outputs_holds_a_few_bounded_batches(alive):
    data, most = lazy(alive, 200), 8 * FRAMES * CHANNELS
    bounded = Batches(data, 64, shuffle=False, seed=0, cache_bytes=0, max_values=most)
    network = Net()
    outputs = compute_outputs(network, bounded)
    assert alive.most <= ((AHEAD + 1) * 8 + 2 * READERS) * EXAMPLE
    unbounded = compute_outputs(network, Batches(data, 64, shuffle=False, seed=0, cache_bytes=0))
    torch.testing.assert_close(outputs, unbounded)


def test_long_recordings_are_scored_within_the_promise():
    """64 recordings of a minute at 16 kHz would be 246 MB a batch; with what is read ahead, a gigabyte."""
    data = lazy(Alive(), 100)
    minute = replace(data, examples=tuple(replace(e, length=960_000) for e in data), channel_names=("audio",))
    bounded = Batches(minute, 64, shuffle=False, seed=0, cache_bytes=ONE_PASS_CACHE, max_values=ONE_PASS_VALUES)
    assert max(bounded.sizes) == 4
    assert sum(bounded.sizes) == 100


def test_memory_is_given_back_while_training_on_long_recordings_only(alive, monkeypatch):
    released = []
    monkeypatch.setattr(loop, "release_memory", lambda above=0: released.append(above))
    train = lazy(alive, 40)
    task = Classify.from_targets(train.targets, ClassifyConfig())
    fit(Net(), task, train, None, TrainConfig(epochs=1, batch_size=BATCH))
    assert len(released) == 1  # at the end
    monkeypatch.setattr(loop, "RELEASE_EVERY", 2 * BATCH * FRAMES * CHANNELS)
    fit(Net(), task, train, None, TrainConfig(epochs=1, batch_size=BATCH))
    assert len(released) == 2 + 3  # after each third of ten batches, and at the end


def test_releasing_does_nothing_without_glibc(monkeypatch):
    memory.release_memory()
    memory._glibc.cache_clear()
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert memory._glibc() is None
    memory.release_memory()
    memory._glibc.cache_clear()
