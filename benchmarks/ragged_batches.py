"""Sequences of unequal length: how much of a batch is padding, what exact lengths cost, and a whole training.

    python benchmarks/ragged_batches.py [--rounds 9] [--quick] [--masking-only]

Three parts. Padding: shares of padded frames at lognormal lengths. Masking: a training step of the whole default
network on a batch with its true lengths, against the same batch with every frame computed as data. Training: the
tutorial network (convolution, batch norm, ReLU, pooling, LSTM, a linear layer) on log-mels of spoken digits, until it
has the lowest loss on held-out recordings that a plain PyTorch script ever has with the same network, nn.LSTM, a
DataLoader and zero padding.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from exact_lengths import Tutorial
from record import MISSING, RESULTS, describe_machine, find_data, set_threads, versions, write_results
from sets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from crnn.data.batch import Batches
from crnn.data.dataset import Dataset, array_example
from crnn.data.split import SplitConfig, split
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.presets.registry import find_preset
from crnn.run import summarise
from crnn.sequences import Sequences
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training.config import TrainConfig
from crnn.training.loop import fit
from crnn.training.progress import Update

SIGMA = 0.6
"""Of the logarithm of the lengths: about that of spoken words and sentences."""
POOL = 8
BATCH = 32
RATE = 8000
GOALS = {"padding": 0.15, "masking": 1.10, "training": 0.5}
MELS = [
    {"type": "log_mel", "sample_rate": RATE, "num_mels": 48, "window_seconds": 0.032, "hop_seconds": 0.01},
    {"type": "channel_norm"},
]
LAYERS = [
    {"type": "conv", "channels": 64, "kernel_size": 3},
    {"type": "norm"},
    {"type": "activation"},
    {"type": "pool", "size": 2},
    {"type": "recurrent", "hidden_size": 128},
]


def made(lengths: list[int], channels: int) -> Dataset:
    """Noise of these lengths."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((n, channels)).astype(np.float32) for n in lengths]
    examples = [array_example(f"{i}", f"{i}", x, target="ab"[i % 2]) for i, x in enumerate(arrays)]
    return Dataset(tuple(examples), "series", tuple(f"c{i}" for i in range(channels)), None, "made")


def padding(count: int) -> list[dict[str, Any]]:
    """Padded frames as a share of all, in random batches, in pools by number, in pools by frames."""
    lengths = [max(1, int(n)) for n in np.random.default_rng(0).lognormal(5, SIGMA, count)]
    data, mean, rows = made(lengths, 1), statistics.fmean(lengths), []
    for size in (8, 16, 32, 64):
        ways = {
            "at random": Batches(data, size, shuffle=True, seed=0, pool=1),
            "by number": Batches(data, size, shuffle=True, seed=0, pool=POOL),
            "by frames": Batches(data, shuffle=True, seed=0, pool=POOL, batch_frames=round(size * mean)),
        }
        waste = {name: statistics.fmean(way.padding_waste(n) for n in range(3)) for name, way in ways.items()}
        rows.append({"batch": size, **waste})
    return rows


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each way, round by round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            if turn:
                seconds[name].append(time.process_time() - begin)
    return seconds


