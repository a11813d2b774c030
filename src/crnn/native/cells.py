"""The cells that training.c computes, in plain torch: a step forward, and one backward. Written to say what they mean.

Going backward, a step gives slopes: the gradients of what goes into its gates, before their functions.

minGRU and minLSTM: Feng et al. 2024, arXiv:2410.01201, section 3 (the new value is linear, as there; not the variant of
their appendix for scans in logarithms). QRNN: Bradbury et al. 2016, arXiv:1611.01576, with forget and output gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One frame of some sequences, going forward."""

    from_x: Tensor
    """(n, gates * hidden): the products with the input, and its bias."""
    state: Tensor
    """(n, hidden): the output one frame before."""
    cell: Tensor
    """(n, hidden): what is carried beside it; the state itself where nothing is."""
    weight: Tensor
    """(gates * hidden, hidden): of the state; without elements where no gate looks at it."""
    bias: Tensor
    """(hidden,): of what a GRU's reset multiplies."""


@dataclass(frozen=True)
class Done:
    """What a step gives."""

    gates: list[Tensor]
    out: Tensor
    memory: Tensor | None = None
    """(n, hidden): what else going backward needs."""
    cell: Tensor | None = None


@dataclass(frozen=True)
class Back:
    """One frame of some sequences, going backward."""

    gates: list[Tensor]
    memory: Tensor
    state: Tensor
    """(n, hidden): the output one frame before."""
    cell: Tensor
    into: Tensor
    """(n, hidden): gradient of the output."""
    carried: Tensor
    """(n, hidden): what came by the carried value from one frame later."""
    weight: Tensor


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: its sizes in units of hidden, and its two steps."""

    gates: int
    step: Callable[[Step], Done]
    back: Callable[[Back], tuple[list[Tensor], Tensor]]
    """Slopes, and what of the gradient passes them by to one frame earlier."""
    of_state: int = 0
    """Slopes that the state goes into, the first ones; the last `gates` ones are those that the input goes into."""
    slopes: int = 0
    """0 for as many as gates."""
    states: int = 1
    """Tensors that are carried from frame to frame."""
    has_memory: bool = False
    of_reset: int = 0
    """Of these, the last ones, how many multiply what the first gate has left of the state."""
    slope_order: tuple[int, ...] = ()
    """Which gate's weights of the state belong to each of those slopes; () for the order of the gates."""

    @property
    def num_slopes(self) -> int:
        return self.slopes or self.gates


def _gru(s: Step) -> Done:
    r, z, n = (s.state @ s.weight.t()).chunk(3, 1)
    from_r, from_z, from_n = s.from_x.chunk(3, 1)
    r, z, kept = (from_r + r).sigmoid(), (from_z + z).sigmoid(), n + s.bias
    new = (from_n + r * kept).tanh()
    return Done([r, z, new], new + z * (s.state - new), memory=kept)


def _gru_back(b: Back) -> tuple[list[Tensor], Tensor]:
    """Slopes of what r multiplies, of r, z and n."""
    (r, z, n), h = b.gates, b.into + b.carried
    d_n = h * (1 - z) * (1 - n * n)
    return [d_n * r, d_n * b.memory * r * (1 - r), h * (b.state - n) * z * (1 - z), d_n], h * z


def _gru_before(s: Step) -> Done:
    of_r, of_z, of_n = s.weight.chunk(3)
    from_r, from_z, from_n = s.from_x.chunk(3, 1)
    r, z = (from_r + s.state @ of_r.t()).sigmoid(), (from_z + s.state @ of_z.t()).sigmoid()
    new = (from_n + (r * s.state) @ of_n.t()).tanh()
    return Done([r, z, new], new + z * (s.state - new))


def _gru_before_back(b: Back) -> tuple[list[Tensor], Tensor]:
    (r, z, n), h = b.gates, b.into + b.carried
    d_n = h * (1 - z) * (1 - n * n)
    kept = d_n @ b.weight.chunk(3)[2]
    return [kept * b.state * r * (1 - r), h * (b.state - n) * z * (1 - z), d_n], h * z + kept * r


def _lstm(s: Step) -> Done:
    i, f, g, o = (s.from_x + s.state @ s.weight.t()).chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cell = f * s.cell + i * g
    return Done([i, f, g, o], o * cell.tanh(), memory=cell, cell=cell)


def _lstm_back(b: Back) -> tuple[list[Tensor], Tensor]:
    (i, f, g, o), bent = b.gates, b.memory.tanh()
    c = b.carried + b.into * o * (1 - bent * bent)
    slopes = [c * g * i * (1 - i), c * b.cell * f * (1 - f), c * i * (1 - g * g), b.into * bent * o * (1 - o)]
    return slopes, c * f


def _rnn(s: Step) -> Done:
    h = (s.from_x + s.state @ s.weight.t()).tanh()
    return Done([h], h)


def _rnn_back(b: Back) -> tuple[list[Tensor], Tensor]:
    (h,) = b.gates
    return [b.into * (1 - h * h)], torch.zeros_like(h)


def _mingru(s: Step) -> Done:
    z, n = s.from_x.chunk(2, 1)
    z = z.sigmoid()
    return Done([z, n], s.state + z * (n - s.state))


def _mingru_back(b: Back) -> tuple[list[Tensor], Tensor]:
    (z, n), h = b.gates, b.into + b.carried
    return [h * (n - b.state) * z * (1 - z), h * z], h * (1 - z)


def _minlstm(s: Step) -> Done:
    f, i, n = s.from_x.chunk(3, 1)
    f, i = f.clamp(-87, 87).sigmoid(), i.clamp(-87, 87).sigmoid()  # as the kernels: their ratio is never 0 / 0
    return Done([f, i, n], n + f / (f + i) * (s.state - n))


def _minlstm_back(b: Back) -> tuple[list[Tensor], Tensor]:
    (f, i, n), h = b.gates, b.into + b.carried
    kept = f / (f + i)
    slope = h * (b.state - n) * kept * (1 - kept)
    return [slope * (1 - f), -slope * (1 - i), h * (1 - kept)], h * kept


def _qrnn(s: Step) -> Done:
    f, z, o = s.from_x.chunk(3, 1)
    f, z, o = f.sigmoid(), z.tanh(), o.sigmoid()
    cell = z + f * (s.cell - z)
    return Done([f, z, o], o * cell, memory=cell, cell=cell)


def _qrnn_back(b: Back) -> tuple[list[Tensor], Tensor]:
    f, z, o = b.gates
    c = b.into * o + b.carried
    return [c * (b.cell - z) * f * (1 - f), c * (1 - f) * (1 - z * z), b.into * b.memory * o * (1 - o)], c * f


CELLS = {
    "rnn": Cell(1, _rnn, _rnn_back, of_state=1),
    "gru": Cell(3, _gru, _gru_back, of_state=3, slopes=4, has_memory=True, slope_order=(2, 0, 1)),
    "gru_before": Cell(3, _gru_before, _gru_before_back, of_state=3, of_reset=1),
    "lstm": Cell(4, _lstm, _lstm_back, of_state=4, states=2, has_memory=True),
    "mingru": Cell(2, _mingru, _mingru_back),
    "minlstm": Cell(3, _minlstm, _minlstm_back),
    "qrnn": Cell(3, _qrnn, _qrnn_back, has_memory=True),
}
"""Gates as in training.c: GRU r, z, n (gru_before: the reset before the product); LSTM i, f, g, o; minGRU z, n;
minLSTM f, i, n; QRNN f, z, o."""
