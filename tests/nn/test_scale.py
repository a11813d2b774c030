"""Front-ends for sequences of very different scale, against numpy on each sequence alone."""

import numpy as np
import pytest
import torch

from crnn.errors import StreamError
from crnn.nn.layers import build_layer
from crnn.nn.scale import Compress, CompressConfig, InstanceNorm, InstanceNormConfig, LevelConfig
from crnn.sequences import Sequences, pad


def test_compress_is_asinh_about_the_median_of_real_frames() -> None:
    values = torch.tensor([[0.0], [1.0], [-1.0], [3.0], [1000.0]])
    x = pad([values, values[:2]], value=float("nan"))
    layer = Compress((1,), CompressConfig())
    layer.fit_statistics([x])
    # frames 0 1 -1 3 1000 0 1: median 1; distances that are not 0: 1 2 2 999 1 -> lower median of (1 1 2 2 999) is 2
    assert layer.median.item() == 1.0
    assert layer.spread.item() == 2.0
    out = layer(x)
    torch.testing.assert_close(out.data[0], torch.asinh((values - 1.0) / 2.0))
    assert out.data[1, 2:].abs().max() == 0


def test_compress_of_a_constant_channel_changes_nothing_but_the_level() -> None:
    x = pad([torch.full((4, 1), 7.0)])
    layer = Compress((1,), CompressConfig())
    layer.fit_statistics([x])
    assert layer.spread.item() == 1.0
    assert layer(x).data.abs().max() == 0


@pytest.mark.parametrize("divide", [True, False])
def test_instance_norm_is_each_sequence_by_itself(divide: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = [(rng.normal(size=(n, 2)) * 10.0**n + n).astype(np.float32) for n in (3, 5, 4)]
    layer = InstanceNorm((2,), InstanceNormConfig(divide=divide))
    out = layer(pad([torch.from_numpy(a) for a in arrays], value=float("nan")))
    for row, a in zip(out.unpad(), arrays, strict=True):
        wanted = a - a.mean(0)
        if divide:
            wanted = wanted / a.std(0)
        np.testing.assert_allclose(row.numpy(), wanted, rtol=2e-4, atol=1e-5)


def test_instance_norm_leaves_missing_values_out_and_a_flat_sequence_flat() -> None:
    nan = float("nan")
    x = Sequences(torch.tensor([[[1.0], [nan], [3.0]], [[5.0], [5.0], [5.0]]]), torch.tensor([3, 3]))
    layer = InstanceNorm((1,), InstanceNormConfig())
    layer.fit_statistics([x])
    out = layer(x).data[..., 0]
    torch.testing.assert_close(out[0], torch.tensor([-1.0, nan, 1.0]), equal_nan=True, rtol=1e-5, atol=1e-5)
    assert out[1].tolist() == [0.0, 0.0, 0.0]


def test_instance_norm_says_why_it_does_not_stream() -> None:
    with pytest.raises(StreamError, match="use channel_norm"):
        build_layer("instance_norm", (1,), InstanceNormConfig()).start(1)


def test_level_brings_every_recording_to_the_same_peak() -> None:
    x = pad([torch.tensor([[0.1], [-0.5]]), torch.tensor([[4.0], [1.0], [2.0]]), torch.zeros(2, 1)], value=float("nan"))
    out = build_layer("level", (1,), LevelConfig())(x)
    assert [row[:, 0].tolist() for row in out.unpad()] == [[pytest.approx(0.2), -1.0], [1.0, 0.25, 0.5], [0.0, 0.0]]
