"""Layers built of layers: specs to layers, pointwise layers, and blocks with branches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.config import build_config, config, nearest, to_plain
from crnn.errors import ConfigError
from crnn.nn import (  # noqa: F401  specs may name what is in there
    conv,
    frontend,
    jitter,
    norm,
    patterns,
    pool,
    position,
    recurrent,
    running_norm,
    scale,
    spec_augment,
    spectral,
)
from crnn.nn.layers import Chain, Features, Layer, State, Timing, build_layer, known_layers, register_layer
from crnn.sequences import Sequences

Spec = dict[str, Any]
"""{type: name of a registered layer, ...its options}."""


def complete_layers(specs: Sequence[Spec], where: str = "layers") -> list[Spec]:
    """Specs with every option written out, those inside of blocks too.

    Args:
        where: prefix of every message; `layers[2].residual.layers[0].kernel_size: unknown option` says the rest.
    Raises:
        ConfigError: an unknown layer or option (with the nearest real one), or a value that is not allowed.
    """
    if not isinstance(specs, (list, tuple)):
        raise ConfigError(f"{where}: found {specs!r}, expected a list of layers, each {{type: name, ...options}}")
    return [_complete_layer(spec, f"{where}[{i}]") for i, spec in enumerate(specs)]


def _complete_layer(spec: Spec, where: str) -> Spec:
    name, options = split_spec(spec, where, list(known_layers()), "layer")
    cls = known_layers()[name]
    options = cls.complete_nested(options, f"{where}.{name}")
    return {"type": name, **to_plain(build_config(cls.Config, options, where))}


def split_spec(spec: Spec, where: str, known: list[str], what: str) -> tuple[str, dict[str, Any]]:
    """The type and the options of a spec.

    Raises:
        ConfigError: not a mapping, no type, or one that is not known.
    """
    if not isinstance(spec, dict):
        raise ConfigError(f"{where}: found {spec!r}, expected a mapping {{type: name, ...options}}")
    if "type" not in spec:
        raise ConfigError(f"{where}: no type; add type: NAME, one of {', '.join(sorted(known))}")
    name = spec["type"]
    if name not in known:
        raise ConfigError(f"{where}.type: unknown {what} {name!r}{nearest(str(name), known)}")
    return name, {key: value for key, value in spec.items() if key != "type"}


def build_layers(specs: Sequence[Spec], features: Features, *, where: str = "layers") -> Chain:
    """The layers of a spec in a row, each fitted to the frames that the one before it gives.

    Args:
        features: shape of one frame of the input; () for symbol ids.
    Raises:
        ConfigError: as complete_layers; or a layer that does not fit the frames it is given.
    """
    layers: list[Layer] = []
    at = features
    for i, spec in enumerate(complete_layers(specs, where)):
        options = {key: value for key, value in spec.items() if key != "type"}
        made: Any = build_config(known_layers()[spec["type"]].Config, options, f"{where}[{i}]")
        try:
            layers.append(build_layer(spec["type"], at, made))
        except ConfigError as error:
            raise ConfigError(f"{where}[{i}]: {error}") from None
        at = layers[-1].out_features
    return Chain(features, layers)


ActivationName = Literal["relu", "gelu", "silu", "tanh", "leaky_relu", "elu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
}
"""Functions of one value with f(0) = 0, so that padding stays zero."""


@config
class ActivationConfig:
    """A function of each value."""

    kind: ActivationName = "relu"
    """Gelu is the exact one; leaky_relu has slope 0.01 below zero, elu alpha 1."""


@register_layer("activation")
class Activation(Layer):
    """ReLU and its relatives, on frames of any shape."""

    Config = ActivationConfig

    def __init__(self, features: Features, config: ActivationConfig) -> None:
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Sequences:
        return Sequences(ACTIVATIONS[self.config.kind](x.data), x.lengths)


@config
class DropoutConfig:
    """Values set to zero at random while training."""

    rate: float = 0.5
    """Share of values that become zero; the others are scaled up by 1 / (1 - rate)."""
    kind: Literal["element", "channel"] = "element"
    """Element: every value by itself. Channel: a channel of a sequence goes as a whole."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ConfigError(f"dropout.rate={self.rate}; expected at least 0 and less than 1")


