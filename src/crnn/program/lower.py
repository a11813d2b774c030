"""From a trained network to its program: one function a layer, then batch norm folded into the convolution before it.

A layer of another package brings its function by the entry point group `crnn.lowerings`, under the layer's name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from crnn.errors import ExportError
from crnn.models.network import Network
from crnn.nn.blocks import Activation, Dropout, Flatten, Parallel, Residual
from crnn.nn.conv import Conv, Conv2d
from crnn.nn.frontend import ChannelNorm, Difference, Embedding, Iupac, Missing, OneHot
from crnn.nn.head import Head
from crnn.nn.jitter import Jitter
from crnn.nn.layers import Chain, Features, Layer, known_layers
from crnn.nn.norm import Norm
from crnn.nn.patterns import Patterns
from crnn.nn.pool import Pool, Pool2d
from crnn.nn.position import Position
from crnn.nn.recurrent import TORCH_CELLS, Recurrent
from crnn.nn.running_norm import RunningNorm
from crnn.nn.scale import Compress, InstanceNorm, Level
from crnn.nn.scan import Scan
from crnn.nn.spec_augment import SpecAugment
from crnn.nn.spectral import LogMel, Mfcc
from crnn.nn.strands import ReverseComplement, Strands, StrandsSummary
from crnn.nn.summary import Above, Attention, Concat, Last, Max, Mean, Summary
from crnn.plugins import plugins
from crnn.program import ops
from crnn.program.ops import Array, Op, Shape
from crnn.program.program import Node, Program
from crnn.tasks.task import Task


def lower(
    network: Network,
    task: Task,
    *,
    temperature: float = 1.0,
    sample_rate: float | None = None,
    peaks: Mapping[int, tuple[float, ...]] | None = None,
) -> Program:
    """The program of a trained network, with the weights that it has now.

    Its outputs are the model's: divided by the temperature, and in the target's units for a regression.

    Args:
        peaks: of a model of 8 bits: place of a node in the program -> its `peak`, of a recurrence also `peak_h`.
    Raises:
        ExportError: a layer that has no operations; which one, and where it stands.
    """
    builder = Builder()
    vocabulary = vocabulary_of(network)
    at = builder.add(ops.Input(vocabulary=vocabulary), [], network.features or (1,), "input")
    with torch.no_grad():
        at = builder.layer(network.body, at, "")
        if network.summary is not None:
            at = builder.summary(network.summary, at, "summary")
        at = _lower_head(network.head, builder, at)
    scale, shift = task.units
    size = network.outputs
    at = builder.affine(np.zeros(size), np.full(size, scale / temperature), np.full(size, shift), at, "units")
    nodes = list(fold(builder.nodes))
    for i, found in (peaks or {}).items():
        op: Any = nodes[i].op
        nodes[i] = replace(nodes[i], op=replace(op, **dict(zip(("peak", "peak_h"), found, strict=False))))
    return Program(
        nodes=tuple(nodes),
        sample_rate=sample_rate,
        labels=tuple(task.output_names),
        activation=task.activation,
        left_to_do=task.left_to_do,
        min_length=network.min_length,
        look_ahead=network.timing.look_ahead,
        stride=network.timing.stride,
    )


def vocabulary_of(network: Network) -> int:
    """How many symbols it knows; 0 where its frames are values, or a layer that is not ours takes the symbols."""
    if network.features:
        return 0
    for layer in network.body.modules():
        if isinstance(layer, (Embedding, OneHot)):
            return layer.config.vocab_size
        if isinstance(layer, Iupac):
            return len(layer.fractions)
    return 0


class Builder:
    """Nodes in the order in which they are added; a layer's function adds its own and returns the last one's place."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, op: Op, inputs: Sequence[int], shape: Shape, where: str) -> int:
        """One node; it gives a vector where it reads one, or makes one."""
        is_vector = isinstance(op, ops.TO_VECTOR) or any(self.nodes[i].is_vector for i in inputs)
        self.nodes.append(Node(op, tuple(inputs), shape, is_vector, where))
        return len(self.nodes) - 1

    def shape(self, at: int) -> Shape:
        """Of the frames that node `at` gives."""
        return self.nodes[at].shape

    def affine(self, centre: Any, scale: Any, shift: Any, at: int, where: str) -> int:
        """(x - centre) * scale + shift of each value; float64 until here."""
        op = ops.Affine(centre=_array(centre), scale=_array(scale), shift=_array(shift))
        return self.add(op, [at], self.shape(at), where)

    def layer(self, layer: Layer, at: int, where: str) -> int:
        """Whatever a layer comes down to."""
        for cls in type(layer).__mro__:
            if cls in LOWERINGS:
                return LOWERINGS[cls](layer, self, at, where)
        name = next((name for name, cls in known_layers().items() if cls is type(layer)), type(layer).__name__)
        if name in plugins("lowerings"):
            return int(plugins("lowerings")[name](layer, self, at, where))
        raise ExportError(
            f"{where}: layer {name!r} has no operations that an exporter knows; replace it, or give it a function in "
            "the entry point group crnn.lowerings"
        )

    def summary(self, summary: Summary, at: int, where: str) -> int:
        """Whatever a summary comes down to: a vector."""
        for cls in type(summary).__mro__:
            if cls in SUMMARY_LOWERINGS:
                return SUMMARY_LOWERINGS[cls](summary, self, at, where)
        raise ExportError(f"{where}: summary {type(summary).__name__!r} has no operations that an exporter knows")


