"""The outputs of a network for a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn.data.batch import Batches, one_pass_values
from crnn.data.dataset import Dataset
from crnn.sequences import Ragged, Sequences

STREAMED_ABOVE = 1 << 22
"""Numbers in a sequence from which it is streamed, where its network can: half an hour of two leads at 1 kHz."""
LONG_VALUES = 1 << 23
"""Numbers in a sequence from which it is read in windows, where its network cannot stream: they cost exactness."""
STREAMED_VALUES = 1 << 18
"""Numbers in one part of it."""
WINDOW_VALUES = 1 << 20
"""Numbers in one window of a long sequence whose network cannot stream: two minutes of sound at 8 kHz."""
CONTEXT_VALUES = 1 << 17
"""Numbers that a window also sees on both sides of what it answers for: 16 seconds of that sound."""


@torch.no_grad()  # not inference_mode: what a layer caches here must stay usable in training
def compute_outputs(
    network: nn.Module, batches: Batches, *, autocast: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Any:
    """Outputs for every example, in the order of the data set, whatever order the batches come in.

    The network is put into eval mode for it and back. A recording of hours is streamed through a network that answers
    for every frame and can stream: memory stays that of a part of it. One that answers for every frame but cannot
    stream, being bidirectional, reads it in windows that overlap: each answer sees at least CONTEXT_VALUES on both
    sides, and nothing beyond its window.

    Shape:
        returns (examples, outputs) float32 on the CPU; of a network that answers for every frame, a Ragged of them.
    """
    reference = next(network.parameters(), None)
    device = torch.device("cpu") if reference is None else reference.device
    was_training = network.training
    network.eval()
    parts: list[Any] = []
    places: list[Tensor] = []
    data = batches.data
    can_stream = getattr(network, "can_stream", False)
    long = data.lengths * data.frame_values > (STREAMED_ABOVE if can_stream else LONG_VALUES)
    if long.any() and getattr(network, "per_step", False):
        rest, read_long = np.flatnonzero(~long), _streamed if can_stream else _windowed
        for place in np.flatnonzero(long).tolist():
            with autocast():
                row = read_long(network, data, place, device)
            parts.append(Sequences(row[None], torch.tensor([len(row)])))
            places.append(torch.tensor([place]))
        shorter = _shorter(data, rest, max(batches.sizes))
    else:
        rest, shorter = np.arange(len(data)), batches.epoch(0)
    for x, indices in shorter:
        with autocast():
            outputs = network(x if device.type == "cpu" else x.to(device))
        parts.append(outputs if isinstance(outputs, Sequences) else outputs.float())
        places.append(torch.from_numpy(rest)[indices])
    network.train(was_training)
    order = torch.cat(places)
    if isinstance(parts[0], Sequences):
        return _in_order([row.float().cpu() for part in parts for row in part.unpad()], order)
    gathered = torch.cat(parts).cpu()
    outputs = torch.empty_like(gathered)
    outputs[order] = gathered
    return outputs


def _shorter(data: Dataset, rest: NDArray[np.intp], size: int) -> Iterator[tuple[Sequences, Tensor]]:
    if not len(rest):
        return iter(())
    return Batches(
        data.subset(rest), size, shuffle=False, seed=0, cache_bytes=0, max_values=one_pass_values(data)
    ).epoch(0)


def _streamed(network: Any, data: Dataset, place: int, device: torch.device) -> Tensor:
    """Outputs of one long recording, (frames, outputs), read and pushed a part at a time."""
    example = data[place]
    size = max(STREAMED_VALUES // data.frame_values, 1)
    state, parts = network.start(1), []
    for start in range(0, example.length, size):
        part = example.read_part(start, min(start + size, example.length))
        out, state = network.push(torch.from_numpy(np.array(part))[None].to(device), state)
        parts.append(out[0].float().cpu())
    parts.append(network.finish(state)[0].float().cpu())
    return torch.cat(parts)


def _windowed(network: Any, data: Dataset, place: int, device: torch.device) -> Tensor:
    """Outputs of one long recording, (frames, outputs), by windows that overlap; the last one may be longer."""
    example, stride = data[place], network.timing.stride
    size, context = _window_frames(data, stride)
    parts = []
    starts = [*range(0, max(example.length - size // 2, 1), size)]
    for start, end in zip(starts, [*starts[1:], example.length], strict=True):
        first, last = max(start - context, 0), min(end + context, example.length)
        part = torch.from_numpy(np.array(example.read_part(first, last)))[None].to(device)
        out = network(Sequences(part, torch.tensor([last - first], device=device))).data[0]
        skip = (start - first) // stride
        kept = out[skip:] if end == example.length else out[skip : skip + (end - start) // stride]
        parts.append(kept.float().cpu())
    return torch.cat(parts)


def _window_frames(data: Dataset, stride: int) -> tuple[int, int]:
    """Input frames of a window, and of its context on either side: whole output frames."""
    size, context = (
        max(values // data.frame_values // stride, 1) * stride for values in (WINDOW_VALUES, CONTEXT_VALUES)
    )
    return size, context


def describe_windows(network: Any, data: Dataset) -> str:
    """What is read in windows that overlap, because its network cannot stream, in words; "" where nothing is."""
    long = data.lengths * data.frame_values > LONG_VALUES
    if not long.any() or not getattr(network, "per_step", False) or network.can_stream:
        return ""
    size, context = _window_frames(data, network.timing.stride)
    rate, unit = (data.sample_rate, "s") if data.sample_rate else (1.0, "frames")
    return (
        f"{int(long.sum())} long recordings are read in windows of {size / rate:.4g} {unit} that look "
        f"{context / rate:.3g} {unit} back and ahead, for this network cannot stream (preset speech-small does)"
    )


def _in_order(rows: list[Tensor], order: Tensor) -> Ragged:
    """Rows as they came, put in the places where they belong."""
    return Ragged.of([rows[i] for i in order.argsort().tolist()])
