"""What the largest training batch will hold in memory, measured on the network before any data is read."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from crnn.data.buckets import even_sizes
from crnn.data.dataset import Dataset
from crnn.data.windows import windows
from crnn.errors import DataError
from crnn.sequences import Sequences
from crnn.training.config import TrainConfig, make_plan

PROBE_FRAMES = 1024
"""Frames of the sequences that are measured, at least: enough for several frames behind any front-end."""
PROBE_SEQUENCES = 2
"""Sequences side by side: one alone is spared the copies that put a batch into another order."""
LONG = 50
"""A sequence so many times longer than the median is worth a message: its batch decides what memory is needed."""
HALF = 0.5
"""Share of the free memory from which the largest batch is worth a message."""
QUARTER = 4
"""Windows that are proposed fill this part of the free memory."""


@dataclass(frozen=True)
class LargestBatch:
    """The batch of the longest sequence, and the bytes that its activations hold until the gradients are there."""

    where: str
    frames: int
    """Of the longest sequence."""
    median_frames: float
    sequences: int
    bytes: int
    free_bytes: int | None
    """Of this machine or GPU; None where it does not say."""
    proposed_frames: int
    """A length that would fit well."""

    @property
    def fits(self) -> bool:
        """False where the activations alone need more than there is."""
        return self.free_bytes is None or self.bytes <= self.free_bytes

    @property
    def is_notable(self) -> bool:
        """Whether a user should hear of it."""
        is_large = self.free_bytes is not None and self.bytes > HALF * self.free_bytes
        return is_large or self.frames > LONG * self.median_frames

    def __str__(self) -> str:
        """What was found, and what can be done."""
        free = "" if self.free_bytes is None else f", {_size(self.free_bytes)} are free"
        return (
            f"{self.frames:,} frames ({self.frames / self.median_frames:,.0f} times the median): a batch of "
            f"{self.sequences} as long takes about {_size(self.bytes)} to train{free}; "
            f"--set train.max_frames={self.proposed_frames} trains on windows (scores stay on whole sequences), "
            "--set train.batch_frames=N puts fewer long ones into a batch, or leave it out"
        )


def largest_batch(network: nn.Module, data: Dataset, config: TrainConfig, *, shortest: int = 1) -> LargestBatch:
    """The batch that training needs most memory for.

    Args:
        shortest: frames that the network needs at least.
    """
    longest = int(data.lengths.argmax())
    frames = min(data[longest].length, config.max_frames or data[longest].length)
    if config.batch_frames is not None:
        sequences = max(1, config.batch_frames // frames)
    else:
        sequences = even_sizes(len(data), config.batch_size_for(len(data)))[0]
    per_frame = bytes_per_frame(network, data.features, shortest=shortest)
    if config.precision != "32-true":
        per_frame /= 2
    free = free_bytes()
    room = per_frame * sequences * QUARTER
    fitting = frames if free is None else int(free / room)
    return LargestBatch(
        where=data[longest].where,
        frames=frames,
        median_frames=float(np.median(data.lengths)),
        sequences=sequences,
        bytes=int(per_frame * frames * sequences),
        free_bytes=free,
        proposed_frames=_round_down(max(shortest, min(fitting, frames // 2, 10 * int(np.median(data.lengths))))),
    )


def trained_frames(train: Dataset, config: TrainConfig) -> float:
    """Input frames that a whole training run goes through, in the windows and for the steps that are planned."""
    if config.window is not None:
        train = windows(train, config.window)
    lengths = train.lengths if config.max_frames is None else np.minimum(train.lengths, config.max_frames)
    count, total = len(train), int(lengths.sum())
    if config.batch_frames is not None:
        batches = -(-total // config.batch_frames)
    else:
        batches = -(-count // config.batch_size_for(count))
    plan = make_plan(config, batches=max(1, batches), num_train=max(1, count), num_validation=0)
    return float(total) * plan.epochs


def check_memory(network: nn.Module, data: Dataset, config: TrainConfig, *, shortest: int = 1) -> str | None:
    """A message where one long sequence decides what memory training takes; None where there is nothing to say.

    Raises:
        DataError: its batch cannot fit.
    """
    largest = largest_batch(network, data, config, shortest=shortest)
    if not largest.fits:
        raise DataError(f"{largest.where}: {largest}")
    return f"{largest.where}: {largest}" if largest.is_notable else None


def bytes_per_frame(network: nn.Module, features: tuple[int, ...], *, shortest: int = 1) -> float:
    """Bytes that a training step keeps for the backward pass, for each input frame of each sequence.

    Measured: what autograd saves for two batches, one twice as long as the other. The network and all random states
    are left as they were.
    """
    probe = copy.deepcopy(network).cpu().train()
    length = max(PROBE_FRAMES, 2 * shortest)
    with torch.random.fork_rng(devices=[]):
        one, two = (_saved_bytes(probe, features, length * times) for times in (1, 2))
    return (two - one) / (PROBE_SEQUENCES * length)


def _saved_bytes(network: nn.Module, features: tuple[int, ...], length: int) -> int:
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor  # and so it lives on, and no later one can have its place

    shape = (PROBE_SEQUENCES, length, *features)
    data = torch.randn(shape) if features else torch.zeros(shape, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = network(Sequences(data, torch.full((PROBE_SEQUENCES,), length)))
    del kept
    return sum(saved.values())


def free_bytes() -> int | None:
    """Memory that a process can still get: of the GPU where there is one, else of the machine or its container."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    found = [value for value in (_machine_bytes(), _container_bytes()) if value is not None]
    return min(found) if found else None


def _machine_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container_bytes() -> int | None:
    """Of a control group (version 2) with a limit."""
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:
        return None
    return None if limit == "max" else int(limit) - int(used)


def _round_down(number: int) -> int:
    """To two digits."""
    unit: int = 10 ** max(0, int(math.log10(max(1, number))) - 1)
    return number // unit * unit


def _size(count: float) -> str:
    """Bytes in words."""
    if count >= 1e10:
        return f"{count / 1e9:,.0f} GB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