Lowering = Callable[[Any, Builder, int, str], int]
LOWERINGS: dict[type, Lowering] = {}
"""(layer, builder, place of its input, where) -> place of its output, for every layer of ours."""
SUMMARY_LOWERINGS: dict[type, Lowering] = {}

F = TypeVar("F", bound=Lowering)


def _lowers(*classes: type) -> Callable[[F], F]:
    def register(function: F) -> F:
        for cls in classes:
            (SUMMARY_LOWERINGS if issubclass(cls, Summary) else LOWERINGS)[cls] = function
        return function

    return register


def _array(value: Any) -> Array:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return np.ascontiguousarray(value, dtype=np.float32)


def _bias(module: Any, size: int) -> Array:
    return _array(module.bias) if module.bias is not None else np.zeros(size, np.float32)


@_lowers(Chain)
def _chain(layer: Chain, to: Builder, at: int, where: str) -> int:
    for i, inner in enumerate(layer):
        at = to.layer(inner, at, f"{where}[{i}]" if where else f"layers[{i}]")
    return at


@_lowers(Position)
def _position(layer: Position, to: Builder, at: int, where: str) -> int:
    """What comes of a constant behind a causal convolution: frames before the first count as zero, so it sums taps."""
    (places,) = layer.out_features
    first = to.add(ops.Slice(start=0, stop=1), [at], (1,), where)
    one = to.affine(np.zeros(1), np.zeros(1), np.ones(1), first, where)
    steps = np.diff(layer.table.double().cpu().numpy(), axis=0, prepend=0)  # (frames, places)
    weight = _array(np.ascontiguousarray(steps[::-1].T[:, None]))
    taps = weight.shape[-1]
    op = ops.Conv(extent=taps, stride=1, pad_left=taps - 1, weight=weight, bias=_array(np.zeros(places)))
    return to.add(op, [one], layer.out_features, where)


@_lowers(Strands, StrandsSummary)
def _strands(part: Strands | StrandsSummary, to: Builder, at: int, where: str) -> int:
    raise ExportError(
        f"{where}: strands reads the sequence from its end too, for which exporters have no operation; train a network "
        "that reads one strand, such as with reverse_complement, to export it"
    )


@_lowers(Dropout, Flatten, Jitter, ReverseComplement, SpecAugment)
def _nothing(layer: Layer, to: Builder, at: int, where: str) -> int:
    """What trains only, or only renames the axes of a frame."""
    if layer.out_features == to.shape(at):
        return at
    return to.add(ops.Reshape(), [at], layer.out_features, where)


@_lowers(Conv)
def _conv(layer: Conv, to: Builder, at: int, where: str) -> int:
    op = ops.Conv(
        extent=layer.extent,
        stride=layer.stride,
        pad_left=layer.pad_left,
        weight=_array(layer.conv.weight),
        bias=_bias(layer.conv, layer.config.channels),
        dilation=layer.config.dilation,
        groups=layer.config.groups,
    )
    return to.add(op, [at], layer.out_features, where)


@_lowers(Patterns)
def _patterns(layer: Patterns, to: Builder, at: int, where: str) -> int:
    (size,) = layer.out_features
    op = ops.Conv(
        extent=layer.extent,
        stride=1,
        pad_left=layer.pad_left,
        weight=_array(layer.weight),
        bias=_array(torch.zeros(size)),
        dilation=layer.config.dilation,
        groups=layer.groups,
    )
    return to.add(op, [at], layer.out_features, where)


