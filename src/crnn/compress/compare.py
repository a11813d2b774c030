"""Two models on the same examples: scores with intervals, size and speed, side by side."""

from __future__ import annotations

import dataclasses
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.compress.prune import share_of_zeros
from crnn.data.dataset import Dataset
from crnn.errors import ExportError, StreamError
from crnn.metrics.bootstrap import bootstrap_interval, percentile_interval
from crnn.model import Model
from crnn.models.rounding import in_8_bits
from crnn.report.cost import macs_per_frame
from crnn.report.evaluation import Measured, count_intervals, measure_intervals, metric_words, resampling_groups
from crnn.report.exactness import collate
from crnn.sequences import Ragged, Sequences
from crnn.streaming.engine import NativeEngine
from crnn.tasks.step_task import StepTask

ROUNDS = 15
"""Times that each network is timed, in turn with the other, so that both meet the same machine."""


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    metrics: dict[str, Measured]
    """Those that the task monitors, with 95 % intervals."""
    num_parameters: int
    zeros: float
    """Share of the weights of convolutions, recurrences and linear layers that are zero."""
    num_bytes: int
    """Of model.safetensors."""
    num_bytes_zipped: int
    """Of the same file, deflated: what zeros save on a disk or a line."""
    macs: float
    """Multiply-adds per input second, or per input step where no rate is known."""
    seconds_alone: float
    """CPU seconds of PyTorch per example of median length, one at a time."""
    seconds_native: float | None
    """The same of the native engine, in 8 bits where the model is; None where it cannot run the model."""


@dataclass(frozen=True)
class Comparison:
    """A model before and after its compression. Printed, it is a table."""

    steps: tuple[str, ...]
    """What was done, such as "prune-units 0.5"."""
    scored: str
    """What the scores were measured on, in words."""
    num_examples: int
    before: Side
    after: Side
    changes: dict[str, Measured]
    """After minus before; the interval is of the difference on the same resamples, so much narrower than theirs."""
    per: str
    """What multiply-adds are counted by: "second" or "step"."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        a, b = self.before, self.after
        rows = [["", "before", "after", "change"]]
        rows += [[metric_words(name), _text(a.metrics[name]), _text(b.metrics[name]), _text(self.changes[name], "+")]
                 for name in a.metrics]  # fmt: skip
        for name, before, after in (
            ("parameters", a.num_parameters, b.num_parameters),
            ("bytes of weights", a.num_bytes, b.num_bytes),
            ("bytes, zipped", a.num_bytes_zipped, b.num_bytes_zipped),
            (f"multiply-adds per {self.per}", round(a.macs), round(b.macs)),
        ):
            rows.append([name, f"{before:,}", f"{after:,}", f"{after / before:.2f}x"])
        rows.append(["weights at zero", f"{a.zeros:.0%}", f"{b.zeros:.0%}", ""])
        rows.append(_times("CPU time, alone", a.seconds_alone, b.seconds_alone))
        if a.seconds_native is not None or b.seconds_native is not None:
            rows.append(_times("native engine, alone", a.seconds_native, b.seconds_native))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        head = [f"{', '.join(self.steps)}; scored on {self.num_examples} examples, {self.scored}"]
        return "\n".join([*head, *lines, *(f"note  {note}" for note in self.notes)])


def _times(name: str, before: float | None, after: float | None) -> list[str]:
    shown = ["cannot" if value is None else f"{1000 * value:.3g} ms" for value in (before, after)]
    return [name, *shown, "" if before is None or after is None else f"{after / before:.2f}x"]


def _text(value: Measured, sign: str = "") -> str:
    return f"{value.point:{sign}.4g} [{value.low:{sign}.4g}, {value.high:{sign}.4g}]"


def compare(
    before: Model, after: Model, data: Dataset, *, steps: tuple[str, ...], scored: str, seed: int
) -> Comparison:
    """Measure two models of one task on labelled data.

    Args:
        steps, scored: of the Comparison.
        seed: of the resamples.
    """
    engines = [native_engine(before), native_engine(after)]
    outputs = [outputs_of(model, data, engine) for model, engine in zip((before, after), engines, strict=True)]
    score = _score_steps if before.task.per_step else _score_sequences
    metrics, changes = score((before, after), outputs, data, seed)
    files = [model.weights_file() for model in (before, after)]
    alone = seconds_in_turn([partial(model.network.eval(), _typical(data)) for model in (before, after)])
    native = seconds_in_turn([partial(run_native, engine, [_typical(data).data[0].numpy()]) for engine in engines])
    sides = [
        Side(
            metrics=metrics[i],
            num_parameters=model.network.num_parameters,
            zeros=share_of_zeros(model),
            num_bytes=len(files[i]),
            num_bytes_zipped=len(zlib.compress(files[i], 9)),
            macs=macs_per_frame(model.network) * (data.sample_rate or 1),
            seconds_alone=alone[i],
            seconds_native=None if engines[i] is None else native[i],
        )
        for i, model in enumerate((before, after))
    ]
    per = "second" if data.sample_rate else "step"
    return Comparison(steps, scored, len(data), sides[0], sides[1], changes, per, _notes(after, engines[1]))


Scored = tuple[list[dict[str, Measured]], dict[str, Measured]]
"""Scores of each model, and by how much the second one's differ."""


