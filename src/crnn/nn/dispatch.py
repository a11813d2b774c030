"""What computes a recurrent cell over whole sequences: PyTorch's module, or our compiled kernels; by measured rules.

PyTorch computes an LSTM on a CPU in one call of oneDNN, and anything on a GPU in one of cuDNN. A GRU or a plain RNN on
a CPU it runs as thousands of small operations. Ours take less time than those wherever their fixed costs are repaid,
and than oneDNN where there are many frames, as they go through memory less often (`benchmarks/training_kernels.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crnn.native.library import load
from crnn.native.recurrence import kernels, recurrence
from crnn.sequences import Sequences

MIN_FRAMES = 16
"""Of a GRU or RNN. Below, setting up costs more than is won."""
UNITS_A_ROW = 16
"""Weights are reordered once a call, which needs one frame of one sequence for so many units to be repaid."""
LSTM_ROWS = 4096
"""Real frames in a batch from which ours trains an LSTM in less time than oneDNN."""
LSTM_LONG, LSTM_NARROW = 256, 128
"""Or it is so long and has at most so many units."""
LSTM_FEW = 4
"""Fewer sequences side by side leave wider ones to oneDNN."""
LSTM_FRAMES = 64
"""From which ours takes less time without gradients."""
LSTM_FULL = 0.6
"""A batch of which less is real frames goes to ours: oneDNN computes the padding too."""

KINDS: dict[type[nn.RNNBase], str] = {nn.RNN: "rnn", nn.GRU: "gru", nn.LSTM: "lstm"}


def why_torch(cell: nn.RNNBase, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> str:
    """Why PyTorch's own module computes this cell at any shape; empty when the compiled kernels may."""
    reason = why_plain(cell, dtype=dtype, device=device)
    if reason:
        return reason
    instruction_set = load().instruction_set
    if isinstance(cell, nn.LSTM) and instruction_set != "avx512":
        return f"oneDNN runs a whole LSTM in one call, which ours only beat with AVX-512, and this is {instruction_set}"
    if instruction_set == "baseline" and torch.backends.mkl.is_available():
        return "without AVX2 or better the products of MKL are faster"
    if cell.mode == "RNN_RELU":
        return "the kernels have no RNN with relu"
    return ""


def why_plain(module: nn.Module, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> str:
    """Why the compiled kernels cannot compute what this module has the weights of; empty when they can."""
    if device != "cpu":
        return f"the kernels are for CPUs, this is {device}"
    if kernels() is None:
        return "no kernels were compiled when crnn was installed"
    if dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return "the kernels compute in float32 only"
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return "something looks at the module's calls"  # as the rounding of 8 bits does
    return ""


def repays(kind: str, batch: int, frames: int, hidden: int, *, filled: float = 1.0, training: bool = True) -> bool:
    """Whether the kernels are faster than PyTorch's module at this shape.

    Args:
        filled: share of the frames that are no padding.
        training: with gradients.
    """
    if kind != "lstm":
        return frames >= MIN_FRAMES and batch * frames * UNITS_A_ROW >= hidden
    rows = batch * frames
    if filled <= LSTM_FULL:
        return rows >= LSTM_ROWS // 8
    if not training:
        return frames >= LSTM_FRAMES
    is_narrow = hidden <= LSTM_NARROW
    return (rows >= LSTM_ROWS and (batch >= LSTM_FEW or is_narrow)) or (frames >= LSTM_LONG and is_narrow)


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
    batch, frames = x.data.shape[:2]
    kind, hidden = KINDS[type(cell)], cell.hidden_size
    if why_torch(cell, dtype=x.data.dtype, device=x.data.device.type) or not repays(
        kind, batch, frames, hidden, filled=_filled(x), training=torch.is_grad_enabled()
    ):
        data = x.reversed().data if reverse else x.data
        out: Tensor = cell(data, initial)[0]
        return Sequences(out, x.lengths).reversed().data if reverse else out
    weights: tuple[Tensor, Tensor, Tensor, Tensor] = tuple(cell._flat_weights)  # type: ignore[assignment, arg-type]
    if initial is None:
        state = x.data.new_zeros(2 if kind == "lstm" else 1, batch, hidden)
    else:
        state = torch.cat(initial) if isinstance(initial, tuple) else initial
    return run_rows(kind, x, weights, state, reverse=reverse)[0]


def run_rows(
    kind: str, x: Sequences, weights: tuple[Tensor, Tensor, Tensor, Tensor], state: Tensor, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """A batch through the compiled kernels, whatever its shape.

    Shape:
        x.data: (batch, time, channels); state: (states, batch, hidden); returns as `recurrence`, with outputs
        (batch, time, hidden).
    """
    batch, frames, channels = x.data.shape
    starts = torch.arange(batch) * frames
    rows = x.data.reshape(batch * frames, channels)
    out, last = recurrence(kind, rows, weights, state, starts, x.lengths, reverse=reverse)
    return out.view(batch, frames, out.shape[1]), last


def _filled(x: Sequences) -> float:
    """Share of the frames that are no padding."""
    batch, frames = x.data.shape[:2]
    return int(x.lengths.sum()) / max(1, batch * frames)


def describe(cell: nn.RNNBase) -> str:
    """What computes one of PyTorch's cells on this machine, and why."""
    reason = why_torch(cell, device=cell.weight_hh_l0.device.type)  # type: ignore[union-attr, arg-type]
    module = f"nn.{type(cell).__name__}"
    return f"{module}: {reason}" if reason else f"{native()} {_rule(cell)}; else {module}"


def native() -> str:
    """Which of the compiled kernels run here."""
    return f"native ({load().instruction_set})"


def _rule(cell: nn.RNNBase) -> str:
    """Where the kernels run, in words."""
    if not isinstance(cell, nn.LSTM):
        rows = max(MIN_FRAMES, -(-cell.hidden_size // UNITS_A_ROW))
        return f"from {MIN_FRAMES} frames on, and {rows} in a batch, where it takes less time"
    narrow = cell.hidden_size <= LSTM_NARROW
    training = f"with {LSTM_ROWS} frames in a batch" + (
        f" or {LSTM_LONG} in a sequence" if narrow else f" of at least {LSTM_FEW}"
    )
    always = f"where {1 - LSTM_FULL:.0%} or more is padding"
    return f"{training}, without gradients from {LSTM_FRAMES} frames on, and {always}"
