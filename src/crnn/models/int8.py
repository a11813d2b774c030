"""Weights as whole numbers of 8 bits: which weights, how they are rounded, and how a file holds them.

An output channel (for a recurrent layer: a row of a gate) has one scale, and its weights are whole multiples of it from
-127 to 127. A scale has 16 significant bits, so that every one of these multiples is exact in float32: a weight is the
same number before it is saved, in the file, and after it is loaded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crnn.models.network import Network
from crnn.nn.conv import Conv, Conv2d
from crnn.nn.head import Head
from crnn.nn.recurrent import Recurrent

LEVELS = 127
"""The largest whole number; -128 is not used, so that a sign can be turned."""
SCALE = ".scale"
"""After a weight's name: the name of its scales in a file."""


def int8_weights(network: Network) -> list[str]:
    """Names, in the network's state, of the weights that 8 bits are for: convolutions, recurrences and the head.

    Biases, norms, embeddings and the scores of an attention are few or read in other ways, and stay float32.
    """
    names: list[str] = []
    for prefix, module in network.named_modules():
        if isinstance(module, (Conv, Conv2d)):
            names.append(f"{prefix}.conv.weight")
        elif isinstance(module, (Recurrent, Head)):
            names += [f"{prefix}.{name}" for name, p in module.named_parameters() if p.dim() == 2]  # all but the biases
    return names


def round_weight(weight: Tensor) -> Tensor:
    """The nearest weights that 8 bits hold."""
    largest = weight.abs().flatten(1).amax(1)
    mantissa, exponent = torch.frexp(largest / LEVELS)
    scale = torch.ldexp((mantissa * 2**16).ceil() / 2**16, exponent)  # up: the largest weight is still within 127
    return _spread(scale, weight) * _whole(weight, scale)


def pack(state: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The tensors as a file holds them: each named weight as NAME (int8) and NAME.scale (float32, one a channel).

    The weights are what round_weight has given.
    """
    packed = dict(state)
    for name in names:
        weight = state[name]
        scale = weight.abs().flatten(1).amax(1) / LEVELS
        packed[name] = _whole(weight, scale).to(torch.int8)
        packed[name + SCALE] = scale
    return packed


def unpack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file with its 8-bit weights as float32; scales without a weight are left for the caller."""
    state = dict(tensors)
    for name, weight in tensors.items():
        if weight.dtype == torch.int8 and name + SCALE in tensors:
            state[name] = _spread(state.pop(name + SCALE), weight) * weight
    return state


def _spread(scale: Tensor, weight: Tensor) -> Tensor:
    """(channels,) as it multiplies a weight."""
    return scale.reshape(-1, *(1,) * (weight.dim() - 1))


def _whole(weight: Tensor, scale: Tensor) -> Tensor:
    """A channel of zeros has the scale 0, and stays zero."""
    return (weight / _spread(torch.where(scale > 0, scale, 1.0), weight)).round().clamp(-LEVELS, LEVELS)
