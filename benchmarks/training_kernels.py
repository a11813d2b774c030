"""A training step of one recurrent layer beside PyTorch's modules: forward and backward, ratios of CPU time of one run.

    python benchmarks/training_kernels.py [--rounds 7] [--quick]

Inputs have 64 channels and want a gradient as well. Every shape is timed in turns: ours as a network would run it,
which may be PyTorch's own module where that is faster, and a module of PyTorch's. An LSTM and a GRU have the weights of
nn.LSTM and nn.GRU, and have to give their outputs and gradients first; a minGRU stands beside an nn.LSTM with as many
units. On ragged batches (lengths drawn evenly from a tenth of the longest on) a bidirectional LSTM that is exact stands
beside nn.LSTM on packed sequences, and a GRU beside nn.GRU on the padded and on the packed batch.
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
from crnn.nn.blocks import build_layers
from crnn.nn.recurrent import Recurrent
from crnn.sequences import Sequences

CHANNELS = 64
Step = Callable[[Tensor], Tensor]
"""A batch in, outputs out."""


@dataclass(frozen=True)
class Row:
    """What is timed, and the ratio that it has to reach."""

    cell: str
    against: str
    batch: int
    frames: int
    hidden: int
    goal: float | None = None
    ragged: bool = False
    bidirectional: bool = False


def lstm_goal(frames: int, hidden: int) -> float:
    return 0.75 if frames >= 1024 and hidden <= 128 else 1.05


SIZES = (64, 128, 256)
ROWS = [
    *(Row("lstm", "nn.LSTM", 32, t, h, lstm_goal(t, h)) for t in (16, 64, 128, 512, 1024, 2048) for h in SIZES),
    *(Row("lstm", "nn.LSTM", b, t, h, 1.05) for b, t in ((1, 128), (1, 2048), (8, 128)) for h in SIZES),
    *(Row("gru", "nn.GRU", 32, t, h, goal) for t, goal in ((128, 0.70), (1024, 0.60)) for h in SIZES),
    *(Row("mingru", "nn.LSTM", 32, t, h, 0.40) for t in (128, 512, 1024, 4096) for h in SIZES[:2]),
    Row("gru", "nn.GRU", 32, 512, 128, ragged=True),
    Row("gru", "packed nn.GRU", 32, 512, 128, ragged=True),
    *(Row("lstm", "packed nn.LSTM", 32, t, 128, 0.25, ragged=True, bidirectional=True) for t in (128, 512)),
]
QUICK = [
    Row("lstm", "nn.LSTM", 4, 300, 16),
    Row("gru", "nn.GRU", 4, 32, 16),
    Row("mingru", "nn.LSTM", 4, 32, 16),
    Row("lstm", "packed nn.LSTM", 4, 40, 16, ragged=True, bidirectional=True),
]


class Case:
    """A batch, our layer, and the module of PyTorch's beside it."""

    def __init__(self, row: Row) -> None:
        torch.manual_seed(0)
        self.row = row
        lengths = torch.full((row.batch,), row.frames)
        if row.ragged:
            lengths[1:] = torch.randint(row.frames // 10, row.frames + 1, (row.batch - 1,))
        spec = {"type": "recurrent", "cell": row.cell, "hidden_size": row.hidden, "bidirectional": row.bidirectional}
        layer = build_layers([spec], (CHANNELS,)).layers[0]
        assert isinstance(layer, Recurrent)
        self.ours = layer
        kind = nn.GRU if row.against.endswith("GRU") else nn.LSTM
        self.theirs = kind(CHANNELS, row.hidden, batch_first=True, bidirectional=row.bidirectional)
        self.x = Sequences(torch.randn(row.batch, row.frames, CHANNELS), lengths).zeroed()
        size = row.hidden * (1 + row.bidirectional)
        self.into = Sequences(torch.randn(row.batch, row.frames, size), lengths).zeroed().data
        if self.is_same:
            for own, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
                for name, weight in own[0].named_parameters() if len(own) else ():
                    getattr(self.theirs, name + suffix).data.copy_(weight.data)

    @property
    def is_same(self) -> bool:
        """Whether the two have the same equations."""
        return self.row.cell in ("gru", "lstm")

    def run_ours(self, data: Tensor) -> Tensor:
        return self.ours.compute(Sequences(data, self.x.lengths)).data

    def run_theirs(self, data: Tensor) -> Tensor:
        if not self.row.against.startswith("packed"):
            return self.theirs(data)[0]  # type: ignore[no-any-return]
        packed = pack_padded_sequence(data, self.x.lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.theirs(packed)[0], batch_first=True)[0]

    def step(self, way: Step) -> list[Tensor]:
        """One forward and backward pass: outputs, gradients of inputs and weights."""
        data = self.x.data.clone().requires_grad_()
        module: nn.Module = self.ours if way == self.run_ours else self.theirs
        module.zero_grad()
        out = way(data)
        out.backward(self.into)
        return [out.detach(), data.grad, *(weight.grad for weight in module.parameters())]  # type: ignore[list-item]

    def difference(self) -> float | None:
        """The largest one of anything that both give, as a share of its largest value."""
        if not self.is_same:
            return None
        worst = 0.0
        for ours, theirs in zip(self.step(self.run_ours), self.step(self.run_theirs), strict=True):
            if ours.shape == self.into.shape:  # past the ends PyTorch's modules go on
                ours, theirs = (Sequences(t, self.x.lengths).zeroed().data for t in (ours, theirs))
            worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
        return worst


def measure(row: Row, rounds: int) -> dict[str, Any]:
    """Check one shape, then time it."""
    case = Case(row)
    difference = case.difference()
    if difference is not None and difference > 1e-4:
        raise SystemExit(f"{row}: differs from {row.against} by {difference:.1e}")
    ratios = []
    steps = max(1, 100_000 // (row.batch * row.frames * row.hidden))  # so that a clock tick does not matter
    for turn in range(rounds + 1):
        seconds = []
        for way in (case.run_ours, case.run_theirs):
            begin = time.process_time()
            for _ in range(steps):
                case.step(way)
            seconds.append(time.process_time() - begin)
        if turn:
            ratios.append(seconds[0] / seconds[1])
    low, _, high = statistics.quantiles(ratios, n=4)
    return {**vars(row), "ratio": statistics.median(ratios), "low": low, "high": high, "difference": difference}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS / "training_kernels.json")
    options = parser.parse_args(arguments)
    if kernels() is None:
        raise SystemExit("no kernels were compiled when crnn was installed; install a C compiler and then crnn again")
    set_threads(1)
    rounds = 3 if options.quick else options.rounds
    rows = []
    for row in QUICK if options.quick else ROWS:
        rows.append(measure(row, rounds))
        shape = f"{row.cell} {row.batch} x {row.frames}, {row.hidden} units"
        print(shape, "ragged" * row.ragged, f"{rows[-1]['ratio']:.2f} of {row.against}", flush=True)
    results = {
        "machine": describe_machine(threads=1),
        "versions": versions(),
        "settings": {"rounds": rounds, "channels": CHANNELS, "instruction_set": load().instruction_set},
        "rows": rows,
    }
    write_results(options.out, results)


if __name__ == "__main__":
    main()
