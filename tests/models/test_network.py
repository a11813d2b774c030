"""The network of the tutorial by hand against the preset, and what networks refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.errors import ShapeError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.presets.general import seed
from crnn.presets.recipe import DataSummary
from crnn.sequences import Sequences, pad

SUMMARY = DataSummary("series", 3, None, 10, 12, 12, 12, 12, "classify", 4)


class Tutorial(nn.Module):
    """Conv1d, batch norm, ReLU, pooling, LSTM, and a linear layer on the last column, as everybody writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 64, 3, padding=1), nn.BatchNorm1d(64)
        self.lstm, self.linear = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool1d(F.relu(self.norm(self.conv(x.transpose(1, 2)))), 2)
        frames, _ = self.lstm(y.transpose(1, 2))
        return self.linear(frames[:, -1])


def both() -> tuple[Tutorial, Network]:
    torch.manual_seed(0)
    plain = Tutorial()
    plain(torch.randn(20, 12, 3))  # so that the running statistics are not 0 and 1
    network = Network(spec_from_plain(seed(SUMMARY)["model"]), features=(3,), outputs=4)
    own, theirs = network.state_dict(), list(plain.state_dict().values())
    assert [tuple(t.shape) for t in own.values()] == [
        tuple(t.shape) for t in theirs
    ]  # the same parts in the same order
    network.load_state_dict(dict(zip(own, theirs, strict=True)))
    return plain.eval(), network.eval()


def test_the_seed_preset_has_the_numbers_of_the_plain_class_on_full_length_input() -> None:
    plain, network = both()
    x = torch.randn(5, 12, 3)
    with torch.no_grad():
        torch.testing.assert_close(network(pad(list(x))), plain(x), rtol=0, atol=1e-6)


def test_on_padded_input_it_has_those_of_each_sequence_alone() -> None:
    plain, network = both()
    sequences = [torch.randn(length, 3) for length in (12, 7, 2, 9)]
    with torch.no_grad():
        padded = network(pad(sequences, length=48, value=float("nan")))
        alone = torch.cat([plain(x[None]) for x in sequences])
        torch.testing.assert_close(padded, alone, rtol=0, atol=1e-6)


def test_in_training_mode_too_on_full_length_input() -> None:
    plain, network = both()
    x = torch.randn(5, 12, 3)
    torch.testing.assert_close(network.train()(pad(list(x))), plain.train()(x), rtol=0, atol=1e-5)


def test_a_sequence_of_which_nothing_would_be_left_is_named() -> None:
    _, network = both()
    assert network.min_length == 2
    with pytest.raises(ShapeError, match="sequence 1 has 1 frames; this network needs at least 2"):
        network(Sequences(torch.zeros(2, 5, 3), torch.tensor([5, 1])))