def _score_sequences(models: tuple[Model, Model], outputs: list[Any], data: Dataset, seed: int) -> Scored:
    """Of models with one answer a sequence."""
    task, groups = models[0].task, resampling_groups(data)
    targets = task.encode(data.targets, [example.where for example in data])
    changes = {}
    for name in task.monitor(outputs[0], targets):

        def change(pair: Tensor, true: Tensor, name: str = name) -> float:
            first, second = pair.chunk(2, 1)
            return task.monitor(second, true)[name] - task.monitor(first, true)[name]

        pair = torch.cat(outputs, 1)
        low, high = bootstrap_interval(change, pair, targets, groups=groups, seed=seed)
        changes[name] = Measured(change(pair, targets), low, high)
    each = [measure_intervals(task, o, targets, task.monitor(o, targets), groups=groups, seed=seed) for o in outputs]
    return each, changes


def _score_steps(models: tuple[Model, Model], outputs: list[Any], data: Dataset, seed: int) -> Scored:
    """Of models that answer for every frame, each by its own task: thresholds were tuned anew."""
    groups, counts = resampling_groups(data), []
    for model, found in zip(models, outputs, strict=True):
        assert isinstance(model.task, StepTask), "compression keeps the task"
        frames = model.network.frames_of(data)
        counts.append((model.task, model.task.count(found, data.targets, frames)))
    drawn: list[dict[str, float]] = []

    def change(totals: NDArray[np.float64]) -> dict[str, float]:
        first, second = (task.scores_of(total) for (task, _), total in zip(counts, np.split(totals, 2), strict=True))
        return {name: second[name] - first[name] for name in first}

    def draw(sample: Tensor, _: Tensor) -> float:
        drawn.append(change(sample.sum(0).numpy()))
        return math.nan

    pairs = np.concatenate([found for _, found in counts], 1)
    rows = torch.from_numpy(pairs)
    bootstrap_interval(draw, rows, rows, groups=groups, seed=seed)
    changes = {
        name: Measured(point, *percentile_interval(np.array([values[name] for values in drawn])))
        for name, point in change(pairs.sum(0)).items()
    }
    return [count_intervals(task, found, groups=groups, seed=seed) for task, found in counts], changes


def native_engine(model: Model) -> NativeEngine | None:
    """The compiled kernels for this model; None where they cannot run it, or there are none."""
    try:
        return NativeEngine(model.program())
    except (StreamError, ExportError):
        return None


def outputs_of(model: Model, data: Dataset, engine: NativeEngine | None = None) -> Any:
    """As Model.outputs; of a model of 8 bits with every input rounded: by an engine, or in PyTorch without one."""
    if not model.peaks:
        return model.outputs(data)
    if engine is not None:
        found = [torch.from_numpy(each) for each in run_native(engine, [example.load() for example in data])]
        if model.task.per_step:
            return Ragged.of(found)
        scale, shift = model.task.units
        return (torch.stack(found) - shift) / scale  # a program's outputs are in the target's units
    with in_8_bits(model.network, model.peaks):
        return model.outputs(data)


def run_native(engine: NativeEngine | None, sequences: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """The engine's outputs for whole sequences, (outputs,) or (frames, outputs) each; nothing without an engine."""
    found: list[NDArray[np.float32]] = []
    for frames in sequences if engine is not None else ():
        assert engine is not None
        state = engine.start()
        ready = engine.push(state, frames.reshape(len(frames), -1).astype(np.float32))
        last = engine.finish(state)
        assert last is not None, "what is scored is long enough"
        found.append(last if ready is None or engine.is_vector else np.concatenate([ready, last]))
    return found


def _typical(data: Dataset) -> Sequences:
    """An example of median length."""
    return collate(data, [int(np.argsort(data.lengths, kind="stable")[len(data) // 2])])


@torch.no_grad()
def seconds_in_turn(calls: Sequence[Callable[[], object]]) -> list[float]:
    """CPU seconds of each call: medians of ROUNDS, taken in turn, so that all of them meet the same machine."""
    found = [[_cpu_seconds(call) for call in calls] for _ in range(ROUNDS + 1)]
    return [float(median) for median in np.median(found[1:], axis=0)]  # the first call of each warms up


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _notes(after: Model, engine: NativeEngine | None) -> tuple[str, ...]:
    if not after.peaks:
        return ()
    how = f"by the native engine ({engine.instruction_set})" if engine is not None else "by rounding in PyTorch"
    return (
        f"scores of 8 bits are of 8-bit weights and inputs, measured {how}",
        "PyTorch and crnn stream compute in float32 with these weights, the engine here and the C file in 8 bits",
    )