@register_layer("dropout")
class Dropout(Layer):
    """Dropout; what is drawn depends on the sequences' lengths, not on how far they are padded.

    Shape:
        x.data: (batch, time, *features), returns the same.
    """

    Config = DropoutConfig

    def __init__(self, features: Features, config: DropoutConfig) -> None:
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Sequences:
        rate = self.config.rate
        if not self.training or rate == 0:
            return x
        if self.config.kind == "element":
            return Sequences(F.dropout(x.data, rate), x.lengths)
        shape = (x.data.shape[0], 1, *self.in_features[:1], *(1 for _ in self.in_features[1:]))
        return Sequences(x.data * F.dropout(x.data.new_ones(shape), rate), x.lengths)


@config
class FlattenConfig:
    """All values of a frame in one row; no options."""


@register_layer("flatten")
class Flatten(Layer):
    """(channels, bins) or (channels, height, width) frames become (channels * bins,)."""

    Config = FlattenConfig

    def __init__(self, features: Features, config: FlattenConfig) -> None:
        super().__init__(features)
        if not features:
            raise ConfigError("flatten: frames are symbol ids, nothing to flatten; put an embedding before it")
        self.config = config
        self.out_features = (int(torch.Size(features).numel()),)

    def compute(self, x: Sequences) -> Sequences:
        return Sequences(x.data.flatten(2), x.lengths)


class Branches(Layer):
    """Several chains on the same input, whose outputs meet frame by frame in `combine`.

    Branches look ahead by different amounts, so in a stream the outputs of the faster ones wait for the slowest. Where
    branches end at different lengths (a pooling that drops its tail beside a stride that keeps it), frames that not
    every branch has are dropped.

    The state is that of each branch, and then each branch's waiting outputs.
    """

    branches: nn.ModuleList

    def __init__(self, features: Features, branches: list[Chain], name: str) -> None:
        super().__init__(features)
        strides = [branch.timing.stride for branch in branches]
        if len(set(strides)) > 1:
            raise ConfigError(f"{name}: branches have strides {strides}, expected equal ones; adjust stride or pooling")
        self.branches = nn.ModuleList(branches)
        self.timing = Timing(
            strides[0],
            max(branch.timing.look_back for branch in branches),
            max(branch.timing.look_ahead for branch in branches),
        )

    def combine(self, outputs: list[Tensor]) -> Tensor:
        """One (batch, time, *features) per branch -> (batch, time, *out_features); zeros must give zeros."""
        raise NotImplementedError

    @property
    def _chains(self) -> list[Chain]:
        return cast("list[Chain]", list(self.branches))

    def out_lengths(self, lengths: Tensor) -> Tensor:
        return torch.stack([branch.out_lengths(lengths) for branch in self._chains]).amin(0)

    def compute(self, x: Sequences) -> Sequences:
        outputs = [branch.compute(x) for branch in self._chains]
        lengths = outputs[0].lengths
        if all(torch.equal(y.lengths, lengths) for y in outputs[1:]):
            time = min(y.data.shape[1] for y in outputs)
            return Sequences(self.combine([y.data[:, :time] for y in outputs]), lengths)
        lengths = torch.stack([y.lengths for y in outputs]).amin(0)
        time = int(lengths.max())
        return Sequences(self.combine([y.data[:, :time] for y in outputs]), lengths).zeroed()

    @property
    def can_stream(self) -> bool:
        return all(branch.can_stream for branch in self._chains)

    def why_no_stream(self) -> str:
        return next(branch.why_no_stream() for branch in self._chains if not branch.can_stream)

    def start(self, batch: int) -> State:
        states = [tensor for branch in self._chains for tensor in branch.start(batch)]
        return (*states, *(branch.empty(batch) for branch in self._chains))

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        states: list[Tensor] = []
        ready: list[Tensor] = []
        for branch, own, waiting in self._divide(state):
            out, own = branch.push(data, own)
            states.extend(own)
            ready.append(torch.cat([waiting.to(out), out], 1))
        time = min(out.shape[1] for out in ready)
        waiting_now = (out[:, time:].contiguous() for out in ready)
        return self.combine([out[:, :time] for out in ready]), (*states, *waiting_now)

    def finish(self, state: State) -> Tensor:
        ready = []
        for branch, own, waiting in self._divide(state):
            ready.append(torch.cat([waiting, branch.finish(own)], 1) if own else waiting)
        time = min(out.shape[1] for out in ready)
        return self.combine([out[:, :time] for out in ready])

    def close(self, data: Tensor, state: State) -> Tensor:
        closed = [(waiting, branch.close(data, own)) for branch, own, waiting in self._divide(state)]
        ready = [torch.cat([waiting.to(out), out], 1) for waiting, out in closed]
        time = min(out.shape[1] for out in ready)
        return self.combine([out[:, :time] for out in ready])

    def _divide(self, state: State) -> list[tuple[Chain, State, Tensor]]:
        """Each branch with its state and its waiting outputs."""
        chains = self._chains
        parts, at = [], 0
        for branch, waiting in zip(chains, state[len(state) - len(chains) :], strict=True):
            size = len(branch.start(1))
            parts.append((branch, state[at : at + size], waiting))
            at += size
        return parts

    def macs_per_frame(self) -> float:
        return sum(branch.macs_per_frame() for branch in self._chains)

    @property
    def learns_statistics(self) -> bool:
        return any(branch.learns_statistics for branch in self._chains)

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        batches = list(batches)
        for branch in self._chains:
            branch.fit_statistics(batches)


