"""The training loop: where data, network and task meet."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from crnn.config import to_plain
from crnn.data.augment import Augment
from crnn.data.batch import Batches, one_pass_values
from crnn.data.consecutive import ConsecutiveWindows
from crnn.data.dataset import Dataset
from crnn.data.windows import windows
from crnn.errors import ConfigError
from crnn.models.network import Network
from crnn.nn.frames import Frames
from crnn.sequences import Ragged, Sequences
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Task
from crnn.training.checkpoint import Checkpoint, load_checkpoint, load_optimizer, optimizer_tensors, save_checkpoint
from crnn.training.config import TrainConfig, make_plan
from crnn.training.device import open_device
from crnn.training.doctor import Doctor
from crnn.training.history import EpochRecord, History
from crnn.training.memory import RELEASE_ABOVE, release_memory
from crnn.training.optim import Average, Schedule, build_optimizer, shorten
from crnn.training.outputs import compute_outputs
from crnn.training.progress import Report, Update
from crnn.training.ranks import Ranks, this_place
from crnn.training.truncated import Carried, check_augment, check_targets, targets_of

CHECK_EVERY = 200
"""Updates between looks at the loss within an epoch: reading it earlier would hold up the step."""
REPORT_SECONDS = 0.5
VALIDATION_FRAMES = 100_000
"""Frames in a validation batch that is larger than a training batch: quick for short sequences, safe for long ones."""
TRAINING_CACHE = 1 << 28
"""Bytes of training data from files, at most, that are kept decoded; more is read again in every epoch."""
WEIGHED_AT_ONCE = 64
"""Sequences of which the targets are padded to each other to be weighed."""
VALIDATION_CACHE = 1 << 28
"""Bytes of validation data, at most, that are kept decoded; more is read again for every validation."""
STATISTICS_VALUES = 20_000_000
"""Values of training data, at most, from which front-ends learn their statistics."""
RIDGE_EXAMPLES = 2000
"""Training examples from which a head learns weights in closed form: more cost their number cubed."""
RELEASE_EVERY = 1 << 22
"""Values of training data between two releases of freed memory: a few batches of long recordings."""
FREE_TO_CHANGE = {"checkpoint_every", "checkpoint_seconds", "threads"}
"""Options that may differ when a run is resumed."""
RANDOM_STATES = ("torch", "augment", "device")
"""States of random numbers in a checkpoint; every process has its own."""


def fit(
    network: nn.Module,
    task: Task,
    train: Dataset,
    validation: Dataset | None,
    config: TrainConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: Report | None = None,
    keep_statistics: bool = False,
) -> History:
    """Train a network in place; it ends with the weights that `config.keep` asks for, in eval mode, on the CPU.

    Promise: the same seed gives the same numbers, and a run that was interrupted anywhere and resumed ends with the
    same bits as one that was not. Torch's global random state is as before afterwards. Under torchrun the processes
    share each batch; up to rounding they give the numbers of one process, but for what is drawn at random a row
    (dropout, noise, augmentation), which each draws for its own rows.

    Ctrl-C stops after the current update: the state is written to `out/checkpoints/last.safetensors` and
    KeyboardInterrupt is raised. A second Ctrl-C stops at once, with the checkpoint before.

    Args:
        network: maps Sequences to (batch, task.num_outputs), or for a StepTask to Sequences of outputs; its
            fit_statistics, if any, is called on training data.
        validation: chooses the best epoch and stops early; None keeps the last weights.
        out: the run folder; None writes no checkpoints.
        resume: go on from the checkpoint in `out`, with the same network, data and config.
        progress: called after every epoch, and twice a second at most within one.
        keep_statistics: front-ends keep what they learned before, and learn nothing from this training data.
    Raises:
        TrainingError: training cannot go on (the message says why), or a checkpoint cannot be written.
        ModelError: nothing to resume from, or a damaged checkpoint.
        ConfigError: options that do not go together, or differ from those of the checkpoint.
        DataError: targets that the task cannot use.
        KeyboardInterrupt: Ctrl-C, after the checkpoint is written.
    """
    if resume and out is None:
        raise ConfigError("resume=True needs out, the run folder with the checkpoint")
    path = None if out is None else out / "checkpoints" / "last.safetensors"
    with _threads(config.threads), _own_random_state(config.seed):
        trainer = _Trainer(network, task, train, validation, config, path, progress if this_place().rank == 0 else None)
        checkpoint = load_checkpoint(path) if resume and path is not None else None
        trainer.begin(checkpoint, learn_statistics=checkpoint is None and not keep_statistics)
        with _interrupts(trainer):
            trainer.run()
        trainer.hand_over()
    history = trainer.history
    del trainer  # and with it the batches that were kept decoded
    release_memory()
    return history


class _Trainer:
    """The state of a run. Its position is (epoch, batch): epochs done, and batches done in the current one."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        train: Dataset,
        validation: Dataset | None,
        config: TrainConfig,
        path: Path | None,
        progress: Report | None,
    ) -> None:
        self.network, self.task, self.config, self.path, self.progress = network, task, config, path, progress
        if config.window is not None:
            train = _cut(train, task, config.window)
        self.train, self.validation = train, validation if validation is not None and len(validation) else None
        self.device, self.autocast = open_device(config.precision)
        network.to(self.device)
        self.ranks = Ranks(self.device)
        torch.manual_seed(self.ranks.seed(config.seed))
        batch_size = config.batch_size_for(len(train))
        self.targets = _encode(task, network, train).to(self.device)
        self.windows: ConsecutiveWindows | None = None
        self.carried: Carried | None = None
        if config.truncates(int(train.lengths.max())):
            self.windows, self.carried = self._truncated()
        self.batches: Batches | ConsecutiveWindows = self.windows or self._batches(batch_size)
        self.total_weight = self._weight(torch.arange(len(train))) if config.batch_frames is not None else 0.0
        if isinstance(task, StepTask):
            task.check_augment(config.augment)
        if self.validation is not None:
            size = max(batch_size, min(256, VALIDATION_FRAMES // int(self.validation.lengths.max())))
            self.validation_batches = Batches(
                self.validation,
                size,
                shuffle=False,
                seed=config.seed,
                cache_bytes=VALIDATION_CACHE,
                max_values=one_pass_values(self.validation),
            )
            self.validation_targets = _encode(task, network, self.validation)
        self.plan = make_plan(
            config, batches=len(self.batches), num_train=len(train), num_validation=len(validation or ())
        )
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(network, config)
        self.schedule = Schedule(config, self.plan.steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "16-mixed")
        self.average: Average | None = None
        self.augment = Augment(config.augment)
        self.generator = torch.Generator().manual_seed(self.ranks.seed(config.seed))
        self.doctor = Doctor(network)
        self.history = History()
        self.best: dict[str, Tensor] = {}
        self.best_score = (-math.inf, -math.inf)
        self.epoch = self.batch = 0
        self.entered = 0  # the batch that this epoch was resumed at
        self.frames = 0  # of this epoch so far, padding included
        self.unreleased = 0  # values of training data since freed memory was given back
        self.losses: list[float] = []  # of this epoch's batches; the newest are still tensors in `unread_losses`
        self.unread_losses: list[Tensor] = []
        self.norms: list[float] = []
        self.unread_norms: list[Tensor] = []
        self.interrupted = False  # by Ctrl-C in this process
        self.trained = network
        """What is trained: the network itself, or where there are several processes, what averages its gradients."""
        self.spent = 0.0  # on this epoch before an interruption
        self.first_step = 0
        self.started = self.epoch_started = self.last_save = self.last_report = time.monotonic()

    def _batches(self, batch_size: int) -> Batches:
        """The batches of this run, refused where the processes cannot share them."""
        config, train = self.config, self.train
        if config.max_frames is not None and isinstance(self.task, StepTask):
            raise ConfigError(
                f"train.max_frames={config.max_frames}: task {self.task.name} has a target for every frame, which a "
                "window would leave behind; use train.truncate_frames"
            )
        batches = Batches(
            train,
            batch_size if config.batch_frames is None else None,
            shuffle=True,
            seed=config.seed,
            batch_frames=config.batch_frames,
            least=self.ranks.size,
            max_frames=config.max_frames,
            **({} if train.in_memory else {"cache_bytes": TRAINING_CACHE}),
        )
        if batches.layout.smallest < self.ranks.size:
            raise ConfigError(
                f"train.batch_size={batch_size}: the smallest batch of {len(train)} examples has "
                f"{batches.layout.smallest} sequences, which cannot be shared by {self.ranks.size} processes; use "
                "larger batches or fewer processes"
            )
        return batches

    def _truncated(self) -> tuple[ConsecutiveWindows, Carried]:
        """ConsecutiveWindows of the recordings, and the network that goes on from each to the next."""
        frames, network = self.config.truncate_frames, self.network
        if frames is None or self.ranks.size > 1 or not isinstance(network, Network):
            raise ConfigError(
                f"train.truncate_frames={frames}: not on {self.ranks.size} processes, or with a network that is not "
                "crnn's; use one process, or cut the recordings into shorter ones"
            )
        carried = Carried(network, frames)
        check_augment(self.config.augment)
        out_lengths = network.body.out_lengths(torch.from_numpy(self.train.lengths))
        check_targets(self.targets, out_lengths, self.task.name, frames)
        size = self.config.batch_size_for(len(self.train))
        return ConsecutiveWindows(self.train, size, frames=frames, seed=self.config.seed), carried

    @property
    def evaluated(self) -> nn.Module:
        """The network whose weights are measured and kept."""
        return self.network if self.average is None else self.average.network

    @property
    def place(self) -> str:
        """For messages."""
        return f"epoch {self.epoch + 1} of {self.plan.epochs}"

    def begin(self, checkpoint: Checkpoint | None, *, learn_statistics: bool) -> None:
        """Start from the network as it is, after its front-ends have seen training data, or from a checkpoint."""
        learn = getattr(self.network, "fit_statistics", None)
        if learn_statistics:
            if learn is not None:
                learn(x for x, _ in self._sample())
            if getattr(self.network, "fits_head", False):
                self._fit_head()
        if self.config.ema_decay is not None:
            self.average = Average(self.network, self.config.ema_decay)
        if checkpoint is not None:
            self.restore(checkpoint)
        if self.ranks.size > 1:
            self.ranks.check_same(json.dumps(self._identity(), sort_keys=True))
            self.trained = nn.parallel.DistributedDataParallel(self.network)

    def _fit_head(self) -> None:
        """Weights of the head that come in closed form."""
        sequences: list[Sequences] = []
        indices: list[Tensor] = []
        for x, chosen in self._sample():
            sequences.append(x)
            indices.append(chosen)
            if sum(map(len, indices)) >= RIDGE_EXAMPLES:
                break
        targets = self.targets[torch.cat(indices).to(self.device)]
        self.network.fit_head(sequences, self.task.aims(targets), lambda outputs: self.task.loss(outputs, targets))  # type: ignore[operator]

    def _sample(self) -> Iterator[tuple[Sequences, Tensor]]:
        """Training batches, unaugmented, with their positions, up to a size that fits in memory together."""
        values = 0
        for x, indices in self.batches.epoch(0):
            yield x.to(self.device), indices
            values += x.data.numel()
            if values > STATISTICS_VALUES:
                return

    def run(self) -> None:
        """Train to the end, to the early stop, or to Ctrl-C."""
        self.started = self.epoch_started = self.last_save = self.last_report = time.monotonic()
        while not self.history.stopped:
            if self.batch == 0:
                self.doctor.remember()
            self._train_epoch()
            self._stop_if_interrupted()
            self._close_epoch()
            self._save_if_due()
            self._stop_if_interrupted()

    def _train_epoch(self) -> None:
        """The rest of the current epoch, or up to Ctrl-C."""
        accumulate = self.config.accumulate
        self.network.train()
        for x, loss in self._window_losses() if self.windows is not None else self._batch_losses():
            if self.ranks.size > 1:  # each process has the gradients of its own rows, and their mean is taken
                loss = loss * self.ranks.size
            if accumulate > 1:
                loss = loss / min(accumulate, self.plan.batches - self.batch // accumulate * accumulate)
            self.scaler.scale(loss).backward()
            self.batch += 1
            if self.batch % accumulate == 0 or self.batch == self.plan.batches:
                self._update_weights()
                if self._stops():
                    return
            self._release(x)

    def _batch_losses(self) -> Iterator[tuple[Sequences, Tensor]]:
        """This process's rows of each batch, and the loss of the batch."""
        rank, num_ranks = self.ranks.rank, self.ranks.size
        assert isinstance(self.batches, Batches)
        whole = self.batches.order(self.epoch) if num_ranks > 1 or self.total_weight else []
        for x, indices in self.batches.epoch(self.epoch, start=self.batch, rank=rank, num_ranks=num_ranks):
            count, frames = x.data.shape[:2]
            if num_ranks > 1:
                count, frames = len(whole[self.batch]), int(self.batches.lengths[whole[self.batch]].max())
            self.frames += count * frames
            x, indices = self._moved(x, indices)
            x, targets = self._augmented(x, _rows(self.targets, indices))
            with self.autocast():
                outputs = self.trained(x)
            share = 1.0
            if self.total_weight:  # batches hold different numbers of sequences, and each shall count the same
                share = self._weight(whole[self.batch]) * len(whole) / self.total_weight
            yield x, self._loss(outputs, targets, count, share)

    def _window_losses(self) -> Iterator[tuple[Sequences, Tensor]]:
        """Each window of the recordings, and the loss of what it adds."""
        assert self.windows is not None
        assert self.carried is not None
        for window in self.windows.steps(self.epoch, start=self.batch):
            x, indices = self._moved(window.x, window.indices)
            self.frames += x.data.shape[0] * x.data.shape[1]
            x = self.augment(x, self.generator)
            with self.autocast():
                outputs, begin = self.carried.step(window, x)
            if isinstance(outputs, Sequences):
                targets: Any = targets_of(self.targets, indices, begin, outputs)
            else:
                targets = _rows(self.targets, indices)
            yield x, self._loss(outputs, targets, len(indices))

    def _moved(self, x: Sequences, indices: Tensor) -> tuple[Sequences, Tensor]:
        return (x, indices) if self.device.type == "cpu" else (x.to(self.device), indices.to(self.device))

    def _weight(self, indices: Tensor) -> float:
        """What a mean over these training examples is taken over: sequences, or what a StepTask says."""
        if not isinstance(self.task, StepTask):
            return float(len(indices))
        return sum(float(self.task.weight(self.targets.rows(rows))) for rows in indices.split(WEIGHED_AT_ONCE))

    def _loss(self, outputs: Any, targets: Any, count: int, share: float = 1.0) -> Tensor:
        """The loss of a batch of `count` sequences, whose gradient flows into this process's rows; noted for all.

        Args:
            share: how much the batch counts in an epoch, next to a usual one.
        """
        task = self.task
        if isinstance(task, StepTask):
            outputs = Sequences(outputs.data.float(), outputs.lengths)
            own = self.ranks.share(task.weight(targets), stop=self.interrupted)
            loss = task.loss(outputs, targets) * own * share if own else outputs.data.sum() * 0.0
            self.unread_losses.append(self.ranks.total(loss.detach()))
            return loss
        targets = self.ranks.joined(targets, count)
        outputs = self.ranks.joined(outputs.float(), count, stop=self.interrupted)
        loss = task.loss(outputs, targets) * share
        self.unread_losses.append(loss.detach())
        return loss

    def _stops(self) -> bool:
        """Whether to stop here, on Ctrl-C: the same in all processes."""
        return self.interrupted if self.ranks.size == 1 else self.ranks.stop

    def _release(self, x: Sequences) -> None:
        """Count a batch that is done; now and then give freed memory back."""
        self.unreleased += x.data.numel()
        if self.unreleased > RELEASE_EVERY:
            self.unreleased = 0
            release_memory(RELEASE_ABOVE)

    def _augmented(self, x: Sequences, targets: Any) -> tuple[Sequences, Any]:
        x = self.augment(x, self.generator)
        if not self.config.augment.mixup:
            return x, targets
        mixed = self.augment.mix(x, self.generator)
        return mixed.sequences, self.task.mix(targets, mixed.partner, mixed.weight)

    def _update_weights(self) -> None:
        """One step of the optimiser from the gradients that stand."""
        config, step = self.config, self.history.steps
        self.doctor.note_gradients()
        self.scaler.unscale_(self.optimizer)
        if config.max_grad_value is not None:
            nn.utils.clip_grad_value_(self.parameters, config.max_grad_value)
        if config.max_grad_norm is not None:
            self.unread_norms.append(shorten(self._gradients(), config.max_grad_norm))
        elif self.batch == self.plan.batches:
            self.unread_norms.append(nn.utils.get_total_norm(self._gradients()))
        rate = self.schedule.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._forget_gradients()
        if self.average is not None:
            self.average.update(step)
        self.history.steps += 1
        if self.history.steps % CHECK_EVERY == 0:
            self._read()
        if self.progress is not None and time.monotonic() - self.last_report > REPORT_SECONDS:
            self._read()
            self._report(None)

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:  # as optimizer.zero_grad does, without its profiling
            parameter.grad = None

    def _read(self) -> None:
        """Bring the losses and norms since the last time to the CPU, and stop where a loss is not finite."""
        if self.unread_losses:
            self.losses += torch.stack(self.unread_losses).tolist()
            self.unread_losses.clear()
        if self.unread_norms:
            self.norms += torch.stack(self.unread_norms).tolist()
            self.unread_norms.clear()
        for i, loss in enumerate(self.losses):
            if not math.isfinite(loss):
                self._explain(i, loss)

    def _explain(self, batch: int, loss: float) -> None:
        x, indices = next(self.batches.epoch(self.epoch, start=batch))
        examples = [self.train[int(i)] for i in indices]
        place = f"{self.place}, batch {batch + 1} of {self.plan.batches}"
        raise self.doctor.explain_loss(loss, x.to(self.device), examples, place, self.rate)

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""
        return self.schedule.rate(self.history.steps - 1)

    def _close_epoch(self) -> None:
        """Measure, record, and move to the next epoch."""
        self._read()
        if self.windows is None or not self.entered:  # what a first window alone reaches has not been seen
            self.doctor.check_reached()
        self.entered = 0
        number = self.epoch + 1
        train_loss, norm = math.fsum(self.losses) / len(self.losses), math.fsum(self.norms) / len(self.norms)
        first_loss = self.history.records[0].train_loss if self.history.records else train_loss
        self.doctor.check_gradients(norm, train_loss, first_loss, self.place, self.rate)
        if number & (number - 1) == 0:  # epochs 1, 2, 4, 8, ...: a dying layer is found early, a long run pays little
            x, _ = next(self.batches.epoch(self.epoch))
            self.doctor.check_layers(x.to(self.device), self.place)
        last = number == self.plan.epochs
        validation_loss: float | None = None
        metrics: dict[str, float] = {}
        if self.validation is not None and (last or number % self.plan.evaluate_every == 0):
            validation_loss, metrics = self._validate()
        is_best = validation_loss is not None and self._keep_if_best(number, validation_loss, metrics)
        seconds = self.spent + time.monotonic() - self.epoch_started
        padding = 1 - int(self.batches.lengths.sum()) / self.frames
        record = EpochRecord(
            number, train_loss, validation_loss, metrics, self.rate, norm, padding, seconds, is_best=is_best
        )
        self.history.records.append(record)
        self._report(record)
        self._decide(record, last)
        self.epoch, self.batch, self.frames, self.spent = number, 0, 0, 0.0
        self.losses, self.norms = [], []
        self.epoch_started = time.monotonic()

    def _validate(self) -> tuple[float, dict[str, float]]:
        outputs = compute_outputs(self.evaluated, self.validation_batches, autocast=self.autocast)
        self.doctor.check_outputs(outputs, self.validation_batches.data, self.place, self.rate)
        if isinstance(self.task, StepTask):
            data = self.validation_batches.data
            frames = _frames(self.network, data)
            loss = self.task.loss_of_all(outputs, self.validation_targets)
            return loss, self.task.monitor_steps(outputs, data.targets, frames)
        loss = float(self.task.loss(outputs, self.validation_targets))
        return loss, self.task.monitor(outputs, self.validation_targets)

    def _keep_if_best(self, number: int, loss: float, metrics: dict[str, float]) -> bool:
        """Keep the weights if the primary metric is better than ever, or as good at a lower loss."""
        value = metrics[self.task.primary]
        signed = value if self.task.higher_is_better else -value
        score = (-math.inf if math.isnan(signed) else signed, -math.inf if math.isnan(loss) else -loss)
        if self.history.best_epoch is not None and score <= self.best_score:
            return False
        self.best_score, self.history.best_epoch = score, number
        if self.config.keep == "best":
            self.best = {name: tensor.clone() for name, tensor in self.evaluated.state_dict().items()}
        return True

    def _decide(self, record: EpochRecord, last: bool) -> None:
        """Whether to stop, and what the plateau schedule makes of this epoch."""
        if last:
            self.history.stopped = "finished"
        elif self.config.patience and self.history.best_epoch:
            waited = record.epoch - self.history.best_epoch
            self.history.stopped = "early" if waited >= self.config.patience else ""
        if self.validation is None:
            self.schedule.observe(record.train_loss, 1)
        elif record.metrics:
            value = record.metrics[self.task.primary]
            self.schedule.observe(-value if self.task.higher_is_better else value, self.plan.evaluate_every)

    def _report(self, record: EpochRecord | None) -> None:
        if self.progress is None:
            return
        now, done = time.monotonic(), self.history.steps
        self.last_report = now
        left = None
        if done > self.first_step:
            left = (now - self.started) / (done - self.first_step) * (self.plan.steps - done)
        loss = record.train_loss if record is not None else math.fsum(self.losses) / len(self.losses)
        remark = ""
        if record is not None and isinstance(self.task, StepTask):
            remark = self.task.remark(done / self.plan.steps)
        self.progress(Update(self.epoch + 1, self.plan.epochs, done, self.plan.steps, loss, left, record, remark))

    def _stop_if_interrupted(self) -> None:
        if not self._stops() or self.history.stopped:
            return
        place = f"{self.place}, batch {self.batch} of {self.plan.batches}"
        if self.path is None:
            raise KeyboardInterrupt(f"stopped in {place}; nothing was saved, since no run folder was given")
        self.save()
        raise KeyboardInterrupt(f"stopped in {place}; saved to {self.path}, from where the run can be resumed")

    def _save_if_due(self) -> None:
        waited = self.ranks.decided(time.monotonic() - self.last_save >= self.config.checkpoint_seconds)
        if self.history.stopped or (waited and self.epoch % self.config.checkpoint_every == 0):
            self.save()

    def save(self) -> None:
        """Write everything that the rest of the run depends on."""
        if self.path is None:
            return
        self._read()
        states = {"torch": torch.get_rng_state(), "augment": self.generator.get_state()}
        if self.device.type != "cpu":
            states["device"] = torch.get_device_module(self.device).get_rng_state()
        tensors: dict[str, Tensor] = {}
        for name, state in states.items():
            for rank, of_rank in enumerate(self.ranks.states(state)):
                tensors[_random_name(name, rank)] = of_rank
        if self.ranks.rank > 0:
            self.last_save = time.monotonic()
            return
        parts = {
            "network": self.network.state_dict(),
            "best": self.best,
            "optimizer": optimizer_tensors(self.optimizer),
        }
        if self.average is not None:
            parts["average"] = self.average.network.state_dict()
        if self.carried is not None:
            parts["carried"] = self.carried.tensors()
        for part, named in parts.items():
            tensors.update({f"{part}/{name}": tensor for name, tensor in named.items()})
        save_checkpoint(self.path, Checkpoint(tensors, self._values()))
        self.last_save = time.monotonic()

    def _values(self) -> dict[str, Any]:
        return {
            **self._identity(),
            "epoch": self.epoch,
            "batch": self.batch,
            "frames": self.frames,
            "losses": self.losses,
            "norms": self.norms,
            "spent": self.spent + time.monotonic() - self.epoch_started,
            "best_score": list(self.best_score),
            "schedule": self.schedule.state(),
            "scaler": self.scaler.state_dict(),
            "history": self.history.to_plain(),
        }

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run."""
        config = {name: value for name, value in to_plain(self.config).items() if name not in FREE_TO_CHANGE}
        validation = None if self.validation is None else self.validation.fingerprint()
        shapes = {name: list(tensor.shape) for name, tensor in self.network.state_dict().items()}
        task = self.task.state()
        return {
            "config": config,
            "train": self.train.fingerprint(),
            "validation": validation,
            "network": shapes,
            "task": task,
            "ranks": self.ranks.size,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was written."""
        values = checkpoint.values
        _check_same(values, self._identity(), self.path)
        self.network.load_state_dict(checkpoint.part("network"))
        if self.average is not None:
            self.average.network.load_state_dict(checkpoint.part("average"))
        load_optimizer(self.optimizer, checkpoint.part("optimizer"))
        if self.carried is not None:
            self.carried.load({name: tensor.to(self.device) for name, tensor in checkpoint.part("carried").items()})
        self.best = {name: tensor.to(self.device) for name, tensor in checkpoint.part("best").items()}
        states = {name: checkpoint.tensors.get(_random_name(name, self.ranks.rank)) for name in RANDOM_STATES}
        assert states["torch"] is not None, "ranks are as many as when it was saved"
        assert states["augment"] is not None
        torch.set_rng_state(states["torch"])
        self.generator.set_state(states["augment"])
        if self.device.type != "cpu" and states["device"] is not None:
            torch.get_device_module(self.device).set_rng_state(states["device"])
        self.epoch, self.batch, self.frames = values["epoch"], values["batch"], values["frames"]
        self.entered = self.batch
        self.losses, self.norms, self.spent = values["losses"], values["norms"], values["spent"]
        self.best_score = (values["best_score"][0], values["best_score"][1])
        self.schedule.load(values["schedule"])
        self.scaler.load_state_dict(values["scaler"])
        self.history = History.from_plain(values["history"])
        self.first_step = self.history.steps
        self.doctor.remember()

    def hand_over(self) -> None:
        """Give the network the weights to keep."""
        kept = self.best if self.best else self.evaluated.state_dict()
        if kept and (self.best or self.average is not None):
            self.network.load_state_dict(kept)
        self.network.cpu().eval()


def _frames(network: Any, data: Dataset) -> Frames:
    """How the network's frames lie on those of the data."""
    return network.frames(torch.from_numpy(data.lengths), data.sample_rate)  # type: ignore[no-any-return]


def _encode(task: Task, network: nn.Module, data: Dataset) -> Any:
    """All targets, as the task's loss takes them."""
    places = [example.where for example in data]
    if isinstance(task, StepTask):
        return task.encode(data.targets, places, _frames(network, data))
    return task.encode(data.targets, places)


def _cut(train: Dataset, task: Task, size: int) -> Dataset:
    """Training sequences as windows."""
    if not task.per_step:
        raise ConfigError(
            f"train.window={size}: needs a task that answers for every frame, found {task.name}, whose targets are of "
            "whole sequences; take it out"
        )
    return windows(train, size)


def _rows(targets: Any, indices: Tensor) -> Any:
    """The targets of a batch."""
    return targets.rows(indices) if isinstance(targets, Ragged) else targets.index_select(0, indices)


def _random_name(name: str, rank: int) -> str:
    """Of a state of random numbers in a checkpoint."""
    return f"random/{name}" if rank == 0 else f"random/{name}/{rank}"


def _check_same(saved: dict[str, Any], now: dict[str, Any], path: Path | None) -> None:
    """Raises ConfigError when a checkpoint belongs to another run."""
    for name, value in now["config"].items():
        if saved["config"].get(name) != value:
            raise ConfigError(
                f"{path}: was trained with train.{name}={saved['config'].get(name)!r}, found {value!r}; resume with "
                "the same options, or train anew"
            )
    for name, what in (
        ("train", "training data"),
        ("validation", "validation data"),
        ("network", "network"),
        ("task", "task"),
        ("ranks", "number of processes"),
    ):
        if saved.get(name, 1) != now[name]:
            raise ConfigError(
                f"{path}: the {what} differs from that of this checkpoint; resume with the same, or train anew"
            )


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Torch's global generators seeded for the run, and as before after it."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _interrupts(trainer: _Trainer) -> Iterator[None]:
    """Ctrl-C asks the trainer to stop after its update; a second one stops at once. Only the main thread gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.interrupted = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