@_lowers(Conv2d)
def _conv2d(layer: Conv2d, to: Builder, at: int, where: str) -> int:
    op = ops.Conv2d(
        extent=layer.extent,
        stride=layer.stride,
        pad_left=layer.pad_left,
        weight=_array(layer.conv.weight),
        bias=_bias(layer.conv, layer.config.channels),
        in_bins=layer.in_features[-1],
        bin_stride=layer.config.stride[1],
    )
    return to.add(op, [at], layer.out_features, where)


def _pool_op(layer: Pool | Pool2d) -> ops.Pool:
    return ops.Pool(
        extent=layer.extent,
        stride=layer.stride,
        pad_left=0,
        tail="floor" if layer.tail == "floor" else "ceil",
        kind=layer.kind,
        size=layer.size,
    )


@_lowers(Pool)
def _pool(layer: Pool, to: Builder, at: int, where: str) -> int:
    return to.add(_pool_op(layer), [at], layer.out_features, where)


@_lowers(Pool2d)
def _pool2d(layer: Pool2d, to: Builder, at: int, where: str) -> int:
    """Over bins and then over time: both maximum and mean may be taken one axis after the other."""
    channels, bins = layer.in_features
    over_bins = ops.PoolBins(kind=layer.kind, size=layer.window[1], stride=layer.steps[1], channels=channels, bins=bins)
    at = to.add(over_bins, [at], layer.out_features, where)
    return to.add(_pool_op(layer), [at], layer.out_features, where)


@_lowers(Norm)
def _norm(layer: Norm, to: Builder, at: int, where: str) -> int:
    size, eps = to.nodes[at].size, layer.config.eps
    if layer.config.kind == "batch":
        channels = layer.in_features[0]
        weight = np.ones(channels) if layer.weight is None else layer.weight.double().cpu().numpy()
        bias = np.zeros(channels) if layer.bias is None else layer.bias.double().cpu().numpy()
        scale = weight / np.sqrt(layer.running_var.double().cpu().numpy() + eps)
        mean, each = layer.running_mean.double().cpu().numpy(), size // channels
        return to.affine(np.repeat(mean, each), np.repeat(scale, each), np.repeat(bias, each), at, where)
    op = ops.FrameNorm(
        kind=layer.config.kind,
        weight=np.ones(size, np.float32) if layer.weight is None else _array(layer.weight.flatten()),
        bias=np.zeros(size, np.float32) if layer.bias is None else _array(layer.bias.flatten()),
        eps=eps,
    )
    return to.add(op, [at], layer.out_features, where)


@_lowers(Activation)
def _activation(layer: Activation, to: Builder, at: int, where: str) -> int:
    return to.add(ops.Map(function=layer.config.kind), [at], layer.out_features, where)


@_lowers(Residual)
def _residual(layer: Residual, to: Builder, at: int, where: str) -> int:
    body, shortcut = (
        to.layer(branch, at, f"{where}.residual.{name}")
        for branch, name in zip(layer._chains, ("layers", "shortcut"), strict=True)
    )
    at = to.add(ops.Add(), [body, shortcut], layer.out_features, where)
    if layer.activation is None:
        return at
    return to.add(ops.Map(function=layer.activation), [at], layer.out_features, where)


@_lowers(Parallel)
def _parallel(layer: Parallel, to: Builder, at: int, where: str) -> int:
    ends = [to.layer(branch, at, f"{where}.parallel.branches[{i}]") for i, branch in enumerate(layer._chains)]
    return to.add(ops.Concat(), ends, layer.out_features, where)  # stacking is concatenation along a new first axis


@_lowers(Recurrent)
def _recurrent(layer: Recurrent, to: Builder, at: int, where: str) -> int:
    config = layer.config
    for i, forwards in enumerate(layer.forwards):
        before = at
        cells = [forwards, layer.backwards[i]] if config.bidirectional else [forwards]
        ends = []
        for direction, cell in enumerate(cells):
            zeros = torch.zeros(layer.num_states, config.hidden_size)
            initial = _array(zeros if layer.initial is None else layer.initial[i, direction])
            lowered: Callable[..., int] = _scan if isinstance(cell, Scan) else _cell
            ends.append(lowered(cell, initial, to, before, where, reverse=direction == 1))
        at = ends[0] if len(ends) == 1 else to.add(ops.Concat(), ends, layer.out_features, where)
        if config.layer_norm:
            norm: Any = layer.norms[i]
            scale = ops.FrameNorm(kind="layer", weight=_array(norm.weight), bias=_array(norm.bias), eps=norm.eps)
            at = to.add(scale, [at], layer.out_features, where)
        if config.residual and to.shape(before) == to.shape(at):
            at = to.add(ops.Add(), [at, before], layer.out_features, where)
    return at


