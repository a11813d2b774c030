"""One function an operation of a program: what it is in stock Keras layers and operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from crnn.export.keras_graph import LOWEST, Clock, Graph, Value
from crnn.program import ops
from crnn.program.ops import Array, Op

Writer = Callable[..., Value]
WRITERS: dict[type[Op], Writer] = {}
"""(operation, graph, its inputs) -> its value, for every operation."""

F = TypeVar("F", bound=Writer)


def _writes(*classes: type[Op]) -> Callable[[F], F]:
    def register(function: F) -> F:
        WRITERS.update(dict.fromkeys(classes, function))
        return function

    return register


@_writes(ops.Input)
def _input(op: ops.Input, to: Graph) -> Value:
    return to.values[0]


@_writes(ops.Conv)
def _conv(op: ops.Conv, to: Graph, x: Value) -> Value:
    channels, group_inputs, taps = op.weight.shape
    extent = (taps - 1) * op.dilation + 1
    # so many zeros on the right that ceil(time / stride) windows fit
    data = to.layers.ZeroPadding1D((op.pad_left, extent - 1 - op.pad_left))(to.masked(x))
    skip = op.stride if op.dilation > 1 else 1  # Keras has strides or dilation, not both
    options = {"strides": op.stride // skip, "dilation_rate": op.dilation}
    if op.groups > 1 and group_inputs == 1:
        layer = to.layers.DepthwiseConv1D(taps, depth_multiplier=channels // op.groups, name=to.place, **options)
        kernel = op.weight.reshape(op.groups, -1, taps).transpose(2, 0, 1)  # (taps, in, out per in)
        out = to.call(layer, data, kernel, op.bias)
    else:
        outs, size = [], channels // op.groups
        for i in range(op.groups):  # TensorFlow has no grouped convolution on a CPU
            layer = to.layers.Conv1D(size, taps, name=f"{to.place}_{i}" if op.groups > 1 else to.place, **options)
            own = slice(i * size, (i + 1) * size)
            part = data[:, :, i * group_inputs : (i + 1) * group_inputs] if op.groups > 1 else data
            outs.append(to.call(layer, part, op.weight[own].transpose(2, 1, 0), op.bias[own]))
        out = to.ops.concatenate(outs, axis=-1) if len(outs) > 1 else outs[0]
    return to.windowed(op, x, out[:, ::skip] if skip > 1 else out)


@_writes(ops.Conv2d)
def _conv2d(op: ops.Conv2d, to: Graph, x: Value) -> Value:
    channels, in_channels, taps, bin_taps = op.weight.shape
    data = _as_images(to, to.masked(x), in_channels, op.in_bins)
    side = (bin_taps // 2, bin_taps // 2)
    data = to.layers.ZeroPadding2D(((op.pad_left, taps - 1 - op.pad_left), side))(data)
    layer = to.layers.Conv2D(channels, (taps, bin_taps), strides=(op.stride, op.bin_stride), name=to.place)
    return to.windowed(op, x, _as_frames(to, to.call(layer, data, op.weight.transpose(2, 3, 1, 0), op.bias)))


def _as_images(to: Graph, data: Any, channels: int, bins: int) -> Any:
    """Frames of (channels, bins), flat, as (batch, time, bins, channels)."""
    return to.layers.Permute((1, 3, 2))(to.layers.Reshape((-1, channels, bins))(data))


def _as_frames(to: Graph, images: Any) -> Any:
    """The inverse of _as_images."""
    bins, channels = images.shape[2:]
    return to.layers.Reshape((-1, channels * bins))(to.layers.Permute((1, 3, 2))(images))


@_writes(ops.Pool)
def _pool(op: ops.Pool, to: Graph, x: Value) -> Value:
    """With tail floor, windows lie within the sequence; with ceil, over its end, where real frames only count."""
    pooling = {"max": to.layers.MaxPooling1D, "mean": to.layers.AveragePooling1D}[op.kind]
    layer = pooling(op.size, strides=op.stride, name=to.place)
    if op.tail == "floor":
        return to.windowed(op, x, layer(x.data))
    fill = LOWEST if op.kind == "max" else 0.0
    data = to.ops.pad(to.masked(x, fill), ((0, 0), (0, op.size - 1), (0, 0)), constant_values=fill)
    out = to.windowed(op, x, layer(data))
    if op.kind == "max":
        return out
    real = to.ops.clip(to.length(x)[:, None] - to.time(out) * op.stride, 1, op.size)
    return Value(out.data * (op.size / to.ops.cast(real, "float32"))[:, :, None], out.clock)


@_writes(ops.PoolBins)
def _pool_bins(op: ops.PoolBins, to: Graph, x: Value) -> Value:
    pooling = {"max": to.layers.MaxPooling2D, "mean": to.layers.AveragePooling2D}[op.kind]
    layer = pooling((1, op.size), strides=(1, op.stride), name=to.place)
    return Value(_as_frames(to, layer(_as_images(to, x.data, op.channels, op.bins))), x.clock)


@_writes(ops.LogMel)
def _log_mel(op: ops.LogMel, to: Graph, x: Value) -> Value:
    samples = to.layers.ZeroPadding1D((op.pad_left, op.extent - 1 - op.pad_left))(to.masked(x))
    if op.preemphasis:
        samples = samples[:, 1:] - op.preemphasis * samples[:, :-1]
    bands = to.layers.Dense(op.filters.shape[1], use_bias=False, name=to.place)
    outs = []
    for channel in range(op.channels):
        frames = to.ops.extract_sequences(samples[:, :, channel], len(op.window), op.stride)
        real, imaginary = to.ops.rfft(frames * op.window, fft_length=op.n_fft)
        energy = to.ops.square(real) + to.ops.square(imaginary)
        outs.append(bands(to.ops.sqrt(energy) if op.power == 1 else energy))
    bands.set_weights([op.filters])
    out = to.ops.concatenate(outs, axis=-1) if op.channels > 1 else outs[0]
    return to.windowed(op, x, to.ops.log(to.ops.maximum(out, op.log_floor)))


@_writes(ops.Difference)
def _difference(op: ops.Difference, to: Graph, x: Value) -> Value:
    before = to.ops.concatenate([x.data[:, :1], x.data[:, :-1]], axis=1)
    return Value(x.data - before, x.clock)


@_writes(ops.Affine)
def _affine(op: ops.Affine, to: Graph, x: Value) -> Value:
    data = x.data
    if op.centre.any():
        data = data - to.constant(op.centre)
    if (op.scale != 1).any():
        data = data * to.constant(op.scale)
    if op.shift.any():
        data = data + to.constant(op.shift)
    return Value(data, x.clock)


@_writes(ops.Map)
def _map(op: ops.Map, to: Graph, x: Value) -> Value:
    k = to.ops
    if op.function == "gelu":
        return Value(k.gelu(x.data, approximate=False), x.clock)
    if op.function == "leaky_relu":
        return Value(k.leaky_relu(x.data, negative_slope=0.01), x.clock)
    functions = {
        "relu": k.relu,
        "silu": k.silu,
        "tanh": k.tanh,
        "elu": k.elu,
        "asinh": k.arcsinh,
        "softplus": k.softplus,
        "sigmoid": k.sigmoid,
    }
    return Value(functions[op.function](x.data), x.clock)


@_writes(ops.Softmax)
def _softmax(op: ops.Softmax, to: Graph, x: Value) -> Value:
    return Value(to.ops.softmax(x.data), x.clock)


@_writes(ops.Dense)
def _dense(op: ops.Dense, to: Graph, x: Value) -> Value:
    outs, ins = op.weight.shape
    layer = to.layers.Dense(outs, name=to.place)
    if op.rows == 1:
        return Value(to.call(layer, x.data, op.weight.T, op.bias), x.clock)
    time = (-1,) if x.clock is not None else ()
    rows = to.layers.Reshape((*time, op.rows, ins))(x.data)
    out = to.call(layer, rows, op.weight.T, op.bias)
    return Value(to.layers.Reshape((*time, op.rows * outs))(out), x.clock)


@_writes(ops.FrameNorm)
def _frame_norm(op: ops.FrameNorm, to: Graph, x: Value) -> Value:
    if op.kind == "layer":
        layer = to.layers.LayerNormalization(epsilon=op.eps, name=to.place)
        return Value(to.call(layer, x.data, op.weight, op.bias), x.clock)
    size = to.ops.sqrt(to.ops.mean(to.ops.square(x.data), axis=-1, keepdims=True) + op.eps)
    return Value(x.data / size * to.constant(op.weight) + to.constant(op.bias), x.clock)


@_writes(ops.FillMissing)
def _fill_missing(op: ops.FillMissing, to: Graph, x: Value) -> Value:
    """The newest value that was there: the k-th of those that were, where k of them have come so far."""
    k, missing = to.ops, to.ops.isnan(x.data)
    filled = k.where(missing, 0.0, x.data)
    if not op.last:
        return Value(filled, x.clock)
    count = k.cumsum(k.cast(k.logical_not(missing), "int32"), axis=1)
    behind_all = 1 << 30
    present_first = k.argsort(to.time(x)[:, :, None] + behind_all * k.cast(missing, "int32"), axis=1)
    newest = k.take_along_axis(present_first, k.maximum(count - 1, 0), axis=1)
    return Value(k.where(count > 0, k.take_along_axis(filled, newest, axis=1), 0.0), x.clock)


@_writes(ops.IsMissing)
def _is_missing(op: ops.IsMissing, to: Graph, x: Value) -> Value:
    return Value(to.ops.cast(to.ops.isnan(x.data), "float32"), x.clock)


@_writes(ops.Embedding)
def _embedding(op: ops.Embedding, to: Graph, x: Value) -> Value:
    ids = to.ops.where(to.time(x) < to.length(x)[:, None], x.data, 0)  # any number may stand past an end
    layer = to.layers.Embedding(*op.table.shape, name=to.place)
    return Value(to.call(layer, ids, op.table), x.clock)


@_writes(ops.Slice)
def _slice(op: ops.Slice, to: Graph, x: Value) -> Value:
    return Value(x.data[..., op.start : op.stop], x.clock)


@_writes(ops.Reshape)
def _reshape(op: ops.Reshape, to: Graph, x: Value) -> Value:
    return x


@_writes(ops.Concat)
def _concat(op: ops.Concat, to: Graph, *inputs: Value) -> Value:
    data, clock = _side_by_side(to, inputs)
    return Value(to.ops.concatenate(data, axis=-1), clock)


@_writes(ops.Add)
def _add(op: ops.Add, to: Graph, *inputs: Value) -> Value:
    data, clock = _side_by_side(to, inputs)
    total = data[0]
    for other in data[1:]:
        total = total + other
    return Value(total, clock)


@_writes(ops.Multiply)
def _multiply(op: ops.Multiply, to: Graph, *inputs: Value) -> Value:
    data, clock = _side_by_side(to, inputs)
    product = data[0]
    for other in data[1:]:
        product = product * other
    return Value(product, clock)


def _side_by_side(to: Graph, inputs: Sequence[Value]) -> tuple[list[Any], Clock | None]:
    """The inputs with the same number of columns, that of the first, and a clock whose lengths are the shortest.

    Columns that an input lacks are repeats of its last one; they lie past the end.
    """
    first = inputs[0]
    if first.clock is None or all(x.clock == first.clock for x in inputs):
        return [x.data for x in inputs], first.clock
    clock, data = first.clock, [first.data]
    for x in inputs[1:]:
        last = to.ops.max(to.time(x))
        data.append(to.frames(x.data, to.ops.minimum(to.time(first), last)))
        joined = (*clock, ("with", 0, 0), *(x.clock or ()))
        to.lengths[joined] = to.ops.minimum(to.lengths[clock], to.length(x))
        to.times[joined] = to.time(first)
        clock = joined
    return data, clock


@_writes(ops.Recurrent)
def _recurrent(op: ops.Recurrent, to: Graph, x: Value) -> Value:
    return _run(to, x, *_cell(op, to), op.initial, reverse=op.reverse)


@_writes(ops.GatedMean)
def _gated_mean(op: ops.GatedMean, to: Graph, x: Value) -> Value:
    """A GRU that does not look at its state, and whose new value is linear: update gate and new value are its input."""
    size = len(op.initial)
    layer = to.layers.GRU(size, activation="linear", return_sequences=True, name=to.place)
    kernel = np.zeros((2 * size, 3 * size), np.float32)
    kernel[:size, :size] = kernel[size:, 2 * size :] = np.eye(size)
    weights = [kernel, np.zeros((size, 3 * size), np.float32), np.zeros((2, 3 * size), np.float32)]
    return _run(to, x, layer, weights, op.initial[None], reverse=op.reverse)


def _run(to: Graph, x: Value, layer: Any, weights: list[Array], initial: Array, *, reverse: bool) -> Value:
    """Padding stands after the frames, so nothing of it reaches them; a reversed layer reads each sequence turned."""
    index = to.ops.maximum(to.length(x)[:, None] - 1 - to.time(x), 0) if reverse else None
    data = to.masked(x) if index is None else to.frames(x.data, index)
    state = None
    if initial.any():
        zeros = to.ops.zeros_like(data[:, 0, :1])
        state = [zeros + part for part in initial]
    out = layer(data, initial_state=state)
    layer.set_weights(weights)
    return Value(out if index is None else to.frames(out, index), x.clock)


def _cell(op: ops.Recurrent, to: Graph) -> tuple[Any, list[Array]]:
    """Keras' layer and its weights, gates along the last axis; LSTM in our order, GRU update, reset, new."""
    size, options = op.hidden_size, {"return_sequences": True, "name": to.place}
    arrays = [op.weight_x, op.weight_h, op.bias_x, op.bias_h]
    if op.cell == "gru":
        arrays = [np.concatenate([a[size : 2 * size], a[:size], a[2 * size :]]) for a in arrays]
    weight_x, weight_h, bias_x, bias_h = arrays
    if op.cell == "gru":
        layer = to.layers.GRU(size, reset_after=True, **options)
        return layer, [weight_x.T, weight_h.T, np.stack([bias_x, bias_h])]
    layer = (to.layers.LSTM if op.cell == "lstm" else to.layers.SimpleRNN)(size, **options)
    return layer, [weight_x.T, weight_h.T, bias_x + bias_h]


