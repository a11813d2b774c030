"""Recordings of hours: trained on windows, predicted as a stream, in memory that does not grow with them."""

import numpy as np
import torch

import crnn.training.outputs as outputs
from crnn.data.batch import Batches
from crnn.data.dataset import Dataset, Example, content_hash
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain


def made(length, seed):
    """An example that is only ever read in parts, once it is long."""
    data = np.random.default_rng(seed).normal(size=(length, 2)).astype(np.float32)
    return Example(f"e{seed}", f"e{seed}", length, lambda: data, part=lambda start, end: data[start:end])


def test_a_streamed_recording_gives_the_outputs_of_the_whole(monkeypatch):
    layers = [
        {"type": "conv", "channels": 4, "kernel_size": 7, "stride": 3},
        {"type": "recurrent", "cell": "gru", "hidden_size": 5},
    ]
    network = Network(spec_from_plain({"layers": layers, "summary": None}), features=(2,), outputs=3).eval()
    data = Dataset((made(40, 0), made(301, 1), made(25, 2), made(200, 3)), "series", ("a", "b"), 10.0, "made")
    whole = outputs.compute_outputs(network, Batches(data, 2, shuffle=False, seed=0))
    monkeypatch.setattr(outputs, "STREAMED_ABOVE", 100)
    monkeypatch.setattr(outputs, "STREAMED_VALUES", 34)
    streamed = outputs.compute_outputs(network, Batches(data, 2, shuffle=False, seed=0))
    assert streamed.lengths.tolist() == whole.lengths.tolist()
    torch.testing.assert_close(streamed.data, whole.data, rtol=0, atol=1e-6)


def test_content_of_parts_is_content_of_the_whole(monkeypatch):
    import crnn.data.dataset as dataset

    example = made(100, 0)
    before = content_hash(example)
    monkeypatch.setattr(dataset, "PART", 7)
    assert content_hash(example) == before
