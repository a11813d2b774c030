"""Strands: DNA read from both sides with the same weights.

Frames have their channels in pairs, c and -1 - c, as the fractions A, C, G, T have: then the other strand of a sequence
is it read backwards, channels too. What is done to both strands alike cannot tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any, Literal

import torch
from torch import Tensor

from crnn.config import config
from crnn.errors import ConfigError, StreamError
from crnn.nn.blocks import build_layers, complete_layers
from crnn.nn.layers import Features, Layer, State, Timing, register_layer
from crnn.nn.summary import Summary, build_summary, complete_summary, register_summary
from crnn.sequences import Sequences


def other_strand(x: Sequences) -> Sequences:
    """The same sequences from the other side: reversed by their own lengths, channels too."""
    backwards = x.reversed()
    return Sequences(backwards.data.flip(-1), x.lengths)


def both_strands(x: Sequences) -> Sequences:
    """Twice as many sequences: first as they are, then the other strand of each."""
    return Sequences(torch.cat([x.data, other_strand(x).data]), torch.cat([x.lengths, x.lengths]))


@config
class ReverseComplementConfig:
    """How often, while training."""

    rate: float = 0.5
    """Share of the sequences that are replaced by their other strand."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigError(f"reverse_complement.rate={self.rate}; expected a share between 0 and 1")


@register_layer("reverse_complement")
class ReverseComplement(Layer):
    """While training, reads each sequence from a random one of its two strands; outside of training it does nothing.

    Right where a label holds for both strands, as for enhancers and binding sites; a promoter has a direction.

    Shape:
        x.data: (batch, time, channels), channels in pairs; returns the same.
    """

    Config = ReverseComplementConfig

    def __init__(self, features: Features, config: ReverseComplementConfig) -> None:
        _check_pairs("reverse_complement", features)
        super().__init__(features)
        self.config = config

    def compute(self, x: Sequences) -> Sequences:
        if not self.training or self.config.rate == 0:
            return x
        turned = torch.rand(len(x.lengths), device=x.data.device) < self.config.rate
        return Sequences(torch.where(turned[:, None, None], other_strand(x).data, x.data), x.lengths)


@config
class StrandsConfig:
    """Layers that read both strands."""

    layers: list[dict[str, Any]]
    """Each {type: name, ...options}; their weights are those of both strands."""


@register_layer("strands")
class Strands(Layer):
    """Layers applied to both strands, and their channels side by side, those of the other strand turned back.

    Promise: the other strand of a sequence gives the other strand of the output. So any number of them in a row, and a
    `strands` summary behind, give a network that is blind to the strand. With a convolution inside this shares filters
    between strands; with a forward recurrence it is a bidirectional one with tied weights.

    Shape:
        x.data: (batch, time, channels), channels in pairs; returns twice the channels of the layers.
    Raises:
        ConfigError: an odd number of channels.
    Source: Shrikumar, Greenside & Kundaje 2017, doi:10.1101/103663, for convolutions; ours is for any layers.
    """

    Config = StrandsConfig

    def __init__(self, features: Features, config: StrandsConfig) -> None:
        _check_pairs("strands", features)
        super().__init__(features)
        self.config = config
        self.body = build_layers(config.layers, features)
        if len(self.body.out_features) != 1:
            raise ConfigError(f"strands: its layers give frames of {self.body.out_features}, expected (channels,)")
        self.out_features = (2 * self.body.out_features[0],)
        self.timing = Timing(self.body.timing.stride, math.inf, math.inf)

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        if "layers" not in options:
            return options
        return {**options, "layers": complete_layers(options["layers"], f"{where}.layers")}

    def compute(self, x: Sequences) -> Sequences:
        out = self.body.compute(both_strands(x))
        first, second = out.data.chunk(2)
        lengths = out.lengths[: len(x.lengths)]
        return Sequences(torch.cat([first, other_strand(Sequences(second, lengths)).data], -1), lengths)

    def out_lengths(self, lengths: Tensor) -> Tensor:
        return self.body.out_lengths(lengths)

    def why_no_stream(self) -> str:
        return "strands cannot stream: the other strand begins at the end of the sequence; leave its layers without it"

    def macs_per_frame(self) -> float:
        return 2 * self.body.macs_per_frame()

    @property
    def learns_statistics(self) -> bool:
        return self.body.learns_statistics

    def fit_statistics(self, batches: Iterable[Sequences]) -> None:
        self.body.fit_statistics([both_strands(x) for x in batches])