@_writes(ops.First)
def _first(op: ops.First, to: Graph, x: Value) -> Value:
    return Value(x.data[:, 0], None)


@_writes(ops.Last)
def _last(op: ops.Last, to: Graph, x: Value) -> Value:
    return Value(to.frames(x.data, (to.length(x) - 1)[:, None])[:, 0], None)


@_writes(ops.Mean)
def _mean(op: ops.Mean, to: Graph, x: Value) -> Value:
    count = to.ops.cast(to.length(x), "float32")
    return Value(to.ops.sum(to.masked(x), axis=1) / count[:, None], None)


@_writes(ops.Max)
def _max(op: ops.Max, to: Graph, x: Value) -> Value:
    return Value(to.ops.max(to.masked(x, LOWEST), axis=1), None)


@_writes(ops.Attend)
def _attend(op: ops.Attend, to: Graph, x: Value) -> Value:
    data = to.masked(x)
    project = to.layers.Dense(len(op.bias), activation="tanh", name=f"{to.place}_project")
    score = to.layers.Dense(1, use_bias=False, name=f"{to.place}_score")
    scores = to.call(score, to.call(project, data, op.weight.T, op.bias), op.score[:, None])
    weights = to.ops.softmax(to.ops.where(to.valid(x), scores, LOWEST), axis=1)
    return Value(to.ops.sum(weights * data, axis=1), None)


@_writes(ops.SequenceNorm)
def _sequence_norm(op: ops.SequenceNorm, to: Graph, x: Value) -> Value:
    k = to.ops
    present = k.logical_and(to.valid(x), k.logical_not(k.isnan(x.data)))
    count = k.maximum(k.sum(k.cast(present, "float32"), axis=1, keepdims=True), 1.0)
    centred = x.data - k.sum(k.where(present, x.data, 0.0), axis=1, keepdims=True) / count
    if not op.divide:
        return Value(centred, x.clock)
    squares = k.sum(k.square(k.where(present, centred, 0.0)), axis=1, keepdims=True)
    return Value(centred / (k.sqrt(squares / count) + to.constant(op.floor)), x.clock)


@_writes(ops.Level)
def _level(op: ops.Level, to: Graph, x: Value) -> Value:
    data = to.masked(x)
    peak = to.ops.max(to.ops.where(to.ops.isnan(data), 0.0, to.ops.abs(data)), axis=(1, 2), keepdims=True)
    return Value(x.data / to.ops.where(peak > 0, peak, 1.0), x.clock)
