"""Magnitude pruning: the smallest weights of each matrix become zero, and stay zero while the rest is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import L1Unstructured

from crnn.compress.tune import fine_tune, shorter
from crnn.data.dataset import Dataset
from crnn.errors import ConfigError
from crnn.model import Model
from crnn.models.int8 import int8_weights
from crnn.training.config import TrainConfig


def prune(
    model: Model,
    train: Dataset,
    *,
    share: float,
    config: TrainConfig,
    validation: Dataset | None = None,
    epochs: int | None = None,
    quiet: bool = True,
) -> Model:
    """The same model with `share` of the weights of each convolution, recurrence and linear layer at zero.

    Zeros make the file smaller when it is compressed, and nothing faster: for that, whole units have to go.

    Args:
        train: what the other weights are fine-tuned on.
        config: the recipe that trained the model; fine-tuning takes half of its length and of its learning rate.
        epochs: of the fine-tuning, instead.
    Raises:
        ConfigError: a share outside of 0 ... 1.
    Source: Han et al. 2015, arXiv:1506.02626; magnitudes are compared within a tensor, for batch norm makes the scale
        of a layer arbitrary.
    """
    check_share(share, "prune")
    pruned = replace(model, network=copy.deepcopy(model.network))
    weights = dict(pruned.network.named_parameters())
    chosen = [weights[name] for name in int8_weights(pruned.network)]  # the same: all that is large
    with torch.no_grad():
        for weight in chosen:
            weight.copy_(L1Unstructured(share).prune(weight))
    with kept_at_zero(chosen):
        recipe = shorter(config, len(train), len(validation or ()), epochs=epochs)
        fine_tune(pruned, train, validation, recipe, quiet=quiet)
    return pruned


def check_share(share: float, option: str) -> None:
    """Raises ConfigError for a share that would leave everything or nothing."""
    if not 0 < share < 1:
        raise ConfigError(f"{option}={share:g}; expected a share between 0 and 1, such as 0.5 for half")


@contextmanager
def kept_at_zero(weights: list[nn.Parameter]) -> Iterator[None]:
    """Within it, weights that are zero get no gradient: no optimiser here moves a zero that has none."""

    def masked(mask: Tensor, gradient: Tensor) -> Tensor:
        return gradient * mask.to(gradient.device)

    handles = []
    for weight in weights:
        mask = (weight != 0).detach()
        handles.append(weight.register_hook(lambda gradient, mask=mask: masked(mask, gradient)))  # type: ignore[misc]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def share_of_zeros(model: Model) -> float:
    """Of the weights that pruning is for."""
    weights = dict(model.network.named_parameters())
    chosen = [weights[name] for name in int8_weights(model.network)]
    return sum(int((w == 0).sum()) for w in chosen) / sum(w.numel() for w in chosen)
