"""The outputs of a network for a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn.data.batch import Batches
from crnn.data.dataset import Dataset
from crnn.sequences import Ragged, Sequences

LONG_VALUES = 1 << 23
"""Numbers in a sequence from which it is streamed, where its network can: an hour of two leads at 1 kHz."""
STREAMED_VALUES = 1 << 18
"""Numbers in one part of it."""


@torch.no_grad()  # not inference_mode: what a layer caches here must stay usable in training
def compute_outputs(
    network: nn.Module, batches: Batches, *, autocast: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Any:
    """Outputs for every example, in the order of the data set, whatever order the batches come in.

    The network is put into eval mode for it and back. A recording of hours is streamed through a network that answers
    for every frame and can stream: memory stays that of a part of it.

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
    long = data.lengths * data.frame_values > LONG_VALUES
    if long.any() and getattr(network, "per_step", False) and network.can_stream:
        rest = np.flatnonzero(~long)
        for place in np.flatnonzero(long).tolist():
            with autocast():
                row = _streamed(network, data, place, device)
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
    return Batches(data.subset(rest), size, shuffle=False, seed=0, cache_bytes=0, max_values=LONG_VALUES).epoch(0)


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


def _in_order(rows: list[Tensor], order: Tensor) -> Ragged:
    """Rows as they came, put in the places where they belong."""
    return Ragged.of([rows[i] for i in order.argsort().tolist()])