@config
class StrandsSummaryConfig:
    """A summary of both strands."""

    summary: dict[str, Any]
    """{type: name, ...options}: of each strand."""
    layers: list[dict[str, Any]] = field(default_factory=list)
    """In front of it, applied to each strand."""
    join: Literal["mean", "max"] = "mean"
    """What is taken of the two."""


@register_summary("strands")
class StrandsSummary(Summary):
    """The mean or maximum of the summaries of both strands, by the same weights: equal for a sequence and its other
    strand.

    With the whole network in its `layers` it averages over strands, in training as in prediction; behind `strands`
    layers it ends a network of shared weights.
    """

    Config = StrandsSummaryConfig

    def __init__(self, features: Features, config: StrandsSummaryConfig) -> None:
        _check_pairs("strands", features)
        super().__init__(features)
        self.config = config
        self.body = build_layers(config.layers, features)
        self.summary = build_summary(config.summary, self.body.out_features)
        if self.body.learns_statistics or self.summary.learns_statistics:
            raise ConfigError("strands: a part of it learns from the training data; put that before the summary")
        self.out_features = self.summary.out_features

    @classmethod
    def complete_nested(cls, options: dict[str, Any], where: str) -> dict[str, Any]:
        made = dict(options)
        if "layers" in made:
            made["layers"] = complete_layers(made["layers"], f"{where}.layers")
        if "summary" in made:
            made["summary"] = complete_summary(made["summary"], f"{where}.summary")
        return made

    def compute(self, x: Sequences) -> Tensor:
        first, second = self.summary.compute(self.body.compute(both_strands(x))).chunk(2)
        return torch.maximum(first, second) if self.config.join == "max" else (first + second) / 2

    @property
    def can_stream(self) -> bool:
        return False

    @property
    def timings(self) -> list[Timing]:
        return [Timing(self.body.timing.stride, math.inf, math.inf)]

    def start(self, batch: int) -> State:
        """Raises StreamError: one strand begins where the other ends."""
        raise StreamError(
            "strands cannot stream: the other strand begins at the end of the sequence; use the summary inside of it"
        )

    def macs_per_frame(self) -> float:
        return 2 * (self.body.macs_per_frame() + self.summary.macs_per_frame() / self.body.timing.stride)


def check_strands(layers: list[dict[str, Any]], summary: dict[str, Any] | None) -> None:
    """Raises ConfigError where a network reads two strands of what has no two strands."""
    asked = [part for part in _parts([*layers, summary or {}]) if part.get("type") in ("strands", "reverse_complement")]
    if not asked:
        return
    front = layers[0] if layers else {"type": "nothing"}
    if front["type"] in ("embedding", "one_hot") or (front["type"] == "iupac" and front["alphabet"] == "protein"):
        found = f"{front['type']} of {front['alphabet']}" if front["type"] == "iupac" else front["type"]
        raise ConfigError(
            f"model: {asked[0]['type']} reads the two strands of DNA or RNA, but the first layer is {found}; expected "
            "{type: iupac, alphabet: dna}"
        )


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside of plain values."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item)


def _check_pairs(name: str, features: Features) -> None:
    if len(features) != 1 or features[0] % 2:
        raise ConfigError(
            f"{name}: frames have shape {features}, expected (channels,) with channels in pairs, such as A, C, G, T; "
            "put {type: iupac, alphabet: dna} before it"
        )
