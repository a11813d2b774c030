"""The compiled GRU and its plain twin against nn.GRU in float64, one sequence at a time."""

import math
import subprocess
import sys
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crnn.native import recurrences
from crnn.native.library import INSTRUCTION_SETS
from crnn.native.recurrences import gru, kernels

ENGINES = ("torch", *INSTRUCTION_SETS)
LENGTHS = {
    "one": [5],
    "equal": [6] * 4,
    "ragged": [20, 3, 0, 7, 9, 20, 1, 2, 5, 6, 7, 8, 19],
    "many": [1 + i * 5 % 13 for i in range(67)],
}


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    """Compute by the compiled kernels of one instruction set, or without any."""
    found = None if request.param == "torch" else kernels(request.param)
    if found is None and request.param != "torch":
        pytest.skip(f"no kernels for {request.param} here")
    monkeypatch.setattr(recurrences, "kernels", lambda: found)


def weights_of(module):
    return module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0, module.bias_hh_l0


def starts_of(lengths):
    return lengths.cumsum(0) - lengths


def make(lengths, channels, hidden):
    """Rows, initial states, a module, and the gradient of its outputs."""
    torch.manual_seed(0)
    rows = sum(lengths)
    x, initial = torch.randn(rows, channels), torch.randn(len(lengths), hidden)
    return x, initial, nn.GRU(channels, hidden), torch.randn(rows, hidden)


def expected_of(x, initial, module, into, lengths, reverse):
    """Outputs and gradients of nn.GRU in float64, one sequence after another."""
    module = deepcopy(module).double()
    x, initial = x.double().requires_grad_(), initial.double().requires_grad_()
    out, at = [], 0
    for i, length in enumerate(lengths):
        rows = x[at : at + length]
        if length:
            y = module(rows.flip(0) if reverse else rows, initial[i : i + 1])[0]
            out.append(y.flip(0) if reverse else y)
        at += length
    out = torch.cat(out)
    out.backward(into.double())
    return [out.detach(), x.grad, initial.grad, *(w.grad for w in weights_of(module))]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("hidden", [1, 7, 16, 33])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_outputs_and_gradients_are_those_of_nn_gru(engine, lengths, hidden, reverse):
    x, initial, module, into = make(lengths, 3, hidden)
    expected = expected_of(x, initial, module, into, lengths, reverse)
    x.requires_grad_(), initial.requires_grad_()
    n = torch.tensor(lengths)
    out = gru(x, weights_of(module), initial, starts_of(n), n, reverse=reverse)
    out.backward(into)
    found = [out.detach(), x.grad, initial.grad, *(w.grad for w in weights_of(module))]
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours.double(), theirs, rtol=0, atol=1e-5 * max(float(theirs.abs().max()), 1e-3))


def test_one_unit_by_hand(engine):
    x, h, out = [0.5, -2.0, 30.0], 0.25, []
    w, u, b, c = (0.3, -0.7, 1.1), (0.2, 0.9, -0.4), (0.1, 0.0, -0.2), (0.05, -0.3, 0.6)
    for value in x:
        r, z = (1 / (1 + math.exp(-(w[i] * value + b[i] + u[i] * h + c[i]))) for i in (0, 1))
        n = math.tanh(w[2] * value + b[2] + r * (u[2] * h + c[2]))
        h = (1 - z) * n + z * h
        out.append([h])
    weights = (torch.tensor(w)[:, None], torch.tensor(u)[:, None], torch.tensor(b), torch.tensor(c))
    found = gru(torch.tensor(x)[:, None], weights, torch.tensor([[0.25]]), torch.tensor([0]), torch.tensor([3]))
    assert_close(found, torch.tensor(out))


def test_rows_of_no_sequence_are_zero_and_have_no_gradient(engine):
    x, initial, module, into = make([10], 3, 5)
    starts, lengths = torch.tensor([1, 6]), torch.tensor([3, 2])
    x.requires_grad_()
    out = gru(x, weights_of(module), initial.repeat(2, 1), starts, lengths)
    out.backward(into)
    unused = [0, 4, 5, 8, 9]
    assert not out[unused].any()
    assert not x.grad[unused].any()
    assert x.grad[[1, 2, 3, 6, 7]].all()


