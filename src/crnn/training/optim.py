"""Optimisers, learning-rate schedules, and the average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from crnn.training.config import TrainConfig


def build_optimizer(network: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimiser that `config` names, with weight decay on everything but biases and norms (vectors and scalars)."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if not config.weight_decay:
        groups = [{"params": trained}]  # every group costs a call in each step
    groups = [group for group in groups if group["params"]]
    rate, momentum = config.learning_rate, config.momentum
    fused = config.precision != "16-mixed"  # a fused step would undo the loss scale before clipping could see it
    if config.optimizer == "adamw":
        return AdamW(trained, config.weight_decay, lr=rate, betas=(momentum, 0.999), fused=fused)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, betas=(momentum, 0.999), fused=fused)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=fused)
    return torch.optim.RMSprop(groups, lr=rate, momentum=momentum, foreach=True)


class AdamW(torch.optim.Adam):
    """Adam with decoupled weight decay on matrices and kernels, and all parameters in one group.

    The numbers of torch.optim.AdamW with two groups, up to rounding; but every group of a fused optimiser costs a call
    in each step, and that is a tenth of the step of a very small network.

    Source: Loshchilov & Hutter 2019, arXiv:1711.05101.
    """

    def __init__(
        self, parameters: list[nn.Parameter], decay: float, *, lr: float, betas: tuple[float, float], fused: bool
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, fused=fused)
        self.decay = decay
        self.decayed = [p.detach() for p in parameters if p.dim() > 1] if decay else []  # the same memory

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Shrink, then update."""
        if self.decayed:
            torch._foreach_mul_(self.decayed, 1 - self.param_groups[0]["lr"] * self.decay)
        super().step(closure)


class Schedule:
    """The learning rate of every update.

    Args:
        steps: updates of the whole run.
    """

    def __init__(self, config: TrainConfig, steps: int) -> None:
        self.config = config
        self.steps = steps
        self.rising = round(config.warmup * steps)
        self.scale = 1.0
        """What the plateau schedule has come to."""
        self.waited = 0
        self.best = math.inf

    def rate(self, step: int) -> float:
        """The learning rate of update `step`, counted from 0; never 0."""
        peak = self.config.learning_rate * self.scale
        if step < self.rising:
            return peak * (step + 1) / (self.rising + 1)
        if self.config.schedule != "one_cycle":
            return peak
        return peak * 0.5 * (1 + math.cos(math.pi * (step - self.rising) / (self.steps - self.rising)))

    def observe(self, value: float, epochs: int) -> None:
        """Tell the plateau schedule a value that should fall, `epochs` after the last one."""
        if self.config.schedule != "plateau":
            return
        if value < self.best:
            self.best, self.waited = value, 0
            return
        self.waited += epochs
        if self.waited >= self.config.plateau_patience:
            self.scale, self.waited = self.scale / 10, 0

    def state(self) -> dict[str, float]:
        return {"scale": self.scale, "waited": self.waited, "best": self.best}

    def load(self, state: dict[str, float]) -> None:
        self.scale, self.waited, self.best = state["scale"], int(state["waited"]), state["best"]


def shorten(gradients: list[Tensor], limit: float) -> Tensor:
    """Scale gradients, in place, so that their norm over all of them is at most `limit`; returns the norm before.

    As nn.utils.clip_grad_norm_, which spends more time on sorting tensors by device and type than a small network
    spends on its update, and which makes them shorter than the limit by a millionth.
    """
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_div_(gradients, (norm / limit).clamp_(min=1.0))
    return norm


class Average:
    """An exponential moving average of a network's weights, held as a second network.

    Floating-point buffers (batch norm's running statistics) are averaged with the weights, so that they belong to
    them; others are copied. The decay rises from 0.1 to `decay`, so that the initial weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        own, source = list(_tensors(self.network)), list(_tensors(network))
        floating = [tensor.is_floating_point() for tensor in own]
        self._averages = [tensor for tensor, yes in zip(own, floating, strict=True) if yes]
        self._sources = [tensor for tensor, yes in zip(source, floating, strict=True) if yes]
        self._copies = [(a, b) for a, b, yes in zip(own, source, floating, strict=True) if not yes]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after update `step`, counted from 0, into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        for average, source in self._copies:
            average.copy_(source)


def _tensors(network: nn.Module) -> Iterable[Tensor]:
    yield from (parameter.detach() for parameter in network.parameters())
    yield from network.buffers()
