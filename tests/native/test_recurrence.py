"""The compiled recurrences and their plain twins against PyTorch in float64, one sequence at a time."""

import math
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crnn.native import recurrence as recurrence_module
from crnn.native.cells import CELLS
from crnn.native.library import INSTRUCTION_SETS
from crnn.native.recurrence import kernels, recurrence

ENGINES = ("torch", *INSTRUCTION_SETS)
LENGTHS = {
    "one": [5],
    "equal": [6] * 4,
    "ragged": [20, 3, 0, 7, 9, 20, 1, 2, 5, 6, 7, 8, 19],
    "many": [1 + i * 5 % 13 for i in range(67)],
}
MODULES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
every_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(params=ENGINES)
def engine(request, monkeypatch):
    """Compute by the compiled kernels of one instruction set, or without any."""
    found = None if request.param == "torch" else kernels(request.param)
    if found is None and request.param != "torch":
        pytest.skip(f"no kernels for {request.param} here")
    monkeypatch.setattr(recurrence_module, "kernels", lambda: found)


def starts_of(lengths):
    return lengths.cumsum(0) - lengths


@dataclass
class Case:
    """Sequences end to end, weights, initial states, and the gradient of the outputs."""

    cell: str
    lengths: list[int]
    x: torch.Tensor
    weights: tuple[torch.Tensor, ...]
    initial: torch.Tensor
    into: torch.Tensor

    @classmethod
    def make(cls, cell, lengths, channels, hidden, dtype=torch.float32):
        torch.manual_seed(0)
        rows, size, of_state = sum(lengths), CELLS[cell].gates * hidden, CELLS[cell].of_state > 0
        shapes = [(size, channels), (size, hidden) if of_state else (0,), (size,), (size,) if of_state else (0,)]
        weights = tuple(((2 * torch.rand(shape) - 1) / hidden**0.5).to(dtype).requires_grad_() for shape in shapes)
        x, into = torch.randn(rows, channels).to(dtype).requires_grad_(), torch.randn(rows, hidden).to(dtype)
        initial = torch.randn(CELLS[cell].states, len(lengths), hidden).to(dtype).requires_grad_()
        return cls(cell, lengths, x, weights, initial, into)

    @property
    def wanted(self):
        """What gets a gradient."""
        return [self.x, self.initial, *(w for w in self.weights if w.numel())]

    def run(self, reverse=False):
        n = torch.tensor(self.lengths)
        return recurrence(self.cell, self.x, self.weights, self.initial, starts_of(n), n, reverse=reverse)[0]

    def gradients(self, reverse=False):
        return torch.autograd.grad(self.run(reverse), self.wanted, self.into)

    def arguments(self, reverse=False, keep=True):
        """Of the operator itself."""
        n = torch.tensor(self.lengths)
        return self.cell, self.x, *self.weights, self.initial, starts_of(n), n, reverse, keep


def by_pytorch(cell, x, weights, initial):
    """One sequence through PyTorch's module."""
    module = MODULES[cell](x.shape[1], initial.shape[2]).to(x.dtype)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    states = [state[None].contiguous() for state in initial]
    state = tuple(states) if len(states) == 2 else states[0]
    return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x[:, None], state))[0][:, 0]


def by_loop(cell, x, weights, initial):
    """One sequence through a cell as its paper writes it."""
    weight, of_state, bias, more = weights
    h, out = initial[0, 0], []
    for frame in x:
        if cell == "gru_before":
            (u_r, u_z, u_n), (r, z, n) = of_state.chunk(3), (weight @ frame + bias + more).chunk(3)
            r, z = (r + u_r @ h).sigmoid(), (z + u_z @ h).sigmoid()
            h = (1 - z) * (n + u_n @ (r * h)).tanh() + z * h
            out.append(h)
            continue
        gates = (weight @ frame + bias).chunk(CELLS[cell].gates)
        if cell == "mingru":
            z, new = gates[0].sigmoid(), gates[1]
            h = (1 - z) * h + z * new
            out.append(h)
        elif cell == "minlstm":
            f, i = gates[0].sigmoid(), gates[1].sigmoid()
            h = f / (f + i) * h + i / (f + i) * gates[2]
            out.append(h)
        else:
            f, z, o = gates[0].sigmoid(), gates[1].tanh(), gates[2].sigmoid()
            h = f * h + (1 - f) * z  # the cell
            out.append(o * h)
    return torch.stack(out)


