"""A program as the tables that the native engine reads: a record for each node, weights in blocks, a state's sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crnn.errors import ExportError, StreamError
from crnn.program import ops
from crnn.program.ops import Array, Op
from crnn.program.program import Program
from crnn.program.rings import Rings, Window

OPS = (
    "input",
    "conv",
    "depthwise",
    "conv2d",
    "pool",
    "log_mel",
    "difference",
    "affine",
    "map",
    "softmax",
    "dense",
    "frame_norm",
    "fill_missing",
    "is_missing",
    "embedding",
    "pool_bins",
    "slice",
    "concat",
    "add",
    "multiply",
    "rnn",
    "lstm",
    "gru",
    "gated_mean",
    "first",
    "last",
    "mean",
    "max",
    "attend",
)
"""Names of the engine's operations, in the order of the enum in native/engine.h."""

STREAM, SUMMARY, VECTOR = range(3)

FIELDS = (
    "op",
    "kind",
    "num_inputs",
    "inputs_at",
    "size",
    "in_size",
    "frames_at",
    "capacity",
    "extent",
    "stride",
    "pad_left",
    "whole",
    "memory_at",
    "sums_at",
    *(f"p{i}" for i in range(8)),
    *(f"weights_at{i}" for i in range(4)),
    *(f"bytes_at{i}" for i in range(2)),
    *(f"offsets_at{i}" for i in range(2)),
)
"""Of a record, in the order of crnn_node in native/engine.h; int32 each."""

FUNCTIONS: tuple[ops.Function, ...] = (
    "relu",
    "gelu",
    "silu",
    "tanh",
    "leaky_relu",
    "elu",
    "asinh",
    "sigmoid",
    "softplus",
)
LANES = 16
"""Outputs in a block of weights."""
_SHARED: dict[str, set[str]] = {
    "matrix": {"conv", "conv2d", "dense", "attend", "rnn", "lstm", "gru"},
    "linear": {"conv", "conv2d", "dense", "attend"},
    "sigmoid": {"lstm", "gru", "gated_mean", "map_silu", "map_sigmoid"},
    "tanh": {"rnn", "lstm", "gru", "attend", "map_tanh"},
    "exp": {"sigmoid", "tanh", "attend", "softmax", "map_elu", "map_softplus"},
}
"""Parts of the engine that several others need -> which; those that others here need come last."""


