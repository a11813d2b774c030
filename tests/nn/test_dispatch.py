"""Which implementation computes a recurrent cell: the numbers stay, and the reasons are said."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crnn.native.library import load
from crnn.native.recurrence import kernels
from crnn.nn import dispatch
from crnn.nn.blocks import build_layers
from crnn.nn.dispatch import repays, run_cell, why_torch
from crnn.nn.recurrent import describe_kernels
from crnn.sequences import Sequences, pad

needs_kernels = pytest.mark.skipif(kernels() is None, reason="no compiled kernels here")


def make(**options):
    torch.manual_seed(0)
    layer = build_layers([{"type": "recurrent", "hidden_size": 6, "cell": "gru", **options}], (3,)).layers[0]
    for weight in layer.parameters():
        weight.data.uniform_(-0.4, 0.4)  # the learned initial state too, which begins as zero
    return layer


@pytest.fixture
def called(monkeypatch):
    """How often our kernels were called."""
    calls = []
    real = dispatch.recurrence

    def counted(*arguments, **options):
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(dispatch, "recurrence", counted)
    monkeypatch.setattr(dispatch, "why_torch", lambda cell, **_: "")
    monkeypatch.setattr(dispatch, "LSTM_ROWS", 1)
    monkeypatch.setattr(dispatch, "LSTM_FRAMES", 1)
    monkeypatch.setattr(dispatch, "LSTM_FEW", 1)
    return calls


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True, "learned_initial_state": True},
        {"num_layers": 2, "bidirectional": True, "layer_norm": True, "residual": True},
    ],
    ids=["plain", "bidirectional", "stack"],
)
def test_kernels_change_neither_outputs_nor_gradients(cell, options, called, monkeypatch):
    layer, x = make(cell=cell, **options), pad([torch.randn(n, 3) for n in (20, 1, 17, 5)])
    x = Sequences(x.data.masked_fill(~x.valid[..., None], math.nan), x.lengths)

    def run():
        layer.zero_grad()
        data = x.data.clone().requires_grad_()
        out = layer(Sequences(data, x.lengths)).data
        out.square().sum().backward()
        return [out.detach(), data.grad, *(w.grad for w in layer.parameters())]

    ours = run()
    assert len(called) == layer.config.num_layers * (1 + layer.config.bidirectional)
    monkeypatch.setattr(dispatch, "why_torch", lambda *_, **__: "not now")
    for found, expected in zip(ours, run(), strict=True):
        assert_close(found, expected, rtol=0, atol=2e-6 * max(1.0, float(expected.abs().max())))


def test_padding_changes_nothing_where_the_kernels_run(called):
    layer, x = make(bidirectional=True), torch.randn(1, 18, 3)
    alone = layer(Sequences(x, torch.tensor([18]))).data
    padded = torch.cat([x, torch.full((1, 9, 3), math.nan)], 1)
    both = layer(Sequences(padded.repeat(5, 1, 1), torch.tensor([18, 2, 18, 0, 18]))).data
    assert len(called) == 4
    assert_close(both[2, :18], alone[0])
    assert not both[2, 18:].any()


def test_whole_sequences_are_what_streams_give(called):
    layer, x = make(learned_initial_state=True), torch.randn(2, 40, 3)
    with torch.no_grad():
        whole = layer(Sequences(x, torch.tensor([40, 40]))).data
        state, out = layer.start(2), []
        for chunk in x.split(7, 1):
            y, state = layer.push(chunk, state)
            out.append(y)
    assert called
    assert_close(torch.cat(out, 1), whole)


@pytest.mark.parametrize(
    ("batch", "frames", "hidden", "pays"),
    [(1, 15, 4, False), (64, 8, 64, False), (1, 16, 256, True), (1, 16, 512, False), (2, 16, 512, True)],
)
def test_short_sequences_and_wide_layers_are_left_to_pytorch(batch, frames, hidden, pays):
    assert repays("gru", batch, frames, hidden) is pays
    assert repays("rnn", batch, frames, hidden) is pays


@pytest.mark.parametrize(
    ("batch", "frames", "hidden", "options", "pays"),
    [
        (32, 32, 128, {}, False),
        (32, 128, 512, {}, True),
        (1, 256, 128, {}, True),
        (1, 4096, 256, {}, False),
        (32, 32, 128, {"filled": 0.5}, True),
        (1, 64, 64, {"training": False}, True),
        (64, 32, 64, {"training": False}, False),
    ],
)
def test_an_lstm_goes_where_it_takes_less_time(batch, frames, hidden, options, pays):
    assert repays("lstm", batch, frames, hidden, **options) is pays


@needs_kernels
def test_what_the_kernels_cannot_do_is_left_to_pytorch_and_said(monkeypatch):
    cell = nn.GRU(3, 4, batch_first=True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert why_torch(cell) == ""
    assert why_torch(cell, dtype=torch.float64) == "the kernels compute in float32 only"
    assert why_torch(cell, device="cuda") == "the kernels are for CPUs, this is cuda"
    assert why_torch(nn.RNN(3, 4)) == ""
    assert why_torch(nn.RNN(3, 4, nonlinearity="relu")) == "the kernels have no RNN with relu"
    others = "oneDNN runs a whole LSTM in one call, which ours only beat with AVX-512, and this is "
    has_avx512 = load().instruction_set == "avx512"
    assert why_torch(nn.LSTM(3, 4)) == ("" if has_avx512 else others + load().instruction_set)
    with torch.autocast("cpu"):
        assert why_torch(cell) == "the kernels compute in float32 only"
    handle = cell.register_forward_hook(lambda *_: None)
    assert why_torch(cell) == "something looks at the module's calls"
    handle.remove()
    monkeypatch.setattr(dispatch, "kernels", lambda: None)
    assert why_torch(cell) == "no kernels were compiled when crnn was installed"


@needs_kernels
def test_a_module_whose_forward_was_replaced_is_called():
    cell, seen = nn.GRU(3, 4, batch_first=True), []
    real = cell.forward
    cell.forward = lambda *arguments: seen.append(1) or real(*arguments)
    run_cell(cell, pad([torch.randn(30, 3)]), None)
    assert seen == [1]


@needs_kernels
def test_describes_every_cell(monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    network = nn.Sequential(nn.GRU(3, 4), nn.GRU(4, 600), nn.Linear(600, 2), nn.LSTM(2, 4))
    native = f"native ({load().instruction_set}) from 16 frames on, and"
    found = describe_kernels(network)
    lstm = found.pop("3")
    assert found == {
        "0": f"{native} 16 in a batch, where it takes less time; else nn.GRU",
        "1": f"{native} 38 in a batch, where it takes less time; else nn.GRU",
    }
    if load().instruction_set == "avx512":
        assert lstm.startswith("native (avx512) with 4096 frames in a batch or 256 in a sequence, without gradients")
    else:
        assert lstm.startswith("nn.LSTM: oneDNN runs a whole LSTM in one call")
