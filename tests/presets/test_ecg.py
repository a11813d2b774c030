"""What the presets for ECG and sounds are made of."""

import itertools

import pytest
import torch

from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.layers import Timing
from crnn.presets.recipe import DataSummary
from crnn.presets.registry import PRESETS
from crnn.sequences import Sequences


def summary(kind="series", channels=1, rate=300.0, task="classify", outputs=4, length=9000):
    return DataSummary(kind, channels, rate, 100, length, length, length, length, task, outputs)


def network_of(name, data):
    spec = spec_from_plain(PRESETS[name](data)["model"])
    return Network(spec, features=(data.num_channels,), outputs=data.num_outputs)


def test_zihlmann2017_is_as_large_as_its_description_says():
    """24 convolutions of 5 x 5 without bias and their norms; LSTM as PyTorch counts it (two biases); a linear layer.

    33 bins are halved four times, rounded up: 17, 9, 5, 3. The paper states no number.
    """
    widths = [1]
    for block in range(4):
        widths += [32 * (block + 1)] * 5 + [32 * (block + 2)]
    convolutions = sum(25 * a * b + 2 * b for a, b in itertools.pairwise(widths))
    sizes = [3 * 160, 200, 200]
    recurrence = sum(2 * 4 * 100 * (size + 100 + 2) for size in sizes)
    network = network_of("zihlmann2017", summary())
    assert network.num_parameters == convolutions + recurrence + 200 * 4 + 4
    assert network.timing.stride == 32 * 2**4


@pytest.mark.parametrize(("rate", "stride"), [(360.0, 12), (250.0, 8), (128.0, 4), (500.0, 17)])
def test_ecg_small_answers_about_thirty_times_a_second(rate, stride):
    network = network_of("ecg-small", summary(rate=rate, task="tag", outputs=5))
    assert network.timing.stride == stride
    assert network.can_stream
    assert network.timing.look_ahead / rate < 1.0


def test_ecg_small_fits_in_256_kilobytes_with_room_for_code():
    """Four bytes a weight."""
    network = network_of("ecg-small", summary(channels=2, rate=360.0, task="tag", outputs=5))
    assert 4 * network.num_parameters < 232_000
    assert network.timing == Timing(12, network.timing.look_back, 216)


def test_sed_answers_every_40_milliseconds():
    network = network_of("sed", summary("audio", 1, 16000.0, "tag", 10, 480_000))
    assert network.timing.stride / 16000 == pytest.approx(0.04)
    x = torch.zeros(1, 16000, 1)
    assert network(Sequences(x, torch.tensor([16000]))).data.shape == (1, 25, 10)
