"""Convolutions against PyTorch's own modules on single sequences, and by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from crnn.errors import ConfigError
from crnn.nn.blocks import build_layers
from crnn.sequences import pad


def make(features, **options):
    return build_layers([options], features).layers[0]


def test_a_causal_sum_by_hand():
    conv = make((1,), type="conv", channels=1, kernel_size=3, padding="causal", bias=False)
    conv.conv.weight.data.fill_(1)
    y = conv(pad([torch.tensor([[1.0], [2], [3], [4]]), torch.tensor([[5.0], [6]])]))
    assert y.data[..., 0].tolist() == [[1, 3, 6, 9], [5, 11, 0, 0]]


@pytest.mark.parametrize("length", [1, 4, 9])
@pytest.mark.parametrize("dilation", [1, 2])
def test_centred_equals_conv1d_with_same_padding(length, dilation):
    conv = make((4,), type="conv", channels=6, kernel_size=3, dilation=dilation, groups=2)
    x = torch.randn(length, 4)
    plain = nn.Conv1d(4, 6, 3, padding=dilation, dilation=dilation, groups=2)
    plain.load_state_dict(conv.conv.state_dict())
    assert_close(conv(pad([x])).data[0], plain(x.T[None])[0].T)


def test_stride_takes_every_second_of_all_positions():
    conv = make((2,), type="conv", channels=3, kernel_size=3, stride=2)
    x = torch.randn(7, 2)
    every = F.conv1d(x.T[None], conv.conv.weight, conv.conv.bias, padding=1)[0].T
    assert_close(conv(pad([x])).data[0], every[::2])


def test_conv2d_equals_pytorchs_over_time_and_bins():
    conv = make((2, 7), type="conv2d", channels=3, kernel_size=(3, 3), stride=(1, 2))
    assert conv.out_features == (3, 4)
    x = torch.randn(5, 2, 7)
    expected = F.conv2d(x.transpose(0, 1)[None], conv.conv.weight, conv.conv.bias, stride=(1, 2), padding=1)[0]
    assert_close(conv(pad([x])).data[0], expected.transpose(0, 1))


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ((3,), {"channels": 0}, r"layers\[0\]: conv.channels=0; expected at least 1"),
        ((3,), {"channels": 4, "groups": 3}, "conv.channels=4 is not a multiple of groups=3"),
        ((3,), {"channels": 4, "groups": 2}, "conv.groups=2 does not divide the 3 input channels"),
        ((3, 5), {"channels": 4}, r"conv: frames have shape \(3, 5\), expected \(channels,\); use conv2d"),
        ((3,), {"chanels": 4}, r"layers\[0\].chanels: unknown option; did you mean 'channels'"),
        ((3, 5), {"type": "conv2d", "channels": 4, "kernel_size": (3, 2)}, "expected an odd number of taps"),
        ((), {"type": "conv2d", "channels": 4}, r"conv2d: frames have shape \(\)"),
    ],
)
def test_impossible_options_are_refused(features, options, message):
    with pytest.raises(ConfigError, match=message):
        make(features, **{"type": "conv", **options})


@pytest.mark.parametrize("lengths", [(9, 9), (9, 6)])
def test_a_stack_keeps_the_channels_of_a_point_side_by_side(lengths):
    stack = build_layers(
        [
            {"type": "conv2d", "channels": 4, "bias": False},
            {"type": "norm"},
            {"type": "activation", "kind": "relu"},
            {"type": "pool2d", "size": [2, 2], "tail": "ceil"},
        ],
        (2, 6),
    )
    x = pad([torch.randn(n, 2, 6) for n in lengths])
    for layer in stack:
        x = layer(x)
        assert x.data.transpose(1, 2).is_contiguous(memory_format=torch.channels_last)