@config
class ResidualConfig:
    """Layers, and a shortcut around them."""

    layers: list[dict[str, Any]]
    """What the shortcut goes around; each {type: name, ...options}."""
    shortcut: Literal["auto", "projection"] = "auto"
    """Auto adds the input itself where shapes agree; else, and always with projection, a 1-tap convolution and batch
    norm fit it to the layers' channels and stride."""
    activation: ActivationName | None = "relu"
    """After the sum; null for none."""


@register_layer("residual")
class Residual(Branches):
    """activation(layers(x) + shortcut(x)).

    Shape:
        frames (channels,) or (channels, bins); returns what the layers return.
    Raises:
        ConfigError: the layers change the frames in a way that no projection follows.
    Source: He et al. 2016, arXiv:1512.03385.
    """

    Config: ClassVar[type] = ResidualConfig

    def __init__(self, features: Features, config: ResidualConfig) -> None:
        body = build_layers(config.layers, features)
        same = body.out_features == features and body.timing.stride == 1
        if same and config.shortcut == "auto":
            shortcut = Chain(features, [])
        else:
            shortcut = _projection(features, body.out_features, body.timing.stride)
        super().__init__(features, [body, shortcut], "residual")
        self.config: Any = config
        self.activation = config.activation
        self.out_features = body.out_features

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        if "layers" not in options:
            return options
        return {**options, "layers": complete_layers(options["layers"], f"{where}.layers")}

    def combine(self, outputs: list[Tensor]) -> Tensor:
        total = outputs[0] + outputs[1]
        return total if self.activation is None else ACTIVATIONS[self.activation](total)


