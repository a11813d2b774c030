"""Recurrent layers for training on a CPU as one operator of torch, `torch.ops.crnn.recurrence`, forward and backward.

Frames lie row by row in one matrix, with the first row and the length of each sequence beside them: padding, reversal
and ragged batches are only other rows. It computes in the compiled kernels of training.c where these were built and the
numbers are float32, and otherwise in the plain steps of `cells`, which also say what the kernels mean.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from crnn.native.cells import CELLS, Back, Cell, Step
from crnn.native.library import LibraryError, built, load
from crnn.native.memory import empty

WORK_A_THREAD = 4_000_000
"""So many multiply-adds are worth one more thread."""
SIDE_BY_SIDE, STEPS, GAP = 32, 8, 16
"""MOST, STEPS and GAP of recurrence.h."""


class _Batch(ctypes.Structure):
    """Batch in recurrence.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("start", "length", "order")),
        *((name, ctypes.c_int64) for name in ("count", "hidden", "reverse")),
    ]


class _Forward(ctypes.Structure):
    """Forward in recurrence.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "weight_x", "bias_x", "weight_h", "bias_h", "initial")),
        *((name, ctypes.c_void_p) for name in ("gates", "memory", "out", "cell", "scratch")),
        ("inputs", ctypes.c_int64),
    ]


class _Backward(ctypes.Structure):
    """Backward in recurrence.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "initial", "cell", "gates", "memory", "out", "into")),
        *((name, ctypes.c_void_p) for name in ("weight_x", "weight_h", "into_x", "into_weight_x", "into_weight_h")),
        *((name, ctypes.c_void_p) for name in ("into_bias", "at_first", "carried", "scratch")),
        ("inputs", ctypes.c_int64),
    ]


@cache
def kernels(instruction_set: str | None = None) -> ctypes.CDLL | None:
    """The compiled kernels, by default the fastest that run here; None where they were not built."""
    try:
        instruction_set = load(instruction_set).instruction_set
    except LibraryError:
        return None
    path = built("training", instruction_set)
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    library.crnn_training_width.restype = ctypes.c_int64
    for cell in CELLS:
        for way in ("forward", "backward"):
            function = getattr(library, f"crnn_{cell}_{way}")
            function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p], None
    return library


def recurrence(
    cell: str,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    *,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """A recurrent layer over sequences that lie row by row in one matrix.

    Args:
        cell: one of CELLS.
        weights: weight_ih, weight_hh, bias_ih, bias_hh as nn.RNN, nn.GRU and nn.LSTM have them; of a cell that does not
            look at its state, weight_hh and bias_hh have no elements.
        initial: before the first step: the state; for an LSTM the state and the cell, for a QRNN the cell.
        starts: row of each sequence's first frame.
        lengths: frames of each sequence; rows that belong to none are zero in the result.
        reverse: from each sequence's own last frame to its first.
    Shape:
        x: (rows, channels); initial: (states, batch, hidden); starts, lengths: (batch,) int64.
        returns (rows, hidden), and without a gradient the carried cell after the last step (batch, hidden), where there
        is one.
    """
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights, initial))
    out, last, _, _ = torch.ops.crnn.recurrence(cell, x, *weights, initial, starts, lengths, reverse, keep)
    return out, last


