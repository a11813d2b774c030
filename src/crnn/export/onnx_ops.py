"""One function an operation of a program: the ONNX nodes that compute it, on whole sequences and on chunks alike.

A window's buffer is a state with a time axis of its own, so the phase of strides and pooling is its length. Where the
sequence ends, as many zeros as the window looks ahead stand to its right; without an end there are none, and the last
windows wait. Everything has at least one frame, if only of junk, since operators refuse an empty axis. The `peak` of an
operation makes its weights 8 bit integers in the file; computation is in float32, as it is in the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from crnn.errors import ExportError
from crnn.export.onnx_graph import AXIS_LAYOUTS, Clock, Graph, Layout, Value
from crnn.program import ops
from crnn.program.program import Node, Program

Writer = Callable[[Graph, Any, Node, str, list[Value]], Value]
"""(graph, operation, its node, name for its states, its inputs) -> what it gives."""
WRITERS: dict[type[ops.Op], Writer] = {}
"""Every operation that ONNX is written for."""

W = TypeVar("W", bound=Writer)

NOTHING_YET = -1e30
"""A score below any other, whose exponential is 0; unlike -inf it can be subtracted from itself."""
TINY = 1e-30
SMALL_OFFSET = 4.0
"""A centre below this, in units of the scale, is subtracted with the shift, in a pass less; above, first and alone, so
that a large level cancels exactly."""
LARGEST = float(np.finfo(np.float32).max)
RECURRENCES = (ops.Recurrent, ops.GatedMean)
PARTS = 8
"""Of the time of a recurrence over whole sequences: each is computed for those sequences only that reach it. In ONNX
Runtime batches of 32 take .6 to 1.0 of the time, the less the more frames; a sequence alone takes 60 us more."""


def _writes(*kinds: type[ops.Op]) -> Callable[[W], W]:
    def register(function: W) -> W:
        for kind in kinds:
            WRITERS[kind] = function
        return function

    return register


def write(graph: Graph, node: Node, place: int, inputs: list[Value]) -> Value:
    """The nodes of one operation; `check_known` has been asked before."""
    kind = type(node.op)
    return WRITERS[kind](graph, node.op, node, f"{kind.__name__.lower()}_{place}", inputs)


def check_known(nodes: tuple[Node, ...]) -> None:
    """Raises ExportError for an operation that ONNX is not written for: which one, and the layer that it came from."""
    for node in nodes:
        if not isinstance(node.op, ops.Input) and type(node.op) not in WRITERS:
            names = ", ".join(sorted(kind.__name__ for kind in WRITERS))
            raise ExportError(
                f"{node.where}: the ONNX exporter does not know the operation {type(node.op).__name__!r}, only "
                f"{names}; replace that layer"
            )


def write_input(graph: Graph, program: Program) -> Value:
    """The inputs of the graph besides the states; whatever stands in the padding is forgotten, NaN too."""
    node = program.nodes[0]
    assert isinstance(node.op, ops.Input), "a program starts with its input"
    is_symbols = node.op.vocabulary > 0
    kind = TensorProto.INT64 if is_symbols else TensorProto.FLOAT
    x = graph.input("x", kind, ["batch", "time", *([] if is_symbols else node.shape)])
    graph.input("lengths", TensorProto.INT64, ["batch"])
    is_sorted = not graph.streams and any(isinstance(each.op, RECURRENCES) for each in program.nodes)
    if is_sorted:
        x = graph.longest_first(x)
    if graph.streams or is_sorted:
        least = _frames_for_parts(program) if is_sorted else 1
        lacking = graph.op("Max", graph.op("Sub", graph.integers(least), graph.size_of(x, 1)), graph.integers(0))
        x = graph.op("Pad", x, graph.op("Concat", graph.integers(0), lacking, axis=0), "", graph.integers(1))
    if graph.streams:
        graph.input("end", TensorProto.INT64, [1])
    clock = Clock("input", graph.lengths, graph.size_of(x, 1))
    if is_symbols:
        x = graph.op("Where", graph.valid(clock), x, graph.constant(0, np.int64))
        return Value({"bt": x}, node.shape, clock, clean=True)
    if len(node.shape) > 1:
        x = graph.op("Reshape", x, graph.integers(0, 0, node.size))
    x = graph.op("Transpose", x, perm=[0, 2, 1])  # Where is many times slower along a short last axis
    x = graph.op("Where", graph.spread(graph.valid(clock), "bct"), x, graph.constant(0.0))
    return Value({"bct": x}, node.shape, clock, clean=True)


def write_outputs(graph: Graph, value: Value) -> tuple[str, list[str | int]]:
    """What the last operation gives, for the sequences as they came in, and its shape.

    Of a stream the frames that are ready in this run, zero past the ends, and an output of the graph for their number.
    """
    if value.clock is None:
        return graph.in_given_order(value.arrays["bc"]), ["batch", value.size]
    lengths = graph.in_given_order(value.clock.lengths)
    graph.output("out_lengths", lengths, TensorProto.INT64, ["batch"])
    frames = graph.cut(graph.clean(value, "btc"), graph.integers(0), graph.longest(value.clock), 1)
    return graph.in_given_order(frames), ["batch", "frames", value.size]


def _frames_for_parts(program: Program) -> int:
    """Input frames with which every recurrence has a frame for each of its parts."""
    recurrences = [i for i, node in enumerate(program.nodes) if isinstance(node.op, RECURRENCES)]
    length = 1
    while min(program.out_length(length)[i] for i in recurrences) < PARTS:
        length += 1
    return length


def _layout(value: Value, *allowed: Layout) -> Layout:
    """The first layout among `allowed` that a value is in already; the first one of them else."""
    return next((layout for layout in allowed if layout in value.arrays), allowed[0])


def _per_value(numbers: NDArray[np.float32], layout: Layout, value: Value) -> NDArray[np.float32]:
    """One number per value of a frame, shaped so that it broadcasts to a layout."""
    if layout == "bctf":
        channels, bins = value.grid
        return numbers.reshape(channels, 1, bins)
    return numbers.reshape(-1, 1) if layout == "bct" else numbers


class _Window:
    """What the windows of an operation slide over: its buffer, this run's frames, zeros at the end.

    Args:
        array: this run's frames, (batch, channels, time) or (batch, channels, time, bins).
        axes: sizes of the axes of `array` besides batch and time.
        fill: what stands behind the end.
    """

    def __init__(
        self, graph: Graph, op: ops.Windowed, name: str, clock: Clock, array: str, axes: list[int], fill: float = 0.0
    ) -> None:
        self.graph, self.op, self.name, self.clock = graph, op, name, clock
        self.ahead = op.extent - 1 - op.pad_left if op.tail == "ceil" else 0
        self.data = array
        self.has_state = graph.streams and op.extent > 1
        if not self.has_state:
            self.pads = (op.pad_left, self.ahead)
            self.frames = clock.lengths
            return
        self.pads = (0, 0)
        state = graph.state(name, [axes[0], "frames", *axes[1:]], [axes[0], op.pad_left, *axes[1:]])
        self.before = graph.size_of(state, 2)
        self.frames = graph.once("Add", clock.lengths, self.before)
        self.right = graph.once("Mul", "end", graph.integers(self.ahead)) if self.ahead else graph.integers(0)
        lacking = graph.op("Sub", graph.integers(op.extent), graph.once("Add", self.before, clock.time))
        right = graph.op("Max", self.right, lacking)  # an operator needs one whole window
        block = graph.zeros([graph.batch(), axes[0], right, *axes[1:]], fill)
        self.data = graph.op("Concat", state, array, block, axis=2)

    def out(self, reach: int) -> Clock:
        """The clock of the operator's output; keeps what later windows need.

        Args:
            reach: frames that the operator itself needs for one of its own; the extent, but where strides skip some.
        """
        g, op, clock = self.graph, self.op, self.clock
        stride, ahead = clock.stride * op.stride, clock.ahead + clock.stride * (op.extent - 1 - op.pad_left)
        fixed = op.stride - op.extent + (0 if self.has_state else op.pad_left + self.ahead)
        if not self.has_state and op.stride == 1 and fixed == 0:
            return Clock(clock.name, clock.lengths, clock.time, stride, ahead)
        lengths = g.op("Add", self.frames, g.integers(fixed))
        if self.has_state and self.ahead:
            lengths = g.op("Add", lengths, self.right)
        lengths = g.op("Max", lengths, g.integers(0))  # before the division, which rounds towards zero
        if op.stride > 1:
            lengths = g.op("Div", lengths, g.integers(op.stride))
        # by arithmetic: a Shape of the operator's output would keep ONNX Runtime from fusing it with what follows
        total = g.size_of(self.data, 2) if self.has_state else g.once("Add", clock.time, g.integers(sum(self.pads)))
        time = g.op("Div", g.op("Add", total, g.integers(op.stride - reach)), g.integers(op.stride))
        out = Clock(self.name, lengths, time, stride, ahead)
        if self.has_state:
            used = g.op("Mul", g.longest(out), g.integers(op.stride))
            g.carry(self.name, g.cut(self.data, used, g.op("Add", self.before, g.longest(clock)), 2))
        return out


def _clock(value: Value) -> Clock:
    assert value.clock is not None, "this operation reads frames"
    return value.clock


def _weights(graph: Graph, op: ops.Conv | ops.Conv2d) -> list[str]:
    """Kernel, and bias where there is one."""
    bias = [graph.constant(op.bias)] if op.bias.any() else []
    return [graph.weight(op.weight, 0, in_8_bits=op.peak is not None), *bias]


@_writes(ops.Conv)
def _conv(graph: Graph, op: ops.Conv, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    looks_ahead = op.extent - 1 > op.pad_left  # else no window of a true frame reaches past the end
    array = graph.clean(x, "bct") if looks_ahead else graph.array(x, "bct")
    window = _Window(graph, op, name, _clock(x), array, [x.size])
    y = graph.op(
        "Conv",
        window.data,
        *_weights(graph, op),
        kernel_shape=[op.weight.shape[2]],
        strides=[op.stride],
        dilations=[op.dilation],
        group=op.groups,
        pads=list(window.pads),
    )
    return Value({"bct": y}, node.shape, window.out((op.weight.shape[2] - 1) * op.dilation + 1))


@_writes(ops.Conv2d)
def _conv2d(graph: Graph, op: ops.Conv2d, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    looks_ahead = op.extent - 1 > op.pad_left
    array = graph.clean(x, "bctf") if looks_ahead else graph.array(x, "bctf")
    window = _Window(graph, op, name, _clock(x), array, list(x.grid))
    taps, bin_taps = op.weight.shape[2:]
    (left, right), side = window.pads, bin_taps // 2
    y = graph.op(
        "Conv",
        window.data,
        *_weights(graph, op),
        kernel_shape=[taps, bin_taps],
        strides=[op.stride, op.bin_stride],
        pads=[left, side, right, side],
    )
    return Value({"bctf": y}, node.shape, window.out(taps))


@_writes(ops.Pool)
def _pool(graph: Graph, op: ops.Pool, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,), layout = inputs, _layout(inputs[0], "bct", "bctf")
    partial = op.tail == "ceil" and op.extent > 1
    lowest = partial and op.kind == "max" and not x.is_positive  # else zeros are as low as any
    if lowest:
        array = graph.op("Add", graph.array(x, layout), graph.lowest(_clock(x), layout))
    else:
        array = graph.clean(x, layout) if partial else graph.array(x, layout)
    axes = list(x.grid) if layout == "bctf" else [x.size]
    window = _Window(graph, op, name, _clock(x), array, axes, -np.inf if lowest else 0.0)
    if not window.has_state and partial:
        window.pads = (0, op.size - 1)  # all that the operator takes; a longer stride looks at no more
    others = len(axes) - 1
    sizes: dict[str, list[int]] = {
        "kernel_shape": [op.size] + [1] * others,
        "strides": [op.stride] + [1] * others,
        "pads": [0] * (1 + others) + [window.pads[1]] + [0] * others,
    }
    if op.kind == "max":
        y = graph.op("MaxPool", window.data, **sizes)
    else:
        y = graph.op("AveragePool", window.data, **sizes, count_include_pad=1)
    clock = window.out(op.size)
    if op.kind == "mean" and partial:
        y = graph.op("Mul", y, graph.spread(_share_of_real(graph, op, window, clock), layout))
    if lowest:  # windows past the end hold nothing but -inf
        y = graph.op("Where", graph.spread(graph.valid(clock), layout), y, graph.constant(0.0))
    return Value({layout: y}, node.shape, clock, clean=partial and op.kind == "max", is_positive=x.is_positive)


def _share_of_real(graph: Graph, op: ops.Pool, window: _Window, clock: Clock) -> str:
    """(batch, time): the size of a window over the frames in it that are there."""
    starts = graph.op("Mul", graph.positions(clock), graph.integers(op.stride))
    left = graph.op("Sub", graph.op("Unsqueeze", window.frames, graph.integers(1)), starts)
    real = graph.op("Clip", left, graph.constant(1, np.int64), graph.constant(op.size, np.int64))
    return graph.op("Div", graph.constant(float(op.size)), graph.op("Cast", real, to=TensorProto.FLOAT))


@_writes(ops.PoolBins)
def _pool_bins(graph: Graph, op: ops.PoolBins, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    pooled = Value({}, node.shape, x.clock, clean=x.clean, is_positive=x.is_positive)
    for found, arrays in ((pooled.zeroed, x.zeroed), (pooled.arrays, x.arrays)):
        if "bctf" in arrays or arrays is x.arrays:
            array = graph.clean(x, "bctf") if arrays is x.zeroed else graph.array(x, "bctf")
            kind = "MaxPool" if op.kind == "max" else "AveragePool"
            found["bctf"] = graph.op(kind, array, kernel_shape=[1, op.size], strides=[1, op.stride])
    return pooled


@_writes(ops.LogMel)
def _log_mel(graph: Graph, op: ops.LogMel, node: Node, name: str, inputs: list[Value]) -> Value:
    """The transform is two matrix products over factors of n_fft: a fifth of the work of one, and as exact."""
    (x,) = inputs
    window = _Window(graph, op, name, _clock(x), graph.clean(x, "bct"), [op.channels])
    data, (left, right) = window.data, window.pads
    if left or right:
        data = graph.op("Pad", data, graph.integers(left, right), "", graph.integers(2))
    if op.preemphasis:
        now = graph.cut(data, graph.integers(1), graph.integers(2**62), 2)
        before = graph.cut(data, graph.integers(0), graph.integers(-1), 2)
        data = graph.op("Sub", now, graph.op("Mul", before, graph.constant(op.preemphasis)))
    frames = graph.op("Mul", _frames(graph, op, data), graph.constant(op.window))
    plan = FourierPlan(op)
    if plan.samples > len(op.window):
        frames = graph.op("Pad", frames, graph.integers(0, plan.samples - len(op.window)), "", graph.integers(3))
    frames = graph.op("Transpose", frames, perm=[0, 1, 3, 2])  # (batch, channels, samples, frames)
    rows = graph.op("Reshape", frames, graph.integers(0, 0, plan.samples // plan.inner, -1))
    rows = graph.op("MatMul", graph.constant(plan.first), rows)  # (batch, channels, groups * 2, inner * frames)
    groups, size, outputs = plan.second.shape
    rows = graph.op("Reshape", rows, graph.integers(0, op.channels * groups * size, -1))
    weight = np.tile(plan.second.transpose(0, 2, 1).reshape(-1, size, 1), (op.channels, 1, 1))
    spectrum = graph.op("Conv", rows, graph.constant(weight), kernel_shape=[1], group=op.channels * groups)
    clock = window.out(op.extent)
    energy = graph.op("Mul", spectrum, spectrum)
    if op.power == 1:
        parts = graph.op("Reshape", energy, graph.integers(0, op.channels * groups, 2, outputs // 2, -1))
        energy = graph.op("Sqrt", graph.op("ReduceSum", parts, graph.integers(2), keepdims=0))
    filters = plan.filters if op.power == 1 else np.concatenate([plan.filters, plan.filters], 1)
    filters = filters.reshape(-1, op.filters.shape[1]).T  # (bands, groups * outputs)
    energy = graph.op("Reshape", energy, graph.integers(0, op.channels, filters.shape[1], -1))
    bands = graph.op("MatMul", graph.constant(filters), energy)  # (batch, channels, bands, frames)
    logs = graph.op("Log", graph.op("Max", bands, graph.constant(op.log_floor)))
    if op.channels == 1:
        return Value({"bct": graph.op("Squeeze", logs, graph.integers(1))}, node.shape, clock)
    return Value({"bctf": graph.op("Transpose", logs, perm=[0, 1, 3, 2])}, node.shape, clock)


def _frames(graph: Graph, op: ops.LogMel, data: str) -> str:
    """(batch, channels, samples) -> (batch, channels, frames, window), copied in blocks that divide hop and window."""
    window, hop = len(op.window), op.stride
    block, one = math.gcd(window, hop), graph.integers(1)
    steps = graph.op("Div", graph.op("Sub", graph.size_of(data, 2), graph.integers(window)), graph.integers(hop))
    end = graph.op("Add", graph.op("Mul", steps, graph.integers(hop)), graph.integers(window))
    blocks = graph.op("Reshape", graph.cut(data, graph.integers(0), end, 2), graph.integers(0, 0, -1, block))
    count = graph.op("Squeeze", graph.op("Add", steps, one), graph.integers(0))
    starts = graph.op("Range", graph.constant(0, np.int64), count, graph.constant(1, np.int64))
    starts = graph.op("Mul", graph.op("Unsqueeze", starts, one), graph.integers(hop // block))
    places = graph.op("Add", starts, graph.constant(np.arange(window // block), np.int64))
    return graph.op("Reshape", graph.op("Gather", blocks, places, axis=2), graph.integers(0, 0, 0, window))


class FourierPlan:
    """The Fourier transform of real frames as two products, for the bins that some band listens to.

    With n_fft = outer * inner, sample n = inner * n1 + n2 and bin k = k1 + outer * k2: first a transform over n1 for
    every n2, which depends on k1 alone, then for every k1 one over n2. Real samples make k1 and outer - k1 conjugates,
    so both are of one group.

    Source: Cooley & Tukey 1965, Mathematics of Computation 19(90).
    """

    def __init__(self, op: ops.LogMel) -> None:
        window = len(op.window)
        divisors = [d for d in range(1, op.n_fft + 1) if op.n_fft % d == 0]
        self.inner = min(divisors, key=lambda d: window * op.n_fft // d + 2 * op.n_fft * d)  # multiply-adds
        outer = op.n_fft // self.inner
        self.samples = -(-window // self.inner) * self.inner
        groups = outer // 2 + 1
        angle = 2 * np.pi / outer * np.outer(np.arange(groups), np.arange(self.samples // self.inner))
        both = np.stack([np.cos(angle), -np.sin(angle)], 1)  # (groups, 2, outer samples)
        self.first = both.reshape(2 * groups, -1)
        heard = np.flatnonzero(op.filters.any(1))
        group = np.minimum(heard % outer, outer - heard % outer)
        bins = [heard[group == each] for each in range(groups)]
        most = max(len(each) for each in bins)
        self.second = np.zeros((groups, 2 * self.inner, 2 * most))
        """(groups, [real, imaginary] of each n2, [real, imaginary] of each bin); zeros where a group has fewer bins."""
        self.filters = np.zeros((groups, most, op.filters.shape[1]))
        for each, ks in enumerate(bins):
            sign = np.where(ks % outer == each, 1, -1)  # the conjugate, for outer - k1
            turn = 2 * np.pi / op.n_fft * (np.outer(np.arange(self.inner), ks) % op.n_fft)
            cos, sin = np.cos(turn), np.sin(turn)
            real, imaginary = np.concatenate([cos, sign * sin]), np.concatenate([-sin, sign * cos])
            self.second[each, :, : len(ks)] = real
            self.second[each, :, most : most + len(ks)] = imaginary
            self.filters[each, : len(ks)] = op.filters[ks]


@_writes(ops.Difference)
def _difference(graph: Graph, op: ops.Difference, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    clock, zero, one = _clock(x), graph.integers(0), graph.integers(1)
    array = graph.array(x, "btc")
    if graph.streams:
        before = graph.state(name, ["frames", x.size], [0, x.size])
        array = graph.op("Concat", before, array, axis=1)  # no frame yet: the first one is its own predecessor
        had = graph.size_of(before, 1)
        end = graph.op("Add", had, graph.longest(clock))
        graph.carry(name, graph.cut(array, graph.op("Max", graph.op("Sub", end, one), zero), end, 1))
        first = graph.cut(array, zero, graph.op("Sub", one, had), 1)
    else:
        first = graph.cut(array, zero, one, 1)
    array = graph.op("Concat", first, array, axis=1)
    now, earlier = graph.cut(array, one, graph.integers(2**62), 1), graph.cut(array, zero, graph.integers(-1), 1)
    return Value({"btc": graph.op("Sub", now, earlier)}, node.shape, clock)


@_writes(ops.FillMissing)
def _fill_missing(graph: Graph, op: ops.FillMissing, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    zero = graph.constant(0.0)
    if not op.last:
        layout = _layout(x, *AXIS_LAYOUTS, "bctf")
        array = graph.array(x, layout)
        filled = {layout: graph.op("Where", graph.op("IsNaN", array), zero, array)}
        return Value(filled, node.shape, x.clock, clean=x.clean)
    clock, array = _clock(x), graph.array(x, "btc")
    before = graph.zeros([graph.batch(), 1, x.size])
    if graph.streams:
        before = graph.state(name, [1, x.size], [1, x.size])
    values = graph.op("Concat", before, array, axis=1)
    # every value that is there goes to the place of its rank among those, and a frame looks its own rank up
    missing = graph.op("IsNaN", values)
    there = graph.op("Cast", graph.op("Not", missing), to=TensorProto.INT64)
    rank = graph.op("Sub", graph.op("CumSum", there, graph.constant(1, np.int64)), graph.constant(1, np.int64))
    beyond = graph.size_of(values, 1)
    space = graph.zeros([graph.batch(), graph.op("Add", beyond, graph.integers(1)), x.size])
    ranked = graph.op("ScatterElements", space, graph.op("Where", missing, beyond, rank), values, axis=1)
    filled_array = graph.op("GatherElements", ranked, rank, axis=1)
    if graph.streams:
        end = graph.op("Add", graph.longest(clock), graph.integers(1))
        graph.carry(name, graph.cut(filled_array, graph.longest(clock), end, 1))
    result = graph.cut(filled_array, graph.integers(1), graph.integers(2**62), 1)
    return Value({"btc": result}, node.shape, clock)


@_writes(ops.IsMissing)
def _is_missing(graph: Graph, op: ops.IsMissing, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = _layout(x, *AXIS_LAYOUTS, "bctf")
    array = graph.op("Cast", graph.op("IsNaN", graph.array(x, layout)), to=TensorProto.FLOAT)
    return Value({layout: array}, node.shape, x.clock, clean=x.clean, is_positive=True)


@_writes(ops.Embedding)
def _embedding(graph: Graph, op: ops.Embedding, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    return Value(
        {"btc": graph.op("Gather", graph.constant(op.table), graph.array(x, "bt"), axis=0)}, node.shape, x.clock
    )


@_writes(ops.Affine)
def _affine(graph: Graph, op: ops.Affine, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = next(iter(x.arrays))
    array, shift = x.arrays[layout], op.shift.astype(np.float64)
    offset = op.centre.astype(np.float64) * op.scale
    if np.abs(offset).max() < SMALL_OFFSET:
        shift = shift - offset
    else:
        array = graph.op("Sub", array, graph.constant(_per_value(op.centre, layout, x)))
    if (op.scale != 1).any():
        array = graph.op("Mul", array, graph.constant(_per_value(op.scale, layout, x)))
    if shift.any():
        array = graph.op("Add", array, graph.constant(_per_value(shift.astype(np.float32), layout, x)))
    return Value({layout: array}, node.shape, x.clock, clean=x.clean and not (op.centre.any() or op.shift.any()))


SAME_NAMED = {name: name.capitalize() for name in ("relu", "tanh", "sigmoid", "asinh", "gelu", "softplus")}


@_writes(ops.Map)
def _map(graph: Graph, op: ops.Map, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = next(iter(x.arrays))
    array = x.arrays[layout]
    if op.function in SAME_NAMED:
        y = graph.op(SAME_NAMED[op.function], array)
    elif op.function == "silu":
        y = graph.op("Mul", array, graph.op("Sigmoid", array))
    elif op.function == "leaky_relu":
        y = graph.op("LeakyRelu", array, alpha=0.01)
    elif op.function == "elu":
        y = graph.op("Elu", array, alpha=1.0)
    else:
        raise ExportError(f"{node.where}: the ONNX exporter does not know the function {op.function!r}; use another")
    positive = op.function in ("relu", "sigmoid")
    return Value({layout: y}, node.shape, x.clock, clean=x.clean and op.function != "sigmoid", is_positive=positive)


@_writes(ops.Softmax)
def _softmax(graph: Graph, op: ops.Softmax, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = _layout(x, "btc", "tbc", "bct") if x.clock else "bc"
    y = graph.op("Softmax", graph.array(x, layout), axis=layout.index("c"))
    return Value({layout: y}, node.shape, x.clock, is_positive=True)


@_writes(ops.Dense)
def _dense(graph: Graph, op: ops.Dense, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = _layout(x, "btc", "tbc") if x.clock else "bc"
    array = graph.array(x, layout)
    outputs, values = op.weight.shape
    lead = [0] * (len(layout) - 1)
    if op.rows > 1:
        array = graph.op("Reshape", array, graph.integers(*lead, op.rows, values))
    in_8_bits = graph.int8 or op.peak is not None
    if (
        in_8_bits
    ):  # turned in the graph: what ONNX Runtime makes of integers right before a MatMul rounds the inputs too
        weight = graph.op("Transpose", graph.weight(op.weight, 0, in_8_bits=True), perm=[1, 0])
    else:
        weight = graph.constant(op.weight.T)
    y = graph.op("MatMul", array, weight)
    if op.bias.any():
        y = graph.op("Add", y, graph.constant(op.bias))
    if op.rows > 1:
        y = graph.op("Reshape", y, graph.integers(*lead, op.rows * outputs))
    return Value({layout: y}, node.shape, x.clock)


@_writes(ops.FrameNorm)
def _frame_norm(graph: Graph, op: ops.FrameNorm, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = _layout(x, "btc", "tbc") if x.clock else "bc"
    array, weight = graph.array(x, layout), graph.constant(op.weight)
    if op.kind == "layer":
        y = graph.op("LayerNormalization", array, weight, graph.constant(op.bias), axis=-1, epsilon=op.eps)
        return Value({layout: y}, node.shape, x.clock)
    square = graph.op("ReduceMean", graph.op("Mul", array, array), graph.integers(-1), keepdims=1)
    root = graph.op("Sqrt", graph.op("Add", square, graph.constant(op.eps)))
    return Value({layout: graph.op("Mul", graph.op("Div", array, root), weight)}, node.shape, x.clock, clean=x.clean)


@_writes(ops.Slice)
def _slice(graph: Graph, op: ops.Slice, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = _layout(x, *AXIS_LAYOUTS) if x.clock else "bc"
    axis = layout.index("c")
    y = graph.cut(graph.array(x, layout), graph.integers(op.start), graph.integers(op.stop), axis)
    return Value({layout: y}, node.shape, x.clock, clean=x.clean, is_positive=x.is_positive)


@_writes(ops.Reshape)
def _reshape(graph: Graph, op: ops.Reshape, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    if not x.clock:
        return Value(dict(x.arrays), node.shape)
    if not set(x.arrays) & set(AXIS_LAYOUTS):
        graph.array(x, "btc")
    flat = {layout: x.arrays[layout] for layout in AXIS_LAYOUTS if layout in x.arrays}
    return Value(flat, node.shape, x.clock, clean=x.clean, is_positive=x.is_positive)


@_writes(ops.Concat)
def _concat(graph: Graph, op: ops.Concat, node: Node, name: str, inputs: list[Value]) -> Value:
    if node.is_vector:
        return Value({"bc": graph.op("Concat", *[x.arrays["bc"] for x in inputs], axis=1)}, node.shape)
    of_bins = len(node.shape) == 2 and all(x.grid[1] == node.shape[1] for x in inputs)
    layouts: tuple[Layout, ...] = ("bctf", *AXIS_LAYOUTS) if of_bins else AXIS_LAYOUTS
    layout = next((each for each in layouts if each in inputs[-1].arrays), layouts[0])
    arrays, layout, clock = _aligned(graph, name, inputs, layout)
    joined = graph.op("Concat", *arrays, axis=1 if layout == "bctf" else layout.index("c"))
    return Value({layout: joined}, node.shape, clock, *_flags(inputs, clock))


@_writes(ops.Add)
def _add(graph: Graph, op: ops.Add, node: Node, name: str, inputs: list[Value]) -> Value:
    return _joined(graph, "Add", node, name, inputs)


@_writes(ops.Multiply)
def _multiply(graph: Graph, op: ops.Multiply, node: Node, name: str, inputs: list[Value]) -> Value:
    return _joined(graph, "Mul", node, name, inputs)


def _joined(graph: Graph, kind: str, node: Node, name: str, inputs: list[Value]) -> Value:
    """The inputs' values put together, one by one."""
    layout: Layout = next(iter(inputs[0].arrays))
    clock: Clock | None = None
    arrays = [x.arrays[layout] for x in inputs if node.is_vector]
    if not node.is_vector:
        arrays, layout, clock = _aligned(graph, name, inputs, layout)
    total = arrays[0]
    for array in arrays[1:]:
        total = graph.op(kind, total, array)
    return Value({layout: total}, node.shape, clock, *_flags(inputs, clock))


