"""8 bits: weights rounded channel by channel; the largest input and state of each operation, calibrated on data."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from crnn.data.batch import Batches
from crnn.data.dataset import Dataset
from crnn.errors import ConfigError, ExportError
from crnn.model import Model
from crnn.models.int8 import int8_weights, round_weight
from crnn.models.network import Network
from crnn.models.rounding import FIXED, round_input, watched, weighted
from crnn.program import ops
from crnn.training.outputs import compute_outputs

CALIBRATED_ON = 256
"""Examples, evenly spaced over the data, whose values are looked at."""
VALUES_OF_EXAMPLE = 20_000
"""Values of one operation that are kept of one example, evenly spaced, beside the largest."""
CUTS = (0.0, 1e-5, 1e-4, 1e-3)
"""Shares of the values that a peak may leave outside; what rounds best is taken."""


def quantise(model: Model, data: Dataset) -> Model:
    """The same model in 8 bits: weights on a grid of 8 bits, and peaks for the input and the state of each operation.

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
    values = _values_seen(network, data, len(places))
    peaks = {place: tuple(map(best_peak, seen)) for place, seen in zip(places, values, strict=True)}
    return replace(quantised, peaks=peaks)


def _places(model: Model) -> list[int]:
    """The nodes of the model's program that run in 8 bits, in the order in which the network comes to them."""
    places = [i for i, node in enumerate(model.program().nodes) if isinstance(node.op, ops.Weighted)]
    modules = list(weighted(model.network))
    if len(places) != len(modules):
        raise ExportError(
            f"8 bits: the network has {len(modules)} layers with weights, its program {len(places)} operations with "
            "weights; a layer of another package brings its own; compress it by --prune or --distil"
        )
    return [place for place, module in zip(places, modules, strict=True) if not isinstance(module, FIXED)]


def _values_seen(network: Network, data: Dataset, count: int) -> list[list[Tensor]]:
    """Absolute values of each operation's input and, of a recurrence, its state.

    One sequence at a time, so that no padding is among them.
    """
    seen: list[dict[int, list[Tensor]]] = [{} for _ in range(count)]

    def look(which: int, part: int, x: Tensor) -> Tensor:
        values = x.detach().abs().flatten()
        step = -(-len(values) // VALUES_OF_EXAMPLE)
        seen[which].setdefault(part, []).extend([values[::step], values.max()[None]])
        return x

    chosen = np.linspace(0, len(data) - 1, min(len(data), CALIBRATED_ON)).round().astype(int)
    with watched(network, look):
        compute_outputs(network, Batches(data.subset(chosen), 1, shuffle=False, seed=0))
    return [[torch.cat(parts[part]) for part in sorted(parts)] for parts in seen]


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
