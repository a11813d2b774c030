"""Summaries: from the frames of a sequence to one vector, over its real frames only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from crnn.config import build_config, config, to_plain
from crnn.errors import ConfigError, ShapeError, StreamError
from crnn.nn.blocks import Spec, build_layers, complete_layers, split_spec
from crnn.nn.layers import Chain, Features, State, Through, Timing
from crnn.sequences import Sequences


class Summary(nn.Module):
    """Base of every summary.

    Promise: a sequence has the same summary alone, in any batch, with any padding, and `push`ed in any chunks.

    A subclass sets `out_features` if it is not the size of a frame, and writes `compute`, `start`, `push` and `read`;
    one with layers of its own also writes `finish`. The constructor of a registered summary takes (features, config).

    Shape:
        x.data: (batch, time, *in_features), 1 <= x.lengths; returns (batch, out_features).
        state: the last tensor counts the frames so far, (batch,) int64.
    Raises:
        ShapeError: a sequence without frames, or frames of another shape.
    """

    Config: ClassVar[type]
    in_features: Features
    out_features: int

    def __init__(self, features: Features) -> None:
        super().__init__()
        if not features:
            raise ConfigError("summary: frames are symbol ids, expected channels; put an embedding before it")
        self.in_features = features
        self.out_features = math.prod(features)

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        """The options with the specs inside of them completed; most summaries have none."""
        return options

    def forward(self, x: Sequences) -> Tensor:
        if tuple(x.data.shape[2:]) != self.in_features:
            raise ShapeError(
                f"{type(self).__name__}: frames have shape {tuple(x.data.shape[2:])}, expected {self.in_features}; "
                "sequences are (batch, time, channels)"
            )
        if x.lengths.numel() and int(x.lengths.min()) < 1:
            raise ShapeError(
                f"{type(self).__name__}: sequence {int(x.lengths.argmin())} has no frames, needs at least 1; "
                "leave empty sequences out"
            )
        return self.compute(x.trimmed().zeroed())

    def compute(self, x: Sequences) -> Tensor:
        """As forward, on input that is zero past the ends."""
        raise NotImplementedError

    @property
    def can_stream(self) -> bool:
        """False where a layer in front of a part needs the end of the sequence first."""
        return True

    def start(self, batch: int) -> State:
        """The state before the first frame of `batch` streams."""
        raise NotImplementedError

    def push(self, data: Tensor, state: State) -> State:
        """The state after (batch, n, *in_features) more frames, n >= 0, all of them real."""
        raise NotImplementedError

    def finish(self, state: State) -> State:
        """The state after the end of the stream, in which frames that only the end makes ready count too."""
        return state

    def read(self, state: State) -> Tensor:
        """The summary of the frames that are ready so far; the state stays good for more frames.

        Raises:
            StreamError: no frame has come yet.
        """
        raise NotImplementedError

    def has_frames(self, state: State) -> bool:
        """True once there is something to read."""
        return bool((state[-1] > 0).all())

    @property
    def timings(self) -> list[Timing]:
        """Of each way from the frames that it is given to those that it counts."""
        return [Timing()]

    def macs_per_frame(self) -> float:
        """Multiply-adds for one input frame."""
        return 0.0

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """Learn fixed statistics of the training data, going over it more than once; most have none."""

    @property
    def learns_statistics(self) -> bool:
        """True where fit_statistics does something, so that the training data has to be shown to it."""
        return type(self).fit_statistics is not Summary.fit_statistics

    @property
    def fixed(self) -> Tensor:
        """(out_features,) of truth values: what training leaves as it is, given that the frames are."""
        return torch.full((self.out_features,), not _is_trained(self))

    def _check_read(self, state: State) -> None:
        if not self.has_frames(state):
            raise StreamError(f"{type(self).__name__}: no frame has come yet; push at least one before reading")


SUMMARIES: dict[str, type[Summary]] = {}
"""Every registered summary by the name that specs use; what registers here is tested by the promises."""

MOST_FRAMES = 10_000
"""Frames, evenly spaced over the training data, from which thresholds are taken; up to twice as many."""
LEAST_SPREAD = 1e-3
"""Added to the spread of a share or maximum, so that one that hardly varies stays small."""

S = TypeVar("S", bound=type[Summary])


def register_summary(name: str) -> Callable[[S], S]:
    """Class decorator: make a summary known to specs (`type: name`) and to the promise tests."""

    def register(cls: S) -> S:
        if name in SUMMARIES:
            raise ConfigError(
                f"summary {name!r} is registered twice: {SUMMARIES[name].__qualname__}, {cls.__qualname__}"
            )
        SUMMARIES[name] = cls
        return cls

    return register


def complete_summary(spec: Spec, where: str = "summary") -> Spec:
    """A summary's spec with every option written out.

    Raises:
        ConfigError: an unknown summary or option (with the nearest real one), or a value that is not allowed.
    """
    name, options = split_spec(spec, where, list(SUMMARIES), "summary")
    options = SUMMARIES[name].complete_nested(options, f"{where}.{name}")
    return {"type": name, **to_plain(build_config(SUMMARIES[name].Config, options, where))}


def _complete_part(part: Spec, where: str) -> Spec:
    """A part of a concat: a summary's spec and the `layers` in front of it."""
    if not isinstance(part, dict) or "layers" not in part:
        return complete_summary(part, where)
    layers = complete_layers(part["layers"], f"{where}.layers")
    return {**complete_summary({key: part[key] for key in part if key != "layers"}, where), "layers": layers}


