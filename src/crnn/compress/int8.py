"""8 bits: weights rounded channel by channel, the largest input of each operation calibrated on data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.data.batch import Batches
from crnn.data.dataset import Dataset
from crnn.errors import ConfigError, ExportError
from crnn.model import Model
from crnn.models.int8 import LEVELS, int8_weights, round_weight
from crnn.models.network import Network
from crnn.nn.conv import Conv, Conv2d
from crnn.nn.head import Head
from crnn.nn.layers import Layer
from crnn.nn.patterns import Patterns
from crnn.nn.recurrent import Recurrent
from crnn.nn.spectral import Mfcc
from crnn.nn.summary import Concat
from crnn.program import ops
from crnn.sequences import Sequences
from crnn.training.outputs import compute_outputs

CALIBRATED_ON = 256
"""Examples, evenly spaced over the data, whose values are looked at."""
VALUES_OF_EXAMPLE = 20_000
"""Input values of one operation that are kept of one example, evenly spaced, beside the largest."""
CUTS = (0.0, 1e-5, 1e-4, 1e-3)
"""Shares of the values that a peak may leave outside; what rounds best is taken."""

FIXED = (Patterns, Mfcc)
"""Layers whose weights are not learned: there is no grid on which they lie, so they stay float32."""

Look = Callable[[int, Tensor], Tensor]
"""(which of the operations with weights, its input) -> what the operation gets instead."""


def quantise(model: Model, data: Dataset) -> Model:
    """The same model in 8 bits: weights on a grid of 8 bits, and a peak for the input of each operation.

    Args:
        data: examples such as the model will see; a few dozen do, and targets are not needed.
    Raises:
        ConfigError: the model is in 8 bits already.
        ExportError: a layer that has no operations.
    """
    if model.peaks:
        raise ConfigError("the model is in 8 bits already; quantise the model that it was made from")
    network = copy.deepcopy(model.network)
    state = network.state_dict()
    with torch.no_grad():
        for name in int8_weights(network):
            state[name].copy_(round_weight(state[name]))
    quantised = replace(model, network=network)
    places = _places(quantised)
    values = _inputs_seen(network, data, len(places))
    return replace(quantised, peaks={place: best_peak(seen) for place, seen in zip(places, values, strict=True)})


def _places(model: Model) -> list[int]:
    """The nodes of the model's program that run in 8 bits, in the order in which the network comes to them."""
    places = [i for i, node in enumerate(model.program().nodes) if isinstance(node.op, ops.Weighted)]
    modules = list(_weighted(model.network))
    if len(places) != len(modules):
        raise ExportError(
            f"8 bits: the network has {len(modules)} layers with weights, its program {len(places)} operations with "
            "weights; a layer of another package brings its own; compress it by --prune or --distil"
        )
    return [place for place, module in zip(places, modules, strict=True) if not isinstance(module, FIXED)]


def _inputs_seen(network: Network, data: Dataset, count: int) -> list[Tensor]:
    """Absolute input values of each operation; one sequence at a time, so that no padding is among them."""
    seen: list[list[Tensor]] = [[] for _ in range(count)]

    def look(which: int, x: Tensor) -> Tensor:
        values = x.detach().abs().flatten()
        step = -(-len(values) // VALUES_OF_EXAMPLE)
        seen[which] += [values[::step], values.max()[None]]
        return x

    chosen = np.linspace(0, len(data) - 1, min(len(data), CALIBRATED_ON)).round().astype(int)
    with _watched(network, look):
        compute_outputs(network, Batches(data.subset(chosen), 1, shuffle=False, seed=0))
    return [torch.cat(values) for values in seen]


def best_peak(values: Tensor) -> float:
    """The peak with the smallest squared error of rounding to multiples of peak / 127 and clipping at it.

    Args:
        values: (n,), absolute.
    """
    ordered = values.sort().values
    found = []
    for cut in CUTS:
        peak = float(ordered[max(len(ordered) - 1 - int(cut * len(ordered)), 0)])
        if peak > 0:
            found.append((float((round_input(values, peak) - values).square().mean()), peak))
    return min(found)[1] if found else 1.0  # nothing but zeros: any peak will do


def round_input(x: Tensor, peak: float) -> Tensor:
    """x as 8 bits hold it: multiples of peak / 127, clipped at +-peak."""
    return (x * (LEVELS / peak)).round().clamp(-LEVELS, LEVELS) * (peak / LEVELS)


@contextmanager
def in_8_bits(model: Model) -> Iterator[None]:
    """Within it, the network of a quantised model rounds as the 8-bit operations do, to judge what that costs.

    Slow, for every step of a recurrence is one of its own here.
    """
    peaks = [model.peaks[place] for place in sorted(model.peaks)]
    with _watched(model.network, lambda which, x: round_input(x, peaks[which]), round_state=True):
        yield


@contextmanager
def _watched(network: Network, look: Look, *, round_state: bool = False) -> Iterator[None]:
    """Within it, every operation with weights gets what `look` makes of its input.

    Args:
        round_state: also round h, which has the peak 1, on its way into each step of a recurrence.
    """
    patched: list[tuple[nn.Module, str]] = []
    for which, module in enumerate(_operations(network)):
        name = "compute" if isinstance(module, Layer) else "forward"
        run = getattr(module, name)
        if round_state and isinstance(module, nn.RNNBase):
            run = partial(_steps, module)
        setattr(module, name, partial(_looked_at, look, which, run))
        patched.append((module, name))
    try:
        yield
    finally:
        for module, name in patched:
            delattr(module, name)  # the instance's own; the class's comes back


def _looked_at(look: Look, which: int, run: Callable[..., Any], x: Any, *state: Any) -> Any:
    """A layer takes Sequences, PyTorch's modules take a tensor and maybe a state."""
    seen = Sequences(look(which, x.data), x.lengths) if isinstance(x, Sequences) else look(which, x)
    return run(seen, *state)


def _operations(network: Network) -> Iterator[nn.Module]:
    """What 8 bits are for, in the order in which a sequence passes them."""
    return (module for module in _weighted(network) if not isinstance(module, FIXED))


def _weighted(module: nn.Module) -> Iterator[nn.Module]:
    """What comes down to an operation with weights, in the order of the program."""
    if isinstance(module, (Conv, Conv2d, *FIXED)):
        yield module
    elif isinstance(module, Recurrent):
        for i, forwards in enumerate(module.forwards):
            yield from (forwards, module.backwards[i]) if module.config.bidirectional else (forwards,)
    elif isinstance(module, Head):
        yield from (*module.hidden, module.linear)
    else:
        pairs = zip(module.branches, module.parts, strict=True) if isinstance(module, Concat) else [module.children()]
        for part in chain.from_iterable(pairs):
            yield from _weighted(part)


def _steps(cell: nn.RNNBase, x: Tensor, initial: Any = None) -> tuple[Tensor, None]:
    """One layer of an LSTM, GRU or plain RNN, step by step, with h rounded before it is multiplied."""
    weights: Any = cell
    size = cell.hidden_size
    given = initial if isinstance(initial, tuple) else (initial,)
    h, *rest = (x.new_zeros(len(x), size) if part is None else part[0] for part in given)
    c = rest[0] if rest else x.new_zeros(len(x), size)
    from_x = F.linear(x, weights.weight_ih_l0, weights.bias_ih_l0)
    out = []
    for t in range(x.shape[1]):
        a, b = from_x[:, t], F.linear(round_input(h, 1.0), weights.weight_hh_l0, weights.bias_hh_l0)
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
    return torch.stack(out, 1), None
