"""The outputs of a network for a whole data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from crnn.data.batch import Batches


@torch.no_grad()  # not inference_mode: what a layer caches here must stay usable in training
def compute_outputs(
    network: nn.Module, batches: Batches, *, autocast: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Tensor:
    """Outputs for every example, in the order of the data set, whatever order the batches come in.

    The network is put into eval mode for it and back.

    Shape:
        returns (examples, outputs) float32 on the CPU.
    """
    reference = next(network.parameters(), None)
    device = torch.device("cpu") if reference is None else reference.device
    was_training = network.training
    network.eval()
    parts, places = [], []
    for x, indices in batches.epoch(0):
        with autocast():
            parts.append(network(x if device.type == "cpu" else x.to(device)).float())
        places.append(indices)
    network.train(was_training)
    gathered, order = torch.cat(parts).cpu(), torch.cat(places)
    outputs = torch.empty_like(gathered)
    outputs[order] = gathered
    return outputs
