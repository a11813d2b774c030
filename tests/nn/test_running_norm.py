"""The mean that runs along, against a loop written for reading."""

import pytest
import torch

from crnn.errors import ConfigError
from crnn.nn.running_norm import RunningNorm, RunningNormConfig
from crnn.sequences import Sequences, pad


def test_it_is_the_plain_recursion():
    layer = RunningNorm((2,), RunningNormConfig(frames=10))
    layer.fit_statistics([pad([torch.full((5, 2), 3.0)])])
    x = torch.randn(1, 200, 2, generator=torch.Generator().manual_seed(0)).double().float()
    mean, expected = torch.full((2,), 3.0), []
    for frame in x[0]:
        mean = mean + (frame - mean) / 10
        expected.append(frame - mean)
    found = layer(Sequences(x, torch.tensor([200]))).data[0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)


def test_a_constant_offset_fades():
    layer = RunningNorm((1,), RunningNormConfig(frames=20))
    quiet = layer(Sequences(torch.zeros(1, 200, 1), torch.tensor([200]))).data
    loud = layer(Sequences(torch.full((1, 200, 1), 5.0), torch.tensor([200]))).data
    assert float((loud - quiet)[0, 0]) == pytest.approx(4.75)
    assert float((loud - quiet)[0, -1]) < 0.001


def test_bad_options():
    with pytest.raises(ConfigError, match="frames=1"):
        RunningNormConfig(frames=1)
    with pytest.raises(ConfigError, match="symbol ids"):
        RunningNorm((), RunningNormConfig())
