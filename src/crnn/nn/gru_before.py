"""A GRU whose reset comes before the product with the state, as its paper and Keras' `reset_after=False` have it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.nn.dispatch import run_rows, why_plain
from crnn.nn.scan import Cell
from crnn.sequences import Sequences


class GruBefore(Cell):
    """r, z = sigmoid(W x + U h + b); n = tanh(V x + T (r h) + c); h' = (1 - z) n + z h. Weights are named as nn.GRU's.

    Source: Cho et al. 2014, arXiv:1406.1078, section 2.3 (with biases, and z the other way round, as PyTorch has it).
    """

    def __init__(self, in_size: int, hidden_size: int) -> None:
        super().__init__()
        self.in_size, self.hidden_size = in_size, hidden_size
        bound = 1 / math.sqrt(hidden_size)

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.weight_ih_l0 = weight(3 * hidden_size, in_size)
        self.weight_hh_l0 = weight(3 * hidden_size, hidden_size)
        self.bias_ih_l0 = weight(3 * hidden_size)
        self.bias_hh_l0 = weight(3 * hidden_size)

    def why_plain(self, x: Tensor) -> str:
        return why_plain(self, dtype=x.dtype, device=x.device.type)

    def scan(self, x: Sequences, states: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        weights = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        if not self.why_plain(x.data):
            out, _ = run_rows("gru_before", x, weights, states, reverse=reverse)
            return out, out[None, :, -1]
        data = x.reversed().data if reverse else x.data
        from_x = F.linear(data, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0)
        of_gates, of_new = self.weight_hh_l0.split([2 * self.hidden_size, self.hidden_size])
        h, frames = states[0], []
        for t in range(data.shape[1]):
            gates, new = from_x[:, t].split([2 * self.hidden_size, self.hidden_size], 1)
            r, z = (gates + F.linear(h, of_gates)).sigmoid().chunk(2, 1)
            n = (new + F.linear(r * h, of_new)).tanh()
            h = n + z * (h - n)
            frames.append(h)
        out = torch.stack(frames, 1)
        return Sequences(out, x.lengths).reversed().data if reverse else out, h[None]