def test_extreme_inputs_saturate_and_nan_stays_nan(engine):
    module = nn.GRU(1, 1)
    x = torch.tensor([[1e30], [-1e30], [math.nan]])
    n = torch.tensor([1, 1, 1])
    out = gru(x, weights_of(module), torch.zeros(3, 1), starts_of(n), n)
    assert out[:2].isfinite().all()
    assert out[2].isnan()


def test_gradcheck_of_the_plain_twin_in_float64():
    x, initial, module, _ = make([3, 1, 2], 2, 3)
    tensors = [x, *weights_of(module), initial]
    inputs = [t.detach().double().requires_grad_() for t in tensors]
    n = torch.tensor([3, 1, 2])

    def run(x, w, u, b, c, initial, reverse):
        return gru(x, (w, u, b, c), initial, starts_of(n), n, reverse=reverse)

    for reverse in (False, True):
        assert torch.autograd.gradcheck(partial(run, reverse=reverse), inputs)


def test_threads_change_nothing(monkeypatch):
    lengths = LENGTHS["many"]
    x, initial, module, into = make(lengths, 3, 16)
    n = torch.tensor(lengths)

    def run():
        module.zero_grad()
        out = gru(x, weights_of(module), initial, starts_of(n), n)
        out.backward(into)
        return [out.detach(), module.weight_hh_l0.grad.clone(), module.bias_hh_l0.grad.clone()]

    alone = run()
    monkeypatch.setattr(recurrences, "MACS_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, three in zip(alone, run(), strict=True):
        assert_close(one, three)


def test_a_second_backward_through_the_same_graph(engine):
    x, initial, module, into = make([4, 4], 3, 5)
    n = torch.tensor([4, 4])
    out = gru(x, weights_of(module), initial, starts_of(n), n)
    out.backward(into, retain_graph=True)
    once = module.weight_hh_l0.grad.clone()
    out.backward(into)
    assert_close(module.weight_hh_l0.grad, 2 * once)


def test_without_gradients_nothing_is_kept(engine):
    x, initial, module, _ = make([4, 2], 3, 5)
    n = torch.tensor([4, 2])
    with torch.no_grad():
        out = gru(x, weights_of(module), initial, starts_of(n), n)
    _, gates, kept = torch.ops.crnn.gru(x, *weights_of(module), initial, starts_of(n), n, False, False)
    assert gates.numel() == kept.numel() == 0
    assert_close(out, gru(x, weights_of(module), initial, starts_of(n), n).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_a_proper_operator_of_torch(dtype):
    x, initial, module, into = make([4, 2], 3, 5)
    n = torch.tensor([4, 2])
    weights = [w.detach().to(dtype).requires_grad_() for w in weights_of(module)]
    x, initial = x.to(dtype).requires_grad_(), initial.to(dtype)
    arguments = (x, *weights, initial, starts_of(n), n, False, True)
    torch.library.opcheck(torch.ops.crnn.gru, arguments)
    out, gates, kept = (t.detach() for t in torch.ops.crnn.gru(*arguments))
    w, u = weights[0].detach(), weights[1].detach()
    for wants_x in (False, True):
        back = (into.to(dtype), x.detach(), w, u, initial, starts_of(n), n, out, gates, kept, False, wants_x)
        torch.library.opcheck(torch.ops.crnn.gru_backward, back)


def test_a_second_derivative_is_refused():
    x, initial, module, _ = make([4, 2], 3, 5)
    n = torch.tensor([4, 2])
    out = gru(x.requires_grad_(), weights_of(module), initial, starts_of(n), n)
    (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"crnn::gru has no second derivative; run the nn\.GRU itself"):
        slope.sum().backward()


def test_the_first_call_imports_no_compiler():
    code = (
        "import sys, torch; from crnn.native.recurrences import gru; n = torch.tensor([2]); w = torch.zeros(3, 1);"
        "gru(w, (w, w, w[:, 0], w[:, 0]), torch.zeros(1, 1), n, n - 1); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
