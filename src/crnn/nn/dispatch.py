"""What computes a recurrent cell over whole sequences: PyTorch's module, or our compiled kernels; by measured rules.

PyTorch trains an LSTM through one call of oneDNN, and anything on a GPU through one of cuDNN. A GRU on a CPU it runs as
thousands of small operations, so ours is faster wherever its fixed costs are repaid (`benchmarks/kernels.py`).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from crnn.native.library import load
from crnn.native.recurrences import gru, kernels
from crnn.sequences import Sequences

MIN_FRAMES = 16
"""Below, setting up costs more than is won; at 8 frames both are equal, at 32 ours takes half the time."""
UNITS_A_ROW = 16
"""Weights are reordered once a call, which needs one frame of one sequence for so many units to be repaid."""


def why_torch(cell: nn.RNNBase, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> str:
    """Why PyTorch's own module computes this cell at any length; empty when the compiled kernels may."""
    if not isinstance(cell, nn.GRU):
        return "oneDNN runs a whole LSTM in one call" if isinstance(cell, nn.LSTM) else "no kernels for a plain RNN"
    if device != "cpu":
        return f"the kernels are for CPUs, this is {device}"
    if kernels() is None:
        return "no kernels were compiled when crnn was installed"
    if load().instruction_set == "baseline" and torch.backends.mkl.is_available():
        return "without AVX2 or better the products of MKL are faster"
    if dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return "the kernels compute in float32 only"
    if "forward" in vars(cell) or cell._forward_hooks or cell._forward_pre_hooks:
        return "something looks at the module's calls"  # as the rounding of 8 bits does
    return ""


def repays(batch: int, frames: int, hidden: int) -> bool:
    """Whether the kernels are faster than nn.GRU at this shape."""
    return frames >= MIN_FRAMES and batch * frames * UNITS_A_ROW >= hidden


def run_cell(
    cell: nn.RNNBase, x: Sequences, initial: Tensor | tuple[Tensor, Tensor] | None, *, reverse: bool = False
) -> Tensor:
    """One layer in one direction over a batch.

    Args:
        initial: as PyTorch's modules take it; None for zeros.
        reverse: begin at each sequence's own last frame.
    Shape:
        x.data: (batch, time, channels), zero past the ends; returns (batch, time, hidden), unspecified past the ends.
    """
    batch, frames, channels = x.data.shape
    if why_torch(cell, dtype=x.data.dtype, device=x.data.device.type) or not repays(batch, frames, cell.hidden_size):
        data = x.reversed().data if reverse else x.data
        out: Tensor = cell(data, initial)[0]
        return Sequences(out, x.lengths).reversed().data if reverse else out
    weights = cast(
        "tuple[Tensor, Tensor, Tensor, Tensor]",
        (cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0),
    )
    state = initial[0] if isinstance(initial, Tensor) else x.data.new_zeros(batch, cell.hidden_size)
    starts = torch.arange(batch) * frames
    rows = gru(x.data.reshape(batch * frames, channels), weights, state, starts, x.lengths, reverse=reverse)
    return rows.view(batch, frames, cell.hidden_size)


def describe_kernels(network: nn.Module) -> dict[str, str]:
    """For every recurrent cell of a network, what computes it on this machine, and why."""
    found = {}
    for name, cell in network.named_modules():
        if isinstance(cell, nn.RNNBase):
            kind = f"nn.{type(cell).__name__}"
            reason = why_torch(cell, device=cell.weight_hh_l0.device.type)  # type: ignore[union-attr, arg-type]
            found[name] = f"{kind}: {reason}" if reason else _rule(kind, cell.hidden_size)
    return found


def _rule(kind: str, hidden: int) -> str:
    rows = max(MIN_FRAMES, -(-hidden // UNITS_A_ROW))
    return (
        f"native ({load().instruction_set}) from {MIN_FRAMES} frames on, and {rows} in a batch, "
        f"where it takes less time than {kind}; below, {kind}"
    )
