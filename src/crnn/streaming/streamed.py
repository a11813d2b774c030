"""What a stream has to know of a model: what goes in, how late and how often answers come, and which model it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from crnn.config import to_plain
from crnn.data.dataset import Kind
from crnn.models.network import Network
from crnn.nn.layers import Timing
from crnn.program.lower import vocabulary_of
from crnn.tasks.task import Task


@dataclass(frozen=True)
class StreamedModel:
    """A trained network with what goes in and what comes out."""

    network: Network
    task: Task
    kind: Kind
    num_channels: int
    """0 for symbols."""
    sample_rate: float | None
    temperature: float

    @cached_property
    def fingerprint(self) -> str:
        """Hash of spec, weights, labels and temperature: what a snapshot belongs to."""
        plain = [to_plain(self.network.spec), self.task.state(), self.temperature, self.sample_rate]
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    @cached_property
    def vocabulary(self) -> int:
        """How many symbols it knows; 0 where that is not known, or frames are values."""
        return vocabulary_of(self.network)

    @cached_property
    def timings(self) -> list[Timing]:
        """Of each way through the network."""
        return self.network.timings

    @property
    def delay(self) -> int:
        """Frames by which the answer lags behind the input."""
        return max(int(timing.look_ahead) for timing in self.timings)

    @property
    def step(self) -> int:
        """Frames from one new answer to the next."""
        return min(timing.stride for timing in self.timings)