def ratio_of(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median and middle half of the ratios of the rounds."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {"ratio": round(statistics.median(ratios), 3), "low": round(low, 3), "high": round(high, 3)}


def masking(name: str, data: Dataset, rounds: int) -> dict[str, Any]:
    """A training step of the default network on one batch: true lengths against all frames as data."""
    task = Classify.from_targets(data.targets, ClassifyConfig())
    recipe = find_preset("default")(summarise(data, task))
    torch.manual_seed(0)
    network = Network(spec_from_plain(recipe["model"]), features=data.features, outputs=task.num_outputs).train()
    batches = list(Batches(data, BATCH, shuffle=True, seed=0, pool=POOL).epoch(0))
    network.fit_statistics([x for x, _ in batches[:2]])
    x = sorted((x for x, _ in batches), key=_waste)[len(batches) // 2]  # the one in the middle by padding
    whole = Sequences(x.data, torch.full_like(x.lengths, x.data.shape[1]))

    def step(batch: Sequences) -> None:
        network.zero_grad()
        network(batch).square().mean().backward()

    seconds = timed({"exact": lambda: step(x), "whole": lambda: step(whole)}, rounds)
    return {"data": name, "padded_share": round(_waste(x), 3), **ratio_of(seconds["exact"], seconds["whole"])}


def _waste(x: Sequences) -> float:
    return 1 - int(x.lengths.sum()) / (len(x.lengths) * x.data.shape[1])


class Part(NamedTuple):
    """One side of the recordings as log-mels."""

    data: Dataset
    frames: list[Tensor]
    targets: Tensor


def log_mels(data: Dataset, task: Classify) -> Part:
    """Computed once for both ways, normalised by the statistics of these recordings."""
    network = Network(spec_from_plain({"layers": MELS, "summary": {"type": "mean"}}), features=(1,), outputs=2)
    sequences = [torch.from_numpy(example.load()) for example in data]
    ragged = [Sequences(x[None], torch.tensor([len(x)])) for x in sequences]
    network.body.fit_statistics(ragged[:500])
    with torch.no_grad():
        frames = [network.body(x).data[0] for x in ragged]
    examples = [
        array_example(example.id, example.where, x.numpy(), target=example.target)
        for example, x in zip(data, frames, strict=True)
    ]
    made = replace(
        data, examples=tuple(examples), kind="series", channel_names=tuple(f"m{i}" for i in range(48)), in_memory=True
    )
    return Part(made, frames, task.encode(data.targets, [example.where for example in data]))


class Curve(NamedTuple):
    """Loss on held-out recordings after each epoch, and CPU seconds until then."""

    losses: list[float]
    seconds: list[float]

    def until(self, loss: float) -> float:
        """Seconds until the loss is as low as this; infinite where it never is."""
        return next((s for one, s in zip(self.losses, self.seconds, strict=True) if one <= loss), math.inf)


def plain_script(train: Part, held_out: Part, *, epochs: int, seed: int) -> Curve:
    """As tutorials have it: a DataLoader that shuffles and pads with zeros, Adam, the last column of the output."""
    torch.manual_seed(seed)
    network = Tutorial(48, 10)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def collate(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return pad_sequence([x for x, _ in rows], batch_first=True), torch.stack([y for _, y in rows])

    loaders = [
        DataLoader(list(zip(part.frames, part.targets, strict=True)), BATCH, shuffle=shuffled, collate_fn=collate)  # type: ignore[arg-type]
        for part, shuffled in ((train, True), (held_out, False))
    ]
    losses, seconds, begin = [], [], time.process_time()
    for _ in range(epochs):
        network.train()
        for x, y in loaders[0]:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            total = sum(float(F.cross_entropy(network(x), y, reduction="sum")) for x, y in loaders[1])
        losses.append(total / len(held_out.targets))
        seconds.append(time.process_time() - begin)
    return Curve(losses, seconds)


def ours(train: Part, held_out: Part, task: Classify, config: TrainConfig) -> Curve:
    """The same layers, trained by crnn."""
    torch.manual_seed(config.seed)
    spec = spec_from_plain({"layers": LAYERS, "summary": {"type": "last"}})
    network: nn.Module = Network(spec, features=(48,), outputs=10)
    curve, begin = Curve([], []), time.process_time()

    def note(update: Update) -> None:
        if update.record is not None and update.record.validation_loss is not None:
            curve.losses.append(update.record.validation_loss)
            curve.seconds.append(time.process_time() - begin)

    fit(network, task, train.data, held_out.data, config, progress=note)
    return curve


def training(data: Dataset, *, epochs: int, seeds: list[int]) -> list[dict[str, Any]]:
    """CPU seconds to the lowest loss of the plain script, for each seed; the test recordings are not touched."""
    parts = split(data, SplitConfig(validation=0.2), seed=0)
    assert parts.validation is not None
    task = Classify.from_targets(parts.train.targets, ClassifyConfig())
    train, held_out = log_mels(parts.train, task), log_mels(parts.validation, task)
    mean = statistics.fmean(len(x) for x in train.frames)
    rows = []
    for seed in seeds:
        theirs = plain_script(train, held_out, epochs=epochs, seed=seed)
        goal = min(theirs.losses)
        row: dict[str, Any] = {"seed": seed, "loss": round(goal, 4), "plain_seconds": round(theirs.until(goal), 2)}
        for name, batch in (("by_number", {"batch_size": BATCH}), ("by_frames", {"batch_frames": round(BATCH * mean)})):
            config = TrainConfig(
                epochs=max(2, epochs // 2), learning_rate=4e-3, weight_decay=0.01, evaluate_every=1, seed=seed, **batch
            )
            curve = ours(train, held_out, task, config)
            row[name] = {"seconds": round(curve.until(goal), 2), "loss": round(min(curve.losses), 4)}
        rows.append(row)
        print(row, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=20, help="of the plain script")
    parser.add_argument("--quick", action="store_true", help="small generated data: does it run?")
    parser.add_argument("--masking-only", action="store_true", help="the other parts stay as they are in --out")
    parser.add_argument("--out", type=Path, default=RESULTS / "ragged_batches.json")
    options = parser.parse_args(arguments)
    set_threads(1)
    root = find_data()
    rounds = 3 if options.quick else options.rounds
    results: dict[str, Any] = {"benchmark": "ragged_batches", "goals": GOALS}
    if options.masking_only:
        results |= {part: json.loads(options.out.read_text())[part] for part in ("padding", "training")}
    else:
        results["padding"] = padding(400 if options.quick else 8000)
    rng = np.random.default_rng(1)
    lengths = [max(8, int(n)) for n in rng.lognormal(3 if options.quick else 5, SIGMA, 64 if options.quick else 512)]
    results["masking"] = [masking(f"noise of 6 channels, lognormal lengths, sigma {SIGMA}", made(lengths, 6), rounds)]
    if not options.quick and root is not None:
        digits = load_digits(root, 0)
        sides = digits.subset([i for i, example in enumerate(digits) if example.split == "train"])
        results["masking"].append(masking("spoken digits", sides.subset(list(range(0, len(sides), 4))), rounds))
        if not options.masking_only:
            results["training"] = training(
                sides, epochs=options.epochs, seeds=[int(s) for s in options.seeds.split(",")]
            )
    elif not options.quick:
        raise SystemExit(f"skipped: {MISSING}")
    for row in (*results["padding"], *results["masking"]):
        print(row)
    results |= {
        "data": "Free Spoken Digit Dataset, takes 5 to 49; a fifth of them held out",
        "machine": describe_machine(1),
        "versions": versions(),
        "settings": {"rounds": rounds, "batch_size": BATCH, "pool": POOL, "sigma": SIGMA},
    }
    write_results(options.out, results)


if __name__ == "__main__":
    main()