@dataclass(frozen=True, eq=False)
class Tables:
    """What the engine and the C exporter need of a program."""

    nodes: NDArray[np.int32]
    """(nodes, len(FIELDS))"""
    ints: NDArray[np.int32]
    weights: Array
    bytes: NDArray[np.int8]
    num_sums: int
    num_values: int
    num_scratch: int
    """Floats of working memory that a call needs."""
    flushed: int
    """Most frames that `finish` gives where the output is a stream."""
    features: frozenset[str]
    """What of the engine's source is used: each the name, in lower case, of a CRNN_HAS_... in there."""

    @property
    def is_vector(self) -> bool:
        """One vector of outputs, not one a frame."""
        return bool(self.nodes[-1, FIELDS.index("kind")] != STREAM)

    @property
    def input_size(self) -> int:
        """Values in a frame that comes in."""
        return int(self.nodes[0, FIELDS.index("size")])

    @property
    def output_size(self) -> int:
        """Values in a vector or frame that comes out."""
        return int(self.nodes[-1, FIELDS.index("size")])

    @property
    def state_bytes(self) -> int:
        """Of one stream: counts, sums, values, heads and done flags; a multiple of 8."""
        return -(-(len(self.nodes) * 16 + self.num_sums * 8 + self.num_values * 4) // 8) * 8


def tabulate(program: Program) -> Tables:
    """The tables of a program.

    Raises:
        StreamError: the program cannot stream; which layer is in the way.
        ExportError: an operation that the engine does not know.
    """
    where = program.why_no_stream()
    if where is not None:
        raise StreamError(
            f"{where} cannot stream: it needs the end of the sequence before its first output; use a recurrence with "
            "bidirectional: false, and channel_norm in place of instance_norm or level"
        )
    rings, build = Rings(program), _Builder()
    records = [_record(build, program, i, rings.capacity(i)) for i in range(len(program.nodes))]
    for record in records:  # vectors stand behind the working memory, whose size is known only now
        if record["kind"] != STREAM:
            record["frames_at"] = build.scratch
            build.scratch += record["size"]
    return Tables(
        nodes=np.array([[record[name] for name in FIELDS] for record in records], np.int32),
        ints=np.array(build.ints.values(), np.int32),
        weights=build.weights.values(),
        bytes=build.bytes.values(),
        num_sums=build.sums,
        num_values=build.values,
        num_scratch=build.scratch,
        flushed=rings.flushed,
        features=_features(records, build),
    )


def _features(records: list[Record], build: _Builder) -> frozenset[str]:
    """What of the engine's source these records use."""
    used = {OPS[record["op"]] for record in records}
    used |= {f"map_{FUNCTIONS[record['p0']]}" for record in records if OPS[record["op"]] == "map"}
    used |= {
        "fast_transform" if record["p4"] else "plain_transform" for record in records if OPS[record["op"]] == "log_mel"
    }
    for feature, users in _SHARED.items():
        used |= {feature} if used & users else set()
    return frozenset(used | ({"int8"} if build.bytes.size else set()))


Record = dict[str, int]
"""The FIELDS of one node by name."""


class _Pool:
    """Arrays one after the other, each at a multiple of `align`."""

    def __init__(self, dtype: Any, align: int = 1) -> None:
        self.size = 0
        self._dtype, self._align = dtype, align
        self._parts: list[NDArray[Any]] = []

    def add(self, array: Any) -> int:
        """Where the array begins."""
        flat = np.asarray(array, self._dtype).ravel()
        at = self.size
        self._parts += [flat, np.zeros(-len(flat) % self._align, self._dtype)]
        self.size += len(flat) + len(self._parts[-1])
        return at

    def values(self) -> NDArray[Any]:
        """All of them."""
        return np.concatenate([np.zeros(0, self._dtype), *self._parts])


class _Builder:
    """The tables as they grow, node by node."""

    def __init__(self) -> None:
        self.ints = _Pool(np.int32)
        self.weights = _Pool(np.float32, LANES)
        self.bytes = _Pool(np.int8, 64)
        self.values = self.sums = self.scratch = 0

    def state(self, size: int) -> int:
        """Where `size` values of the state begin."""
        self.values += size
        return self.values - size

    def room(self, size: int) -> None:
        """A node needs so many floats of working memory."""
        self.scratch = max(self.scratch, size)

    def matrix(self, record: Record, k: int, weight: Array, peak: float | None) -> None:
        """Matrix k of a node: (outputs, inputs), the outputs whole blocks."""
        rows, n = weight.shape
        if peak is None:
            record[f"weights_at{k}"] = self.weights.add(weight.reshape(-1, LANES, n).transpose(0, 2, 1))
            return
        step = np.abs(weight).max(1, initial=0) / np.float32(127)
        whole = np.rint(weight / np.where(step == 0, 1, step)[:, None]).astype(np.int32)
        whole = np.pad(whole, ((0, 0), (0, -n % 4)))
        blocks = whole.reshape(rows // LANES, LANES, -1, 4).transpose(0, 2, 1, 3)
        options = np.zeros(LANES, np.float32)
        options[0] = 127 / peak
        record[f"weights_at{k}"] = self.weights.add(np.concatenate([options, step * np.float32(peak / 127)]))
        record[f"bytes_at{k}"] = self.bytes.add(blocks)
        record[f"offsets_at{k}"] = self.ints.add(128 * whole.sum(1))


def _record(build: _Builder, program: Program, i: int, capacity: int) -> Record:
    """Node i, its weights and its place in the state."""
    node = program.nodes[i]
    window = Window.of(node)
    record = dict.fromkeys(FIELDS, 0)
    record |= {"bytes_at0": -1, "bytes_at1": -1}
    record |= {"extent": window.extent, "stride": window.stride, "pad_left": window.pad_left, "whole": window.whole}
    record |= {"size": node.size, "num_inputs": len(node.inputs), "inputs_at": build.ints.add(node.inputs)}
    record["in_size"] = program.nodes[node.inputs[0]].size if node.inputs else 0
    if isinstance(node.op, ops.TO_VECTOR):
        record["kind"] = SUMMARY
    elif node.is_vector:
        record["kind"] = VECTOR
    else:
        record |= {"frames_at": build.state(capacity * node.size), "capacity": capacity}
    function = _RECORDS.get(type(node.op))
    if function is None:
        raise ExportError(f"{node.where}: operation {type(node.op).__name__!r} is none that the native engine knows")
    record["op"] = OPS.index(function(node.op, record, build))
    return record


_RECORDS: dict[type, Callable[[Any, Record, _Builder], str]] = {}
"""(operation, its record, tables) -> its name in OPS; fills the record's parameters and the tables."""

F = TypeVar("F", bound=Callable[[Any, Record, _Builder], str])


def _records(op: type[Op]) -> Callable[[F], F]:
    def register(function: F) -> F:
        _RECORDS[op] = function
        return function

    return register


def _parameters(record: Record, *values: int) -> None:
    record |= {f"p{i}": int(value) for i, value in enumerate(values)}


def _filled(array: Array, axis: int = 0) -> Array:
    """With zeros up to whole blocks along an axis."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % LANES)
    return np.pad(array, widths)


@_records(ops.Input)
def _input(op: ops.Input, record: Record, build: _Builder) -> str:
    return "input"


@_records(ops.Conv)
def _conv(op: ops.Conv, record: Record, build: _Builder) -> str:
    out, inputs, taps = op.weight.shape
    if op.groups == out == record["in_size"] and op.peak is None:
        _parameters(record, taps, op.dilation)
        record["weights_at0"] = build.weights.add(op.weight[:, 0].T)
        record["weights_at1"] = build.weights.add(op.bias)
        return "depthwise"
    each, n = out // op.groups, taps * inputs
    _parameters(record, taps, op.dilation, op.groups, inputs, each)
    weight = op.weight.transpose(0, 2, 1).reshape(op.groups, each, n)
    build.matrix(record, 0, _filled(weight, 1).reshape(-1, n), op.peak)
    record["weights_at1"] = build.weights.add(_filled(op.bias.reshape(op.groups, each), 1))
    build.room(n + _bytes_room(n))
    return "conv"


def _bytes_room(n: int) -> int:
    """Floats that hold n bytes, filled up to groups of 4."""
    return -(-n // 4)


@_records(ops.Conv2d)
def _conv2d(op: ops.Conv2d, record: Record, build: _Builder) -> str:
    out, inputs, taps, wide = op.weight.shape
    n = taps * inputs * wide
    _parameters(record, inputs, op.in_bins, out, record["size"] // out, taps, wide, op.bin_stride)
    build.matrix(record, 0, _filled(op.weight.transpose(0, 2, 1, 3).reshape(out, n)), op.peak)
    record["weights_at1"] = build.weights.add(_filled(op.bias))
    build.room(n + _bytes_room(n))
    return "conv2d"


@_records(ops.Pool)
def _pool(op: ops.Pool, record: Record, build: _Builder) -> str:
    _parameters(record, op.size, op.kind == "mean")
    return "pool"


@_records(ops.PoolBins)
def _pool_bins(op: ops.PoolBins, record: Record, build: _Builder) -> str:
    _parameters(record, op.size, op.stride, op.channels, op.bins, record["size"] // op.channels, op.kind == "mean")
    return "pool_bins"


@_records(ops.LogMel)
def _log_mel(op: ops.LogMel, record: Record, build: _Builder) -> str:
    n, length, before = op.n_fft, len(op.window), int(op.preemphasis > 0)
    is_fast = n >= 4 and n & (n - 1) == 0
    taps, bands = [], []
    for band in op.filters.T:
        (places,) = band.nonzero()
        first, count = (places[0], places[-1] + 1 - places[0]) if len(places) else (0, 0)
        bands += [first, count]
        taps.append(band[first : first + count])
    _parameters(record, n, length, op.filters.shape[1], op.power == 1, is_fast, before, build.ints.add(bands))
    turns = 2 * np.pi * np.arange(n // 2 if is_fast else n) / n
    record["weights_at0"] = build.weights.add(op.window)
    record["weights_at1"] = build.weights.add(np.concatenate([np.cos(turns), np.sin(turns)]))
    record["weights_at2"] = build.weights.add(np.concatenate(taps))
    record["weights_at3"] = build.weights.add([op.preemphasis, op.log_floor])
    build.room(length + before + n + n // 2 + 1 + 2 * n)
    return "log_mel"


@_records(ops.Difference)
def _difference(op: ops.Difference, record: Record, build: _Builder) -> str:
    record["memory_at"] = build.state(record["size"])
    return "difference"


@_records(ops.Affine)
def _affine(op: ops.Affine, record: Record, build: _Builder) -> str:
    record |= {f"weights_at{k}": build.weights.add(a) for k, a in enumerate((op.centre, op.scale, op.shift))}
    return "affine"


@_records(ops.Map)
def _map(op: ops.Map, record: Record, build: _Builder) -> str:
    _parameters(record, FUNCTIONS.index(op.function))
    return "map"


@_records(ops.Softmax)
def _softmax(op: ops.Softmax, record: Record, build: _Builder) -> str:
    return "softmax"


@_records(ops.Dense)
def _dense(op: ops.Dense, record: Record, build: _Builder) -> str:
    out, n = op.weight.shape
    _parameters(record, op.rows, n, out)
    build.matrix(record, 0, _filled(op.weight), op.peak)
    record["weights_at1"] = build.weights.add(_filled(op.bias))
    build.room(_bytes_room(n))
    return "dense"


@_records(ops.FrameNorm)
def _frame_norm(op: ops.FrameNorm, record: Record, build: _Builder) -> str:
    _parameters(record, op.kind == "rms")
    record |= {f"weights_at{k}": build.weights.add(a) for k, a in enumerate((op.weight, op.bias, [op.eps]))}
    return "frame_norm"


@_records(ops.FillMissing)
def _fill_missing(op: ops.FillMissing, record: Record, build: _Builder) -> str:
    _parameters(record, op.last)
    record["memory_at"] = build.state(record["size"])
    return "fill_missing"


@_records(ops.IsMissing)
def _is_missing(op: ops.IsMissing, record: Record, build: _Builder) -> str:
    return "is_missing"


@_records(ops.Embedding)
def _embedding(op: ops.Embedding, record: Record, build: _Builder) -> str:
    _parameters(record, len(op.table))
    record["weights_at0"] = build.weights.add(op.table)
    return "embedding"


@_records(ops.Slice)
def _slice(op: ops.Slice, record: Record, build: _Builder) -> str:
    _parameters(record, op.start)
    return "slice"


@_records(ops.Reshape)
def _reshape(op: ops.Reshape, record: Record, build: _Builder) -> str:
    return "slice"


@_records(ops.Concat)
def _concat(op: ops.Concat, record: Record, build: _Builder) -> str:
    return "concat"


@_records(ops.Add)
def _add(op: ops.Add, record: Record, build: _Builder) -> str:
    return "add"


@_records(ops.Multiply)
def _multiply(op: ops.Multiply, record: Record, build: _Builder) -> str:
    return "multiply"


@_records(ops.GatedMean)
def _gated_mean(op: ops.GatedMean, record: Record, build: _Builder) -> str:
    record["weights_at3"] = build.weights.add(op.initial)
    record["memory_at"] = build.state(record["size"])
    _parameters(record, record["size"])
    return "gated_mean"


@_records(ops.Recurrent)
def _recurrent(op: ops.Recurrent, record: Record, build: _Builder) -> str:
    hidden = op.hidden_size
    gates = len(op.weight_h) // hidden

    def by_unit(array: Array) -> Array:
        """(gates * hidden, ...) -> 16 units after another, gate by gate."""
        units = _filled(array.reshape(gates, hidden, -1), 1)
        blocks: Array = units.reshape(gates, -1, LANES, units.shape[2]).swapaxes(0, 1)
        return blocks.reshape(-1, units.shape[2])

    build.matrix(record, 0, by_unit(op.weight_x), op.peak)
    build.matrix(record, 1, by_unit(op.weight_h), None if op.peak is None else op.peak_h)
    biases = [op.bias_x, op.bias_h] if op.cell == "gru" else [op.bias_x + op.bias_h]
    record["weights_at2"] = build.weights.add(np.concatenate([by_unit(bias) for bias in biases]))
    initial = _filled(op.initial, 1)
    record["weights_at3"] = build.weights.add(initial)
    record["memory_at"] = build.state(initial.size)
    _parameters(record, initial.size)
    build.room(initial.shape[1] + _bytes_room(record["in_size"]) + _bytes_room(hidden))
    return op.cell


@_records(ops.First)
def _first(op: ops.First, record: Record, build: _Builder) -> str:
    record["memory_at"] = build.state(record["size"])
    return "first"


@_records(ops.Last)
def _last(op: ops.Last, record: Record, build: _Builder) -> str:
    record["memory_at"] = build.state(record["size"])
    return "last"


@_records(ops.Mean)
def _mean(op: ops.Mean, record: Record, build: _Builder) -> str:
    record["sums_at"] = build.sums
    build.sums += record["size"]
    return "mean"


@_records(ops.Max)
def _max(op: ops.Max, record: Record, build: _Builder) -> str:
    record["memory_at"] = build.state(record["size"])
    return "max"


@_records(ops.Attend)
def _attend(op: ops.Attend, record: Record, build: _Builder) -> str:
    _parameters(record, len(op.bias))
    build.matrix(record, 0, _filled(op.weight), None)
    record["weights_at1"] = build.weights.add(_filled(op.bias))
    record["weights_at2"] = build.weights.add(op.score)
    record["memory_at"] = build.state(1)
    record["sums_at"] = build.sums
    build.sums += 1 + record["size"]
    build.room(len(op.bias))
    return "attend"