def _cell(cell: Any, initial: Array, to: Builder, at: int, where: str, *, reverse: bool) -> int:
    kind: Any = next((name for name, cls in TORCH_CELLS.items() if type(cell) is cls), None)
    if kind is None:
        raise ExportError(
            f"{where}: recurrent cell {type(cell).__name__} has no operations that an exporter knows; take one of rnn, "
            "lstm, gru (with reset: after), mingru, minlstm, qrnn"
        )
    op = ops.Recurrent(
        cell=kind,
        weight_x=_array(cell.weight_ih_l0),
        weight_h=_array(cell.weight_hh_l0),
        bias_x=_array(cell.bias_ih_l0),
        bias_h=_array(cell.bias_hh_l0),
        initial=initial,
        reverse=reverse,
    )
    return to.add(op, [at], (cell.hidden_size,), where)


def _scan(cell: Scan, initial: Array, to: Builder, at: int, where: str, *, reverse: bool) -> int:
    """Gates, and a mean that forgets by them: u and n side by side, of h' = sigmoid(u) h + (1 - sigmoid(u)) n."""
    size, taps = cell.hidden_size, cell.before + 1
    weight, bias = _array(cell.gates.weight), _array(cell.gates.bias)

    def part(start: int, stop: int, at: int, function: ops.Function | None = None) -> int:
        shape = ((stop - start) * size,)
        at = to.add(ops.Slice(start=start * size, stop=stop * size), [at], shape, where)
        return at if function is None else to.add(ops.Map(function=function), [at], shape, where)

    if cell.kind == "qrnn":
        by_tap = weight.reshape(len(weight), taps, -1).swapaxes(1, 2)
        conv = ops.Conv(
            extent=taps,
            stride=1,
            pad_left=0 if reverse else cell.before,
            weight=_array(np.flip(by_tap, 2) if reverse else by_tap),
            bias=bias,
        )
        gates = to.add(conv, [at], (len(weight),), where)
        at = to.add(ops.Concat(), [part(0, 1, gates), part(1, 2, gates, "tanh")], (2 * size,), where)
        at = to.add(ops.GatedMean(initial=initial[0], reverse=reverse), [at], (size,), where)
        return to.add(ops.Multiply(), [part(2, 3, gates, "sigmoid"), at], (size,), where)
    shut = np.where(np.arange(len(weight)) < len(weight) - size, -1, 1).astype(np.float32)  # the gates turned round
    at = to.add(ops.Dense(weight=weight * shut[:, None], bias=bias * shut), [at], (len(weight),), where)
    if cell.kind == "minlstm":  # f / (f + i) = sigmoid(log f - log i)
        logs, zeros = part(0, 2, at, "softplus"), np.zeros(size)
        of_f = to.affine(zeros, np.full(size, -1), zeros, part(0, 1, logs), where)
        ratio = to.add(ops.Add(), [part(1, 2, logs), of_f], (size,), where)
        at = to.add(ops.Concat(), [ratio, part(2, 3, at)], (2 * size,), where)
    return to.add(ops.GatedMean(initial=initial[0], reverse=reverse), [at], (size,), where)


@_lowers(ChannelNorm)
def _channel_norm(layer: ChannelNorm, to: Builder, at: int, where: str) -> int:
    scale = 1 / layer.std.double().flatten().cpu().numpy()
    return to.affine(layer.mean.flatten().cpu().numpy(), scale, np.zeros(len(scale)), at, where)


@_lowers(RunningNorm)
def _running_norm(layer: RunningNorm, to: Builder, at: int, where: str) -> int:
    """A mean that forgets at a constant rate, taken from the frame."""
    mean = _array(layer.mean.flatten())
    none, one = np.zeros(len(mean)), np.ones(len(mean))
    rate = to.affine(none, none, np.full(len(mean), math.log(layer.keep / (1 - layer.keep))), at, where)
    both = to.add(ops.Concat(), [rate, at], (2 * len(mean),), where)
    means = to.add(ops.GatedMean(initial=mean), [both], layer.out_features, where)
    return to.add(ops.Add(), [at, to.affine(none, -one, none, means, where)], layer.out_features, where)


