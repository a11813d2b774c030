"""Long recordings through networks that cannot stream: windows that overlap."""

import numpy as np
import pytest
import torch

from crnn.data.batch import Batches
from crnn.data.read import from_arrays
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.training import outputs as rooms

CONVOLUTIONS = [
    {"type": "conv", "channels": 6, "kernel_size": 5, "stride": 2},
    {"type": "activation"},
    {"type": "conv", "channels": 6, "kernel_size": 3},
]


def network_of(*layers):
    torch.manual_seed(0)
    network = Network(spec_from_plain({"layers": [*CONVOLUTIONS, *layers], "summary": None}), features=(2,), outputs=3)
    return network.eval()


def outputs_of(network, lengths):
    random = np.random.default_rng(0)
    data = from_arrays([random.normal(size=(n, 2)).astype(np.float32) for n in lengths], sample_rate=100.0)
    return rooms.compute_outputs(network, Batches(data, 4, shuffle=False, seed=0)), data


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(rooms, "LONG_VALUES", 400)
    monkeypatch.setattr(rooms, "WINDOW_VALUES", 300)
    monkeypatch.setattr(rooms, "CONTEXT_VALUES", 80)


@pytest.mark.parametrize("length", [201, 299, 300, 301, 302, 374, 376, 1000, 1001])
def test_what_looks_no_further_than_the_context_gives_the_same(small_windows, monkeypatch, length):
    network = network_of()
    monkeypatch.setattr(Network, "can_stream", False)
    found, _ = outputs_of(network, [length, 50])
    monkeypatch.setattr(rooms, "LONG_VALUES", 1 << 20)
    whole, _ = outputs_of(network, [length, 50])
    for a, b in zip(found, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_bidirectional_network_differs_only_by_what_is_far_away(small_windows, monkeypatch):
    network = network_of({"type": "recurrent", "hidden_size": 4, "bidirectional": True})
    found, data = outputs_of(network, [900])
    assert "1 long recordings are read in windows of 1.5 s that look 0.4 s back and ahead" in rooms.describe_windows(
        network, data
    )
    monkeypatch.setattr(rooms, "LONG_VALUES", 1 << 20)
    whole, data = outputs_of(network, [900])
    assert len(found[0]) == len(whole[0]) == 450
    assert float((found[0] - whole[0]).abs().max()) < 0.02
    assert rooms.describe_windows(network, data) == ""
