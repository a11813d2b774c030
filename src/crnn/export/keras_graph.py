"""What a Keras model is built with: values and their clocks, lengths, masks, frames picked by their places.

Time has no size while the model is built, so places are counted in the model itself. Only stock layers and operations
of `keras.ops` are called; Keras writes both to its file by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.program import ops
from crnn.program.ops import Array
from crnn.program.program import Node

LOWEST = float(np.finfo(np.float32).min)
"""Stands in the padding where a maximum is taken; JSON has no infinity."""

Clock = tuple[tuple[str, int, int], ...]
"""What has been done to the lengths since the input, step by step: equal clocks mean frames of the same number."""


@dataclass(frozen=True)
class Value:
    """What a node gives: (batch, time, size) with a clock, (batch, size) without; symbol ids are (batch, time)."""

    data: Any
    clock: Clock | None


class Graph:
    """The model as far as it is built: a value for each node, and the lengths and masks that they share."""

    def __init__(self, keras: Any, entry: Node) -> None:
        self.keras, self.ops, self.layers = keras, keras.ops, keras.layers
        is_symbols = isinstance(entry.op, ops.Input) and entry.op.vocabulary > 0
        shape, dtype = ((), "int32") if is_symbols else (entry.shape, "float32")
        self.x = keras.Input((None, *shape), dtype=dtype, name="x")
        self.lengths: dict[Clock, Any] = {(): keras.Input((), dtype="int32", name="lengths")}
        self.times: dict[Clock, Any] = {}
        self.valids: dict[Clock, Any] = {}
        frames = self.layers.Reshape((-1, entry.size))(self.x) if len(shape) > 1 else self.x
        self.values = [Value(frames, ())]
        self.place = ""
        """Start of the names of the layers that a node comes down to."""

    def call(self, layer: Any, data: Any, *weights: NDArray[Any]) -> Any:
        """A layer's output, with these weights in it."""
        out = layer(data)
        layer.set_weights(list(weights))
        return out

    def time(self, x: Value) -> Any:
        """(batch, time) int32: the place of each frame. Sizes are not known yet, so it is counted."""
        assert x.clock is not None
        if x.clock not in self.times:
            frames = x.data if len(x.data.shape) == 2 else x.data[:, :, 0]
            self.times[x.clock] = self.ops.cumsum(self.ops.ones_like(frames, dtype="int32"), axis=1) - 1
        return self.times[x.clock]

    def length(self, x: Value) -> Any:
        """(batch,) int32."""
        assert x.clock is not None
        return self.lengths[x.clock]

    def valid(self, x: Value) -> Any:
        """(batch, time, 1) bool, True where there is data."""
        assert x.clock is not None
        if x.clock not in self.valids:
            self.valids[x.clock] = (self.time(x) < self.length(x)[:, None])[:, :, None]
        return self.valids[x.clock]

    def masked(self, x: Value, fill: float = 0.0) -> Any:
        """The data with `fill` past the ends, whatever stands there, NaN included."""
        return self.ops.where(self.valid(x), x.data, fill)

    def frames(self, data: Any, index: Any) -> Any:
        """(batch, time, size) at the places (batch, n)."""
        return self.ops.take_along_axis(data, index[:, :, None], axis=1)

    def windowed(self, op: ops.Windowed, x: Value, data: Any) -> Value:
        """The value that a windowed operation gave: its lengths follow from those before."""
        assert x.clock is not None
        if op.tail == "ceil" and op.stride == 1:
            return Value(data, x.clock)
        clock = (*x.clock, (op.tail, op.extent if op.tail == "floor" else 0, op.stride))
        if clock not in self.lengths:
            n = self.length(x)
            self.lengths[clock] = (
                (n - op.extent) // op.stride + 1 if op.tail == "floor" else (n + (op.stride - 1)) // op.stride
            )
        return Value(data, clock)

    def constant(self, values: Array) -> float | Array:
        """As an argument of an operation, which the file keeps as text: one number where all are the same."""
        first = values.reshape(-1)[:1]
        return float(first[0]) if (values == first).all() else values
