"""Recurrent stacks against PyTorch's own modules on packed sequences, and the LSTM written out by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from crnn.errors import ConfigError, StreamError
from crnn.nn.blocks import build_layers
from crnn.nn.layers import Timing
from crnn.sequences import Sequences, pad

MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def make(features=(3,), **options):
    return build_layers([{"type": "recurrent", "hidden_size": 4, **options}], features).layers[0]


def oracle_of(layer):
    """PyTorch's multi-layer module with the same weights."""
    c = layer.config
    plain = MODULES[c.cell](
        layer.in_features[0], c.hidden_size, c.num_layers, batch_first=True, bidirectional=c.bidirectional
    )
    for i in range(c.num_layers):
        for ours, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
            if i < len(ours):
                for name, weight in ours[i].named_parameters():
                    getattr(plain, name.replace("_l0", f"_l{i}{suffix}")).data.copy_(weight.data)
    return plain


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_packed_sequences(cell, num_layers, bidirectional):
    layer = make(cell=cell, num_layers=num_layers, bidirectional=bidirectional)
    x = pad([torch.randn(n, 3) for n in (7, 2, 5, 1)])
    y = layer(Sequences(x.data.masked_fill(~x.valid[..., None], math.nan), x.lengths))
    packed = pack_padded_sequence(x.data, x.lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(oracle_of(layer)(packed)[0], batch_first=True)
    assert_close(y.data, expected)


def test_an_lstm_step_by_hand():
    layer, x = make((1,), hidden_size=1), torch.tensor([[0.5], [-1.0]])
    cell = layer.forwards[0]
    h = c = 0.0
    for value in x[:, 0]:
        gates = cell.weight_ih_l0[:, 0] * value + cell.bias_ih_l0 + cell.weight_hh_l0[:, 0] * h + cell.bias_hh_l0
        i, f, g, o = gates[0].sigmoid(), gates[1].sigmoid(), gates[2].tanh(), gates[3].sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
    assert_close(layer(pad([x])).data[0, -1, 0], h)


def test_residual_adds_a_layers_input_where_sizes_agree():
    x = pad([torch.randn(5, 3)])
    layer = make(num_layers=2, residual=True)
    first = layer.forwards[0](x.data)[0]  # 3 -> 4: no sum
    assert_close(layer(x).data, layer.forwards[1](first)[0] + first)


def test_layer_norm_is_on_the_output_of_each_layer():
    torch.manual_seed(0)  # a frame of nearly equal values would have less variance, by the norm's eps
    x = pad([torch.randn(5, 3)])
    y = make(layer_norm=True)(x).data
    assert_close(y.mean(2), torch.zeros(1, 5))
    assert_close(y.var(2, correction=0), torch.ones(1, 5), atol=1e-2, rtol=0)


def test_learned_initial_state_is_where_the_cell_starts():
    layer = make(bidirectional=True, learned_initial_state=True)
    assert not layer.initial.any()
    layer.initial.data.normal_()
    x = pad([torch.randn(n, 3) for n in (4, 2)])
    start = layer.initial[0].transpose(0, 1)[:, :, None].expand(2, 2, 2, 4).contiguous()  # h and c: (2, batch, 4)
    packed = pack_padded_sequence(x.data, x.lengths, batch_first=True)
    expected, _ = pad_packed_sequence(oracle_of(layer)(packed, (start[0], start[1]))[0], batch_first=True)
    assert_close(layer(x).data, expected)
    layer(x).data.sum().backward()
    assert layer.initial.grad.abs().min() > 0


def test_forget_bias_is_set_on_the_forget_gate_only():
    torch.manual_seed(0)
    usual = make()
    torch.manual_seed(0)
    layer = make(forget_bias=1.0)
    total = layer.forwards[0].bias_ih_l0 + layer.forwards[0].bias_hh_l0
    assert total[4:8].tolist() == [1.0] * 4
    others = [*range(4), *range(8, 16)]
    assert torch.equal(layer.forwards[0].bias_ih_l0[others], usual.forwards[0].bias_ih_l0[others])


def test_dropout_is_between_layers_and_only_while_training():
    layer, x = make(num_layers=2, dropout=0.5), pad([torch.randn(50, 3)])
    assert not torch.equal(layer(x).data, layer(x).data)
    assert (layer(x).data != 0).all()  # not after the last layer
    assert torch.equal(layer.eval()(x).data, layer(x).data)


def test_timing_and_cost():
    assert make().timing == Timing(1, math.inf, 0)
    assert make(bidirectional=True).timing == Timing(1, math.inf, math.inf)
    assert make(cell="gru").macs_per_frame() == 3 * 4 * (3 + 4)
    assert make(num_layers=2, bidirectional=True).macs_per_frame() == 2 * 4 * 4 * (3 + 4) + 2 * 4 * 4 * (8 + 4)


def test_a_stream_carries_its_state():
    layer, data = make(cell="lstm", num_layers=2), torch.randn(2, 6, 3)
    state = layer.start(2)
    assert [tuple(tensor.shape) for tensor in state] == [(2, 4)] * 4
    first, state = layer.push(data[:, :4], state)
    second, state = layer.push(data[:, 4:], state)
    assert_close(torch.cat([first, second], 1), oracle_of(layer)(data)[0])


def test_a_bidirectional_layer_says_what_to_do_instead_of_streaming():
    with pytest.raises(StreamError, match=r"recurrent cannot stream: it is bidirectional.*set bidirectional: false"):
        make(bidirectional=True).start(1)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ((3,), {"hidden_size": 0}, "recurrent.hidden_size=0; expected at least 1"),
        ((3,), {"dropout": 0.2}, "recurrent.dropout=0.2 needs num_layers >= 2, got 1; use head.dropout"),
        ((3,), {"dropout": 1.0, "num_layers": 2}, "recurrent.dropout=1.0; expected at least 0"),
        (
            (3,),
            {"forget_bias": 1.0, "cell": "gru"},
            "recurrent.forget_bias=1.0 needs a cell that has such a gate.*got cell: gru",
        ),
        ((3,), {"reset": "before"}, "recurrent.reset=before needs cell: gru, got lstm"),
        ((3,), {"kernel_size": 3}, "recurrent.kernel_size=3 needs cell: qrnn, got lstm; or put a conv before"),
        ((3, 2), {}, r"recurrent: frames have shape \(3, 2\), expected \(channels,\); put flatten before it"),
        ((3,), {"hiden_size": 3}, r"layers\[0\].hiden_size: unknown option; did you mean 'hidden_size'"),
        ((3,), {"cell": "lst"}, r"layers\[0\].cell: .*found 'lst'"),
    ],
)
def test_impossible_options_are_refused(features, options, message):
    with pytest.raises(ConfigError, match=message):
        make(features, **options)