def _projection(features: Features, out_features: Features, stride: int) -> Chain:
    """Chain of a 1-tap convolution with stride and batch norm, from frames of one shape to another."""
    if len(features) == len(out_features) == 1:
        spec: Spec = {"type": "conv", "channels": out_features[0], "kernel_size": 1, "stride": stride, "bias": False}
        return build_layers([spec, {"type": "norm"}], features)
    if len(features) == len(out_features) == 2:
        bin_stride = round(features[1] / out_features[1])
        if bin_stride and -(-features[1] // bin_stride) == out_features[1]:
            steps = [stride, bin_stride]
            spec = {
                "type": "conv2d",
                "channels": out_features[0],
                "kernel_size": [1, 1],
                "stride": steps,
                "bias": False,
            }
            return build_layers([spec, {"type": "norm"}], features)
    raise ConfigError(f"residual: no shortcut fits frames of {features} to {out_features}; keep the number of bins")


@config
class BottleneckConfig:
    """A residual block that convolves fewer channels than it carries."""

    channels: int
    """Output channels."""
    kernel_size: int = 3
    """Taps of the middle convolution, in frames."""
    stride: int = 1
    """Frames from one output of the middle convolution to the next."""
    dilation: int = 1
    """Frames from one tap of the middle convolution to the next."""
    groups: int = 1
    """Channel groups of the middle convolution."""
    reduction: int = 4
    """The middle convolution has channels / reduction channels."""
    padding: Literal["centred", "causal"] = "centred"
    """Centred looks half a kernel ahead; causal looks back only."""

    def __post_init__(self) -> None:
        for name in ("channels", "kernel_size", "stride", "dilation", "groups", "reduction"):
            if getattr(self, name) < 1:
                raise ConfigError(f"bottleneck.{name}={getattr(self, name)}; expected at least 1")
        if self.channels % self.reduction or self.channels // self.reduction % self.groups:
            raise ConfigError(
                f"bottleneck.channels={self.channels} does not divide by reduction={self.reduction} into a multiple "
                f"of groups={self.groups}"
            )


@register_layer("bottleneck")
class Bottleneck(Residual):
    """Residual block of 1-tap, k-tap and 1-tap convolutions, each with batch norm; ReLU between and after the sum.

    Shape:
        x.data: (batch, time, in_channels); returns (batch, ceil(time / stride), channels).
    Source: He et al. 2016, arXiv:1512.03385, section 4.1; the stride is in the middle convolution.
    """

    Config = BottleneckConfig

    def __init__(self, features: Features, config: BottleneckConfig) -> None:
        hidden = config.channels // config.reduction
        middle = {name: getattr(config, name) for name in ("kernel_size", "stride", "dilation", "groups", "padding")}
        relu, batch_norm = {"type": "activation"}, {"type": "norm"}
        layers = [
            {"type": "conv", "channels": hidden, "kernel_size": 1, "bias": False},
            batch_norm,
            relu,
            {"type": "conv", "channels": hidden, "bias": False, **middle},
            batch_norm,
            relu,
            {"type": "conv", "channels": config.channels, "kernel_size": 1, "bias": False},
            batch_norm,
        ]
        super().__init__(features, build_config(ResidualConfig, {"layers": layers}, "bottleneck"))
        self.config = config

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        return options


@config
class ParallelConfig:
    """Branches side by side."""

    branches: list[list[dict[str, Any]]]
    """Lists of layers; an empty list passes the input on. All branches need the same stride."""
    join: Literal["concat", "stack"] = "concat"
    """Concat puts the branches' channels one after the other; stack makes each branch a channel of its own, so that
    two views of a spectrogram, (bins,) each, become (2, bins)."""

    def __post_init__(self) -> None:
        if len(self.branches) < 2:
            raise ConfigError(f"parallel.branches: found {len(self.branches)}, expected at least 2; else use layers")


@register_layer("parallel")
class Parallel(Branches):
    """Branches on the same input, their outputs concatenated over channels, or stacked as channels.

    Shape:
        frames (channels, ...); returns (sum of the branches' channels, ...); with stack (branches, channels, ...).
    Raises:
        ConfigError: the branches differ in stride, or in what follows the channels; with stack, in shape.
    """

    Config = ParallelConfig

    def __init__(self, features: Features, config: ParallelConfig) -> None:
        branches = [build_layers(specs, features, where=f"branches[{i}]") for i, specs in enumerate(config.branches)]
        super().__init__(features, branches, "parallel")
        shapes = [branch.out_features for branch in branches]
        self.config = config
        if config.join == "stack":
            if () in shapes or len(set(shapes)) > 1:
                raise ConfigError(f"parallel: branches give frames of {shapes}, expected equal ones to stack")
            self.out_features = (len(shapes), *shapes[0])
            return
        if () in shapes or len({shape[1:] for shape in shapes}) > 1:
            raise ConfigError(f"parallel: branches give frames of {shapes}, expected channels first and equal else")
        self.out_features = (sum(shape[0] for shape in shapes), *shapes[0][1:])

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        branches = options.get("branches")
        if not isinstance(branches, (list, tuple)):
            return options
        done = [complete_layers(specs, f"{where}.branches[{i}]") for i, specs in enumerate(branches)]
        return {**options, "branches": done}

    def combine(self, outputs: list[Tensor]) -> Tensor:
        return torch.stack(outputs, 2) if self.config.join == "stack" else torch.cat(outputs, 2)
