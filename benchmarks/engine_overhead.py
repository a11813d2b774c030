"""What our training loop costs, beside a bare PyTorch loop and skorch: ratios of CPU time, measured in one run.

    python benchmarks/engine_overhead.py [--quick]

Two networks: the small convolutional-recurrent one of the `seed` preset, and a mean over time with one linear layer,
whose step is so short that the loop around it is nearly all there is to measure. Every contender trains the same
layers on the same batches of 32 with the same fused AdamW. The bare loop does nothing but what it must; ours does
everything it does by default (length buckets, gradient clipping, learning-rate schedule, loss history, the doctor).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, describe_machine, set_threads, versions, write_results
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.data.dataset import Dataset
from crnn.data.read import from_arrays
from crnn.models.network import Network
from crnn.models.spec import NetworkSpec
from crnn.run import make_plan
from crnn.sequences import Sequences
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training.config import TrainConfig
from crnn.training.loop import fit
from crnn.training.progress import Update

FRAMES, CHANNELS, CLASSES, BATCH = 32, 12, 9, 32
EXAMPLES = 960
RATE = 1e-3


class SmallCRNN(nn.Module):
    """The seed network as one writes it by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, 64, 3, padding=1)
        self.norm = nn.BatchNorm1d(64)
        self.lstm = nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool1d(F.relu(self.norm(self.conv(x.transpose(1, 2)))), 2)  # (batch, channels, time)
        return self.head(self.lstm(y.transpose(1, 2))[0][:, -1])  # type: ignore[no-any-return]


class OneLayer(nn.Module):
    """The mean over time, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean(1))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Case:
    """A network in both spellings, and how long it is trained in each round."""

    name: str
    by_hand: Callable[[], nn.Module]
    spec: NetworkSpec
    examples: int
    epochs: int
    goal: float
    """Our CPU time over that of the bare loop, at most."""

    def ours(self) -> Network:
        return Network(self.spec, features=(CHANNELS,), outputs=CLASSES)


def make_cases(quick: bool) -> list[Case]:
    small = make_plan(make_data(EXAMPLES)[0], {}, task="classify", preset="seed", seed=0).config.model
    examples = 2 * BATCH if quick else EXAMPLES
    one_layer = NetworkSpec(layers=[], summary={"type": "mean"})
    return [
        Case("small CRNN", SmallCRNN, small, examples, 2 if quick else 4, 1.10),
        Case("one layer", OneLayer, one_layer, examples, 2 if quick else 21, 1.30),
    ]


def make_data(examples: int) -> tuple[Dataset, Tensor, Tensor]:
    """Random sequences of full length: as a data set for us, as tensors for the others."""
    random = np.random.default_rng(0)
    x = random.standard_normal((examples, FRAMES, CHANNELS)).astype(np.float32)
    y = np.arange(examples) % CLASSES
    return from_arrays(list(x), [f"class {i}" for i in y]), torch.from_numpy(x), torch.from_numpy(y)


Mark = Callable[[], None]
"""To be called at the end of every epoch: the clock reads the CPU time of the ones after the first."""


def train_bare(network: nn.Module, x: Tensor, y: Tensor, epochs: int, mark: Mark, *, wrap: bool) -> None:
    """The loop that everybody writes. With `wrap` it feeds our network, which takes Sequences."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    lengths = torch.full((BATCH,), FRAMES)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            indices = order[start : start + BATCH]
            data = x[indices]
            optimizer.zero_grad()
            loss = F.cross_entropy(network(Sequences(data, lengths) if wrap else data), y[indices])
            loss.backward()
            optimizer.step()
        mark()


