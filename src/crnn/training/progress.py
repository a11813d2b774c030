"""What a training run says while it runs: any callable that takes an Update; one for terminals, one for logs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from crnn.training.history import EpochRecord


@dataclass(frozen=True)
class Update:
    """How far a run is."""

    epoch: int
    """Counted from 1."""
    num_epochs: int
    step: int
    """Updates made."""
    num_steps: int
    """Updates of the whole run, if it does not stop early."""
    loss: float
    """Training loss so far in this epoch."""
    seconds_left: float | None
    """If it does not stop early; None before anything was measured."""
    record: EpochRecord | None = None
    """Set at the end of an epoch."""
    remark: str = ""
    """What the task says of the epoch's outputs, such as that all of them are blank."""


Report = Callable[[Update], None]
"""Called after every epoch, and within long epochs twice a second at most."""


def describe_epoch(update: Update, record: EpochRecord) -> str:
    """One line for a finished epoch: number, losses, the first validation metric, a star for the best, time left."""
    parts = [
        f"epoch {record.epoch:>{len(str(update.num_epochs))}}/{update.num_epochs}",
        f"loss {record.train_loss:.4f}",
    ]
    if record.validation_loss is not None:
        parts.append(f"validation loss {record.validation_loss:.4f}")
    for name, value in list(record.metrics.items())[:1]:
        parts.append(f"{name} {value:.4f}{' *' if record.is_best else '  '}")
    if update.seconds_left is not None:
        parts.append(f"{describe_seconds(update.seconds_left)} left")
    if update.remark:
        parts.append(update.remark)
    return "  ".join(parts)


def describe_seconds(seconds: float) -> str:
    """0:42, 12:05, 3:20:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class LineProgress:
    """Plain lines for logs and pipes: the first epoch, the last, and one in `seconds` between; a context manager."""

    def __init__(self, stream: TextIO | None = None, *, seconds: float = 5.0) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self.seconds = seconds
        self._spent = self._last = 0.0  # seconds of training, and at the last line
        self._held = ""

    def __call__(self, update: Update) -> None:
        record = update.record
        if record is None:
            return
        self._spent += record.seconds
        self._held = describe_epoch(update, record)
        if record.epoch == 1 or self._spent - self._last >= self.seconds:
            self._last = self._spent
            self._print()

    def _print(self) -> None:
        print(self._held, file=self.stream, flush=True)
        self._held = ""

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._print()  # the last epoch, early stop or not


class BarProgress:
    """A bar that moves with every update, for a terminal; use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}"),
            console=console or Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._best = ""

    def __call__(self, update: Update) -> None:
        if update.record is not None:
            line = describe_epoch(update, update.record)
            if update.record.is_best:
                name, value = next(iter(update.record.metrics.items()))
                self._best = f"  best {name} {value:.4f} (epoch {update.epoch})"
        else:
            left = "" if update.seconds_left is None else f"  {describe_seconds(update.seconds_left)} left"
            line = f"epoch {update.epoch}/{update.num_epochs}  loss {update.loss:.4f}{left}"
        self._bar.update(self._task, total=update.num_steps, completed=update.step, description=line + self._best)

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class NoProgress:
    """Silence."""

    def __call__(self, update: Update) -> None:
        return None

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def open_progress(*, quiet: bool = False, stream: TextIO | None = None) -> BarProgress | LineProgress | NoProgress:
    """What suits the stream (standard error by default): a bar on a terminal, lines elsewhere, nothing if quiet."""
    stream = stream if stream is not None else sys.stderr
    if quiet:
        return NoProgress()
    if stream.isatty():
        return BarProgress(Console(file=stream))
    return LineProgress(stream)
