"""A training step of our GRU beside PyTorch's modules: forward and backward, ratios of CPU time measured in one run.

    python benchmarks/kernels.py [--rounds 9] [--quick]

One layer on inputs of 64 channels, which want a gradient as well. Every shape is timed in turns: ours, nn.GRU with the
same weights, and nn.LSTM with as many units, which has a third more arithmetic. On ragged batches ours is given the
lengths; nn.GRU once computes the padding too, which changes nothing for a layer that runs forward, and once a packed
sequence, as a bidirectional one needs it to be exact. Ours has to give the outputs and gradients of nn.GRU first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, describe_machine, set_threads, versions, write_results
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from crnn.native.library import load
from crnn.native.recurrence import kernels
from crnn.nn.dispatch import run_cell
from crnn.sequences import Sequences

CHANNELS = 64
FRAMES, BATCHES, HIDDEN = (64, 128, 512, 1024), (16, 32), (64, 128, 256)
RAGGED = (32, 512, 128)
"""Batch, longest, hidden size, of the row with lengths drawn evenly from a tenth of the longest on."""
GOALS = {1024: 0.60, 128: 0.70}
"""Frames -> ratio to nn.GRU that a batch of 32 has to reach."""


@dataclass(frozen=True)
class Case:
    """A batch and the modules that are trained on it."""

    gru: nn.GRU
    lstm: nn.LSTM
    x: Sequences
    into: Tensor

    @classmethod
    def make(cls, batch: int, frames: int, hidden: int, *, ragged: bool = False) -> Case:
        torch.manual_seed(0)
        lengths = torch.randint(frames // 10, frames + 1, (batch,)) if ragged else torch.full((batch,), frames)
        lengths[0] = frames
        gru, lstm = (kind(CHANNELS, hidden, batch_first=True) for kind in (nn.GRU, nn.LSTM))
        x = Sequences(torch.randn(batch, frames, CHANNELS), lengths).zeroed()
        into = Sequences(torch.randn(batch, frames, hidden), lengths).zeroed()
        return cls(gru, lstm, x, into.data)

    def ways(self) -> dict[str, Callable[[Tensor], Tensor]]:
        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "native": lambda data: run_cell(self.gru, Sequences(data, self.x.lengths), None),
            "nn.GRU": lambda data: self.gru(data)[0],
            "nn.LSTM": lambda data: self.lstm(data)[0],
        }
        return ways if self.x.is_full else {**ways, "packed nn.GRU": self._packed}

    def _packed(self, data: Tensor) -> Tensor:
        packed = pack_padded_sequence(data, self.x.lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]

    def step(self, way: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """One forward and backward pass: outputs, gradient of the inputs, gradients of the GRU's weights."""
        data = self.x.data.clone().requires_grad_()
        self.gru.zero_grad()
        out = way(data)
        out.backward(self.into)
        weights = [weight.grad for weight in self.gru.parameters() if weight.grad is not None]
        return [out.detach(), data.grad, *weights]  # type: ignore[list-item]

    def largest_difference(self) -> float:
        """Of anything that ours and nn.GRU give, as a share of its largest value."""
        ways, worst = self.ways(), 0.0
        for ours, theirs in zip(self.step(ways["native"]), self.step(ways["nn.GRU"]), strict=True):
            if ours.shape == theirs.shape == self.into.shape:  # past the ends nn.GRU goes on
                theirs = Sequences(theirs, self.x.lengths).zeroed().data
            worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
        return worst


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each way, round by round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in case.ways()}
    for turn in range(rounds + 1):
        for name, way in case.ways().items():
            begin = time.process_time()
            case.step(way)
            if turn:
                seconds[name].append(time.process_time() - begin)
    return seconds


def row_of(batch: int, frames: int, hidden: int, rounds: int, *, ragged: bool = False) -> dict[str, Any]:
    """Check and time one shape."""
    case = Case.make(batch, frames, hidden, ragged=ragged)
    difference = case.largest_difference()
    if difference > 1e-4:
        raise SystemExit(f"batch {batch}, {frames} frames, {hidden} units: differs from nn.GRU by {difference:.1e}")
    seconds = measure(case, rounds)
    row: dict[str, Any] = {"batch": batch, "frames": frames, "hidden": hidden, "ragged": ragged}
    for name, theirs in seconds.items():
        if name != "native":
            ratios = [a / b for a, b in zip(seconds["native"], theirs, strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            row[name] = {"ratio": statistics.median(ratios), "low": low, "high": high}
    row["difference"] = difference
    row["goal"] = GOALS.get(frames) if batch == 32 and not ragged else None
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="two small shapes, to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels.json")
    options = parser.parse_args(arguments)
    if kernels() is None:
        raise SystemExit("no kernels were compiled when crnn was installed; install a C compiler and then crnn again")
    set_threads(1)
    rounds = 3 if options.quick else options.rounds
    shapes = [(32, 32, 16)] if options.quick else [(b, t, h) for t in FRAMES for b in BATCHES for h in HIDDEN]
    rows = []
    for shape, ragged in [*((shape, False) for shape in shapes), ((4, 40, 16) if options.quick else RAGGED, True)]:
        rows.append(row_of(*shape, rounds, ragged=ragged))
        print(*shape, "ragged" * ragged, f"{rows[-1]['nn.GRU']['ratio']:.2f} of nn.GRU", flush=True)
    results = {
        "machine": describe_machine(threads=1),
        "versions": versions(),
        "settings": {"rounds": rounds, "channels": CHANNELS, "instruction_set": load().instruction_set},
        "rows": rows,
    }
    write_results(options.out, results)


if __name__ == "__main__":
    main()
