"""A GRU for training on a CPU as one operator of torch, forward and backward: compiled, or in plain torch.

`torch.ops.crnn.gru` computes in the compiled kernels of training.c where these were built and the numbers are float32,
and otherwise in the two functions at the end, which also say what the kernels mean.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from crnn.native.library import LibraryError, built, load
from crnn.native.memory import empty

MACS_A_THREAD = 4_000_000
"""So much work is worth one more thread."""


class _Batch(ctypes.Structure):
    """Batch in training.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("start", "length", "order")),
        *((name, ctypes.c_int64) for name in ("count", "hidden", "reverse")),
    ]


class _GruForward(ctypes.Structure):
    """GruForward in training.c."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("weights", "bias", "initial", "gates", "kept", "out")]


class _GruBackward(ctypes.Structure):
    """GruBackward in training.c."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            *("weights", "initial", "gates", "kept", "out", "into", "zeros"),
            *("into_gates", "carried", "into_bias"),
        )
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
    functions = ctypes.CDLL(str(path))
    functions.crnn_training_width.restype = ctypes.c_int64
    for name in ("crnn_gru_forward", "crnn_gru_backward"):
        getattr(functions, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        getattr(functions, name).restype = None
    return functions


def gru(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    *,
    reverse: bool = False,
) -> Tensor:
    """A GRU over sequences that lie row by row in one matrix, with nn.GRU's equations (reset after the product).

    Args:
        weights: weight_ih, weight_hh, bias_ih, bias_hh as nn.GRU has them.
        starts: row of each sequence's first frame.
        lengths: frames of each sequence; rows that belong to none are zero in the result.
        reverse: from each sequence's own last frame to its first.
    Shape:
        x: (rows, channels); initial: (batch, hidden); starts, lengths: (batch,) int64; returns (rows, hidden).
    """
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights, initial))
    return torch.ops.crnn.gru(x, *weights, initial, starts, lengths, reverse, keep)[0]  # type: ignore[no-any-return]


