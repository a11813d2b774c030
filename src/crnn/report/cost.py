"""What a model costs: parameters, multiply-adds, CPU time, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from crnn.data.batch import ONE_PASS_VALUES
from crnn.data.dataset import Dataset
from crnn.models.network import Network
from crnn.report.exactness import collate, device_of
from crnn.sequences import Sequences


@dataclass(frozen=True)
class Cost:
    """Cost of one model on examples of one data set."""

    num_parameters: int
    macs: float
    """Multiply-adds per input second, or per input step where no rate is known."""
    per: str
    """'second' or 'step'."""
    macs_per_example: float
    """Of an example of median length."""
    single_seconds: float
    """CPU seconds per example of median length, one at a time."""
    batched_seconds: float
    """CPU seconds per example, in one batch."""
    batch_size: int
    threads: int
    model_bytes: int | None = None
    """Of the saved weights."""


def measure_cost(
    network: Network, data: Dataset, *, batch_size: int = 64, model_bytes: int | None = None, seconds: float = 2.0
) -> Cost:
    """Count and time the model on examples about the median length.

    Args:
        batch_size: of the second timing, at most; fewer where the recordings are long.
        seconds: of CPU time to spend on each of the two timings, about.
    """
    lengths = data.lengths
    median = int(np.median(lengths))
    fits = max(1, ONE_PASS_VALUES // (median * max(1, len(data.channel_names))))
    near = np.argsort(np.abs(lengths - median), kind="stable")[: min(batch_size, fits)]
    batch = collate(data, near.tolist()).to(device_of(network))
    one = Sequences(batch.data[:1, : int(batch.lengths[0])], batch.lengths[:1])
    was_training = network.training
    network.eval()
    try:
        single = _cpu_seconds(lambda: network(one), seconds)
        batched = _cpu_seconds(lambda: network(batch), seconds) / len(near)
    finally:
        network.train(was_training)
    return Cost(
        num_parameters=network.num_parameters,
        macs=macs_per_frame(network) * (data.sample_rate or 1),
        per="second" if data.sample_rate else "step",
        macs_per_example=float(network.macs(median)),
        single_seconds=single,
        batched_seconds=batched,
        batch_size=len(near),
        threads=torch.get_num_threads(),
        model_bytes=model_bytes,
    )


def macs_per_frame(network: Network) -> float:
    """Multiply-adds that each further input frame costs."""
    start, frames = network.min_length, 1000
    return (network.macs(start + frames) - network.macs(start)) / frames


@torch.inference_mode()
def _cpu_seconds(run: Callable[[], object], budget: float) -> float:
    """Median of CPU seconds a call, after one call to warm up; at most 20 calls."""
    run()
    found: list[float] = []
    while len(found) < 20 and (sum(found) < budget or not found):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return float(np.median(found))