def _flags(inputs: list[Value], clock: Clock | None) -> tuple[bool, bool]:
    """Whether a sum or a row of streams is clean, and has no value below 0."""
    kept = clock is not None and all(x.clock is not None and x.clock.lengths == clock.lengths for x in inputs)
    return kept and all(x.clean for x in inputs), all(x.is_positive for x in inputs)


def _aligned(graph: Graph, name: str, inputs: list[Value], layout: Layout) -> tuple[list[str], Layout, Clock]:
    """Arrays of streams frame by frame, their layout and their clock.

    The faster ones' frames wait in a state for the slowest; frames that not every stream has are lost.
    """
    clocks = [_clock(x) for x in inputs]
    if len({clock.lengths for clock in clocks}) == 1:
        return [graph.array(x, layout) for x in inputs], layout, clocks[0]
    layout = "btc" if layout == "tbc" else layout  # the batch stands first in a state
    axis, ahead = layout.index("t"), max(clock.ahead for clock in clocks)
    arrays, lengths, times, waiting = [], [], [], []
    for i, (x, clock) in enumerate(zip(inputs, clocks, strict=True)):
        array, length, time = graph.array(x, layout), clock.lengths, clock.time
        if graph.streams and clock.ahead < ahead:
            axes = list(x.grid) if layout == "bctf" else [x.size]
            before, after = axes[: axis - 1], axes[axis - 1 :]
            state = graph.state(f"{name}_{i}", [*before, "frames", *after], [*before, 0, *after])
            had = graph.size_of(state, axis)
            array = graph.op("Concat", state, array, axis=axis)
            length, time = graph.op("Add", length, had), graph.op("Add", time, had)
            waiting.append((state, array, length))
        arrays.append(array)
        lengths.append(length)
        times.append(time)
    time, length = graph.op("Min", *dict.fromkeys(times)), graph.op("Min", *dict.fromkeys(lengths))
    clock = Clock(name, length, time, clocks[0].stride, ahead)
    for state, array, length in waiting:
        end = graph.op("ReduceMax", length, keepdims=1)
        graph.carry(state, graph.cut(array, graph.longest(clock), end, axis))
    return [graph.cut(array, graph.integers(0), time, axis) for array in arrays], layout, clock


