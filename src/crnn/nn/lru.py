"""Linear recurrent units, experimental: a state that is scaled and turned by learned factors, in plain torch.

They train in log2(time) parallel rounds, stream, and are not exported.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.nn.scan import Cell, linear_scan
from crnn.sequences import Sequences

SLOWEST, FASTEST = 0.999, 0.9
"""Share of the state that is left after a frame, at the start of training: drawn between these."""
LARGEST_TURN = math.pi / 10
"""By which an LRU's units turn at most in a frame, at the start."""
SHARPNESS = 8.0
"""The constant c of an RG-LRU."""


class Lru(Cell):
    """Diagonal linear recurrence with complex factors: h' = a h + sqrt(1 - |a|^2) B x; y = Re(C h') + D x.

    Source: Orvieto et al. 2023, arXiv:2303.06349, section 3, without the gated layer around it. The normalisation
        follows the factors while they are learned, where theirs is a parameter of its own.
    """

    num_states = 2
    """Real parts, imaginary parts."""

    def __init__(self, in_size: int, hidden_size: int) -> None:
        super().__init__()
        self.in_size, self.hidden_size = in_size, hidden_size
        size = torch.rand(hidden_size) * (SLOWEST**2 - FASTEST**2) + FASTEST**2
        self.decay = nn.Parameter((-0.5 * size.log()).log())
        """log of -log |a|, so that |a| stays below 1"""
        self.turn = nn.Parameter((LARGEST_TURN * torch.rand(hidden_size).clamp_min(1e-3)).log())
        """log of the angle of a"""
        self.inward = nn.Linear(in_size, 2 * hidden_size, bias=False)
        self.outward = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.past = nn.Linear(in_size, hidden_size)

    def scan(self, x: Sequences, states: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        data = x.reversed().data if reverse else x.data
        rate = self.decay.exp()
        factors = torch.polar((-rate).exp(), self.turn.exp())
        values = torch.complex(*self.inward(data).chunk(2, 2)) * (-torch.expm1(-2 * rate)).sqrt()
        h = linear_scan(factors.expand_as(values), values, torch.complex(states[0], states[1]))
        out = self.outward(torch.cat([h.real, h.imag], 2)) + self.past(data)
        last = torch.stack([h.real[:, -1], h.imag[:, -1]])
        return Sequences(out, x.lengths).reversed().data if reverse else out, last


class RgLru(Cell):
    """Gated linear recurrence: a = exp(-c softplus(l) r), h' = a h + sqrt(1 - a^2) (i u), with r, i, u from the input.

    Source: De et al. 2024, arXiv:2402.19427, section 2.4 (u is a linear map of the input here; theirs comes from the
        block around it, as do the gates, with block-diagonal weights).
    """

    def __init__(self, in_size: int, hidden_size: int) -> None:
        super().__init__()
        self.in_size, self.hidden_size = in_size, hidden_size
        self.gates = nn.Linear(in_size, 3 * hidden_size)
        size = torch.rand(hidden_size) * (SLOWEST - FASTEST) + FASTEST
        rate = -size.log() / SHARPNESS
        self.decay = nn.Parameter(torch.expm1(rate).log())
        """softplus of it, times c and r, is how fast the state decays"""

    def scan(self, x: Sequences, states: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        data = x.reversed().data if reverse else x.data
        r, i, u = self.gates(data).chunk(3, 2)
        rate = SHARPNESS * F.softplus(self.decay) * r.sigmoid()
        h = linear_scan((-rate).exp(), (-torch.expm1(-2 * rate)).sqrt() * i.sigmoid() * u, states[0])
        return Sequences(h, x.lengths).reversed().data if reverse else h, h[None, :, -1]