def build_summary(spec: Spec, features: Features, *, where: str = "summary") -> Summary:
    """The summary of a spec, for frames of shape `features`.

    Raises:
        ConfigError: as complete_summary; or frames that it cannot summarise.
    """
    name, options = split_spec(complete_summary(spec, where), where, list(SUMMARIES), "summary")
    made: Any = build_config(SUMMARIES[name].Config, options, where)
    try:
        return SUMMARIES[name](features, made)  # type: ignore[call-arg]
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


@config
class LastConfig:
    """The last true frame."""

    bidirectional: bool = False
    """After a bidirectional layer: its forward half at the last frame, its backward half at the first, so that both
    have seen the whole sequence."""


@register_summary("last")
class Last(Summary):
    """The last true frame of each sequence, not the last column of the padding.

    Raises:
        ConfigError: bidirectional, and a frame has an odd number of values.
    """

    Config = LastConfig

    def __init__(self, features: Features, config: LastConfig) -> None:
        super().__init__(features)
        self.config = config
        if config.bidirectional and self.out_features % 2:
            raise ConfigError(
                f"last.bidirectional: frames have {self.out_features} values, expected an even number, one half per "
                "direction; put it after a bidirectional recurrent layer"
            )

    def compute(self, x: Sequences) -> Tensor:
        last = (x.data[:, -1] if x.is_full else x.last()).flatten(1)  # a slice trains faster than an index
        return self._join(x.data[:, 0].flatten(1), last) if self.config.bidirectional else last

    def _join(self, first: Tensor, last: Tensor) -> Tensor:
        half = self.out_features // 2
        return torch.cat([last[:, :half], first[:, half:]], 1)

    def start(self, batch: int) -> State:
        first, last = torch.zeros(batch, self.out_features), torch.zeros(batch, self.out_features)
        return first, last, torch.zeros(batch, dtype=torch.int64)

    def push(self, data: Tensor, state: State) -> State:
        if data.shape[1] == 0:
            return state
        first, _, count = state
        is_new = count.to(data.device)[:, None] == 0
        first = torch.where(is_new, data[:, 0].flatten(1), first.to(data))
        return first, data[:, -1].flatten(1).contiguous(), count + data.shape[1]

    def read(self, state: State) -> Tensor:
        self._check_read(state)
        return self._join(state[0], state[1]) if self.config.bidirectional else state[1]