GATES = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}
"""Of ONNX (LSTM input, output, forget, cell; GRU update, reset, new), as positions in PyTorch's order."""


@_writes(ops.Recurrent)
def _recurrent(graph: Graph, op: ops.Recurrent, node: Node, name: str, inputs: list[Value]) -> Value:
    weights = [
        graph.weight(_gates(op, op.weight_x)[None], 1, in_8_bits=op.peak is not None),
        graph.weight(_gates(op, op.weight_h)[None], 1, in_8_bits=op.peak is not None),
        graph.constant(np.concatenate([_gates(op, op.bias_x), _gates(op, op.bias_h)])[None]),
    ]
    options: dict[str, Any] = {"linear_before_reset": 1} if op.cell == "gru" else {}
    return _recur(graph, _Cell(op.cell.upper(), weights, op.initial, op.reverse, options), node, name, inputs[0])


@_writes(ops.GatedMean)
def _gated_mean(graph: Graph, op: ops.GatedMean, node: Node, name: str, inputs: list[Value]) -> Value:
    """A GRU that does not look at its state, and whose new value is linear: update gate and new value are its input."""
    size = len(op.initial)
    weight = np.zeros((1, 3 * size, 2 * size), np.float32)
    weight[0, :size, :size] = weight[0, 2 * size :, size:] = np.eye(size)
    weights = [graph.constant(weight), graph.constant(np.zeros((1, 3 * size, size), np.float32)), ""]
    options: dict[str, Any] = {
        "activations": ["Sigmoid", "Affine"],
        "activation_alpha": [1.0, 1.0],
        "activation_beta": [0.0, 0.0],
    }
    return _recur(graph, _Cell("GRU", weights, op.initial[None], op.reverse, options), node, name, inputs[0])


