"""Position: where in its sequence a frame stands, for windows that are cut around something."""

from __future__ import annotations

import torch
from torch import Tensor

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, Layer, State, register_layer
from crnn.sequences import Sequences


@config
class PositionConfig:
    """Places along a sequence, counted from its first frame."""

    places: int
    """Output channels: each is 1 at its place and falls off around it."""
    spacing: float = 6.0
    """Frames from one place to the next, and the width of each."""

    def __post_init__(self) -> None:
        if self.places < 1:
            raise ConfigError(f"position.places={self.places}; expected at least 1")
        if self.spacing <= 0:
            raise ConfigError(f"position.spacing={self.spacing}; expected more than 0 frames")


@register_layer("position")
class Position(Layer):
    """How near each frame is to fixed places, whatever the frame holds: exp(-((t - place) / spacing)^2).

    In a branch beside others it tells the layers behind where they are: a motif means one thing at a place and another
    elsewhere, where all sequences begin at the same point of what they are about. Behind the last place all channels go
    to zero.

    Shape:
        x.data: (batch, time, *features); returns (batch, time, places).
    """

    Config = PositionConfig
    table: Tensor

    def __init__(self, features: Features, config: PositionConfig) -> None:
        if not features:
            raise ConfigError("position needs frames of values, got symbol ids; put iupac or an embedding first")
        super().__init__(features)
        self.config = config
        self.out_features = (config.places,)
        reach = int(config.spacing * (config.places + 4))  # beyond it every channel is below 1e-6, and counts as 0
        time = torch.arange(reach, dtype=torch.float64)
        places = torch.arange(config.places) * config.spacing
        table = torch.exp(-(((time[:, None] - places) / config.spacing) ** 2))
        table = torch.cat([table, torch.zeros(1, config.places)]).float()
        self.register_buffer("table", table, persistent=False)

    def compute(self, x: Sequences) -> Sequences:
        batch, time = x.data.shape[:2]
        return Sequences(self._rows(torch.arange(time)).expand(batch, -1, -1), x.lengths).zeroed()

    def _rows(self, time: Tensor) -> Tensor:
        return self.table[time.to(self.table.device).clamp(max=len(self.table) - 1)]

    def start(self, batch: int) -> State:
        return (torch.zeros(batch, dtype=torch.int64),)

    def push(self, data: Tensor, state: State) -> tuple[Tensor, State]:
        time = state[0].to(data.device)[:, None] + torch.arange(data.shape[1], device=data.device)
        return self._rows(time), (state[0] + data.shape[1],)