@config
class MeanConfig:
    """The mean of the frames; no options."""


@register_summary("mean")
class Mean(Summary):
    """The mean over each sequence's real frames."""

    Config = MeanConfig

    def __init__(self, features: Features, config: MeanConfig) -> None:
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Tensor:
        if x.is_full:
            return x.data.mean(1).flatten(1)
        return x.data.sum(1).flatten(1) / x.lengths[:, None]

    def start(self, batch: int) -> State:
        zeros = torch.zeros(batch, self.out_features)
        return zeros, zeros.clone(), torch.zeros(batch, dtype=torch.int64)

    def push(self, data: Tensor, state: State) -> State:
        if data.shape[1] == 0:
            return state
        mean, lost, count = state[0].to(data), state[1].to(data), (state[2] + data.shape[1]).to(data.device)
        step = (data.flatten(2) - mean[:, None]).sum(1) / count[:, None]  # a sum would grow for ever
        return *_add(mean, lost, step), count

    def read(self, state: State) -> Tensor:
        self._check_read(state)
        return state[0]


def _add(total: Tensor, lost: Tensor, term: Tensor) -> tuple[Tensor, Tensor]:
    """total + term, and what rounding lost of it: after a day of frames, one of them is below the last bit of a sum.

    Source: Kahan 1965, "Further remarks on reducing truncation errors".
    """
    term = term - lost
    new = total + term
    return new, (new - total) - term


def _lowered(x: Sequences) -> Tensor:
    """(batch, time, values) with minus infinity past the ends, of data that is zero there."""
    data = x.data.flatten(2)
    if x.is_full:
        return data
    below = torch.zeros_like(x.valid, dtype=data.dtype).masked_fill_(~x.valid, -torch.inf)
    return data + below[..., None]  # not masked_fill, which copies into another layout


@config
class MaxConfig:
    """The largest value of each channel; no options."""


@register_summary("max")
class Max(Summary):
    """The maximum of every channel over each sequence's real frames."""

    Config = MaxConfig

    def __init__(self, features: Features, config: MaxConfig) -> None:
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Tensor:
        return _lowered(x).amax(1)

    def start(self, batch: int) -> State:
        return torch.full((batch, self.out_features), -torch.inf), torch.zeros(batch, dtype=torch.int64)

    def push(self, data: Tensor, state: State) -> State:
        if data.shape[1] == 0:
            return state
        return torch.maximum(state[0].to(data), data.flatten(2).amax(1)), state[1] + data.shape[1]

    def read(self, state: State) -> Tensor:
        self._check_read(state)
        return state[0]


@config
class AboveConfig:
    """How often, and how far, a channel is above thresholds that the training data set."""

    thresholds: int = 4
    """For each channel: random values of it in training, one from each part of as many equal parts of them by size."""
    softness: float = 0.0
    """Above 0, a frame near a threshold counts in part: the sigmoid of its distance, in units of this many standard
    deviations of the channel. At 0 it counts or not, so rounding may turn a frame that lies on a threshold."""
    maximum: bool = True
    """The largest value of each channel as well."""
    scale: float = 1.0
    """Standard deviation of what comes out, on the training data."""
    seed: int = 0
    """Of the thresholds."""

    def __post_init__(self) -> None:
        if self.thresholds < 1:
            raise ConfigError(f"above.thresholds={self.thresholds}; expected at least 1")
        if self.softness < 0:
            raise ConfigError(f"above.softness={self.softness}; expected 0 (sharp) or more")