@dataclass(frozen=True, eq=False)
class _Cell:
    """One of ONNX's recurrent operators."""

    kind: str
    weights: list[str]
    initial: NDArray[np.float32]
    """(states, hidden)"""
    reverse: bool
    options: dict[str, Any]

    def run(self, graph: Graph, array: str, lengths: str, states: list[str]) -> tuple[str, list[str]]:
        """(time, batch, values) -> (time, batch, hidden), zero past the ends, and each state at its end.

        Args:
            states: (1, batch, hidden) each.
        """
        options = {**self.options, "hidden_size": self.initial.shape[1]}
        options["direction"] = "reverse" if self.reverse else "forward"
        inputs = [array, *self.weights, graph.once("Cast", lengths, to=TensorProto.INT32), *states]
        y, *after = graph.node(self.kind, inputs, 1 + len(states), **options)
        return graph.op("Squeeze", y, graph.integers(1)), after


def _recur(graph: Graph, cell: _Cell, node: Node, name: str, x: Value) -> Value:
    """A recurrence over whole sequences, or over a chunk with its states carried."""
    clock, array = _clock(x), graph.array(x, "tbc")
    if not graph.streams:
        return Value({"tbc": _in_parts(graph, cell, array, clock)}, node.shape, clock, clean=True)
    names = [f"{name}_{each}" for each in ("hidden", "cell")[: len(cell.initial)]]
    before = [_state(graph, cell.initial[i : i + 1], clock, each) for i, each in enumerate(names)]
    y, after = cell.run(graph, array, clock.lengths, [graph.op("Unsqueeze", b, graph.integers(0)) for b in before])
    any_frame = graph.once("Greater", graph.once("Unsqueeze", clock.lengths, graph.integers(1)), graph.integers(0))
    for each, old, new in zip(names, before, after, strict=True):  # without a frame, ONNX Runtime gives zeros
        new = graph.op("Squeeze", new, graph.integers(0))
        graph.carry(each, graph.op("Where", any_frame, new, old))
    return Value({"tbc": y}, node.shape, clock, clean=True)


