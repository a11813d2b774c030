"""Distillation: a student is trained on the targets and on what the teacher says about the same examples."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.compress.tune import fine_tune
from crnn.data.dataset import Dataset
from crnn.errors import ConfigError
from crnn.model import Model
from crnn.models.network import Network
from crnn.models.spec import NetworkSpec
from crnn.sequences import Sequences
from crnn.tasks.task import Task
from crnn.training.config import TrainConfig


def distil(
    teacher: Model,
    student: NetworkSpec,
    train: Dataset,
    *,
    config: TrainConfig,
    validation: Dataset | None = None,
    softness: float = 2.0,
    share: float = 0.5,
    quiet: bool = True,
) -> Model:
    """A model with the student's network and the teacher's task, trained on the targets and the teacher's outputs.

    The teacher sees what the student sees, augmented and mixed as it is.

    Args:
        config: the recipe that trains the student from its start.
        softness: divides the logits of both before they are compared, so that what the teacher thinks of the wrong
            classes counts too.
        share: of the teacher in the loss; the rest are the targets.
    Raises:
        ConfigError: softness or share outside of what is allowed, or a student that does not fit the data.
    Source: Hinton et al. 2015, arXiv:1503.02531; Beyer et al. 2022, arXiv:2106.05237 (the same view for both).
    """
    if softness <= 0 or not 0 <= share <= 1:
        raise ConfigError(f"distil: softness={softness:g}, share={share:g}; expected softness > 0 and 0 <= share <= 1")
    torch.manual_seed(config.seed)
    network = Network(student, features=train.features, outputs=teacher.task.num_outputs)
    made = replace(teacher, network=network, temperature=1.0)
    seen = copy.deepcopy(teacher.network).eval().requires_grad_(False)

    def teach(x: Sequences) -> Tensor:
        return seen.to(x.data.device)(x)  # type: ignore[no-any-return]

    task = taught_task(teacher.task, softness, share)
    fine_tune(made, train, validation, config, trained=Pair(network, teach), task=task, quiet=quiet)
    return made


class Pair(nn.Module):
    """A student that is trained beside its teacher: while training, the outputs of both side by side.

    The teacher is behind a function, so that neither optimiser nor average takes it for a part of the student.

    Shape:
        returns (batch, 2 * outputs) while training, the student's first; else (batch, outputs), the student's.
    """

    def __init__(self, student: Network, teach: Callable[[Sequences], Tensor]) -> None:
        super().__init__()
        self.student = student
        self.teach = teach

    def forward(self, x: Sequences) -> Tensor:
        outputs: Tensor = self.student(x)
        if not self.training:
            return outputs
        with torch.no_grad():
            taught = self.teach(x)
        return torch.cat([outputs, taught.to(outputs)], 1)

    def fit_statistics(self, batches: Any) -> None:
        """The student's front-end learns what it needs of the training data."""
        self.student.fit_statistics(batches)


def taught_task(task: Task, softness: float, share: float) -> Task:
    """The task with a loss that also looks at a teacher's outputs, where they stand beside the student's."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.shape[1] == task.num_outputs:  # no teacher has spoken: validation
            return task.loss(outputs, targets)
        own, taught = outputs.chunk(2, 1)
        return (1 - share) * task.loss(own, targets) + share * distance(own, taught, task.activation, softness)

    made = copy.copy(task)
    made.loss = loss  # type: ignore[method-assign]
    return made


def distance(own: Tensor, taught: Tensor, activation: str, softness: float) -> Tensor:
    """How far a student is from its teacher, (batch, outputs) both; a scalar.

    Of probabilities times softness squared, for softening shrinks their gradients by that.
    """
    if activation == "softmax":
        own, taught = (own / softness).log_softmax(1), (taught / softness).log_softmax(1)
        return softness**2 * F.kl_div(own, taught, reduction="batchmean", log_target=True)
    if activation == "sigmoid":
        return softness**2 * F.binary_cross_entropy_with_logits(own / softness, (taught / softness).sigmoid())
    return F.mse_loss(own, taught)