@register_summary("above")
class Above(Summary):
    """The share of frames above each threshold, and the maximum if wanted; of every channel, standardised.

    Thresholds, means and spreads come from the training data and stay as they are. Before `fit_statistics` thresholds
    and means are 0, and spreads and deviations 1.

    Shape:
        returns (batch, values of a frame * (thresholds + 1)), or * thresholds without the maximum.
    Source: Dempster, Schmidt & Webb 2021, arXiv:2012.08791 (the share; thresholds from quantiles); the maximum is from
        Dempster, Petitjean & Webb 2020, arXiv:1910.13051.
    """

    Config = AboveConfig
    thresholds: Tensor
    mean: Tensor
    spread: Tensor
    steepness: Tensor | None

    def __init__(self, features: Features, config: AboveConfig) -> None:
        super().__init__(features)
        self.config = config
        size = self.out_features
        self.out_features = size * (config.thresholds + config.maximum)
        self.register_buffer("thresholds", torch.zeros(config.thresholds, size))
        self.register_buffer("mean", torch.zeros(self.out_features))
        self.register_buffer("spread", torch.ones(self.out_features))
        self.register_buffer("steepness", torch.full((size,), 1 / config.softness) if config.softness else None)

    def compute(self, x: Sequences) -> Tensor:
        data = _lowered(x)  # past the ends above nothing
        return self._standardised(self._counts(data), x.lengths, self._largest(data))

    def _largest(self, data: Tensor) -> Tensor:
        """(batch, values), or (batch, 0) where the maximum is not wanted."""
        return data.amax(1) if self.config.maximum else data.new_empty(len(data), 0)

    def _counts(self, data: Tensor) -> Tensor:
        """(batch, thresholds * values): frames above each, in whole or in part."""
        if self.steepness is not None:
            parts = ((data - threshold).mul_(self.steepness).sigmoid_() for threshold in self.thresholds)
            return torch.cat([part.sum(1) for part in parts], 1)
        return torch.cat([(data > threshold).sum(1, dtype=torch.int32) for threshold in self.thresholds], 1)

    def _standardised(self, counts: Tensor, lengths: Tensor, largest: Tensor) -> Tensor:
        shares = (counts / lengths.to(largest.device)[:, None]).to(largest.dtype)
        return (torch.cat([shares, largest], 1) - self.mean) / self.spread

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """Thresholds from about MOST_FRAMES frames, evenly spaced; then the mean and spread of the summaries."""
        values = _spaced_frames(batches).sort(0).values  # (frames, values of one)
        parts, size = self.thresholds.shape
        generator = torch.Generator().manual_seed(self.config.seed)
        place = (torch.arange(parts)[:, None] + torch.rand(parts, size, generator=generator)) / parts
        self.thresholds.copy_(values.gather(0, (place * (len(values) - 1)).long()))
        if self.steepness is not None:
            self.steepness.copy_(1 / (self.config.softness * (values.std(0, correction=0) + LEAST_SPREAD)))
        self.mean.zero_()
        self.spread.fill_(1.0)
        found = torch.cat([self(x).cpu() for x in batches])
        self.mean.copy_(found.mean(0))
        self.spread.copy_((found.std(0, correction=0) + LEAST_SPREAD) / self.config.scale)

    def start(self, batch: int) -> State:
        parts, size = self.thresholds.shape
        exact = torch.int64 if self.steepness is None else torch.float64  # of a stream that may run for days
        counts = torch.zeros(batch, parts * size, dtype=exact)
        largest = torch.full((batch, size if self.config.maximum else 0), -torch.inf)
        return counts, largest, torch.zeros(batch, dtype=torch.int64)

    def push(self, data: Tensor, state: State) -> State:
        if data.shape[1] == 0:
            return state
        counts, largest, length = state
        data = data.flatten(2)
        largest = torch.maximum(largest.to(data), self._largest(data))
        return counts.to(data.device) + self._counts(data), largest, length + data.shape[1]

    def read(self, state: State) -> Tensor:
        self._check_read(state)
        counts, largest, length = state
        return self._standardised(counts, length, largest)

    def macs_per_frame(self) -> float:
        return float(self.thresholds.numel())


