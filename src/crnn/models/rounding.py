"""A network that rounds as 8-bit operations do: the numbers of 8 bits, without an engine that computes in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.models.int8 import LEVELS
from crnn.models.network import Network
from crnn.nn.conv import Conv, Conv2d
from crnn.nn.head import Head
from crnn.nn.layers import Layer
from crnn.nn.patterns import Patterns
from crnn.nn.recurrent import Recurrent
from crnn.nn.scan import Scan
from crnn.nn.spectral import Mfcc
from crnn.nn.summary import Concat
from crnn.sequences import Sequences

FIXED = (Patterns, Mfcc)
"""Layers whose weights are not learned: there is no grid on which they lie, so they stay float32."""

INPUT, STATE = 0, 1
"""What an operation with weights multiplies: the input of every one, the state h of a recurrence."""
Look = Callable[[int, int, Tensor], Tensor]
"""(which of the operations with weights, INPUT or STATE, values) -> what the operation gets instead."""


@contextmanager
def in_8_bits(network: Network, peaks: Mapping[int, tuple[float, ...]]) -> Iterator[None]:
    """Within it, a network rounds the input of every 8-bit operation; its weights lie on their grid already.

    Slow, for every step of a recurrence is one of its own here.

    Args:
        peaks: place of a node in the network's program -> the peaks of its input and, of a recurrence, its state.
    """
    ordered = [peaks[place] for place in sorted(peaks)]
    with watched(network, lambda which, part, x: round_input(x, ordered[which][part]), by_steps=True):
        yield


def round_input(x: Tensor, peak: float) -> Tensor:
    """x as 8 bits hold it: multiples of peak / 127, clipped at +-peak."""
    return (x * (LEVELS / peak)).round().clamp(-LEVELS, LEVELS) * (peak / LEVELS)


@contextmanager
def watched(network: Network, look: Look, *, by_steps: bool = False) -> Iterator[None]:
    """Within it, every operation with weights gets what `look` makes of its input.

    Args:
        by_steps: run recurrences step by step, and give each step what `look` makes of h; else `look` sees the h of all
            steps at once, and changes none.
    """
    patched: list[tuple[nn.Module, str]] = []
    for which, module in enumerate(_operations(network)):
        name = "compute" if isinstance(module, Layer) else "forward"
        run = getattr(module, name)
        if isinstance(module, nn.RNNBase):
            show = partial(look, which, STATE)
            run = partial(_steps, module, show) if by_steps else partial(_shown, run, show)
        setattr(module, name, partial(_looked_at, look, which, run))
        patched.append((module, name))
    try:
        yield
    finally:
        for module, name in patched:
            delattr(module, name)  # the instance's own; the class's comes back


def _looked_at(look: Look, which: int, run: Callable[..., Any], x: Any, *state: Any) -> Any:
    """A layer takes Sequences, PyTorch's modules take a tensor and maybe a state."""
    is_batch = isinstance(x, Sequences)
    seen = look(which, INPUT, x.data if is_batch else x)
    return run(Sequences(seen, x.lengths) if is_batch else seen, *state)


def _shown(run: Callable[..., Any], show: Callable[[Tensor], Tensor], x: Tensor, initial: Any = None) -> Any:
    """A recurrence, with every h shown: those that its steps start from, and the last."""
    found = run(x, initial)
    if initial is not None:
        show(initial[0] if isinstance(initial, tuple) else initial)
    show(found[0])
    return found


def _operations(network: Network) -> Iterator[nn.Module]:
    """What 8 bits are for, in the order in which a sequence passes them."""
    return (module for module in weighted(network) if not isinstance(module, FIXED))


def weighted(module: nn.Module) -> Iterator[nn.Module]:
    """What comes down to an operation with weights, in the order of the program."""
    if isinstance(module, (Conv, Conv2d, *FIXED)):
        yield module
    elif isinstance(module, Recurrent):
        for i, forwards in enumerate(module.forwards):
            cells = (forwards, module.backwards[i]) if module.config.bidirectional else (forwards,)
            yield from (cell.gates if isinstance(cell, Scan) else cell for cell in cells)
    elif isinstance(module, Head):
        yield from (*module.hidden, module.linear)
    else:
        pairs = zip(module.branches, module.parts, strict=True) if isinstance(module, Concat) else [module.children()]
        for part in chain.from_iterable(pairs):
            yield from weighted(part)


def _steps(cell: nn.RNNBase, look: Callable[[Tensor], Tensor], x: Tensor, initial: Any = None) -> tuple[Tensor, Any]:
    """One layer of an LSTM, GRU or plain RNN, step by step, with what `look` makes of h multiplied."""
    weights: Any = cell
    size = cell.hidden_size
    given = initial if isinstance(initial, tuple) else (initial,)
    h, *rest = (x.new_zeros(len(x), size) if part is None else part[0] for part in given)
    c = rest[0] if rest else x.new_zeros(len(x), size)
    from_x = F.linear(x, weights.weight_ih_l0, weights.bias_ih_l0)
    out = []
    for t in range(x.shape[1]):
        a, b = from_x[:, t], F.linear(look(h), weights.weight_hh_l0, weights.bias_hh_l0)
        if isinstance(cell, nn.LSTM):
            i, f, g, o = (a + b).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        elif isinstance(cell, nn.GRU):
            (rx, zx, nx), (rh, zh, nh) = a.chunk(3, 1), b.chunk(3, 1)
            z = (zx + zh).sigmoid()
            h = (1 - z) * (nx + (rx + rh).sigmoid() * nh).tanh() + z * h
        else:
            h = (a + b).tanh()
        out.append(h)
    return torch.stack(out, 1), (h[None], c[None]) if isinstance(cell, nn.LSTM) else h[None]
