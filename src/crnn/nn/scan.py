"""Cells for long sequences, whose gates look at the input and not at the state: minGRU, minLSTM, QRNN.

What is left of a step is a weighted mean of the state and a new value, h' = f h + (1 - f) n, which costs a few
multiplications: on a CPU our compiled kernels go through a sequence once, elsewhere log2(time) parallel rounds do.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.nn.dispatch import run_rows, why_plain
from crnn.sequences import Sequences

ScanKind = Literal["mingru", "minlstm", "qrnn"]


class Cell(nn.Module):
    """The contract of a recurrent cell of ours: one layer in one direction. Those of PyTorch are called by `dispatch`.

    A subclass sets `hidden_size` and `num_states`, and writes `scan`; `before` frames of the input that a step looks at
    again are part of a stream's state.
    """

    hidden_size: int
    num_states: int = 1
    """Tensors (batch, hidden) that are carried from frame to frame, and may start from a learned value."""
    before: int = 0
    in_size: int

    def scan(self, x: Sequences, states: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """One layer in one direction over a batch.

        Shape:
            x.data: (batch, before + time, channels), zero past the ends; x.lengths: frames without those before.
            states: (num_states, batch, hidden) before the first step.
            returns (batch, time, hidden), unspecified past the ends, and the states after the last frame, which are
            only right for sequences without padding that are not reversed.
        """
        raise NotImplementedError

    def why_plain(self, x: Tensor) -> str:
        """Why this cell computes x in plain torch; empty where the compiled kernels do."""
        return "there are no kernels for it"

    def run(self, x: Sequences, states: Tensor, *, reverse: bool = False) -> Tensor:
        """Whole sequences; the direction begins at each sequence's own first or last frame."""
        pad = (0, 0, 0, self.before) if reverse else (0, 0, self.before, 0)
        return self.scan(Sequences(F.pad(x.data, pad), x.lengths), states, reverse=reverse)[0]

    def start(self, states: Tensor) -> list[Tensor]:
        """What a stream carries, from the states before its first frame, (num_states, batch, hidden)."""
        batch = states.shape[1]
        frames = [states.new_zeros(batch, self.before, self.in_size)] if self.before else []
        return [*(state.contiguous() for state in states), *frames]

    def push(self, data: Tensor, carried: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Feed (batch, n, channels), n >= 1; returns (batch, n, hidden) and what is carried on."""
        if self.before:
            data = torch.cat([carried[-1], data], 1)
        lengths = torch.full((len(data),), data.shape[1] - self.before, device=data.device)
        out, states = self.scan(Sequences(data, lengths), torch.stack(carried[: self.num_states]))
        frames = [data[:, data.shape[1] - self.before :].contiguous()] if self.before else []
        return out, [*(state.contiguous() for state in states), *frames]


class Scan(Cell):
    """minGRU, minLSTM or QRNN.

    minGRU: z = sigmoid(W x), h' = (1 - z) h + z (V x). minLSTM: f, i = sigmoid(W x), h' = (f h + i (V x)) / (f + i).
    QRNN: from the newest `kernel_size` frames f, o = sigmoid(W x), n = tanh(V x), c' = f c + (1 - f) n, h' = o c'.

    Args:
        kernel_size: frames that a QRNN's gates look at, the newest and those before; 1 for the others.
    Source: minGRU and minLSTM: Feng et al. 2024, arXiv:2410.01201, section 3 (not the variant of their appendix that
        keeps states positive). QRNN: Bradbury et al. 2016, arXiv:1611.01576, with fo-pooling.
    """

    def __init__(self, kind: ScanKind, in_size: int, hidden_size: int, *, kernel_size: int = 1) -> None:
        super().__init__()
        self.kind = kind
        self.in_size, self.hidden_size, self.before = in_size, hidden_size, kernel_size - 1
        self.gates = nn.Linear(in_size * kernel_size, hidden_size * (2 if kind == "mingru" else 3))
        """Of the frames a step looks at, oldest first; its outputs minGRU z, new; minLSTM f, i, new; QRNN f, new, o."""

    def scan(self, x: Sequences, states: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        frames = x.data.shape[1] - self.before
        views = [x.data[:, k : k + frames] for k in range(self.before + 1)]
        seen = Sequences(torch.cat(views[::-1] if reverse else views, 2) if self.before else x.data, x.lengths)
        if self.why_plain(x.data):
            return self._in_torch(seen, states, reverse=reverse)
        nothing = x.data.new_empty(0)
        weights = (self.gates.weight, nothing, self.gates.bias, nothing)
        out, last = run_rows(self.kind, seen, weights, states, reverse=reverse)
        return out, last[None] if self.kind == "qrnn" else out[None, :, -1]

    def why_plain(self, x: Tensor) -> str:
        return why_plain(self.gates, dtype=x.dtype, device=x.device.type)

    def _in_torch(self, x: Sequences, states: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
        data = x.reversed().data if reverse else x.data
        gates = self.gates(data).chunk(2 if self.kind == "mingru" else 3, 2)
        if self.kind == "mingru":
            keep, new = (-gates[0]).sigmoid(), gates[1]
        elif self.kind == "minlstm":
            keep, new = (F.logsigmoid(gates[0]) - F.logsigmoid(gates[1])).sigmoid(), gates[2]
        else:
            keep, new = gates[0].sigmoid(), gates[1].tanh()
        h = linear_scan(keep, (1 - keep) * new, states[0])
        out = gates[2].sigmoid() * h if self.kind == "qrnn" else h
        return Sequences(out, x.lengths).reversed().data if reverse else out, h[None, :, -1]

    def set_forget_bias(self, value: float) -> None:
        """So that sigmoid(value) of the state is kept at the start."""
        size = self.hidden_size
        with torch.no_grad():
            self.gates.bias[:size] = -value if self.kind == "mingru" else value
            if self.kind == "minlstm":
                self.gates.bias[size : 2 * size] = -value


def linear_scan(factors: Tensor, values: Tensor, initial: Tensor) -> Tensor:
    """h_t = factors_t h_(t-1) + values_t over the second axis, in log2(time) parallel rounds; real or complex.

    Shape:
        factors, values: (batch, time, hidden); initial: (batch, hidden); returns (batch, time, hidden).
    Source: Hillis & Steele 1986, "Data parallel algorithms": each round doubles the stretch that every frame sums up.
    """
    values = torch.cat([values[:, :1] + factors[:, :1] * initial[:, None], values[:, 1:]], 1)
    reach = 1
    while reach < values.shape[1]:
        later = values[:, reach:] + factors[:, reach:] * values[:, :-reach]
        factors = torch.cat([factors[:, :reach], factors[:, reach:] * factors[:, :-reach]], 1)
        values = torch.cat([values[:, :reach], later], 1)
        reach *= 2
    return values
