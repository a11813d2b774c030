"""How many frames each node of a streamed program has to keep for its readers: exactly, by counting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crnn.program import ops
from crnn.program.program import Node, Program

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Frames t*stride - pad_left ... + extent - 1 of its inputs make a node's frame t."""

    extent: int = 1
    stride: int = 1
    pad_left: int = 0
    whole: bool = False
    """No frames of windows that run over the end."""

    @classmethod
    def of(cls, node: Node) -> Window:
        op = node.op
        if not isinstance(op, ops.Windowed):
            return cls()
        return cls(op.extent, op.stride, op.pad_left, op.tail == "floor")

    def starts(self, t: Counts) -> Counts:
        """First input frame of window t."""
        return np.maximum(t * self.stride - self.pad_left, 0)

    def is_there(self, inputs: Counts, t: Counts) -> NDArray[np.bool_]:
        """Whether the last input frame of window t has come."""
        return inputs > t * self.stride - self.pad_left + self.extent - 1

    def last(self, inputs: Counts) -> Counts:
        """Windows of an input that has ended after so many frames."""
        if self.whole:
            return np.maximum((inputs - self.extent) // self.stride + 1, 0)
        return -(-inputs // self.stride)


class Rings:
    """Counts frames through a program as the engine does, for every length of stream until all of it repeats.

    Each frame that comes in is followed by one pass over the nodes, and the end of the stream by as many passes as
    still give frames; a pass gives at most one frame of each node. A node's ring has to hold its newest frame and all
    back to the first that some reader still needs.
    """

    def __init__(self, program: Program) -> None:
        self._nodes = program.nodes
        self._windows = [Window.of(node) for node in program.nodes]
        self._capacity = [1] * len(program.nodes)
        self.flushed = 0
        """Most frames of the last node that only the end of a stream makes ready."""
        self._readers: list[list[int]] = [[] for _ in program.nodes]
        for i, node in enumerate(program.nodes):
            if not self._is_vector(i):
                for j in node.inputs:
                    self._readers[j].append(i)
        lengths = np.arange(self._horizon() + 1, dtype=np.int64)
        self._finish(self._stream(lengths))

    def capacity(self, i: int) -> int:
        """Frames in the ring of node i."""
        return self._capacity[i]

    def _is_vector(self, i: int) -> bool:
        """Computed when read; summaries are not, they take each frame as it comes."""
        node = self._nodes[i]
        return node.is_vector and not isinstance(node.op, ops.TO_VECTOR)

    def _horizon(self) -> int:
        """Frames after which the counts of all nodes have begun to repeat, and have done so once."""
        strides, before = [1], 0
        for node, window in zip(self._nodes[1:], self._windows[1:], strict=True):
            step = strides[node.inputs[0]]
            strides.append(step * window.stride)
            before += (window.extent - 1) * step
        return before + 2 * math.lcm(*strides)

    def _stream(self, lengths: Counts) -> list[Counts]:
        """Frames of each node after so many input frames."""
        counts = [lengths]
        for i in range(1, len(self._nodes)):
            window = self._windows[i]
            if self._is_vector(i):
                counts.append(np.zeros_like(lengths))
                continue
            whole = [(counts[j] - window.extent + window.pad_left) // window.stride + 1 for j in self._nodes[i].inputs]
            counts.append(np.maximum(np.minimum.reduce(whole), 0))
        for j, readers in enumerate(self._readers):
            for r in readers:
                self._hold(j, counts[j][1:] - self._windows[r].starts(counts[r][:-1]))
        return counts

    def _hold(self, j: int, frames: Counts) -> None:
        self._capacity[j] = max(self._capacity[j], int(frames.max(initial=1)))

    def _finish(self, counts: Sequence[Counts]) -> None:
        """Flush streams of every length at once."""
        now = [c.copy() for c in counts]
        done = [np.zeros(len(counts[0]), bool) for _ in counts]
        done[0][:] = True
        going = True
        while going:
            going = False
            for i in range(1, len(now)):
                if self._is_vector(i):
                    continue
                ready = self._is_ready(i, now, done)
                now[i] += ready
                going |= bool(ready.any())
                for r in self._readers[i]:
                    self._hold(i, (now[i] - self._windows[r].starts(now[r]))[ready])
        self.flushed = int((now[-1] - counts[-1]).max())

    def _is_ready(self, i: int, now: list[Counts], done: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """As crnn_is_ready in native/engine.h; marks node i as done where it is."""
        window, t = self._windows[i], now[i]
        ready = np.ones(len(t), bool)
        for j in self._nodes[i].inputs:
            missing = ready & ~window.is_there(now[j], t)
            over = missing & done[j] & (t >= window.last(now[j]))
            done[i] |= over
            ready &= ~(missing & ~done[j]) & ~over
        return ready
