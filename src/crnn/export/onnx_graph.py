"""What an ONNX graph is built with: nodes and constants, streams in several layouts, masks, states, counts of frames.

Layouts are named by their axes: b(atch), t(ime), c(hannels, or all values of a frame in a row), f (bins). Streams are
btc, bct, tbc or bctf (bt for symbol ids), vectors are bc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from crnn.program.ops import Shape

Layout = Literal["btc", "bct", "tbc", "bctf", "bt", "bc"]

OPSET = 20
"""The first with Gelu; ONNX Runtime 1.17 and later run it."""
IR_VERSION = 9

AXIS_LAYOUTS: tuple[Layout, ...] = ("btc", "bct", "tbc")
"""Of flat frames, one axis a role."""
OTHERS: tuple[Layout, ...] = ("bctf",)


@dataclass(frozen=True, eq=False)
class Clock:
    """Which frames a stream has; streams that share one have the same number of frames at all times."""

    name: str
    """Of the node that made it, for the names of states."""
    lengths: str
    """(batch,) int64: true frames of each sequence in this run of the graph."""
    time: str
    """(1,) int64: length of the time axis, at least 1; what lies past `lengths` is junk, but never NaN of its own."""
    stride: int = 1
    """Input frames from one frame to the next."""
    ahead: int = 0
    """Input frames after its own that a frame waits for, window by window."""


@dataclass(eq=False)
class Value:
    """What a node gives: a stream in whatever layouts it is needed in, or a vector."""

    arrays: dict[Layout, str]
    """Layout -> name of the tensor."""
    shape: Shape
    clock: Clock | None = None
    """None for a vector."""
    clean: bool = False
    """All layouts are zero past the ends."""
    is_positive: bool = False
    """No value is below 0."""
    zeroed: dict[Layout, str] = field(default_factory=dict)
    """Layout -> the same with zeros past the ends, where that was needed."""

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def grid(self) -> tuple[int, int]:
        """(channels, bins) of a frame."""
        return (1, self.size) if len(self.shape) == 1 else (self.shape[0], self.size // self.shape[0])


class Graph:
    """An ONNX graph while it is being built.

    Args:
        streams: with states and `end`; else whole sequences only, each run on its own.
        int8: store weights as 8 bit integers with a scale for each output channel.
    """

    def __init__(self, *, streams: bool, int8: bool) -> None:
        self.streams = streams
        self.int8 = int8
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.states: dict[str, dict[str, Any]] = {}
        """Name of each state -> its type, and its shape before the first frame; all of them start as zeros."""
        self.lengths = "lengths"
        """Name of the (batch,) int64 true lengths of the input, in the order in which the graph has its sequences."""
        self._order: str | None = None
        self._made: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output; its name."""
        return self.node(kind, inputs, 1, **attributes)[0]

    def node(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """A node; the names of its outputs."""
        self._count += 1
        names = [f"{kind}_{self._count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{self._count}", **attributes))
        return names

    def once(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """As op; the same node again is the same name."""
        key = (kind, *inputs, *sorted((name, repr(value)) for name, value in attributes.items()))
        if key not in self._made:
            self._made[key] = self.op(kind, *inputs, **attributes)
        return self._made[key]

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Name of a tensor that is part of the file."""
        array = np.ascontiguousarray(np.asarray(value, dtype))
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = numpy_helper.from_array(array, name)
            self._made[key] = name
        return self._made[key]

    def integers(self, *values: int) -> str:
        """A one-dimensional int64 constant."""
        return self.constant(values, np.int64)

    def weight(self, value: NDArray[np.float32], axis: int, *, in_8_bits: bool) -> str:
        """A weight whose output channels lie along `axis`; in 8 bits, integers times a scale for each of them."""
        if not (in_8_bits or self.int8):
            return self.constant(value)
        others = tuple(i for i in range(value.ndim) if i != axis)
        peak = np.abs(value).max(others)
        scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
        shape = [-1 if i == axis else 1 for i in range(value.ndim)]
        integers = np.clip(np.rint(value / scale.reshape(shape)), -127, 127)
        return self.op("DequantizeLinear", self.constant(integers, np.int8), self.constant(scale), axis=axis)

    def input(self, name: str, kind: int, shape: Sequence[Any]) -> str:
        """An input of the graph."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, name: str, value: str, kind: int, shape: Sequence[Any]) -> None:
        """An output of the graph, from a tensor inside of it."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def state(self, name: str, shape: Sequence[int | str], start: Sequence[int], kind: int = TensorProto.FLOAT) -> str:
        """A state's input, (batch, *shape); strings are axes that vary. It starts as zeros of (batch, *start)."""
        dtype = helper.tensor_dtype_to_np_dtype(kind).name
        self.states[name] = {"shape": ["batch", *start], "type": dtype}
        axes = [f"{name}_{axis}" if isinstance(axis, str) else axis for axis in shape]
        return self.input(name, kind, ["batch", *axes])

    def carry(self, name: str, value: str) -> None:
        """What a state is after this run."""
        info = next(each for each in self.inputs if each.name == name)
        dims = [d.dim_value or d.dim_param for d in info.type.tensor_type.shape.dim]
        dims = [f"{d}_out" if isinstance(d, str) and d != "batch" else d for d in dims]
        self.output(f"{name}_out", value, info.type.tensor_type.elem_type, dims)

    def longest_first(self, x: str) -> str:
        """The input with its sequences in order of their lengths, in which the graph has them from now on."""
        self.lengths, self._order = self.node("TopK", [self.lengths, self.batch()], 2)
        return self.op("Gather", x, self._order, axis=0)

    def in_given_order(self, value: str) -> str:
        """(batch, ...) with the sequences as they came in."""
        if self._order is None:
            return value
        _, places = self.node("TopK", [self._order, self.batch()], 2, largest=0)
        return self.op("Gather", value, places, axis=0)

    def size_of(self, value: str, axis: int) -> str:
        """(1,) int64: length of an axis."""
        return self.once("Shape", value, start=axis, end=axis + 1)

    def cut(self, value: str, start: str, stop: str, axis: int) -> str:
        """Positions start ... stop - 1 along an axis; both (1,) int64."""
        return self.op("Slice", value, start, stop, self.integers(axis))

    def batch(self) -> str:
        """(1,) int64."""
        return self.size_of("lengths", 0)

    def longest(self, clock: Clock) -> str:
        """(1,) int64: frames of the longest sequence; while more is to come, of every one."""
        return self.once("ReduceMax", clock.lengths, keepdims=1)

    def zeros(self, sizes: Sequence[str | int], value: float = 0.0) -> str:
        """A block of one value; sizes as numbers, or as (1,) int64."""
        parts = [self.integers(size) if isinstance(size, int) else size for size in sizes]
        fill = helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
        return self.op("ConstantOfShape", self.op("Concat", *parts, axis=0), value=fill)

    def array(self, value: Value, layout: Layout) -> str:
        """A stream in a layout; past the ends is junk."""
        if layout not in value.arrays:
            value.arrays[layout] = self._convert(value, value.arrays, layout)
        return value.arrays[layout]

    def clean(self, value: Value, layout: Layout) -> str:
        """A stream in a layout, zero past the ends."""
        if value.clean:
            return self.array(value, layout)
        if layout not in value.zeroed:
            if value.zeroed:
                value.zeroed[layout] = self._convert(value, value.zeroed, layout)
            else:
                assert value.clock is not None, "a vector has no end"
                value.zeroed[layout] = self.masked(self.array(value, layout), value.clock, layout)
        return value.zeroed[layout]

    def masked(self, array: str, clock: Clock, layout: Layout) -> str:
        """Zeros past the ends, by a product: half the time of Where, and junk is never NaN (the input is cleaned)."""
        return self.op("Mul", array, self.mask(clock, layout))

    def _convert(self, value: Value, arrays: dict[Layout, str], to: Layout) -> str:
        at = next(layout for layout in (to, *AXIS_LAYOUTS, *OTHERS) if layout in arrays)
        channels, bins = value.grid
        if to == "bctf":
            flat = self._convert(value, arrays, "btc") if at != "btc" else arrays["btc"]
            if channels == 1:
                return self.op("Unsqueeze", flat, self.integers(1))
            rows = self.op("Reshape", flat, self.integers(0, 0, channels, bins))
            return self.op("Transpose", rows, perm=[0, 2, 1, 3])
        if at != "bctf":
            return arrays[at] if at == to else self.op("Transpose", arrays[at], perm=[at.index(axis) for axis in to])
        if channels == 1:
            flat = self.op("Squeeze", arrays[at], self.integers(1))
        else:
            rows = self.op("Transpose", arrays[at], perm=[0, 2, 1, 3])
            flat = self.op("Reshape", rows, self.integers(0, 0, channels * bins))
        return flat if to == "btc" else self.op("Transpose", flat, perm=["btc".index(axis) for axis in to])

    def valid(self, clock: Clock) -> str:
        """(batch, time) bool: where there is a frame."""
        return self.once("Less", self.positions(clock), self.once("Unsqueeze", clock.lengths, self.integers(1)))

    def positions(self, clock: Clock) -> str:
        """(time,) int64: 0, 1, 2, ..."""
        zero, one = self.constant(0, np.int64), self.constant(1, np.int64)
        return self.once("Range", zero, self.once("Squeeze", clock.time, self.integers(0)), one)

    def mask(self, clock: Clock, layout: Layout) -> str:
        """1 where there is a frame, else 0, to multiply a layout by."""
        return self.spread(self.once("Cast", self.valid(clock), to=TensorProto.FLOAT), layout)

    def lowest(self, clock: Clock, layout: Layout) -> str:
        """0 where there is a frame, else -inf, to add to a layout."""
        each = self.once("Where", self.valid(clock), self.constant(0.0), self.constant(-np.inf))
        return self.spread(each, layout)

    def spread(self, mask: str, layout: Layout) -> str:
        """(batch, time) -> an array that broadcasts to a layout."""
        if layout == "tbc":
            return self.once("Unsqueeze", self.once("Transpose", mask, perm=[1, 0]), self.integers(2))
        axes = {"btc": (2,), "bct": (1,), "bctf": (1, 3)}[layout]
        return self.once("Unsqueeze", mask, self.integers(*axes))

    def counts(self, clock: Clock) -> tuple[str | None, str]:
        """(batch, 1) int64: frames of a clock before this run, None where none can be; and with this run's."""
        now = self.once("Unsqueeze", clock.lengths, self.integers(1))
        if not self.streams:
            return None, now
        name = f"{clock.name}_count"
        if name not in self.states:
            self.carry(name, self.once("Add", self.state(name, [1], [1], TensorProto.INT64), now))
        return name, self.once("Add", name, now)

    def is_new(self, clock: Clock) -> str | None:
        """(batch, 1) bool: no frame came before this run; None where that is always so."""
        before, _ = self.counts(clock)
        return None if before is None else self.once("Equal", before, self.integers(0))

    def model(self, name: str, facts: dict[str, str]) -> ModelProto:
        """The finished model with its metadata."""
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="crnn", ir_version=IR_VERSION
        )
        helper.set_model_props(model, facts)
        return model