def expected_of(case, reverse):
    """Outputs and gradients in float64, one sequence after another."""
    x, initial, *weights = (t.detach().double().requires_grad_() for t in (case.x, case.initial, *case.weights))
    out, at = [], 0
    for i, length in enumerate(case.lengths):
        if length:
            rows = x[at : at + length]
            y = (by_pytorch if case.cell in MODULES else by_loop)(
                case.cell, rows.flip(0) if reverse else rows, weights, initial[:, i : i + 1]
            )
            out.append(y.flip(0) if reverse else y)
        at += length
    out = torch.cat(out)
    wanted = [x, initial, *(w for w in weights if w.numel())]
    return [out.detach(), *torch.autograd.grad(out, wanted, case.into.double())]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("hidden", [7, 33])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@every_cell
def test_outputs_and_gradients_are_those_in_float64(engine, cell, lengths, hidden, reverse):
    case = Case.make(cell, lengths, 3, hidden)
    expected = expected_of(case, reverse)
    found = [case.run(reverse).detach(), *case.gradients(reverse)]
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours.double(), theirs, rtol=0, atol=1e-5 * max(float(theirs.abs().max()), 1e-2))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_one_unit_of_a_gru_by_hand(engine):
    x, h, out = [0.5, -2.0, 30.0], 0.25, []
    w, u, b, c = (0.3, -0.7, 1.1), (0.2, 0.9, -0.4), (0.1, 0.0, -0.2), (0.05, -0.3, 0.6)
    for value in x:
        r, z = (sigmoid(w[i] * value + b[i] + u[i] * h + c[i]) for i in (0, 1))
        n = math.tanh(w[2] * value + b[2] + r * (u[2] * h + c[2]))
        h = (1 - z) * n + z * h
        out.append([h])
    weights = (torch.tensor(w)[:, None], torch.tensor(u)[:, None], torch.tensor(b), torch.tensor(c))
    initial = torch.tensor([[[0.25]]])
    found, _ = recurrence("gru", torch.tensor(x)[:, None], weights, initial, torch.tensor([0]), torch.tensor([3]))
    assert_close(found, torch.tensor(out))


def test_one_unit_of_an_lstm_by_hand(engine):
    x, h, cell, out = [0.5, -2.0, 30.0], 0.25, -0.75, []
    w, u, b = (0.3, -0.7, 1.1, 0.4), (0.2, 0.9, -0.4, -1.5), (0.1, 0.0, -0.2, 0.3)
    for value in x:
        i, f, g, o = (w[k] * value + u[k] * h + b[k] for k in range(4))
        cell = sigmoid(f) * cell + sigmoid(i) * math.tanh(g)
        h = sigmoid(o) * math.tanh(cell)
        out.append([h])
    weights = (torch.tensor(w)[:, None], torch.tensor(u)[:, None], torch.tensor(b), torch.zeros(4))
    initial = torch.tensor([[[0.25]], [[-0.75]]])
    found, last = recurrence("lstm", torch.tensor(x)[:, None], weights, initial, torch.tensor([0]), torch.tensor([3]))
    assert_close(found, torch.tensor(out))
    assert_close(last, torch.tensor([[cell]]))


@every_cell
def test_rows_of_no_sequence_are_zero_and_have_no_gradient(engine, cell):
    case = Case.make(cell, [10], 3, 5)
    starts, lengths = torch.tensor([1, 6]), torch.tensor([3, 2])
    out, _ = recurrence(cell, case.x, case.weights, case.initial.repeat(1, 2, 1), starts, lengths)
    (slope,) = torch.autograd.grad(out, case.x, case.into)
    unused = [0, 4, 5, 8, 9]
    assert not out[unused].any()
    assert not slope[unused].any()
    assert slope[[1, 2, 3, 6, 7]].all()


@every_cell
def test_a_batch_without_any_frame(engine, cell):
    case = Case.make(cell, [0, 0], 3, 5)
    assert case.run().shape == (0, 5)
    assert not any(slope.any() for slope in case.gradients()[2:])


