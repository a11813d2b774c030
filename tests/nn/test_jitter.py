"""Jitter: noise and gain while training only, of the size that is asked for."""

import pytest
import torch

from crnn.errors import ConfigError
from crnn.nn.jitter import Jitter, JitterConfig
from crnn.sequences import Sequences, pad


def test_nothing_happens_outside_of_training() -> None:
    x = pad([torch.randn(9, 2), torch.randn(5, 2)])
    assert torch.equal(Jitter((2,), JitterConfig()).eval()(x).data, x.data)


def test_gain_is_one_number_for_a_sequence() -> None:
    torch.manual_seed(0)
    x = Sequences(torch.randn(2000, 4, 3), torch.full((2000,), 4))
    out = Jitter((3,), JitterConfig(noise=0.0, gain=0.2)).train()(x).data
    gain = (out / x.data).reshape(2000, -1)
    torch.testing.assert_close(gain, gain[:, :1].expand_as(gain), rtol=1e-4, atol=1e-4)
    assert gain[:, 0].log().std().item() == pytest.approx(0.2, rel=0.1)


def test_noise_is_drawn_from_nothing_to_its_strongest() -> None:
    torch.manual_seed(0)
    x = Sequences(torch.zeros(500, 400, 1), torch.full((500,), 400))
    out = Jitter((1,), JitterConfig(noise=0.5, gain=0.0)).train()(x).data
    strength = out.std(1)[:, 0]
    assert strength.max() < 0.6
    assert strength.mean().item() == pytest.approx(0.25, rel=0.1)


def test_padding_stays_zero_and_changes_nothing_that_is_drawn() -> None:
    rows = [torch.randn(30, 5), torch.randn(12, 5)]
    layer = Jitter((5,), JitterConfig()).train()
    results = []
    for length in (30, 90):
        torch.manual_seed(3)
        out = layer(pad(rows, length=length, value=float("nan")))
        assert out.data[1, 12:].abs().max() == 0
        results.append(out.unpad())
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_negative_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"jitter\.noise=-1\.0"):
        JitterConfig(noise=-1.0)
