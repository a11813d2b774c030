"""The outputs of a network for a whole data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from crnn.data.batch import Batches
from crnn.sequences import Ragged, Sequences


@torch.no_grad()  # not inference_mode: what a layer caches here must stay usable in training
def compute_outputs(
    network: nn.Module, batches: Batches, *, autocast: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Any:
    """Outputs for every example, in the order of the data set, whatever order the batches come in.

    The network is put into eval mode for it and back.

    Shape:
        returns (examples, outputs) float32 on the CPU; of a network that answers for every frame, a Ragged of them.
    """
    reference = next(network.parameters(), None)
    device = torch.device("cpu") if reference is None else reference.device
    was_training = network.training
    network.eval()
    parts: list[Any] = []
    places: list[Tensor] = []
    for x, indices in batches.epoch(0):
        with autocast():
            outputs = network(x if device.type == "cpu" else x.to(device))
        parts.append(outputs if isinstance(outputs, Sequences) else outputs.float())
        places.append(indices)
    network.train(was_training)
    order = torch.cat(places)
    if isinstance(parts[0], Sequences):
        return _in_order([row.float().cpu() for part in parts for row in part.unpad()], order)
    gathered = torch.cat(parts).cpu()
    outputs = torch.empty_like(gathered)
    outputs[order] = gathered
    return outputs


def _in_order(rows: list[Tensor], order: Tensor) -> Ragged:
    """Rows as they came, put in the places where they belong."""
    return Ragged.of([rows[i] for i in order.argsort().tolist()])