def _gru(
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
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (rows, hidden); gates r, z, n (rows, 3 hidden) and what r multiplied (rows, hidden), if kept."""
    hidden = weight_hh.shape[1]
    bias = bias_ih.clone()
    bias[: 2 * hidden] += bias_hh[: 2 * hidden]
    gates = torch.addmm(bias, x, weight_ih.t(), out=empty((len(x), 3 * hidden), x.dtype))
    out, kept = empty((len(x), hidden), x.dtype), empty((len(x), hidden) if keep else (0,), x.dtype)
    if int(lengths.sum()) < len(x):
        out.zero_()  # rows of no sequence
    bias_n, initial = bias_hh[2 * hidden :].contiguous(), initial.contiguous()
    library = kernels() if x.dtype == torch.float32 else None
    if library is None:
        _gru_forward_in_torch(gates, kept if keep else None, out, weight_hh, bias_n, initial, starts, lengths, reverse)
    else:
        width = library.crnn_training_width()
        packed = _blocks(weight_hh.view(3, hidden, hidden), 1, width).permute(1, 3, 0, 2).contiguous()
        tensors = (packed, bias_n, initial, gates, kept, out)
        addresses = [t.data_ptr() for t in tensors]
        addresses[4] = kept.data_ptr() if keep else 0
        arguments = _GruForward(*addresses)
        _in_threads(library.crnn_gru_forward, lambda _: arguments, starts, lengths, hidden, reverse)
    return out, gates if keep else gates.new_empty(0), kept


def _gru_backward(
    into: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    out: Tensor,
    gates: Tensor,
    kept: Tensor,
    reverse: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (if wanted), weight_ih, weight_hh, bias_ih, bias_hh and initial."""
    hidden = weight_hh.shape[1]
    into, initial = into.contiguous(), initial.contiguous()
    by_kept = weight_hh.view(3, hidden, hidden)[[2, 0, 1]].view(3 * hidden, hidden)
    into_gates, sums, carried = _gates_backward(into, out, gates, kept, by_kept, initial, starts, lengths, reverse)
    of_state, of_input = into_gates[:, : 3 * hidden], into_gates[:, hidden:]
    into_x = torch.mm(of_input, weight_ih, out=empty(x.shape, x.dtype)) if wants_x else x.new_empty(0)
    # the state before a row is the row before it, but at the first rows, whose products are replaced
    before, after = (out[1:], of_state[:-1]) if reverse else (out[:-1], of_state[1:])
    first = starts + lengths - 1 if reverse else starts
    neighbour = first + (1 if reverse else -1)
    has_neighbour = (neighbour >= 0) & (neighbour < len(out))
    wrong = torch.where(has_neighbour[:, None], out[neighbour.clamp(0, len(out) - 1)], 0)
    at_first = torch.where((lengths > 0)[:, None], of_state[first.clamp(0, len(out) - 1)], 0)
    into_hh = (after.t() @ before).addmm_(at_first.t(), initial - wrong)
    return (
        into_x,
        of_input.t() @ x,
        torch.cat([into_hh[hidden:], into_hh[:hidden]]),
        sums[hidden:].clone(),
        torch.cat([sums[hidden : 3 * hidden], sums[:hidden]]),
        carried.addmm_(at_first, by_kept),
    )


def _gates_backward(
    into: Tensor,
    out: Tensor,
    gates: Tensor,
    kept: Tensor,
    by_kept: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The reverse pass.

    Returns:
        gradients (rows, 4 hidden) of what r multiplies, of r and z before their sigmoids, and of n before its tanh;
        their sums (4 hidden,); what of the gradient passes the first step's gates to the initial state (batch, hidden).
    """
    hidden = out.shape[1]
    into_gates, carried = empty((len(out), 4 * hidden), out.dtype), torch.zeros_like(initial)
    if int(lengths.sum()) < len(out):
        into_gates.zero_()
    library = kernels() if out.dtype == torch.float32 else None
    if library is None:
        _gru_backward_in_torch(into_gates, carried, into, out, gates, kept, by_kept, initial, starts, lengths, reverse)
        return into_gates, into_gates.sum(0), carried
    packed = _blocks(by_kept, 1, 2 * library.crnn_training_width()).permute(1, 0, 2).contiguous()
    zeros, sums = out.new_zeros(3 * hidden), out.new_zeros(torch.get_num_threads(), 4 * hidden)
    tensors = (packed, initial, gates, kept, out, into, zeros, into_gates, carried)
    addresses = [t.data_ptr() for t in tensors]
    _in_threads(
        library.crnn_gru_backward,
        lambda i: _GruBackward(*addresses, sums[i].data_ptr()),
        *(starts, lengths, hidden, reverse),
    )
    return into_gates, sums.sum(0), carried


def _backward(ctx: Any, into: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    into_x, *others = torch.ops.crnn.gru_backward(into, *ctx.saved_tensors, ctx.reverse, ctx.needs_input_grad[0])
    return into_x if ctx.needs_input_grad[0] else None, *others, None, None, None, None


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight_ih, weight_hh, _, _, initial, starts, lengths, reverse, _ = inputs
    ctx.save_for_backward(x, weight_ih, weight_hh, initial, starts, lengths, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.reverse = reverse


def _fake_gru(
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
) -> tuple[Tensor, Tensor, Tensor]:
    rows, hidden = x.shape[0], weight_hh.shape[1]
    kept = [(rows, 3 * hidden), (rows, hidden)] if keep else [(0,), (0,)]
    return x.new_empty((rows, hidden)), x.new_empty(kept[0]), x.new_empty(kept[1])


def _fake_gru_backward(
    into: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    out: Tensor,
    gates: Tensor,
    kept: Tensor,
    reverse: bool,
    wants_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    size = weight_hh.shape[0]
    shapes = [x.shape if wants_x else (0,), weight_ih.shape, weight_hh.shape, (size,), (size,), initial.shape]
    into_x, w, u, b, c, h = (x.new_empty(shape) for shape in shapes)
    return into_x, w, u, b, c, h


def _no_second_derivative(ctx: Any, *_: Tensor) -> None:
    raise NotImplementedError(
        "crnn::gru has no second derivative; run the nn.GRU itself where a gradient of a gradient is wanted"
    )


# torch.library.custom_op says the same in fewer words, but its first call imports torch._dynamo, which takes a second
def _register(name: str, kernel: Callable[..., Any], fake: Callable[..., Any], backward: Callable[..., Any]) -> None:
    torch.library.define(name, torch.library.infer_schema(kernel, mutates_args=()), tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(name, "CPU", kernel)
    torch.library.register_fake(name, fake)
    keep = _keep_for_backward if backward is _backward else None
    torch.library.register_autograd(name, backward, setup_context=keep)


_register("crnn::gru", _gru, _fake_gru, _backward)
_register("crnn::gru_backward", _gru_backward, _fake_gru_backward, _no_second_derivative)


def _blocks(weights: Tensor, axis: int, width: int) -> Tensor:
    """The axis divided into blocks of `width`, filled up with zeros."""
    missing = -weights.shape[axis] % width
    if missing:
        shape = list(weights.shape)
        shape[axis] = missing
        weights = torch.cat([weights, weights.new_zeros(shape)], axis)
    return weights.unflatten(axis, (-1, width))  # type: ignore[no-any-return]


def _in_threads(
    function: Any,
    arguments: Callable[[int], ctypes.Structure],
    starts: Tensor,
    lengths: Tensor,
    hidden: int,
    reverse: bool,
) -> None:
    """Divide the sequences among as many threads as torch has, dealt out by length, so that all have as much to do.

    Args:
        arguments: of the call that thread i makes.
    """
    starts, lengths = starts.contiguous(), lengths.contiguous()
    frames, order = lengths.sort(descending=True, stable=True)
    num_present = int((frames > 0).sum())
    order = order[:num_present]
    macs = int(frames.sum()) * 3 * hidden * hidden
    num_threads = max(1, min(torch.get_num_threads(), num_present // 4, macs // MACS_A_THREAD))
    calls = []
    for i in range(num_threads):
        part = order[i::num_threads].contiguous()
        if len(part):
            batch = _Batch(starts.data_ptr(), lengths.data_ptr(), part.data_ptr(), len(part), hidden, reverse)
            calls.append((ctypes.byref(arguments(i)), ctypes.byref(batch), part))
    threads = [Thread(target=function, args=call[:2]) for call in calls[1:]]
    for thread in threads:
        thread.start()
    for call in calls[:1]:
        function(*call[:2])
    for thread in threads:
        thread.join()


def _rows_in_time(starts: Tensor, lengths: Tensor, reverse: bool) -> list[tuple[Tensor, Tensor]]:
    """For every step: which sequences still run, and their rows."""
    steps = []
    for t in range(int(lengths.max()) if len(lengths) else 0):
        which = (lengths > t).nonzero()[:, 0]
        steps.append((which, starts[which] + (lengths[which] - 1 - t if reverse else t)))
    return steps


def _gru_forward_in_torch(
    gates: Tensor,
    kept: Tensor | None,
    out: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
) -> None:
    """What crnn_gru_forward does, in any precision; writes gates, kept and out."""
    state = initial.clone()
    for which, rows in _rows_in_time(starts, lengths, reverse):
        before = state[which]
        r, z, n = (before @ weight_hh.t()).chunk(3, 1)
        of_r, of_z, of_n = gates[rows].chunk(3, 1)
        r, z, n = (of_r + r).sigmoid(), (of_z + z).sigmoid(), n + bias_n
        new = (of_n + r * n).tanh()
        state[which] = out[rows] = new + z * (before - new)
        if kept is not None:
            gates[rows], kept[rows] = torch.cat([r, z, new], 1), n


def _gru_backward_in_torch(
    into_gates: Tensor,
    carried: Tensor,
    into: Tensor,
    out: Tensor,
    gates: Tensor,
    kept: Tensor,
    by_kept: Tensor,
    initial: Tensor,
    starts: Tensor,
    lengths: Tensor,
    reverse: bool,
) -> None:
    """What crnn_gru_backward does, in any precision; writes into_gates and carried."""
    after = torch.zeros_like(carried)
    steps = _rows_in_time(starts, lengths, reverse)
    for t in reversed(range(len(steps))):
        which, rows = steps[t]
        before = out[rows + (1 if reverse else -1)] if t else initial[which]
        r, z, n = gates[rows].chunk(3, 1)
        h = after[which] + carried[which] + into[rows]
        d_n = h * (1 - z) * (1 - n * n)
        d_r, d_z = d_n * kept[rows] * r * (1 - r), h * (before - n) * z * (1 - z)
        into_gates[rows] = torch.cat([d_n * r, d_r, d_z, d_n], 1)
        carried[which] = h * z
        after[which] = into_gates[rows, : 3 * by_kept.shape[1]] @ by_kept
