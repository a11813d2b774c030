"""The head: from one vector per sequence to the outputs of the task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.ridge import best_scale, fit_ridge


@config
class HeadConfig:
    """Dropout, hidden layers with ReLU, a linear layer."""

    dropout: float = 0.0
    """Before every linear layer, while training."""
    hidden: tuple[int, ...] = ()
    """Sizes of the hidden layers; none when empty."""
    zero_start: bool = False
    """Start with outputs of zero for every input: in a regression, the mean of the training targets."""
    ridge: bool = False
    """Weights of the values that nothing trains (summaries of fixed patterns) come from a ridge regression on the
    training part and get no gradients; the others are trained beside them. Needs values of both sorts, else it does
    nothing."""
    alone: float = 0.5
    """With ridge: share of the training sequences that the trained values have to answer alone, counting double."""

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"head.dropout={self.dropout}; expected at least 0 and less than 1")
        if any(size < 1 for size in self.hidden):
            raise ConfigError(f"head.hidden={list(self.hidden)}; expected sizes of at least 1")
        if not 0 <= self.alone <= 1:
            raise ConfigError(f"head.alone={self.alone}; expected a share between 0 and 1")
        if self.ridge and self.hidden:
            raise ConfigError(
                f"head.hidden={list(self.hidden)}: a ridge regression takes the place of hidden layers; set head.ridge "
                "to false, or leave hidden empty"
            )


class Head(nn.Module):
    """Linear layer on the summary of a sequence, with hidden layers before it if wanted.

    With `ridge`, the weights on fixed values are found by `fit` and get no gradients. The trained values beside them
    answer some sequences alone while training, so that they do not wait for what the fixed ones leave over; in the end
    the output is the mean of two answers, one closed and one trained.

    Args:
        fixed: which of the values nothing trains, (in_features,) of truth values; None for none.
    Shape:
        x: (batch, in_features); returns (batch, outputs).
    """

    fixed: Tensor

    def __init__(self, in_features: int, config: HeadConfig, outputs: int, *, fixed: Tensor | None = None) -> None:
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
        self.has_ridge = config.ridge and fixed is not None and bool(fixed.any()) and not bool(fixed.all())
        """Whether a part of its weights is found by `fit`."""
        if self.has_ridge:
            self.register_buffer("fixed", fixed, persistent=False)  # the spec says it already
            with torch.no_grad():
                self.linear.weight[:, fixed] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.has_ridge and self.training:
            return self._train_beside(x)
        for layer in self.hidden:
            x = layer(self._dropped(x)).relu()
        return self.linear(self._dropped(x))  # type: ignore[no-any-return]

    def _train_beside(self, x: Tensor) -> Tensor:
        """Only weights of trained values get gradients."""
        weight, fixed = self.linear.weight, self.fixed
        own = F.linear(self._dropped(x[:, ~fixed]), weight[:, ~fixed])
        given = F.linear(x[:, fixed], weight[:, fixed].detach())
        alone = torch.rand(len(x), 1, device=x.device) < self.config.alone
        return torch.where(alone, 2 * own, own + given) + self.linear.bias

    @torch.no_grad()
    def fit(self, features: Tensor, aims: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
        """Set the weights of fixed values, half as large as if they were to answer alone.

        Args:
            features: what the head is given for each training example, (examples, in_features).
            aims: what a linear fit aims at, (examples, outputs).
            loss: of outputs for the examples; chooses how sure the closed answers are.
        """
        ridge = fit_ridge(features[:, self.fixed], aims)
        ridge = ridge.scaled(best_scale(ridge.left_out, loss) / 2)
        self.linear.weight[:, self.fixed] = ridge.weight.to(self.linear.weight)
        self.linear.bias.copy_(ridge.bias)

    def _dropped(self, x: Tensor) -> Tensor:
        return self.dropout(x) if self.config.dropout else x  # type: ignore[no-any-return]  # a call costs more than nothing
