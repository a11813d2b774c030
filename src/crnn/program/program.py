"""A program: operations in order, each with the nodes it reads and the shape of what it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crnn.program import ops
from crnn.program.ops import Op, Shape

REVERSIBLE: tuple[type[Op], ...] = (ops.Recurrent, ops.GatedMean)
NEED_THE_END: dict[type[Op], str] = {ops.SequenceNorm: "instance_norm", ops.Level: "level"}


@dataclass(frozen=True, eq=False)
class Node:
    """One operation in its place."""

    op: Op
    inputs: tuple[int, ...]
    """Positions of the nodes whose values it reads, all of them before its own."""
    shape: Shape
    """Of one frame or vector that it gives."""
    is_vector: bool
    """One value per sequence, not one per frame."""
    where: str
    """The layer it came from, for messages: layers[3].residual.layers[0]."""

    @property
    def size(self) -> int:
        """Values in a frame."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Program:
    """A network, operation by operation.

    nodes[0] is the Input; the last node is the output of the network (logits over the temperature, or values in the
    target's units), before softmax or sigmoid.
    """

    nodes: tuple[Node, ...]
    sample_rate: float | None
    labels: tuple[str, ...]
    """Name of each output."""
    activation: str
    """What makes probabilities of the outputs: "softmax", "sigmoid", or "none"."""
    min_length: int
    """Frames of the shortest sequence that leaves at least one frame."""
    look_ahead: float
    """Frames by which the outputs lag behind the input."""
    stride: int = 1
    """Where the output is a stream: input frames from one of its frames to the next."""
    left_to_do: str = ""
    """What is left to do with the outputs, in words; empty where `activation` says it all."""

    @property
    def output(self) -> Node:
        return self.nodes[-1]

    @property
    def can_stream(self) -> bool:
        """False where an operation needs the end of the sequence first."""
        return self.why_no_stream() is None

    def why_no_stream(self) -> str | None:
        """The first operation that needs the end of the sequence, and its place; None where all of them stream."""
        names = dict.fromkeys(REVERSIBLE, "bidirectional recurrence") | NEED_THE_END
        for node in self.nodes:
            if not node.op.streams or getattr(node.op, "reverse", False):
                return f"{node.where} ({names[type(node.op)]})"
        return None

    def out_length(self, length: int) -> list[int]:
        """Frames that each node gives for a sequence of `length` frames; 1 for vectors."""
        lengths: list[int] = []
        for node in self.nodes:
            if not node.inputs:
                lengths.append(length)
            elif node.is_vector:
                lengths.append(1)
            else:
                lengths.append(_windows(node.op, min(lengths[i] for i in node.inputs)))
        return lengths


def _windows(op: Op, length: int) -> int:
    if not isinstance(op, ops.Windowed):
        return length
    if op.tail == "floor":
        return max((length - op.extent) // op.stride + 1, 0)
    return -(-length // op.stride)


def macs(program: Program, length: int) -> float:
    """Multiply-adds of matrix products, convolutions and transforms for one sequence of `length` frames."""
    return float(sum(_macs(node.op) * n for node, n in zip(program.nodes, program.out_length(length), strict=True)))


def _macs(op: Op) -> float:
    """For one frame that comes out."""
    if isinstance(op, ops.Conv2d):
        return op.weight.size * -(-op.in_bins // op.bin_stride)
    if isinstance(op, ops.Dense):
        return op.weight.size * op.rows
    if isinstance(op, ops.Conv):
        return op.weight.size
    if isinstance(op, ops.Recurrent):
        return op.weight_x.size + op.weight_h.size
    if isinstance(op, ops.LogMel):
        transform = 1.25 * op.n_fft * math.log2(op.n_fft) + op.n_fft
        return op.channels * (len(op.window) + transform + op.filters.size)
    return 0.0
