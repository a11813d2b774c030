"""Training again after a network was changed, or from what a teacher says."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor, nn

from crnn.data.dataset import Dataset
from crnn.metrics.calibration import fit_temperature
from crnn.model import Model
from crnn.models.network import Network
from crnn.nn.frames import Frames
from crnn.sequences import Sequences
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Task
from crnn.training.config import TrainConfig, make_plan
from crnn.training.loop import fit
from crnn.training.progress import open_progress

SHARE_OF_UPDATES = 0.5
"""Length of a fine-tuning, as a share of the training that it follows."""
SHARE_OF_RATE = 0.5
"""Its learning rate likewise: the network is nearly there, but has to be able to move."""


class Tuned(nn.Module):
    """A network that keeps what its front-end learned: fine-tuning trains it without its `fit_statistics`."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Sequences) -> Tensor:
        return self.network(x)  # type: ignore[no-any-return]

    def frames(self, lengths: Tensor, sample_rate: float | None = None) -> Frames:
        """As the network's own."""
        return self.network.frames(lengths, sample_rate)


def fine_tune(
    model: Model,
    train: Dataset,
    validation: Dataset | None,
    config: TrainConfig,
    *,
    trained: nn.Module | None = None,
    task: Task | None = None,
    quiet: bool = True,
) -> None:
    """Train the model's network in place, and choose anew what is chosen on validation: its temperature, or what a task
    that answers for every frame tunes.

    Args:
        trained: what is trained, with the model's network in it; `Tuned` when None.
        task: whose loss is taken; the model's when None.
    """
    with open_progress(quiet=quiet) as progress:
        fit(trained or Tuned(model.network), task or model.task, train, validation, config, progress=progress)
    model.network.eval()
    model.temperature = 1.0
    if isinstance(model.task, StepTask):
        model.task = copy.deepcopy(model.task)  # the model that it was made from keeps its own
        if validation is not None:
            frames = model.network.frames_of(validation)
            model.task.tune(model.outputs(validation), validation.targets, frames)
        return
    if validation is not None and model.task.activation != "none":
        targets = model.task.encode(validation.targets, [example.where for example in validation])
        model.temperature = fit_temperature(model.outputs(validation), targets)


def shorter(config: TrainConfig, num_train: int, num_validation: int, *, epochs: int | None = None) -> TrainConfig:
    """The recipe of a fine-tuning, from the recipe that trained the network.

    Args:
        epochs: passes over the training data, instead of a share of the recipe's.
    """
    if epochs is None:
        batches = -(-num_train // config.batch_size_for(num_train))
        whole = make_plan(config, batches=batches, num_train=num_train, num_validation=num_validation)
        epochs = max(1, round(SHARE_OF_UPDATES * whole.epochs))
    return replace(config, epochs=epochs, steps=None, learning_rate=SHARE_OF_RATE * config.learning_rate)
