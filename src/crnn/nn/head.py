"""The head: from one vector per sequence to the outputs of the task."""

from __future__ import annotations

from torch import Tensor, nn

from crnn.config import config
from crnn.errors import ConfigError


@config
class HeadConfig:
    """Dropout, hidden layers with ReLU, a linear layer."""

    dropout: float = 0.0
    """Before every linear layer, while training."""
    hidden: tuple[int, ...] = ()
    """Sizes of the hidden layers; none when empty."""
    zero_start: bool = False
    """Start with outputs of zero for every input: in a regression, the mean of the training targets."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"head.dropout={self.dropout}; expected at least 0 and less than 1")
        if any(size < 1 for size in self.hidden):
            raise ConfigError(f"head.hidden={list(self.hidden)}; expected sizes of at least 1")


class Head(nn.Module):
    """Linear layer on the summary of a sequence, with hidden layers before it if wanted.

    Shape:
        x: (batch, in_features); returns (batch, outputs).
    """

    def __init__(self, in_features: int, config: HeadConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.ModuleList()
        for size in config.hidden:
            self.hidden.append(nn.Linear(in_features, size))
            in_features = size
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(in_features, outputs)
        if config.zero_start:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = layer(self._dropped(x)).relu()
        return self.linear(self._dropped(x))  # type: ignore[no-any-return]

    def _dropped(self, x: Tensor) -> Tensor:
        return self.dropout(x) if self.config.dropout else x  # type: ignore[no-any-return]  # a call costs more than nothing