def _recurrence(
    cell: str,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (rows, hidden), the last cells (batch, hidden), gates (rows, gates, hidden) and memory (rows, hidden)."""
    kind, hidden, rows = CELLS[cell], initial.shape[2], len(x)
    x, initial = x.contiguous(), initial.contiguous()
    bias, bias_n = _biases(cell, bias_ih, bias_hh)
    out = empty((rows, hidden), x.dtype)
    gates = empty((rows if keep else 0, kind.gates, hidden), x.dtype)
    memory = empty((rows if keep and kind.has_memory else 0, hidden), x.dtype)
    last = initial[-1].clone() if _carries_a_cell(cell) else x.new_empty((0, hidden))
    if int(lengths.sum()) < rows:
        out.zero_()  # rows of no sequence
    library = _kernels_for(x)
    if library is None:
        _forward_in_torch(
            cell,
            x,
            weight_ih,
            weight_hh,
            bias,
            bias_n,
            initial,
            starts,
            lengths,
            reverse,
            out=(out, last, gates, memory),
        )
        return out, last, gates, memory
    width = library.crnn_training_width()
    weight_x = _wide(weight_ih.t(), width)
    weight_h = weight_hh
    if kind.of_reset:
        weight_h = torch.cat([_wide(each.t(), width) for each in weight_hh.chunk(kind.gates)])
    elif kind.of_state:
        by_gate = weight_hh.view(kind.gates, hidden, hidden)
        weight_h = _blocks(by_gate, 1, width if kind.gates > 1 else 2 * width).permute(1, 3, 0, 2).contiguous()
    side_by_side = min(SIDE_BY_SIDE, len(lengths))

    def arguments(_: int) -> tuple[_Forward, Tensor]:
        gates_size = 0 if keep else side_by_side * STEPS * kind.gates * hidden
        scratch = empty((SIDE_BY_SIDE * hidden + gates_size,), x.dtype)
        tensors = (x, weight_x, bias, weight_h, bias_n, initial, gates, memory, out, last, scratch)
        return _Forward(*map(_address, tensors), x.shape[1]), scratch

    work = kind.gates * hidden * (x.shape[1] + (hidden if kind.of_state else 0))
    function = getattr(library, f"crnn_{cell}_forward")
    _in_threads(function, arguments, starts, lengths, hidden, reverse=reverse, work=work)
    return out, last, gates, memory


def _carries_a_cell(cell: str) -> bool:
    return cell in ("lstm", "qrnn")


def _biases(cell: str, bias_ih: Tensor, bias_hh: Tensor) -> tuple[Tensor, Tensor]:
    """What is added to the products with the input; what is added to those with the state, before a GRU's reset."""
    if not bias_hh.numel():
        return bias_ih.contiguous(), bias_hh
    if cell != "gru":
        return bias_ih + bias_hh, bias_hh[:0]
    hidden = len(bias_hh) // 3
    return torch.cat([bias_ih[: 2 * hidden] + bias_hh[: 2 * hidden], bias_ih[2 * hidden :]]), bias_hh[2 * hidden :]


def _recurrence_backward(
    cell: str,
    into: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    out: Tensor,
    gates: Tensor,
    memory: Tensor,
    reverse: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (if wanted), weight_ih, weight_hh, bias_ih, bias_hh and initial."""
    kind, hidden, batch, inputs = CELLS[cell], initial.shape[2], len(lengths), x.shape[1]
    x, initial, into = x.contiguous(), initial.contiguous(), into.contiguous()
    into_x = empty(x.shape if wants_x else (0,), x.dtype)
    if wants_x and int(lengths.sum()) < len(x):
        into_x.zero_()
    at_first = x.new_zeros(batch, kind.num_slopes * hidden)
    carried = x.new_zeros(batch, hidden)
    by_slope, of_state = _by_slope(kind, weight_hh, hidden), kind.of_state - kind.of_reset
    library = _kernels_for(x)
    if library is None:
        sums = _backward_in_torch(
            cell,
            into,
            x,
            weight_ih,
            weight_hh,
            by_slope,
            initial,
            starts,
            lengths,
            out,
            gates,
            memory,
            reverse,
            (into_x, at_first, carried),
        )
    else:
        width = library.crnn_training_width()
        weight_x = _wide(weight_ih, width) if wants_x else x.new_empty(0)
        weight_h = by_slope
        if kind.of_state:  # those of the state, then those of what is left of it
            parts = by_slope.split([of_state * hidden, kind.of_reset * hidden])
            weight_h = torch.cat([_wide(part, width) for part in parts])
        each = (inputs * kind.gates * hidden, hidden * kind.of_state * hidden, kind.num_slopes * hidden)
        totals: list[Tensor] = []

        def arguments(_: int) -> tuple[_Backward, Tensor]:
            totals.append(x.new_zeros(sum(each)))
            columns = kind.num_slopes * hidden + GAP + inputs + 2 * hidden
            scratch = empty((SIDE_BY_SIDE * STEPS * columns + 4 * GAP,), x.dtype)
            tensors = (
                *(x, initial, initial[-1], gates, memory, out, into, weight_x, weight_h, into_x),
                *(*totals[-1].split(each), at_first, carried, scratch),
            )
            return _Backward(*map(_address, tensors), inputs), scratch

        work = 2 * kind.gates * hidden * (inputs + (hidden if kind.of_state else 0))
        function = getattr(library, f"crnn_{cell}_backward")
        _in_threads(function, arguments, starts, lengths, hidden, reverse=reverse, work=work)
        total = torch.stack(totals).sum(0) if len(totals) > 1 else totals[0] if totals else x.new_zeros(sum(each))
        of_x, of_h, of_bias = total.split(each)
        parts = of_h.split([hidden * of_state * hidden, hidden * kind.of_reset * hidden])
        into_hh = torch.cat([part.view(hidden, -1).t() for part in parts])
        sums = of_x.view(inputs, -1).t().contiguous(), into_hh, of_bias
    into_ih, into_hh, slopes = sums
    of_input = slopes[(kind.num_slopes - kind.gates) * hidden :].clone()
    if not kind.of_state:
        return into_x, into_ih, torch.empty_like(weight_hh), of_input, x.new_empty(0), carried[None]
    by_state = at_first[:, : of_state * hidden] @ by_slope[: of_state * hidden]
    into_initial = torch.stack([by_state, carried]) if kind.states == 2 else (by_state + carried)[None]
    order = kind.slope_order or range(kind.of_state)
    parts = into_hh.split(hidden)
    into_hh = torch.cat([parts[list(order).index(i)] for i in range(kind.of_state)])
    into_bias_hh = torch.cat([of_input[: 2 * hidden], slopes[:hidden]]) if cell == "gru" else of_input.clone()
    return into_x, into_ih, into_hh, of_input, into_bias_hh, into_initial


def _by_slope(kind: Cell, weight_hh: Tensor, hidden: int) -> Tensor:
    """(slopes that the state goes into * hidden, hidden): their weights."""
    if not kind.slope_order:
        return weight_hh
    return weight_hh.view(-1, hidden, hidden)[list(kind.slope_order)].view(-1, hidden)


def _kernels_for(x: Tensor) -> ctypes.CDLL | None:
    return kernels() if x.dtype == torch.float32 else None


def _address(tensor: Tensor) -> int | None:
    """Where its numbers begin; NULL for a tensor without any."""
    return tensor.data_ptr() if tensor.numel() else None


def _blocks(weights: Tensor, axis: int, width: int) -> Tensor:
    """The axis divided into blocks of `width`, filled up with zeros."""
    missing = -weights.shape[axis] % width
    if missing:
        shape = list(weights.shape)
        shape[axis] = missing
        weights = torch.cat([weights, weights.new_zeros(shape)], axis)
    return weights.unflatten(axis, (-1, width))  # type: ignore[no-any-return]


def _wide(weights: Tensor, width: int) -> Tensor:
    """(inputs, outputs) as products and sums take them: for 2 * width outputs after another, input by input; flat."""
    return _blocks(weights, 1, 2 * width).permute(1, 0, 2).flatten()


def _in_threads(
    function: Any,
    arguments: Callable[[int], tuple[ctypes.Structure, Tensor]],
    starts: Tensor,
    lengths: Tensor,
    hidden: int,
    *,
    reverse: bool,
    work: int,
) -> None:
    """Divide the sequences among as many threads as torch has, dealt out by length, so that all have as much to do.

    Args:
        arguments: of the call that thread i makes, and memory that has to live as long.
        work: multiply-adds of one frame.
    """
    starts, lengths = starts.contiguous(), lengths.contiguous()
    frames, order = lengths.sort(descending=True, stable=True)
    num_present = int((frames > 0).sum())
    if num_present == 0:
        return
    order = order[:num_present]
    num_threads = max(1, min(torch.get_num_threads(), num_present // 4, int(frames.sum()) * work // WORK_A_THREAD))
    calls = []
    for i in range(num_threads):
        part = order[i::num_threads].contiguous()
        batch = _Batch(starts.data_ptr(), lengths.data_ptr(), part.data_ptr(), len(part), hidden, reverse)
        call, room = arguments(i)
        calls.append((ctypes.byref(call), ctypes.byref(batch), part, room))
    threads = [Thread(target=function, args=call[:2]) for call in calls[1:]]
    for thread in threads:
        thread.start()
    function(*calls[0][:2])
    for thread in threads:
        thread.join()


def _steps(starts: Tensor, lengths: Tensor, reverse: bool) -> list[tuple[Tensor, Tensor]]:
    """For every step: which sequences still run, and their rows."""
    steps = []
    for t in range(int(lengths.max()) if len(lengths) else 0):
        which = (lengths > t).nonzero()[:, 0]
        steps.append((which, starts[which] + (lengths[which] - 1 - t if reverse else t)))
    return steps


def _forward_in_torch(
    cell: str,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor,
    bias_n: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
    out: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    """What the compiled functions do, in any precision; writes outputs, last cells, gates and memory."""
    outputs, last, gates, memory = out
    from_x, state = torch.addmm(bias, x, weight_ih.t()), initial[0].clone()
    for which, rows in _steps(starts, lengths, reverse):
        carried = last if len(last) else state
        done = CELLS[cell].step(Step(from_x[rows], state[which], carried[which], weight_hh, bias_n))
        state[which] = outputs[rows] = done.out
        if done.cell is not None:
            last[which] = done.cell
        if len(gates):
            gates[rows] = torch.stack(done.gates, 1)
        if len(memory) and done.memory is not None:
            memory[rows] = done.memory


def _backward_in_torch(
    cell: str,
    into: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    by_slope: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    out: Tensor,
    gates: Tensor,
    memory: Tensor,
    reverse: bool,
    to: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """What the compiled functions do, in any precision; writes gradients of x, slopes of first frames, and what passes.

    Returns:
        sums over all frames: gradients of the weights of the input and of the state, slopes.
    """
    into_x, at_first, carried = to
    kind, hidden = CELLS[cell], initial.shape[2]
    of_state = kind.of_state - kind.of_reset
    into_ih, into_hh = torch.zeros_like(weight_ih), x.new_zeros(kind.of_state * hidden, hidden)
    sums = x.new_zeros(kind.num_slopes * hidden)
    steps = _steps(starts, lengths, reverse)
    for t in reversed(range(len(steps))):
        which, rows = steps[t]
        earlier = rows + (1 if reverse else -1)
        state = out[earlier] if t else initial[0][which]
        before = memory[earlier] if t and len(memory) else initial[-1][which]
        h = into[rows]
        if kind.of_state:
            h = h + at_first[which, : of_state * hidden] @ by_slope[: of_state * hidden]
        kept = memory[rows] if len(memory) else state
        back = Back(list(gates[rows].unbind(1)), kept, state, before, h, carried[which], weight_hh)
        parts, carried[which] = kind.back(back)
        slopes = torch.cat(parts, 1)
        of_input = slopes[:, (kind.num_slopes - kind.gates) * hidden :]
        at_first[which] = slopes
        sums += slopes.sum(0)
        into_ih += of_input.t() @ x[rows]
        if kind.of_state:
            into_hh[: of_state * hidden] += slopes[:, : of_state * hidden].t() @ state
        if kind.of_reset:
            into_hh[of_state * hidden :] += slopes[:, of_state * hidden :].t() @ (gates[rows, 0] * state)
        if len(into_x):
            into_x[rows] = of_input @ weight_ih
    return into_ih, into_hh, sums


def _derive(ctx: Any, into: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    wants_x = ctx.needs_input_grad[1]
    found = torch.ops.crnn.recurrence_backward(ctx.cell, into, *ctx.saved_tensors, ctx.reverse, wants_x)
    needed = ctx.needs_input_grad[1:7]
    return None, *(slope if need else None for slope, need in zip(found, needed, strict=True)), *[None] * 4


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cell, x, weight_ih, weight_hh, _, _, initial, starts, lengths, reverse, _ = inputs
    out, _, gates, memory = output
    ctx.save_for_backward(x, weight_ih, weight_hh, initial, starts, lengths, out, gates, memory)
    ctx.mark_non_differentiable(*output[1:])
    ctx.cell, ctx.reverse = cell, reverse


def _fake_recurrence(
    cell: str,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kind, rows, (_, batch, hidden) = CELLS[cell], x.shape[0], initial.shape
    return (
        x.new_empty((rows, hidden)),
        x.new_empty((batch if _carries_a_cell(cell) else 0, hidden)),
        x.new_empty((rows if keep else 0, kind.gates, hidden)),
        x.new_empty((rows if keep and kind.has_memory else 0, hidden)),
    )


def _fake_recurrence_backward(
    cell: str,
    into: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    out: Tensor,
    gates: Tensor,
    memory: Tensor,
    reverse: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    size = weight_ih.shape[0]
    shapes = [x.shape if wants_x else (0,), weight_ih.shape, weight_hh.shape, (size,)]
    of_state = (size,) if CELLS[cell].of_state else (0,)
    into_x, w, u, b, c, h = (x.new_empty(shape) for shape in (*shapes, of_state, initial.shape))
    return into_x, w, u, b, c, h


def _refuse(ctx: Any, *_: Tensor) -> None:
    raise NotImplementedError(
        "crnn::recurrence has no second derivative; run the nn.RNN, nn.GRU or nn.LSTM itself where a gradient of a "
        "gradient is wanted"
    )


Function = Callable[..., Any]


# torch.library.custom_op says the same in fewer words, but its first call imports torch._dynamo, which takes a second
def _register(
    name: str, kernel: Callable[..., Any], fake: Callable[..., Any], slope: Callable[..., Any], keep: Any
) -> None:
    torch.library.define(name, torch.library.infer_schema(kernel, mutates_args=()), tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(name, "CPU", kernel)
    torch.library.register_fake(name, fake)
    torch.library.register_autograd(name, slope, setup_context=keep)


_register("crnn::recurrence", _recurrence, _fake_recurrence, _derive, _keep_for_backward)
_register("crnn::recurrence_backward", _recurrence_backward, _fake_recurrence_backward, _refuse, None)