@pytest.mark.parametrize("cell", ["rnn", "gru", "gru_before", "lstm", "qrnn"])
def test_extreme_inputs_saturate_and_nan_stays_nan(engine, cell):
    case = Case.make(cell, [1, 1, 1], 1, 1)
    case.x = torch.tensor([[1e30], [-1e30], [math.nan]])
    out = case.run()
    assert out[:2].isfinite().all()
    assert out[2].isnan()


@pytest.mark.parametrize("shut", [-1000.0, -90.0, -50.0])
def test_a_minlstm_whose_gates_are_both_shut_keeps_what_their_ratio_says(engine, shut):
    case = Case.make("minlstm", [1], 1, 1)
    weights = (torch.zeros(3, 1), torch.zeros(0), torch.tensor([shut, shut, 3.0]), torch.zeros(0))
    n = torch.tensor([1])
    out, _ = recurrence("minlstm", torch.ones(1, 1), weights, torch.ones(1, 1, 1), n - 1, n)
    assert_close(out, torch.tensor([[2.0]]))
    assert case.cell == "minlstm"


@every_cell
def test_gradcheck_of_the_plain_steps_in_float64(cell):
    case = Case.make(cell, [3, 1, 2], 2, 3, dtype=torch.float64)
    n = torch.tensor(case.lengths)
    shut = [w for w in case.weights if not w.numel()]

    def outputs(x, initial, *weights, reverse):
        w, *others = weights
        every = (w, *others) if not shut else (w, shut[0], *others, shut[1])
        return recurrence(cell, x, every, initial, starts_of(n), n, reverse=reverse)[0]

    for reverse in (False, True):
        assert torch.autograd.gradcheck(partial(outputs, reverse=reverse), case.wanted)


@every_cell
def test_threads_change_nothing(monkeypatch, cell):
    case = Case.make(cell, LENGTHS["many"], 3, 16)
    alone = [case.run(), *case.gradients()]
    monkeypatch.setattr(recurrence_module, "WORK_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, three in zip(alone, [case.run(), *case.gradients()], strict=True):
        assert_close(one, three, rtol=0, atol=2e-6 * max(1.0, float(one.detach().abs().max())))


@every_cell
def test_a_second_backward_through_the_same_graph(engine, cell):
    case = Case.make(cell, [4, 4], 3, 5)
    out = case.run()
    once = torch.autograd.grad(out, case.wanted, case.into, retain_graph=True)
    for first, second in zip(once, torch.autograd.grad(out, case.wanted, case.into), strict=True):
        assert_close(first, second, rtol=0, atol=0)


@every_cell
def test_without_gradients_nothing_is_kept(engine, cell):
    case = Case.make(cell, [24, 12], 3, 5)
    with torch.no_grad():
        out = case.run()
    _, _, gates, memory = torch.ops.crnn.recurrence(*case.arguments(keep=False))
    assert gates.numel() == memory.numel() == 0
    assert_close(out, case.run().detach(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_cell
def test_is_a_proper_operator_of_torch(cell, dtype):
    case = Case.make(cell, [4, 2], 3, 5, dtype=dtype)
    arguments = case.arguments()
    torch.library.opcheck(torch.ops.crnn.recurrence, arguments)
    out, _, gates, memory = (t.detach() for t in torch.ops.crnn.recurrence(*arguments))
    _, x, w, u, _, _, initial, starts, lengths, *_ = (t.detach() if hasattr(t, "detach") else t for t in arguments)
    for wants_x in (False, True):
        back = (cell, case.into, x, w, u, initial, starts, lengths, out, gates, memory, False, wants_x)
        torch.library.opcheck(torch.ops.crnn.recurrence_backward, back)


def test_a_second_derivative_is_refused():
    case = Case.make("gru", [4, 2], 3, 5)
    (slope,) = torch.autograd.grad(case.run().square().sum(), case.x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"crnn::recurrence has no second derivative; run the nn"):
        slope.sum().backward()


def test_the_first_call_imports_no_compiler():
    code = (
        "import sys, torch; from crnn.native.recurrence import recurrence;"
        "n = torch.tensor([2]); w = torch.zeros(3, 1);"
        "recurrence('gru', w, (w, w, w[:, 0], w[:, 0]), torch.zeros(1, 1, 1), n, n - 1);"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