def train_bare_clipped(network: nn.Module, x: Tensor, y: Tensor, epochs: int, mark: Mark) -> None:
    """The same by hand with what our default adds to the training itself: clipping and a one-cycle schedule."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps, cycle_momentum=False)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            indices = order[start : start + BATCH]
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x[indices]), y[indices])
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        mark()


def train_ours(network: Network, data: Dataset, epochs: int, mark: Mark) -> None:
    """crnn.training.loop.fit as it comes, with a progress report."""
    task = Classify.from_targets(data.targets, ClassifyConfig())

    def show(update: Update) -> None:
        if update.record is not None:
            mark()

    config = TrainConfig(epochs=epochs, batch_size=BATCH, learning_rate=RATE)
    fit(network, task, data, None, config, progress=show)


def train_skorch(make: Callable[[], nn.Module], x: Tensor, y: Tensor, epochs: int, mark: Mark) -> None:
    """skorch with its default callbacks, without validation and without printing."""
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback

    class Clock(Callback):  # type: ignore[misc]
        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            mark()

    net = NeuralNetClassifier(
        make,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=0.01,
        optimizer__fused=True,
        lr=RATE,
        max_epochs=epochs,
        batch_size=BATCH,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[Clock()],
        verbose=0,
    )
    net.fit(x.numpy(), y.numpy())


Way = Callable[[Mark], None]


def contenders(case: Case) -> dict[str, Way]:
    """Every way to train the case's network; the first one is what the others are measured by."""
    data, x, y = make_data(case.examples)
    epochs = case.epochs
    found: dict[str, Way] = {
        "bare loop, layers by hand": lambda mark: train_bare(case.by_hand(), x, y, epochs, mark, wrap=False),
        "bare loop, our layers": lambda mark: train_bare(case.ours(), x, y, epochs, mark, wrap=True),
        "crnn": lambda mark: train_ours(case.ours(), data, epochs, mark),
        "bare loop with clipping and schedule": lambda mark: train_bare_clipped(case.by_hand(), x, y, epochs, mark),
    }
    if "skorch" in versions():
        found["skorch"] = lambda mark: train_skorch(case.by_hand, x, y, epochs, mark)
    return found


def cpu_seconds(train: Way) -> float:
    """CPU time of this process for all epochs after the first, so that no start-up is in it."""
    marks: list[float] = []
    gc.collect()
    train(lambda: marks.append(time.process_time()))
    return marks[-1] - marks[0]


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    """Ratios to the first contender within each round, rounds interleaved, in an order that turns."""
    ways = contenders(case)
    names = list(ways)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(cpu_seconds(ways[name]))
    by_hand, our_layers = taken[names[0]], taken[names[1]]
    rows = []
    for name in names:
        ratios = sorted(_ratios(taken[name], by_hand))
        rows.append(
            {
                "network": case.name,
                "way": name,
                "ratio": round(statistics.median(ratios), 3),
                "ratio_of_quietest": round(min(taken[name]) / min(by_hand), 3),
                "low": round(ratios[len(ratios) // 4], 3),
                "high": round(ratios[-1 - len(ratios) // 4], 3),
                "ratio_to_our_layers": round(statistics.median(_ratios(taken[name], our_layers)), 3),
                "goal": case.goal if name == "crnn" else None,
            }
        )
    return rows


def _ratios(own: list[float], other: list[float]) -> list[float]:
    return [a / b for a, b in zip(own, other, strict=True)]


def run(*, quick: bool, rounds: int, threads: int) -> dict[str, Any]:
    """All ratios, as they are written."""
    set_threads(threads)
    rows = [row for case in make_cases(quick) for row in measure(case, rounds)]
    return {
        "benchmark": "engine_overhead",
        "machine": describe_machine(threads),
        "versions": versions(),
        "settings": {"rounds": rounds, "batch_size": BATCH, "frames": FRAMES, "channels": CHANNELS, "quick": quick},
        "rows": rows,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two epochs, one round: does it run?")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "engine_overhead.json")
    asked = parser.parse_args(arguments)
    results = run(quick=asked.quick, rounds=1 if asked.quick else asked.rounds, threads=asked.threads)
    for row in results["rows"]:
        goal = f"  goal {row['goal']}" if row["goal"] else ""
        print(
            f"{row['network']:12s} {row['way']:38s} {row['ratio']:6.2f}  [{row['low']:.2f}, {row['high']:.2f}]"
            f"  quietest {row['ratio_of_quietest']:.2f}{goal}"
        )
    write_results(asked.out, results)


if __name__ == "__main__":
    main()
