"""What a training run does, and the plan that follows from it for a data set."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from crnn.config import config
from crnn.data.augment import AugmentConfig
from crnn.errors import ConfigError


@config
class TrainConfig:
    """The training recipe. Its length is counted in updates of the weights, so that small sets are trained enough."""

    epochs: int | None = None
    """Passes over the training data, exactly; None leaves the length to min_steps and max_steps."""
    steps: int | None = None
    """Updates, rounded up to whole epochs; instead of epochs."""
    min_steps: int = 1500
    """With neither epochs nor steps: 60 epochs, but no fewer updates than this."""
    max_steps: int = 6000
    """With neither epochs nor steps: no more updates than this, rounded up to whole epochs."""
    batch_size: int | None = None
    """Sequences per batch; None takes a sixteenth of the training examples as a power of two, from 8 to 64."""
    batch_frames: int | None = None
    """Frames per batch, padding included, instead of batch_size: many short sequences or a few long ones, which wastes
    less and bounds the memory. Each sequence weighs the same in the loss, however many stand in its batch."""
    max_frames: int | None = None
    """In training, cut longer sequences to a window of so many frames, another one each epoch; validation, scores and
    predictions are on whole sequences. None cuts nothing."""
    truncate_frames: int | None = None
    """Learn recordings longer than this in windows of so many frames, an update each: what the network remembers is
    carried from window to window, gradients are not. For networks that run forward only. None learns them whole."""
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """How gradients become updates."""
    learning_rate: float = 2e-3
    """The highest one, where a schedule changes it."""
    weight_decay: float = 0.01
    """On weight matrices and kernels; not on biases and norms."""
    momentum: float = 0.9
    """Of sgd (Nesterov) and rmsprop; the first beta of adam and adamw."""
    schedule: Literal["one_cycle", "plateau", "constant"] = "one_cycle"
    """Up and down again by a cosine; divided by 10 when validation stops improving; or left alone."""
    warmup: float = 0.1
    """Share of the updates in which the learning rate rises from 0, with every schedule."""
    plateau_patience: int = 10
    """Epochs without improvement before the plateau schedule lowers the learning rate."""
    max_grad_norm: float | None = 1.0
    """Gradients longer than this are shortened to it."""
    max_grad_value: float | None = None
    """Every part of a gradient is cut to this size, before the norm is."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Mixed: products in 16 bits, weights in 32; pays on GPUs and on CPUs with bfloat16 units."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one update."""
    ema_decay: float | None = None
    """Evaluate and keep an exponential average of the weights over updates, such as 0.99; None does not average."""
    patience: int | None = None
    """Stop early after this many epochs without improvement on validation; None trains the full length."""
    keep: Literal["best", "last"] = "best"
    """Which weights the trained network gets: the best on validation, or those of the end."""
    window: int | None = None
    """Frames of the windows, half overlapping, that longer sequences are cut into for training, in a task that answers
    for every frame; None trains on whole sequences. Validation and prediction are always on whole ones."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of training sequences, mixup among them."""
    seed: int = 0
    """Of batch order, dropout and augmentation."""
    evaluate_every: int | None = None
    """Epochs between validations; None keeps validation cheaper than training: 100 in a run at most."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    checkpoint_seconds: float = 20.0
    """Shortest time between checkpoints, so that short epochs are not spent on writing; 0 writes every time. One is
    always written on Ctrl-C and at the end."""
    threads: int | None = None
    """CPU threads; None leaves torch's own number. Bit-identical results need the same number."""

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ConfigError(f"train.epochs={self.epochs} and train.steps={self.steps}; give one of them")
        if self.min_steps > self.max_steps:
            raise ConfigError(f"train.min_steps={self.min_steps} is more than max_steps={self.max_steps}")
        if self.batch_size is not None and self.batch_frames is not None:
            raise ConfigError(
                f"train.batch_size={self.batch_size} and train.batch_frames={self.batch_frames}; give one of them"
            )
        for name in ("batch_frames", "max_frames"):
            if self.truncate_frames is not None and getattr(self, name) is not None:
                raise ConfigError(f"train.{name}={getattr(self, name)}: has no place beside train.truncate_frames")
        for name in ("epochs", "steps", "min_steps", "max_steps", "batch_size", "batch_frames", "max_frames",
                     "truncate_frames", "plateau_patience", "accumulate",
                     "patience", "window", "evaluate_every", "checkpoint_every", "threads"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"train.{name}={value}; expected at least 1")
        for name in ("learning_rate", "max_grad_norm", "max_grad_value"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"train.{name}={value}; expected more than 0")
        for name in ("weight_decay", "checkpoint_seconds", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name}={getattr(self, name)}; expected 0 or more")
        for name in ("momentum", "warmup", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ConfigError(f"train.{name}={value}; expected 0 <= {name} < 1")

    def truncates(self, longest: int) -> bool:
        """Whether any recording is learned in windows."""
        return self.truncate_frames is not None and longest > self.truncate_frames

    def batch_size_for(self, num_examples: int) -> int:
        """The batch size for this many training examples."""
        if self.batch_size is not None:
            return self.batch_size
        return min(64, max(8, 1 << max(0, round(math.log2(max(num_examples, 1) / 16)))))


DEFAULT_EPOCHS = 60


class Plan(NamedTuple):
    """How long a run is."""

    batches: int
    """Per epoch."""
    updates: int
    """Per epoch."""
    epochs: int
    evaluate_every: int
    """Epochs."""

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return self.updates * self.epochs


def make_plan(config: TrainConfig, *, batches: int, num_train: int, num_validation: int) -> Plan:
    """The plan for `batches` batches per epoch.

    Validation comes once an epoch, but at most 100 times in a run and never on more examples than were trained on
    since the last time (a forward pass is a third of an update).
    """
    updates = -(-batches // config.accumulate)
    if config.epochs is not None:
        epochs = config.epochs
    elif config.steps is not None:
        epochs = -(-config.steps // updates)
    else:
        steps = min(max(DEFAULT_EPOCHS * updates, config.min_steps), config.max_steps)
        epochs = -(-steps // updates)
    every = config.evaluate_every or max(-(-epochs // 100), -(-num_validation // num_train))
    return Plan(batches, updates, epochs, every)
