"""The promise measured on one model: an example gives the same outputs alone, in a batch, and padded with junk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from crnn.data.batch import load_example
from crnn.data.dataset import Dataset
from crnn.data.windows import beginnings
from crnn.models.network import Network
from crnn.sequences import Ragged, Sequences, pad
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Task


@dataclass(frozen=True)
class Exactness:
    """How far outputs move when the same examples arrive alone, in a batch, or padded."""

    num_examples: int
    batched: float
    """Largest difference of an output, one example alone against all in one padded batch."""
    padded: float
    """Largest difference of an output, one example alone against the batch padded to 4x its length with junk."""
    junk: str
    """What stood in the padding."""
    largest_output: float
    """To compare with."""
    changed: int
    """Examples whose prediction was another one in the batch or with padding."""

    @property
    def largest(self) -> float:
        return max(self.batched, self.padded)


def collate(data: Dataset, indices: Sequence[int]) -> Sequences:
    """Read these examples into one padded batch."""
    return pad([torch.from_numpy(load_example(data[i], data)) for i in indices])


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights lie; the CPU when it has none."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@torch.inference_mode()
def measure_exactness(
    network: Network, task: Task, data: Dataset, *, num_examples: int = 64, max_values: int = 8_000_000
) -> Exactness:
    """Run examples alone, batched, and padded to 4x the longest with NaN in the padding; compare outputs.

    Args:
        num_examples: at most; spread over the whole range of lengths, the shortest and the longest among them.
        max_values: numbers in the padded batch, so that long recordings do not fill the memory: fewer examples then,
            and of hours the beginning.
    """
    was_training = network.training
    network.eval()
    try:
        data = beginnings(data, max_values // (8 * data.frame_values))  # two, padded to 4x
        batch = collate(data, _spread(data, num_examples, max_values)).to(device_of(network))
        valid = batch.unpad()
        alone = _joined([network(Sequences(x[None], n[None])) for x, n in zip(valid, batch.lengths, strict=True)])
        junk = torch.nan if batch.data.is_floating_point() else max(len(data.vocabulary) - 1, 0)
        batched = _joined([network(pad(valid, value=junk))])
        padded = _joined([network(pad(valid, length=4 * batch.data.shape[1], value=junk))])
    finally:
        network.train(was_training)
    if isinstance(task, StepTask):
        frames = network.frames(batch.lengths, data.sample_rate)
        reference, *others = (task.predictions(outputs, frames) for outputs in (alone, batched, padded))
        alone, batched, padded = alone.data, batched.data, padded.data
    else:
        reference, *others = (task.predictions(outputs) for outputs in (alone, batched, padded))
    changed = [any(_differs(a, other[i]) for other in others) for i, a in enumerate(reference)]
    return Exactness(
        num_examples=len(valid),
        batched=float((alone - batched).abs().max()),
        padded=float((alone - padded).abs().max()),
        junk="NaN" if batch.data.is_floating_point() else "another symbol",
        largest_output=float(alone.abs().max()),
        changed=sum(changed),
    )


def _joined(outputs: list[Any]) -> Any:
    """What a network gave for one batch after another, on the CPU."""
    if isinstance(outputs[0], Sequences):
        return Ragged.of([row.float().cpu() for part in outputs for row in part.unpad()])
    return torch.cat(outputs).float().cpu()


def _spread(data: Dataset, most: int, max_values: int) -> list[int]:
    """Positions spread evenly over the sorted lengths."""
    fits = max(2, max_values // (4 * int(data.lengths.max()) * data.frame_values))
    count = min(len(data), most, fits)
    order = np.argsort(data.lengths, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))].tolist()  # type: ignore[no-any-return]


def _differs(a: Any, b: Any) -> bool:
    """Whether a decision changed; values may differ by rounding, and probabilities are values."""
    if isinstance(a, dict):
        return any(_differs(found, b[key]) for key, found in a.items() if key != "probabilities")
    if isinstance(a, (list, tuple)):
        return len(a) != len(b) or any(_differs(x, y) for x, y in zip(a, b, strict=True))
    return not isinstance(a, float) and bool(a != b)
