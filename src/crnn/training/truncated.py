"""Truncated back-propagation: windows of long recordings, with the network's state carried exactly between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from crnn.data.augment import AugmentConfig
from crnn.data.consecutive import Window
from crnn.errors import ConfigError, StreamError
from crnn.models.network import Network
from crnn.nn.layers import State
from crnn.sequences import Ragged, Sequences, pad
from crnn.tasks.step_task import StepTask

Both = tuple[State, State]
"""Of the layers, and of the summary."""


class Carried:
    """A network that goes on where it was: the outputs for window after window are those for the whole recordings.

    In eval mode to the bit that streams are; in training a batch norm takes its statistics from each window. Gradients
    flow within a window only.

    Args:
        frames: of a window.
    Raises:
        ConfigError: the network cannot stream (which layer), or needs longer windows.
    Source: Williams & Peng 1990, doi:10.1162/neco.1990.2.4.490 (truncated back-propagation through time).
    """

    def __init__(self, network: Network, frames: int) -> None:
        self.network = network
        try:
            network.start(1)
        except StreamError as error:
            raise ConfigError(f"train.truncate_frames={frames}: nothing can be carried: {error}") from None
        shortest = network.min_length + int(max(timing.look_ahead + timing.stride for timing in network.timings))
        if frames < shortest:
            raise ConfigError(
                f"train.truncate_frames={frames}: this network answers after {shortest} frames; use longer windows"
            )
        self.state: Both | None = None
        """Of the recordings that go on, in their order, without gradients."""
        self.done = 0
        """Output frames of each of them so far."""

    def step(self, window: Window, x: Sequences) -> tuple[Any, int]:
        """The outputs that a window adds, and at which output frame of each recording they begin.

        Args:
            x: the frames of the window, changed or not.
        Shape:
            returns (rows, outputs), the answer so far; of a network without a summary Sequences of the frames that
            came out.
        """
        if window.is_first:
            self.state, self.done = _moved(self.network.start(len(window.indices)), x.data.device), 0
        assert self.state is not None, "the windows of a group come in order"
        begin, state, self.state = self.done, self.state, None
        outputs: list[Tensor | None] = [None] * len(window.indices)
        for rows, length, ends in _alike(x.lengths, window.ends):
            data, own = x.data[rows, :length], _select(state, rows)
            if ends:
                out = self.network.close(data, own)
            else:
                out, own = self.network.push(data, own)
                self.state = _detached(own)
            assert out is not None, "windows are long enough for an answer"
            for row, answer in zip(rows.tolist(), out, strict=True):
                outputs[row] = answer
            if not ends and self.network.per_step:
                self.done += out.shape[1]
        known = [answer for answer in outputs if answer is not None]
        if not self.network.per_step:
            return torch.stack(known), begin
        lengths = torch.tensor([len(answer) for answer in known], device=x.data.device)
        return Sequences(pad_sequence(known, batch_first=True), lengths), begin

    def tensors(self) -> dict[str, Tensor]:
        """What is carried, for a checkpoint."""
        if self.state is None:
            return {}
        parts = {"body": self.state[0], "summary": self.state[1]}
        named = {f"{part}/{i:03d}": tensor for part, state in parts.items() for i, tensor in enumerate(state)}
        return {**named, "done": torch.tensor(self.done)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `tensors` gave."""
        if "done" not in tensors:
            self.state, self.done = None, 0
            return
        self.done = int(tensors["done"])
        body, summary = (
            tuple(tensors[name] for name in sorted(tensors) if name.startswith(part)) for part in ("body/", "summary/")
        )
        self.state = body, summary


def targets_of(targets: Ragged, indices: Tensor, begin: int, outputs: Sequences) -> Sequences:
    """The part of the targets that outputs from frame `begin` on answer to."""
    ends = (begin + outputs.lengths).tolist()
    return pad([targets[i][begin:end] for i, end in zip(indices.tolist(), ends, strict=True)])


def check_targets(targets: Any, out_lengths: Tensor, task: str, frames: int) -> None:
    """Raises ConfigError where a task has no target for every output frame, so that they cannot be taken in parts."""
    if isinstance(targets, Ragged) and not torch.equal(targets.lengths.cpu(), out_lengths.cpu()):
        raise ConfigError(
            f"train.truncate_frames={frames}: task {task} has one target for a whole sequence of frames, which cannot "
            "be learned in windows; leave truncate_frames out, and cut the recordings where there is silence"
        )


def check_augment(config: AugmentConfig) -> None:
    """Raises ConfigError for a change of the data that would tear windows apart which follow each other."""
    off = AugmentConfig()
    for name in vars(off):
        if name not in StepTask.allowed_augment and getattr(config, name) != getattr(off, name):
            raise ConfigError(
                f"train.augment.{name}={getattr(config, name)!r}: moves frames from one window into another; set it "
                f"to {getattr(off, name)!r}, or leave train.truncate_frames out"
            )


def _alike(lengths: Tensor, ends: Tensor) -> Iterator[tuple[Tensor, int, bool]]:
    """Rows that go on, then those that end, by their number of frames: each can be fed as one dense batch."""
    for last in (False, True):
        for length in lengths[ends == last].unique().tolist():
            yield ((lengths == length) & (ends == last)).nonzero()[:, 0], length, last


def _select(state: Both, rows: Tensor) -> Both:
    body, summary = (tuple(tensor.index_select(0, rows) for tensor in part) for part in state)
    return body, summary


def _moved(state: Both, device: torch.device) -> Both:
    body, summary = (tuple(tensor.to(device) for tensor in part) for part in state)
    return body, summary


def _detached(state: Both) -> Both:
    body, summary = (tuple(tensor.detach() for tensor in part) for part in state)
    return body, summary