@_lowers(Compress)
def _compress(layer: Compress, to: Builder, at: int, where: str) -> int:
    scale = 1 / layer.spread.double().flatten().cpu().numpy()
    at = to.affine(layer.median.flatten().cpu().numpy(), scale, np.zeros(len(scale)), at, where)
    return to.add(ops.Map(function="asinh"), [at], layer.out_features, where)


@_lowers(InstanceNorm)
def _instance_norm(layer: InstanceNorm, to: Builder, at: int, where: str) -> int:
    op = ops.SequenceNorm(divide=layer.config.divide, floor=_array(layer.floor.flatten()))
    return to.add(op, [at], layer.out_features, where)


@_lowers(Level)
def _level(layer: Level, to: Builder, at: int, where: str) -> int:
    return to.add(ops.Level(), [at], layer.out_features, where)


@_lowers(Missing)
def _missing(layer: Missing, to: Builder, at: int, where: str) -> int:
    filled = to.add(ops.FillMissing(last=layer.config.fill == "last"), [at], layer.in_features, where)
    if not layer.config.mask:
        return filled
    mask = to.add(ops.IsMissing(), [at], layer.in_features, where)
    return to.add(ops.Concat(), [filled, mask], layer.out_features, where)


@_lowers(Difference)
def _difference(layer: Difference, to: Builder, at: int, where: str) -> int:
    steps = to.add(ops.Difference(), [at], layer.in_features, where)
    return to.add(ops.Concat(), [at, steps], layer.out_features, where) if layer.config.keep else steps


@_lowers(Embedding)
def _embedding(layer: Embedding, to: Builder, at: int, where: str) -> int:
    return to.add(ops.Embedding(table=_array(layer.embedding.weight)), [at], layer.out_features, where)


@_lowers(OneHot)
def _one_hot(layer: OneHot, to: Builder, at: int, where: str) -> int:
    table = np.eye(layer.config.vocab_size, dtype=np.float32)
    return to.add(ops.Embedding(table=table), [at], layer.out_features, where)


@_lowers(Iupac)
def _iupac(layer: Iupac, to: Builder, at: int, where: str) -> int:
    return to.add(ops.Embedding(table=_array(layer.fractions)), [at], layer.out_features, where)


@_lowers(LogMel)
def _log_mel(layer: LogMel, to: Builder, at: int, where: str) -> int:
    config = layer.config
    (channels,) = layer.in_features
    op = ops.LogMel(
        extent=layer.extent,
        stride=layer.stride,
        pad_left=layer.pad_left,
        window=_array(layer.window),
        n_fft=config.fft_length,
        filters=_array(layer.filters),
        channels=channels,
        preemphasis=config.preemphasis,
        power=config.power,
        log_floor=config.log_floor,
    )
    return to.add(op, [at], _bands(channels, config.num_mels), where)


def _bands(channels: int, size: int) -> Features:
    return (size,) if channels == 1 else (channels, size)


@_lowers(Mfcc)
def _mfcc(layer: Mfcc, to: Builder, at: int, where: str) -> int:
    at = _log_mel(layer, to, at, where)
    weight = _array(layer.cosines.T)
    op = ops.Dense(weight=weight, bias=np.zeros(len(weight), np.float32), rows=layer.in_features[0])
    return to.add(op, [at], layer.out_features, where)


