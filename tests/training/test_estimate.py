"""What is said of the largest batch before training, and that it is about what training takes."""

import numpy as np
import pytest
import torch

from crnn.data.dataset import Dataset, array_example
from crnn.errors import DataError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.sequences import Sequences
from crnn.training import estimate
from crnn.training.config import TrainConfig
from crnn.training.estimate import bytes_per_frame, check_memory, largest_batch, trained_frames

LAYERS = [
    {"type": "conv", "channels": 16, "stride": 2},
    {"type": "norm"},
    {"type": "activation"},
    {"type": "recurrent", "hidden_size": 8},
]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network(spec_from_plain({"layers": LAYERS, "summary": {"type": "mean"}}), features=(3,), outputs=2)


def dataset(lengths):
    examples = [array_example(f"{i}", f"{i}.wav", np.zeros((n, 3), np.float32)) for i, n in enumerate(lengths)]
    return Dataset(tuple(examples), "series", ("x", "y", "z"), None, "folder")


def test_network_and_random_numbers_are_left_alone(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    bytes_per_frame(network, (3,))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_symbols_are_measured_too():
    layers = [{"type": "embedding", "vocab_size": 5, "channels": 4}, *LAYERS]
    layers = [layer for layer in layers if layer["type"] != "norm"]
    network = Network(spec_from_plain({"layers": layers, "summary": {"type": "mean"}}), features=(), outputs=2)
    assert bytes_per_frame(network, ()) > 8


def test_one_sequence_that_is_much_longer_is_named_with_what_can_be_done(network, monkeypatch):
    data = dataset([100] * 40 + [100_000])
    monkeypatch.setattr(estimate, "free_bytes", lambda: 10**12)
    message = check_memory(network, data, TrainConfig(batch_size=8))
    assert message is not None
    assert message.startswith("40.wav: 100,000 frames (1,000 times the median): a batch of 7 as long takes about")
    assert "1,000 GB are free; --set train.max_frames=1000 trains on windows" in message
    assert check_memory(network, data, TrainConfig(batch_size=8, max_frames=1000)) is None
    assert check_memory(network, dataset([100] * 40 + [1000]), TrainConfig(batch_size=8)) is None


def test_what_cannot_fit_is_refused(network, monkeypatch):
    data = dataset([100] * 40 + [200])
    monkeypatch.setattr(estimate, "free_bytes", lambda: 70_000)
    with pytest.raises(DataError, match=r"40\.wav: 200 frames .* takes about 1 MB to train, 1 MB are free"):
        check_memory(network, data, TrainConfig(batch_size=8))
    message = check_memory(network, data, TrainConfig(batch_frames=250))
    assert message is not None  # it fits, but takes more than half of what is free
    assert "a batch of 1 as long" in message


def test_a_budget_of_frames_bounds_the_largest_batch(network):
    data = dataset([100] * 40 + [100_000])
    assert largest_batch(network, data, TrainConfig(batch_frames=1000)).sequences == 1
    assert largest_batch(network, data, TrainConfig(batch_frames=1000, max_frames=300)).sequences == 3


def test_the_estimate_is_about_what_a_step_keeps(network):
    """A batch of 4 x 2000 frames against the two probes of 2 x 1024 and 2 x 2048."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = Sequences(torch.randn(4, 2000, 3), torch.full((4,), 2000))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = network.train()(x)
    parameters = sum(p.numel() * 4 for p in network.parameters())
    assert sum(kept.values()) == pytest.approx(bytes_per_frame(network, (3,)) * 8000, rel=0.1, abs=parameters)
    del outputs


def test_machines_say_what_is_free():
    free = estimate.free_bytes()
    assert free is None or free > 1 << 20


def test_a_planned_run_is_counted_in_steps_and_windows():
    data = dataset([1000])
    # 9 windows of 200 frames, half overlapping: 3 batches an epoch, 10 steps are 4 epochs
    assert trained_frames(data, TrainConfig(steps=10, batch_size=4, window=200)) == 9 * 200 * 4
    assert trained_frames(data, TrainConfig(epochs=2)) == 2000
    assert trained_frames(data, TrainConfig(epochs=2, max_frames=100)) == 200
    assert trained_frames(dataset([100] * 10), TrainConfig(steps=10, batch_frames=500)) == 1000 * 5