def _in_parts(graph: Graph, cell: _Cell, array: str, clock: Clock) -> str:
    """Whole sequences, the longest first, part by part of the time: each part for those sequences only that reach it.

    The operator computes all columns of a batch to the end; so it has less to do, and what it does stays in the cache.
    """
    none, both = graph.integers(0), graph.integers(0, 1)
    inner = [graph.once("Mul", clock.time, graph.integers(k)) for k in range(1, PARTS)]
    bounds = [none, *(graph.once("Div", each, graph.integers(PARTS)) for each in inner), clock.time]
    initial = _initial(graph, cell.initial)
    states, reached = initial, none
    found: dict[int, str] = {}
    for k in reversed(range(PARTS)) if cell.reverse else range(PARTS):
        start, stop = bounds[k], bounds[k + 1]
        is_there = graph.once("Cast", graph.once("Greater", clock.lengths, start), to=TensorProto.INT64)
        there = graph.once("ReduceSum", is_there, keepdims=1)
        rows = graph.once("Max", there, graph.integers(1))  # the operator needs one
        if cell.reverse and found:  # some come from the part behind, others begin here
            begun = [graph.cut(state, reached, rows, 1) for state in initial]
            carried = [graph.cut(state, none, reached, 1) for state in states]
            states = [graph.op("Concat", *pair, axis=1) for pair in zip(carried, begun, strict=True)]
        else:
            states = [graph.cut(state, none, rows, 1) for state in states]
        first, last = graph.once("Concat", start, none, axis=0), graph.once("Concat", stop, rows, axis=0)
        lengths = graph.once("Sub", graph.once("Slice", clock.lengths, none, rows), start)
        lengths = graph.once("Max", graph.once("Min", lengths, graph.once("Sub", stop, start)), none)
        y, states = cell.run(graph, graph.op("Slice", array, first, last, both), lengths, states)
        lacking = graph.once("Sub", graph.batch(), rows)
        pads = graph.once("Concat", graph.integers(0, 0, 0, 0), lacking, none, axis=0)
        found[k], reached = graph.op("Pad", y, pads), there
    return graph.op("Concat", *(found[k] for k in range(PARTS)), axis=0)