@_lowers(Last)
def _last(summary: Last, to: Builder, at: int, where: str) -> int:
    size = to.nodes[at].size
    last = to.add(ops.Last(), [at], (size,), where)
    if not summary.config.bidirectional:
        return last
    first = to.add(ops.First(), [at], (size,), where)
    forwards = to.add(ops.Slice(start=0, stop=size // 2), [last], (size // 2,), where)
    backwards = to.add(ops.Slice(start=size // 2, stop=size), [first], (size // 2,), where)
    return to.add(ops.Concat(), [forwards, backwards], (size,), where)


@_lowers(Mean)
def _mean(summary: Mean, to: Builder, at: int, where: str) -> int:
    return to.add(ops.Mean(), [at], (to.nodes[at].size,), where)


@_lowers(Max)
def _max(summary: Max, to: Builder, at: int, where: str) -> int:
    return to.add(ops.Max(), [at], (to.nodes[at].size,), where)


@_lowers(Above)
def _above(summary: Above, to: Builder, at: int, where: str) -> int:
    """A huge slope over the threshold, and tanh of what is positive of it: 1 above, else 0; its mean is the share.

    With soft thresholds, the sigmoid of a slope.
    """
    size = to.nodes[at].size
    ends = []
    for threshold in summary.thresholds:
        if summary.steepness is not None:
            slope = to.affine(threshold, summary.steepness, np.zeros(size), at, where)
            part = to.add(ops.Map(function="sigmoid"), [slope], to.shape(at), where)
            ends.append(to.add(ops.Mean(), [part], (size,), where))
            continue
        steep = to.affine(threshold, np.full(size, 1e30), np.zeros(size), at, where)
        positive = to.add(ops.Map(function="relu"), [steep], to.shape(at), where)
        is_above = to.add(ops.Map(function="tanh"), [positive], to.shape(at), where)
        ends.append(to.add(ops.Mean(), [is_above], (size,), where))
    if summary.config.maximum:
        ends.append(to.add(ops.Max(), [at], (size,), where))
    found = to.add(ops.Concat(), ends, (summary.out_features,), where)
    return to.affine(summary.mean, 1 / summary.spread.double(), np.zeros(summary.out_features), found, where)


@_lowers(Attention)
def _attention(summary: Attention, to: Builder, at: int, where: str) -> int:
    project = summary.project
    op = ops.Attend(
        weight=_array(project.weight), bias=_array(project.bias), score=_array(summary.score.weight.flatten())
    )
    return to.add(op, [at], (to.nodes[at].size,), where)


@_lowers(Concat)
def _concat(summary: Concat, to: Builder, at: int, where: str) -> int:
    ends = []
    for i, (branch, part) in enumerate(summary._pairs):
        place = f"{where}.concat.summaries[{i}]"
        ends.append(to.summary(part, to.layer(branch, at, f"{place}.layers"), place))
    return to.add(ops.Concat(), ends, (summary.out_features,), where)


def _lower_head(head: Head, to: Builder, at: int) -> int:
    for i, layer in enumerate([*head.hidden, head.linear]):
        linear: Any = layer
        op = ops.Dense(weight=_array(linear.weight), bias=_array(linear.bias))
        at = to.add(op, [at], (linear.out_features,), "head")
        if i < len(head.hidden):
            at = to.add(ops.Map(function="relu"), [at], (linear.out_features,), "head")
    return at


def fold(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The same program with affine maps multiplied into the weights that they alone follow, through a concat as well.

    Weights are multiplied in float64 and rounded once.
    """
    readers = Counter(i for node in nodes for i in node.inputs)
    done: list[Node] = []
    place: list[int] = []  # of each old node in the new list
    alone: set[int] = set()  # new nodes that one other reads
    for i, node in enumerate(nodes):
        inputs = tuple(place[k] for k in node.inputs)
        folded = _folded(node.op, done, inputs[0], alone) if isinstance(node.op, ops.Affine) else {}
        for at, op in folded.items():
            done[at] = replace(done[at], op=op)
        if folded:
            place.append(inputs[0])
        else:
            place.append(len(done))
            done.append(replace(node, inputs=inputs))
        if readers[i] == 1:
            alone.add(place[-1])
        else:
            alone.discard(place[-1])  # a folded node is read by whatever reads its affine map
    return tuple(done)


def _folded(affine: ops.Affine, done: Sequence[Node], before: int, alone: set[int]) -> dict[int, Op]:
    """What stands for the nodes in front of an affine map, once it is in their weights; nothing where it cannot be."""
    if before not in alone:
        return {}
    sources = done[before].inputs if isinstance(done[before].op, ops.Concat) else (before,)
    found: dict[int, Op] = {}
    start = 0
    for at in sources:
        part = slice(start, start + done[at].size)
        op = _fold_into(done[at].op, ops.Affine(**{name: values[part] for name, values in vars(affine).items()}))
        if op is None or at not in alone:
            return {}
        found[at], start = op, part.stop
    return found


def _fold_into(before: Op, affine: ops.Affine) -> Op | None:
    """`before` with the affine map in its weights; None where it has none, or the map differs within a channel."""
    if not isinstance(before, (ops.Conv, ops.Conv2d, ops.Dense)) or (isinstance(before, ops.Dense) and before.rows > 1):
        return None
    channels = len(before.bias)
    parts = (affine.centre, affine.scale, affine.shift)
    centre, scale, shift = (a.astype(np.float64).reshape(channels, -1) for a in parts)
    if any((a != a[:, :1]).any() for a in (centre, scale, shift)):
        return None
    weight = before.weight * scale[:, 0].reshape(-1, *(1,) * (before.weight.ndim - 1))
    bias = (before.bias - centre[:, 0]) * scale[:, 0] + shift[:, 0]
    return replace(before, weight=_array(weight), bias=_array(bias))