def _spaced_frames(batches: Iterable[Sequences]) -> Tensor:
    """(frames, values): every n-th real frame, with n so that at most 2 * MOST_FRAMES are kept."""
    kept, size, step = [], 0, 1
    for x in batches:
        kept.append(x.data[x.valid].flatten(1)[::step].cpu())
        size += len(kept[-1])
        while size > 2 * MOST_FRAMES:
            kept, step = [torch.cat(kept)[::2]], 2 * step
            size = len(kept[0])
    return torch.cat(kept)


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


@config
class AttentionConfig:
    """A weighted mean whose weights are learned."""

    hidden_size: int = 64
    """Units of the layer that scores a frame."""

    def __post_init__(self) -> None:
        if self.hidden_size < 1:
            raise ConfigError(f"attention.hidden_size={self.hidden_size}; expected at least 1")


@register_summary("attention")
class Attention(Summary):
    """The mean of the frames, weighted by softmax over time of score . tanh(project(frame)).

    Source: Bahdanau et al. 2015, arXiv:1409.0473 (additive scores), without a decoder's state as Yang et al. 2016,
    NAACL N16-1174.
    """

    Config = AttentionConfig

    def __init__(self, features: Features, config: AttentionConfig) -> None:
        super().__init__(features)
        self.config = config
        self.project = nn.Linear(self.out_features, config.hidden_size)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def _scores(self, data: Tensor) -> Tensor:
        """(batch, time, values) -> (batch, time)."""
        return self.score(self.project(data).tanh())[..., 0]  # type: ignore[no-any-return]

    def weights(self, x: Sequences) -> Tensor:
        """(batch, time): how much each frame counts; sums to 1 over a sequence, zero past its end."""
        x = x.zeroed()
        return self._weights(Sequences(x.data.flatten(2), x.lengths))

    def _weights(self, x: Sequences) -> Tensor:
        scores = self._scores(x.data)
        if not x.is_full:
            scores = scores.masked_fill(~x.valid, -torch.inf)
        return scores.softmax(1)

    def compute(self, x: Sequences) -> Tensor:
        data = x.data.flatten(2)
        return (self._weights(Sequences(data, x.lengths))[:, None] @ data)[:, 0]

    def start(self, batch: int) -> State:
        new = self.score.weight.new_full
        peak, sums = new((batch, 1), -torch.inf), new((batch, 1 + self.out_features), 0.0)
        return peak, sums, sums.clone(), torch.zeros(batch, dtype=torch.int64, device=peak.device)

    def push(self, data: Tensor, state: State) -> State:
        """Softmax in one pass: what was summed (weights, weighted frames) is rescaled when a larger score comes."""
        if data.shape[1] == 0:
            return state
        peak, sums, lost, count = state
        data = data.flatten(2)
        scores = self._scores(data)
        new_peak = torch.maximum(peak, scores.amax(1, keepdim=True))
        old = (peak - new_peak).exp()
        now = (scores - new_peak).exp()
        new = torch.cat([now.sum(1, keepdim=True), (now[:, None] @ data)[:, 0]], 1)
        return new_peak, *_add(sums * old, lost * old, new), count + data.shape[1]

    def read(self, state: State) -> Tensor:
        self._check_read(state)
        return state[1][:, 1:] / state[1][:, :1]

    def macs_per_frame(self) -> float:
        return float(self.project.weight.numel() + self.score.weight.numel() + self.out_features)


@config
class ConcatConfig:
    """Several summaries side by side."""

    summaries: list[dict[str, Any]]
    """Each {type: name, ...options}; `layers: [...]` in one of them are layers in front of it, a branch of its own."""

    def __post_init__(self) -> None:
        if not self.summaries:
            raise ConfigError("concat.summaries: found none, expected at least 1")


