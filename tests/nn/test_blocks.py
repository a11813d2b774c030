"""Blocks: what they compute, written out; specs and their messages."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from crnn.errors import ConfigError
from crnn.nn.blocks import build_layers, complete_layers
from crnn.nn.layers import Timing
from crnn.sequences import Sequences, pad

CONV = {"type": "conv", "channels": 4}


def make(name, features, **options):
    return build_layers([{"type": name, **options}], features).layers[0]


def test_every_option_is_written_out():
    done = complete_layers([{"type": "residual", "layers": [{"type": "conv", "channels": 4}]}])
    assert done == complete_layers(done)
    assert done[0]["activation"] == "relu"
    assert done[0]["layers"][0]["kernel_size"] == 3


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([CONV, {"type": "convv"}], r"layers\[1\].type: unknown layer 'convv'; did you mean 'conv'\?"),
        ([{"channels": 4}], r"layers\[0\]: no type; add type: NAME, one of activation, "),
        (["conv"], r"layers\[0\]: found 'conv', expected a mapping"),
        ({"type": "conv"}, r"layers: found \{'type': 'conv'\}, expected a list of layers"),
        (
            [CONV, CONV, {"type": "residual", "layers": [{**CONV, "kernal_size": 3}]}],
            r"layers\[2\].residual.layers\[0\].kernal_size: unknown option; did you mean 'kernel_size'\?",
        ),
        (
            [{"type": "parallel", "branches": [[], [{"type": "pool", "size": "x"}]]}],
            r"layers\[0\].parallel.branches\[1\]\[0\].size: .*found 'x'",
        ),
        ([{"type": "residual"}], r"layers\[0\].layers: field required"),
        ([{"type": "parallel", "branches": [[]]}], "parallel.branches: found 1, expected at least 2"),
        ([{"type": "dropout", "rate": 1.0}], r"layers\[0\]: dropout.rate=1.0; expected at least 0 and less than 1"),
        ([{"type": "bottleneck", "channels": 6}], "bottleneck.channels=6 does not divide by reduction=4"),
    ],
)
def test_wrong_specs_are_refused_with_their_place(specs, message):
    with pytest.raises(ConfigError, match=message):
        complete_layers(specs)


@pytest.mark.parametrize(
    ("features", "spec", "message"),
    [
        ((3,), {"type": "parallel", "branches": [[], [{"type": "pool"}]]}, r"branches have strides \[1, 2\]"),
        (
            (3, 4),
            {"type": "parallel", "branches": [[], [{"type": "flatten"}]]},
            r"give frames of \[\(3, 4\), \(12,\)\]",
        ),
        ((3, 4), {"type": "residual", "layers": [{"type": "flatten"}]}, "no shortcut fits frames of"),
        (
            (3,),
            {"type": "parallel", "branches": [[], [{**CONV, "groups": 2}]]},
            r"layers\[0\]: branches\[1\]\[0\]: conv.groups=2 does not divide the 3 input channels",
        ),
        ((), {"type": "flatten"}, "flatten: frames are symbol ids"),
    ],
)
def test_layers_that_do_not_fit_are_refused_with_their_place(features, spec, message):
    with pytest.raises(ConfigError, match=message):
        build_layers([spec], features)


@pytest.mark.parametrize("kind", ["relu", "gelu", "silu", "tanh", "leaky_relu", "elu"])
def test_activations_are_pytorchs(kind):
    x = torch.randn(6, 2)
    function = torch.tanh if kind == "tanh" else getattr(F, kind)
    assert torch.equal(make("activation", (2,), kind=kind)(pad([x])).data[0], function(x))


def test_residual_with_identity_written_out():
    block, x = make("residual", (4,), layers=[CONV, {"type": "activation"}, CONV]), torch.randn(7, 4)
    first, _, second = block.branches[0].layers
    inside = F.relu(first.conv(F.pad(x.T[None], (1, 1))))
    assert_close(block(pad([x])).data[0], F.relu(x + second.conv(F.pad(inside, (1, 1)))[0].T))


def test_residual_with_projection_written_out():
    block = make("residual", (3,), layers=[{**CONV, "stride": 2}], activation=None).eval()
    x = torch.randn(7, 3)
    body, (project, norm) = block.branches[0].layers[0].conv, block.branches[1].layers
    norm.running_mean.normal_()
    plain = nn.BatchNorm1d(4).eval()
    plain.load_state_dict(norm.state_dict())
    expected = body(F.pad(x.T[None], (1, 1))) + plain(F.conv1d(x.T[None], project.conv.weight, stride=2))
    assert_close(block(pad([x])).data[0], expected[0].T)


def test_residual_timing_is_the_widest_of_body_and_shortcut():
    assert make("residual", (4,), layers=[{**CONV, "padding": "causal"}]).timing == Timing(1, 2, 0)
    assert make("residual", (3,), layers=[{**CONV, "kernel_size": 5, "stride": 2}]).timing == Timing(2, 2, 2)


def test_bottleneck_convolves_fewer_channels():
    block = make("bottleneck", (8,), channels=8, kernel_size=5, reduction=4)
    shapes = [tuple(p.shape) for p in block.parameters() if p.dim() == 3]
    assert shapes == [(2, 8, 1), (2, 2, 5), (8, 2, 1)]  # and no projection: the channels agree
    assert block.config.reduction == 4
    assert block.macs_per_frame() == 16 + 20 + 16


def test_parallel_puts_branches_side_by_side():
    block, x = make("parallel", (3,), branches=[[], [CONV]]), torch.randn(5, 3)
    y = block(pad([x])).data[0]
    assert block.out_features == (7,)
    assert torch.equal(y[:, :3], x)
    assert_close(y[:, 3:], block.branches[1](pad([x])).data[0])


def test_frames_that_not_every_branch_has_are_dropped():
    block = make("parallel", (3,), branches=[[{**CONV, "stride": 2}], [{"type": "pool"}]])
    assert block.out_lengths(torch.tensor([6, 7])).tolist() == [3, 3]  # the convolution alone would give 3 and 4
    y = block(pad([torch.randn(7, 3), torch.randn(6, 3), torch.randn(2, 3)]))
    assert y.lengths.tolist() == [3, 3, 1]
    assert not y.data[2, 1:].any()


def test_a_stream_gives_frames_as_soon_as_the_slowest_branch_does():
    block = make("parallel", (1,), branches=[[], [{**CONV, "kernel_size": 5}]])
    frames, state = block.push(torch.ones(1, 5, 1), block.start(1))
    assert frames.shape[1] == 3  # two frames of look-ahead are still to come
    assert block.finish(state).shape[1] == 2


def test_statistics_inside_of_a_branch_are_learned():
    block = make("parallel", (1,), branches=[[{"type": "channel_norm"}], []])
    assert block.learns_statistics
    block.fit_statistics([pad([torch.tensor([[1.0], [3.0]])])])
    assert block.branches[0].layers[0].mean.item() == 2


def test_dropout_keeps_the_mean_and_drops_values_apart():
    torch.manual_seed(0)
    layer = make("dropout", (50,), rate=0.3)
    y = layer(Sequences(torch.ones(4, 100, 50), torch.tensor([100] * 4))).data
    assert_close((y == 0).float().mean().item(), 0.3, atol=0.02, rtol=0)
    assert_close(y.max().item(), 1 / 0.7)
    assert torch.equal(layer.eval()(pad([torch.ones(3, 50)])).data, torch.ones(1, 3, 50))


def test_channel_dropout_drops_a_channel_of_a_sequence_as_a_whole():
    torch.manual_seed(0)
    x = pad([torch.ones(9, 50, 2), torch.ones(4, 50, 2)])
    y = make("dropout", (50, 2), kind="channel")(x)
    for row in y.unpad():
        assert (row == row[:1, :, :1]).all()
    assert 0.3 < (y.data[:, 0, :, 0] == 0).float().mean() < 0.7
    assert not torch.equal(y.data[0, 0], y.data[1, 0])


def test_flatten_keeps_the_order_of_a_frame():
    x = torch.arange(12.0).reshape(2, 3, 2)
    assert make("flatten", (3, 2))(pad([x])).data[0].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