def _gates(op: ops.Recurrent, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights or biases in ONNX's order of gates."""
    each = np.split(stacked, len(GATES[op.cell]))
    return np.concatenate([each[i] for i in GATES[op.cell]])


def _initial(graph: Graph, initial: NDArray[np.float32]) -> list[str]:
    """(1, batch, hidden) each: what whole sequences start from."""
    shape = graph.once("Concat", graph.integers(1), graph.batch(), graph.integers(initial.shape[1]), axis=0)
    return [graph.once("Expand", graph.constant(learned[None, None]), shape) for learned in initial]


def _state(graph: Graph, learned: NDArray[np.float32], clock: Clock, name: str) -> str:
    """(batch, hidden) before this run; learned: (1, hidden), before the first."""
    (hidden,) = learned.shape[1:]
    state = graph.state(name, [hidden], [hidden])
    if not learned.any():
        return state
    is_new = graph.is_new(clock)
    assert is_new is not None, "streams count"
    return graph.op("Where", is_new, graph.constant(learned), state)


@_writes(ops.First)
def _first(graph: Graph, op: ops.First, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    clock, layout = _clock(x), _layout(x, *AXIS_LAYOUTS)
    axis = layout.index("t")
    frame = graph.cut(graph.array(x, layout), graph.integers(0), graph.integers(1), axis)
    frame = graph.op("Squeeze", frame, graph.integers(axis))
    is_new = graph.is_new(clock)
    if is_new is not None:
        frame = graph.op("Where", is_new, frame, graph.state(name, [x.size], [x.size]))
        graph.carry(name, frame)
    return Value({"bc": frame}, node.shape)


@_writes(ops.Last)
def _last(graph: Graph, op: ops.Last, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    clock, layout = _clock(x), _layout(x, "tbc", "btc")
    place = graph.op("Max", graph.op("Sub", clock.lengths, graph.integers(1)), graph.integers(0))
    if layout == "btc":
        place = graph.op("Unsqueeze", place, graph.integers(1))
        frame = graph.op("GatherND", graph.array(x, layout), place, batch_dims=1)
    else:
        zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
        rows = graph.op("Range", zero, graph.op("Squeeze", graph.batch(), graph.integers(0)), one)
        both = [graph.op("Unsqueeze", each, graph.integers(1)) for each in (place, rows)]
        frame = graph.op("GatherND", graph.array(x, layout), graph.op("Concat", *both, axis=1))
    if graph.streams:
        any_frame = graph.once("Greater", graph.once("Unsqueeze", clock.lengths, graph.integers(1)), graph.integers(0))
        frame = graph.op("Where", any_frame, frame, graph.state(name, [x.size], [x.size]))
        graph.carry(name, frame)
    return Value({"bc": frame}, node.shape)


@_writes(ops.Mean)
def _mean(graph: Graph, op: ops.Mean, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    total = _sum(graph, x)
    _, count = graph.counts(_clock(x))
    count = graph.op("Cast", graph.op("Max", count, graph.integers(1)), to=TensorProto.FLOAT)
    if not graph.streams:
        return Value({"bc": graph.op("Div", total, count)}, node.shape, is_positive=x.is_positive)
    before = graph.state(name, [x.size], [x.size])
    now = graph.op("Cast", graph.once("Unsqueeze", _clock(x).lengths, graph.integers(1)), to=TensorProto.FLOAT)
    step = graph.op("Sub", total, graph.op("Mul", now, before))  # a sum of all frames would grow for ever
    mean = graph.op("Add", before, graph.op("Div", step, count))
    graph.carry(name, mean)
    return Value({"bc": mean}, node.shape)


def _sum(graph: Graph, x: Value) -> str:
    """(batch, values): the sum of a run's true frames."""
    clock, layout = _clock(x), _layout(x, *AXIS_LAYOUTS)
    if x.clean or layout in x.zeroed:
        return graph.op("ReduceSum", graph.clean(x, layout), graph.integers(layout.index("t")), keepdims=0)
    array = graph.array(x, layout)
    mask = graph.once("Cast", graph.valid(clock), to=TensorProto.FLOAT)
    if layout == "btc":
        row = graph.once("Unsqueeze", mask, graph.integers(1))
        return graph.op("Squeeze", graph.op("MatMul", row, array), graph.integers(1))
    if layout == "bct":
        column = graph.once("Unsqueeze", mask, graph.integers(2))
        return graph.op("Squeeze", graph.op("MatMul", array, column), graph.integers(2))
    return graph.op("ReduceSum", graph.clean(x, layout), graph.integers(0), keepdims=0)


@_writes(ops.Max)
def _max(graph: Graph, op: ops.Max, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    clock, layout = _clock(x), _layout(x, *AXIS_LAYOUTS)
    if x.is_positive:
        array = graph.clean(x, layout)  # zeros are as low as any
    else:
        array = graph.op("Add", graph.array(x, layout), graph.lowest(clock, layout))
    peak = graph.op("ReduceMax", array, graph.integers(layout.index("t")), keepdims=0)
    if graph.streams:
        before = graph.state(name, [x.size], [x.size])
        if not x.is_positive:
            is_new = graph.is_new(clock)
            assert is_new is not None, "streams count"
            before = graph.op("Where", is_new, graph.constant(-np.inf), before)
        peak = graph.op("Max", before, peak)
        graph.carry(name, peak)
    return Value({"bc": peak}, node.shape, is_positive=x.is_positive)


@_writes(ops.Attend)
def _attend(graph: Graph, op: ops.Attend, node: Node, name: str, inputs: list[Value]) -> Value:
    """Softmax in one pass: what was summed is rescaled whenever a larger score comes."""
    (x,) = inputs
    clock, array = _clock(x), graph.array(x, "btc")
    hidden = graph.op("MatMul", array, graph.constant(op.weight.T))
    hidden = graph.op("Tanh", graph.op("Add", hidden, graph.constant(op.bias)))
    scores = graph.op("MatMul", hidden, graph.constant(op.score[:, None]))  # (batch, time, 1)
    scores = graph.op("Squeeze", graph.op("Add", scores, graph.lowest(clock, "btc")), graph.integers(2))
    peak = graph.op("ReduceMax", scores, graph.integers(1), keepdims=1)
    states: list[str] = []
    if graph.streams:
        is_new = graph.is_new(clock)
        assert is_new is not None, "streams count"
        states = [graph.state(f"{name}_{part}", [n], [n]) for part, n in (("peak", 1), ("weight", 1), ("sum", x.size))]
        before = graph.op("Where", is_new, graph.constant(NOTHING_YET), states[0])
        peak = graph.op("Max", before, peak)
    now = graph.op("Exp", graph.op("Sub", scores, peak))
    weight = graph.op("ReduceSum", now, graph.integers(1), keepdims=1)
    weighted = graph.op("MatMul", graph.op("Unsqueeze", now, graph.integers(1)), array)
    weighted = graph.op("Squeeze", weighted, graph.integers(1))
    if states:
        old = graph.op("Exp", graph.op("Sub", before, peak))
        weight = graph.op("Add", graph.op("Mul", states[1], old), weight)
        weighted = graph.op("Add", graph.op("Mul", states[2], old), weighted)
        for state, value in zip(states, (peak, weight, weighted), strict=True):
            graph.carry(state, value)
    return Value({"bc": graph.op("Div", weighted, graph.op("Max", weight, graph.constant(TINY)))}, node.shape)


@_writes(ops.SequenceNorm)
def _sequence_norm(graph: Graph, op: ops.SequenceNorm, node: Node, name: str, inputs: list[Value]) -> Value:
    """Two passes, as in the layer: exact for a large level with small changes on it."""
    (x,) = inputs
    clock, layout = _clock(x), _layout(x, "bct", "btc")
    axis, zero = graph.integers(layout.index("t")), graph.constant(0.0)
    array = graph.array(x, layout)
    there = graph.op("Not", graph.op("IsNaN", array))
    there = graph.op("And", there, graph.spread(graph.valid(clock), layout))
    count = graph.op("ReduceSum", graph.op("Cast", there, to=TensorProto.FLOAT), axis, keepdims=1)
    count = graph.op("Max", count, graph.constant(1.0))
    total = graph.op("ReduceSum", graph.op("Where", there, array, zero), axis, keepdims=1)
    centred = graph.op("Sub", array, graph.op("Div", total, count))
    if op.divide:
        square = graph.op("ReduceSumSquare", graph.op("Where", there, centred, zero), axis, keepdims=1)
        std = graph.op("Sqrt", graph.op("Div", square, count))
        floor = graph.constant(_per_value(op.floor.reshape(-1), layout, x))
        centred = graph.op("Div", centred, graph.op("Add", std, floor))
    return Value({layout: centred}, node.shape, clock)


@_writes(ops.Level)
def _level(graph: Graph, op: ops.Level, node: Node, name: str, inputs: list[Value]) -> Value:
    (x,) = inputs
    layout = _layout(x, *AXIS_LAYOUTS)
    loudness = graph.op("Abs", graph.clean(x, layout))
    loudness = graph.op("Where", graph.op("IsNaN", loudness), graph.constant(0.0), loudness)
    axes = graph.integers(*(i for i, axis in enumerate(layout) if axis != "b"))
    peak = graph.op("Min", graph.op("ReduceMax", loudness, axes, keepdims=1), graph.constant(LARGEST))
    is_silent = graph.op("Equal", peak, graph.constant(0.0))
    peak = graph.op("Where", is_silent, graph.constant(1.0), peak)
    return Value({layout: graph.op("Div", graph.clean(x, layout), peak)}, node.shape, x.clock, clean=True)
