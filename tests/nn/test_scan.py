"""Cells for long sequences: kernels against plain torch, plain torch against loops, and what their options do."""

import math

import pytest
import torch
from torch.testing import assert_close

from crnn.nn import gru_before
from crnn.nn import scan as scan_module
from crnn.nn.blocks import build_layers
from crnn.nn.lru import Lru, RgLru
from crnn.nn.recurrent import describe_kernels
from crnn.nn.scan import Scan, linear_scan
from crnn.sequences import Sequences, pad

LENGTHS = [9, 1, 5, 12]


def make(cell, **options):
    torch.manual_seed(0)
    return build_layers([{"type": "recurrent", "hidden_size": 5, "cell": cell, **options}], (3,)).layers[0]


def results(layer):
    """Outputs and gradients of a padded batch."""
    torch.manual_seed(1)
    x = pad([torch.randn(n, 3) for n in LENGTHS])
    data = x.data.clone().requires_grad_()
    layer.zero_grad()
    out = layer(Sequences(data, x.lengths)).data
    out.square().sum().backward()
    return [out.detach(), data.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"cell": "mingru"},
        {"cell": "minlstm"},
        {"cell": "qrnn", "kernel_size": 3},
        {"cell": "gru", "reset": "before"},
    ],
)
def test_kernels_and_plain_torch_give_the_same(options, bidirectional, monkeypatch):
    layer = make(**options, bidirectional=bidirectional, learned_initial_state=True)
    layer.initial.data.normal_()
    native = results(layer)
    for module in (scan_module, gru_before):
        monkeypatch.setattr(module, "why_plain", lambda *_, **__: "not now")
    for ours, plain in zip(native, results(layer), strict=True):
        assert_close(ours, plain, rtol=0, atol=1e-5 * max(1.0, float(plain.abs().max())))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("frames", [1, 2, 7, 16])
def test_a_linear_scan_is_what_a_loop_gives(frames, dtype):
    a, b = (torch.randn(2, frames, 3, dtype=dtype) for _ in range(2))
    h = initial = torch.randn(2, 3, dtype=dtype)
    expected = []
    for t in range(frames):
        h = a[:, t] * h + b[:, t]
        expected.append(h)
    assert_close(linear_scan(a, b, initial), torch.stack(expected, 1))


def test_a_qrnn_looks_at_the_newest_frames_by_hand():
    layer = make("qrnn", kernel_size=2)
    x, linear = torch.randn(4, 3), layer.forwards[0].gates
    c, out = torch.zeros(5), []
    for t in range(4):
        before = x[t - 1] if t else torch.zeros(3)
        f, z, o = linear(torch.cat([before, x[t]])).chunk(3)
        c = f.sigmoid() * c + (1 - f.sigmoid()) * z.tanh()
        out.append(o.sigmoid() * c)
    assert_close(layer(pad([x])).data[0], torch.stack(out))


def test_an_lru_by_hand():
    layer, x = make("lru"), torch.randn(4, 3)
    cell = layer.forwards[0]
    a = torch.exp(torch.complex(-cell.decay.exp(), cell.turn.exp()))
    b = torch.complex(*cell.inward.weight.chunk(2))
    c = torch.complex(*(part.contiguous() for part in cell.outward.weight.chunk(2, 1)))
    h, out = torch.zeros(5, dtype=torch.complex64), []
    for frame in x:
        h = a * h + (1 - a.abs().square()).sqrt() * (b @ frame.to(b.dtype))
        out.append((c.conj() @ h).real + cell.past(frame))
    assert_close(layer(pad([x])).data[0], torch.stack(out))


def test_an_rg_lru_by_hand():
    layer, x = make("rg_lru"), torch.randn(4, 3)
    cell, h, out = layer.forwards[0], torch.zeros(5), []
    for frame in x:
        r, i, u = cell.gates(frame).chunk(3)
        a = torch.exp(-8 * torch.nn.functional.softplus(cell.decay) * r.sigmoid())
        h = a * h + (1 - a * a).sqrt() * i.sigmoid() * u
        out.append(h)
    assert_close(layer(pad([x])).data[0], torch.stack(out))


@pytest.mark.parametrize(("cell", "kind"), [("lru", Lru), ("rg_lru", RgLru)])
def test_linear_units_begin_by_keeping_what_the_papers_say(cell, kind):
    torch.manual_seed(0)
    unit = kind(3, 500)
    if kind is Lru:
        left = (-unit.decay.exp()).exp()
    else:
        left = (-8 * torch.nn.functional.softplus(unit.decay)).exp()
    assert 0.899 < left.min() < 0.905
    assert 0.99 < left.max() < 0.9995
    assert cell == {Lru: "lru", RgLru: "rg_lru"}[kind]


@pytest.mark.parametrize("cell", ["mingru", "minlstm", "qrnn"])
def test_a_large_forget_bias_keeps_the_state(cell):
    layer = make(cell, forget_bias=30.0, learned_initial_state=True)
    layer.initial.data.fill_(0.75)
    scan = layer.forwards[0]
    assert isinstance(scan, Scan)
    with torch.no_grad():
        _, state = layer.push(torch.randn(2, 50, 3), layer.start(2))
    assert_close(state[0], torch.full((2, 5), 0.75), atol=1e-4, rtol=0)


def test_kernels_say_what_computes_each_cell():
    found = describe_kernels(torch.nn.ModuleList([make("mingru"), make("lru")]))
    assert set(found) == {"0.forwards.0", "1.forwards.0"}
    assert found["1.forwards.0"] == "plain torch: there are no kernels for it"
    assert found["0.forwards.0"].startswith(("native (", "plain torch: no kernels were compiled"))


def test_memory_over_a_thousand_frames():
    """A first frame that a cell keeps has a gradient a thousand frames later."""
    layer = make("mingru", forget_bias=12.0)
    x = torch.randn(1, 1000, 3, requires_grad=True)
    layer(Sequences(x, torch.tensor([1000]))).data[0, -1].sum().backward()
    assert x.grad[0, 0].abs().max() > 1e-6
    assert math.isfinite(float(x.grad.abs().max()))
