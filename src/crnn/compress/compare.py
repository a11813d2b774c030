"""Two models on the same examples: scores with intervals, size and speed, side by side."""

from __future__ import annotations

import dataclasses
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crnn.compress.int8 import in_8_bits
from crnn.compress.prune import share_of_zeros
from crnn.data.dataset import Dataset
from crnn.metrics.bootstrap import bootstrap_interval
from crnn.model import Model
from crnn.models.network import Network
from crnn.report.cost import macs_per_frame
from crnn.report.evaluation import Measured, measure_intervals, metric_words, resampling_groups
from crnn.report.exactness import collate
from crnn.sequences import Sequences

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
        times = [f"{1000 * side.seconds_alone:.3g} ms" for side in (a, b)]
        rows.append(["CPU time, alone", *times, f"{b.seconds_alone / a.seconds_alone:.2f}x"])
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        head = [f"{', '.join(self.steps)}; scored on {self.num_examples} examples, {self.scored}"]
        return "\n".join([*head, *lines, *(f"note  {note}" for note in self.notes)])


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
    task = before.task
    targets = task.encode(data.targets, [example.where for example in data])
    outputs = [outputs_of(before, data), outputs_of(after, data)]
    groups = resampling_groups(data)
    changes = {}
    for name in task.monitor(outputs[0], targets):

        def change(pair: Tensor, true: Tensor, name: str = name) -> float:
            first, second = pair.chunk(2, 1)
            return task.monitor(second, true)[name] - task.monitor(first, true)[name]

        pair = torch.cat(outputs, 1)
        low, high = bootstrap_interval(change, pair, targets, groups=groups, seed=seed)
        changes[name] = Measured(change(pair, targets), low, high)
    sides = [
        _side(model, out, targets, data, groups, seconds, seed)
        for model, out, seconds in zip((before, after), outputs, alone_seconds(before, after, data), strict=True)
    ]
    per = "second" if data.sample_rate else "step"
    return Comparison(steps, scored, len(data), sides[0], sides[1], changes, per, _notes(after))


def outputs_of(model: Model, data: Dataset) -> Tensor:
    """As Model.outputs; of a model of 8 bits, with every input rounded as its 8-bit operations round it."""
    if not model.peaks:
        return model.outputs(data)
    with in_8_bits(model):
        return model.outputs(data)


def _side(
    model: Model,
    outputs: Tensor,
    targets: Tensor,
    data: Dataset,
    groups: list[str | None] | None,
    seconds: float,
    seed: int,
) -> Side:
    file = model.weights_file()
    metrics = model.task.monitor(outputs, targets)
    return Side(
        metrics=measure_intervals(model.task, outputs, targets, metrics, groups=groups, seed=seed),
        num_parameters=model.network.num_parameters,
        zeros=share_of_zeros(model),
        num_bytes=len(file),
        num_bytes_zipped=len(zlib.compress(file, 9)),
        macs=macs_per_frame(model.network) * (data.sample_rate or 1),
        seconds_alone=seconds,
    )


@torch.no_grad()
def alone_seconds(first: Model, second: Model, data: Dataset) -> tuple[float, float]:
    """CPU seconds of each network for one example of median length: the medians of ROUNDS calls, taken in turn."""
    middle = int(np.argsort(data.lengths, kind="stable")[len(data) // 2])
    example = collate(data, [middle])
    found = [(_cpu_seconds(first.network, example), _cpu_seconds(second.network, example)) for _ in range(ROUNDS + 1)]
    times = np.median(found[1:], axis=0)  # the first call of each warms up
    return float(times[0]), float(times[1])


def _cpu_seconds(network: Network, example: Sequences) -> float:
    network.eval()
    start = time.process_time()
    network(example)
    return time.process_time() - start


def _notes(after: Model) -> tuple[str, ...]:
    if not after.peaks:
        return ()
    return (
        "scores of 8 bits are those of 8-bit weights and inputs, as an engine of 8 bits gives them",
        "PyTorch computes in float32, so its time says nothing about 8 bits; crnn stream and the C file run in 8 bits",
    )