@register_summary("concat")
class Concat(Summary):
    """Several summaries of the same frames, each of them through layers of its own if it has any.

    Raises:
        ConfigError: a layer in front of a part learns from the training data; such a layer stands before the summary.
    """

    Config = ConcatConfig

    def __init__(self, features: Features, config: ConcatConfig) -> None:
        super().__init__(features)
        self.config = config
        self.branches, self.parts = nn.ModuleList(), nn.ModuleList()
        for i, spec in enumerate(config.summaries):
            where = f"summaries[{i}]"
            spec = _complete_part(spec, where)
            branch = build_layers(spec.pop("layers", []), features, where=f"{where}.layers")
            if branch.learns_statistics:
                raise ConfigError(f"{where}.layers: a layer learns from the training data; put it before the summary")
            self.branches.append(branch)
            self.parts.append(build_summary(spec, branch.out_features, where=where))
        self.out_features = sum(part.out_features for _, part in self._pairs)

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        parts = options.get("summaries")
        if not isinstance(parts, (list, tuple)):
            return options
        return {**options, "summaries": [_complete_part(p, f"{where}.summaries[{i}]") for i, p in enumerate(parts)]}

    @property
    def _pairs(self) -> list[tuple[Chain, Summary]]:
        return cast("list[tuple[Chain, Summary]]", list(zip(self.branches, self.parts, strict=True)))

    def compute(self, x: Sequences) -> Tensor:
        return torch.cat([part.compute(branch.compute(x)) for branch, part in self._pairs], 1)

    @property
    def learns_statistics(self) -> bool:
        return any(part.learns_statistics for _, part in self._pairs)

    @property
    def fixed(self) -> Tensor:
        """Of each part: fixed where neither it nor the layers in front of it have anything to train."""
        return torch.cat([part.fixed & (not _is_trained(branch)) for branch, part in self._pairs])

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        """Of each part that learns any."""
        for branch, part in self._pairs:
            if part.learns_statistics:
                part.fit_statistics(Through(branch, batches))

    @property
    def can_stream(self) -> bool:
        return all(branch.can_stream and part.can_stream for branch, part in self._pairs)

    @property
    def timings(self) -> list[Timing]:
        return [branch.timing.then(timing) for branch, part in self._pairs for timing in part.timings]

    def start(self, batch: int) -> State:
        """The states of each part: its layers', then its summary's.

        Raises:
            StreamError: a layer cannot stream.
        """
        states: list[Tensor] = []
        for branch, part in self._pairs:
            states += [*branch.start(batch), *part.start(batch)]
        return tuple(states)

    def push(self, data: Tensor, state: State) -> State:
        new: list[Tensor] = []
        for (branch, part), (own, summary) in zip(self._pairs, self._divide(state), strict=True):
            frames, own = branch.push(data, own)
            new += [*own, *part.push(frames, summary)]
        return tuple(new)

    def finish(self, state: State) -> State:
        """Each part after the frames that its layers still held; nothing may be pushed after this."""
        new: list[Tensor] = []
        for (branch, part), (own, summary) in zip(self._pairs, self._divide(state), strict=True):
            if own:
                summary = part.push(branch.finish(own), summary)
            new += [*own, *part.finish(summary)]
        return tuple(new)

    def read(self, state: State) -> Tensor:
        """Each part as far as its own layers have come: a part with little look-ahead has heard more than others."""
        ends = self._divide(state)
        return torch.cat([part.read(end) for (_, part), (_, end) in zip(self._pairs, ends, strict=True)], 1)

    def has_frames(self, state: State) -> bool:
        ends = self._divide(state)
        return all(part.has_frames(end) for (_, part), (_, end) in zip(self._pairs, ends, strict=True))

    def _divide(self, state: State) -> list[tuple[State, State]]:
        parts, at = [], 0
        for branch, part in self._pairs:
            middle = at + len(branch.start(1))
            end = middle + len(part.start(1))
            parts.append((state[at:middle], state[middle:end]))
            at = end
        return parts

    def macs_per_frame(self) -> float:
        total = 0.0
        for branch, part in self._pairs:
            total += branch.macs_per_frame() + part.macs_per_frame() / branch.timing.stride
        return total
