"""What a stream has to know of a model: how outputs become predictions, and which model it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from crnn.config import to_plain
from crnn.data.dataset import Kind
from crnn.models.network import Network
from crnn.nn.layers import Timing
from crnn.streaming.update import Update
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

    def looked_at(self, frames: int) -> int:
        """How many of the first `frames` frames the answer is about, before the end is known."""
        return max(min(_reach(timing, frames) for timing in self.timings), 0)

    def update(self, outputs: Tensor, frames: int, *, is_final: bool) -> Update:
        """Outputs (labels,), divided by the temperature, as an answer."""
        (prediction,) = self.task.predictions(outputs[None])
        looked_at = frames if is_final else self.looked_at(frames)
        return Update(prediction, frames, looked_at, self.sample_rate, is_final)


def _reach(timing: Timing, frames: int) -> int:
    """Frames up to the last one that the newest output looks at."""
    ahead = int(timing.look_ahead)
    newest = (frames - 1 - ahead) // timing.stride  # output t comes with frame t * stride + look_ahead
    return newest * timing.stride + ahead + 1 if newest >= 0 else 0
