"""What a model costs: parameters, multiply-adds, CPU time, bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from crnn.data.batch import one_pass_values
from crnn.data.dataset import Dataset
from crnn.data.windows import beginnings
from crnn.errors import ExportError, StreamError
from crnn.models.network import Network
from crnn.program.lower import lower
from crnn.program.program import Program
from crnn.program.tables import tabulate
from crnn.report.exactness import collate, device_of
from crnn.sequences import Sequences
from crnn.tasks.task import Task


@dataclass(frozen=True)
class Embedded:
    """What the C file and the native engine need, beside 8 to 20 kB of code."""

    flash_bytes: int
    """Weights and tables, read only, one copy for any number of streams."""
    state_bytes: int
    """RAM of one stream."""
    work_bytes: int
    """RAM of a call, on the stack of the C file."""
    delay_frames: float
    """Input frames by which the outputs lag behind."""
    delay_seconds: float | None


@dataclass(frozen=True)
class Cost:
    """Cost of one model on examples of one data set."""

    num_parameters: int
    macs: float
    """Multiply-adds per input second, or per input step where no rate is known."""
    per: str
    """'second' or 'step'."""
    macs_per_example: float
    """Of an example of median length."""
    single_seconds: float
    """CPU seconds per example of median length, one at a time."""
    batched_seconds: float
    """CPU seconds per example, in one batch."""
    batch_size: int
    threads: int
    model_bytes: int | None = None
    """Of the saved weights."""
    embedded: Embedded | None = None
    """None where it was not asked for, or the network cannot stream."""
    why_not_embedded: str = ""
    """Which layer is in the way."""


def measure_cost(
    network: Network,
    data: Dataset,
    *,
    task: Task | None = None,
    batch_size: int = 64,
    model_bytes: int | None = None,
    seconds: float = 2.0,
) -> Cost:
    """Count and time the model on examples about the median length.

    Of recordings of hours the beginning is timed, as many values as one pass takes at once, and the seconds are those
    of the whole in proportion: hours in one pass would take more memory than training.

    Args:
        task: with it, what a C file of this model needs is counted too.
        batch_size: of the second timing, at most; fewer where the recordings are long.
        seconds: of CPU time to spend on each of the two timings, about.
    """
    lengths = data.lengths
    median = int(np.median(lengths))
    timed = min(median, max(one_pass_values(data) // data.frame_values, network.min_length))
    fits = max(1, one_pass_values(data) // (timed * data.frame_values))
    near = np.argsort(np.abs(lengths - median), kind="stable")[: min(batch_size, fits)]
    shown = beginnings(data, timed) if timed < median else data
    batch = collate(shown, near.tolist()).to(device_of(network))
    one = Sequences(batch.data[:1, : int(batch.lengths[0])], batch.lengths[:1])
    embedded = None if task is None else count_embedded(network, task, data.sample_rate)
    was_training = network.training
    network.eval()
    try:
        single = _cpu_seconds(lambda: network(one), seconds) * median / timed
        batched = _cpu_seconds(lambda: network(batch), seconds) * median / timed / len(near)
    finally:
        network.train(was_training)
    return Cost(
        num_parameters=network.num_parameters,
        macs=macs_per_frame(network) * (data.sample_rate or 1),
        per="second" if data.sample_rate else "step",
        macs_per_example=float(network.macs(median)),
        single_seconds=single,
        batched_seconds=batched,
        batch_size=len(near),
        threads=torch.get_num_threads(),
        model_bytes=model_bytes,
        embedded=embedded if isinstance(embedded, Embedded) else None,
        why_not_embedded=embedded if isinstance(embedded, str) else "",
    )


def count_embedded(network: Network, task: Task, sample_rate: float | None) -> Embedded | str:
    """What a C file of this network needs; which layer is in the way, where there can be none."""
    try:
        return embedded_of(lower(network, task, sample_rate=sample_rate))
    except (StreamError, ExportError) as error:
        return str(error)


def embedded_of(program: Program) -> Embedded:
    """What a program needs as C.

    Raises:
        StreamError: it cannot stream; which layer is in the way.
        ExportError: an operation that the engine does not know.
    """
    tables = tabulate(program)
    flash = sum(table.nbytes for table in (tables.weights, tables.bytes, tables.nodes, tables.ints))
    rate = program.sample_rate
    delay = program.look_ahead / rate if rate else None
    return Embedded(flash, tables.state_bytes, 4 * tables.num_scratch, program.look_ahead, delay)


def describe_cost(network: Network, program: Program, num_bytes: int) -> dict[str, Any]:
    """Cost of a model that is known without any data, by name, in the order to be shown; seconds where a rate is known.

    Args:
        num_bytes: of model.safetensors.
    """
    rate = program.sample_rate
    found: dict[str, Any] = {
        "parameters": network.num_parameters,
        f"multiply-adds per {'second of signal' if rate else 'step'}": round(macs_per_frame(network) * (rate or 1)),
        "bytes of model.safetensors": num_bytes,
    }
    try:
        embedded = embedded_of(program)
    except (StreamError, ExportError) as error:
        return {**found, "streams": f"no: {error}"}
    found |= {"streams": "yes", "delay in frames": embedded.delay_frames}
    if embedded.delay_seconds is not None:
        found["delay in seconds"] = round(embedded.delay_seconds, 6)
    return {
        **found,
        "C file, flash in bytes beside the code": embedded.flash_bytes,
        "C file, RAM of a stream in bytes": embedded.state_bytes,
        "C file, RAM of a call in bytes": embedded.work_bytes,
    }


def macs_per_frame(network: Network) -> float:
    """Multiply-adds that each further input frame costs."""
    start, frames = network.min_length, 1000
    return (network.macs(start + frames) - network.macs(start)) / frames


@torch.inference_mode()
def _cpu_seconds(run: Callable[[], object], budget: float) -> float:
    """Median of CPU seconds a call, after one call to warm up; at most 20 calls."""
    run()
    found: list[float] = []
    while len(found) < 20 and (sum(found) < budget or not found):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return float(np.median(found))
