"""When a cell for long sequences pays: score, CPU time and the cost of a stream for every recurrent cell.

    python benchmarks/cells.py [--tasks adding_1000,MNIST-1D] [--quick]

Two public sets with the `default` preset, in which only the cell is swapped, and three tasks that are about memory
alone, with two layers of 64 units and nothing before them:

permuted: MNIST-1D, its 40 values in one fixed random order, one a step; official split.
adding_1000, adding_5000: the sum of the two marked ones of as many random numbers (Hochreiter & Schmidhuber 1997), new
sequences in every step, 400 others to test on; to predict the mean always has an error of 0.167.

Gated cells of the memory tasks begin with a forget bias of 5 in one row and with their usual one in another. Scores are
of the last step; nothing is chosen on a test side. Every result is written as soon as it is there, and known ones are
not computed again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import MISSING, RESULTS, describe_machine, find_data, read_results, set_threads, update_results, versions
from sets import load_archive, load_generated, load_mnist1d
from torch import Tensor
from torch.nn import functional as F

from crnn.config import to_plain
from crnn.data.dataset import Dataset
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.recurrent import FORGETTING
from crnn.program.lower import lower
from crnn.run import fit_plan, make_plan
from crnn.sequences import Sequences
from crnn.streaming.engine import NativeEngine
from crnn.tasks.regress import Regress, RegressConfig

CELLS = ("lstm", "gru", "rnn", "mingru", "minlstm", "qrnn", "lru", "rg_lru")
EXPERIMENTAL = ("lru", "rg_lru")
REMEMBER = 5.0
"""The other forget bias."""
HIDDEN, LAYERS = 64, 2
Batches = Iterator[tuple[Tensor, Tensor]]
"""x (batch, time, channels) and targets, a step after another."""


@dataclass(frozen=True)
class Memory:
    """A task about memory."""

    frames: int
    channels: int
    outputs: int
    steps: int
    batches: Callable[[int, int], Batches]
    """(seed, batch size) -> training."""
    test: Callable[[], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]


def adding(frames: int, steps: int) -> Memory:
    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        values = torch.rand(count, frames, generator=generator)
        first = torch.randint(frames // 2, (count,), generator=generator)
        second = torch.randint(frames // 2, frames, (count,), generator=generator)
        marks = torch.zeros(count, frames)
        marks[torch.arange(count), first] = marks[torch.arange(count), second] = 1
        return torch.stack([values, marks], 2), (values * marks).sum(1, keepdim=True)

    def batches(seed: int, size: int) -> Batches:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield draw(size, generator)

    def error(outputs: Tensor, targets: Tensor) -> float:
        return float((outputs - targets).square().mean())

    return Memory(
        *(frames, 2, 1, steps, batches),
        test=lambda: draw(400, torch.Generator().manual_seed(1_000_000)),
        loss=lambda outputs, targets: F.mse_loss(outputs, targets),
        score=error,
    )


def permuted(root: Path, steps: int) -> Memory:
    with np.load(root / "mnist1d" / "mnist1d.npz") as arrays:
        order = np.random.default_rng(0).permutation(arrays["x"].shape[1])
        sides = [torch.tensor(arrays[name].reshape(-1, len(order))[:, order, None]).float() for name in ("x", "x_test")]
        labels = [torch.tensor(arrays[name]).long() for name in ("y", "y_test")]

    def batches(seed: int, size: int) -> Batches:
        generator = torch.Generator().manual_seed(seed)
        while True:
            for chosen in torch.randperm(len(labels[0]), generator=generator).split(size):
                yield sides[0][chosen], labels[0][chosen]

    return Memory(
        *(len(order), 1, 10, steps, batches),
        test=lambda: (sides[1], labels[1]),
        loss=F.cross_entropy,
        score=lambda outputs, targets: float((outputs.argmax(1) == targets).float().mean()),
    )


def make_network(cell: str, task: Memory, forget_bias: float | None) -> Network:
    layer = {"type": "recurrent", "cell": cell, "hidden_size": HIDDEN, "num_layers": LAYERS, "forget_bias": forget_bias}
    spec = {"layers": [layer], "summary": {"type": "last"}, "head": {}}
    return Network(spec_from_plain(spec), features=(task.channels,), outputs=task.outputs)


def remember(task: Memory, cell: str, forget_bias: float | None, steps: int) -> dict[str, Any]:
    """Train on a memory task, and score it."""
    torch.manual_seed(0)
    network = make_network(cell, task, forget_bias)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    start = time.process_time()
    for _, (x, targets) in zip(range(steps), task.batches(0, 32), strict=False):
        loss = task.loss(network(whole(x)), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - start
    x, targets = task.test()
    with torch.no_grad():
        outputs = torch.cat([network.eval()(whole(part)) for part in x.split(50)])
    return {
        "score": round(task.score(outputs, targets), 5),
        "cpu_seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
    }


def whole(x: Tensor) -> Sequences:
    return Sequences(x, torch.full((len(x),), x.shape[1]))


def swap(spec: Any, cell: str) -> Any:
    """A network's spec with another cell in all of its recurrent layers."""
    if isinstance(spec, dict):
        swapped = {key: swap(value, cell) for key, value in spec.items()}
        return {**swapped, "cell": cell} if spec.get("type") == "recurrent" else swapped
    return [swap(each, cell) for each in spec] if isinstance(spec, list) else spec


def recipe(data: Dataset, cell: str, *, quick: bool) -> dict[str, Any]:
    """The default recipe with another cell, on a set with an official split."""
    asked: dict[str, Any] = {"train": {"epochs": 2}} if quick else {}
    options = to_plain(make_plan(data, asked, task=None, preset="default", seed=0).config)
    plan = make_plan(data, {**asked, "model": swap(options["model"], cell)}, task=None, preset="default", seed=0)
    start = time.process_time()
    model, history = fit_plan(plan)
    seconds = time.process_time() - start
    test = plan.parts.test
    assert test is not None, "both sets have one"
    targets = plan.task.encode(test.targets, [example.where for example in test])
    score = plan.task.scores(model.outputs(test), targets).metrics["accuracy"]
    return {
        "score": round(score, 5),
        "cpu_seconds": round(seconds, 1),
        "parameters": model.network.num_parameters,
        "steps": history.steps,
    }


def stream(cell: str, *, quick: bool) -> dict[str, Any]:
    """Microseconds of CPU a frame, one frame at a time, in the native engine; without one, in torch."""
    torch.manual_seed(0)
    network = make_network(cell, adding(10, 1), None).eval()
    task = Regress.from_targets([0.0, 1.0], RegressConfig())
    frames, rounds = (50 if quick else 2000), 3 if quick else 7
    push: Callable[[], object]
    if cell in EXPERIMENTAL:
        frames //= 10
        x, state = torch.zeros(1, 1, 2), network.start(1)
        push = lambda: network.push(x, state)  # noqa: E731
    else:
        engine, frame = NativeEngine(lower(network, task)), np.zeros((1, 2), np.float32)
        native = engine.start()
        push = lambda: engine.push(native, frame)  # noqa: E731
    seconds = []
    for _ in range(rounds):
        begin = time.process_time()
        with torch.no_grad():
            for _ in range(frames):
                push()
        seconds.append((time.process_time() - begin) / frames)
    by = "torch" if cell in EXPERIMENTAL else "engine"
    return {"microseconds": round(1e6 * float(np.median(seconds)), 2), "by": by}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", help="names, separated by commas; all when not given")
    parser.add_argument("--cells", help="names, separated by commas; all when not given")
    parser.add_argument("--quick", action="store_true", help="a few steps on short sequences: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "cells.json")
    options = parser.parse_args(arguments)
    set_threads(1)
    for name, run in runs(options.quick).items():
        if options.tasks and name not in options.tasks.split(","):
            continue
        for cell in options.cells.split(",") if options.cells else CELLS:
            for key, result in run(cell, read_results(options.out).get("tasks", {}).get(name, {})):
                save(options.out, name, key, result)
                print(name, key, result, flush=True)


Run = Callable[[str, dict[str, Any]], Iterator[tuple[str, dict[str, Any]]]]
"""(cell, known results) -> new ones by their key."""


def runs(quick: bool) -> dict[str, Run]:
    """Every task by its name."""
    root = find_data()
    if root is None and not quick:
        raise SystemExit(f"skipped: {MISSING}")

    def of_set(load: Callable[[Path, int], Dataset]) -> Run:
        def run(cell: str, known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
            if cell not in known:
                yield cell, recipe(load(root or Path(), 0), cell, quick=quick)

        return run

    def of_memory(task: Memory) -> Run:
        def run(cell: str, known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
            for bias in (None, REMEMBER) if cell in FORGETTING else (None,):
                key = cell if bias is None else f"{cell}, forget bias {bias:g}"
                if key not in known:
                    yield key, remember(task, cell, bias, task.steps)

        return run

    def of_stream(cell: str, known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        if cell not in known:
            yield cell, stream(cell, quick=quick)

    if quick:
        return {"set": of_set(load_generated), "adding": of_memory(adding(40, 3)), "stream": of_stream}
    assert root is not None
    return {
        "stream": of_stream,
        "permuted": of_memory(permuted(root, 2000)),
        "adding_1000": of_memory(adding(1000, 600)),
        "adding_5000": of_memory(adding(5000, 200)),
        "JapaneseVowels": of_set(load_archive("ucr_uea", "JapaneseVowels")),
        "MNIST-1D": of_set(load_mnist1d),
    }


def save(path: Path, name: str, key: str, result: dict[str, Any]) -> None:
    """Put one result into the file, beside whatever other processes have put there."""

    def change(results: dict[str, Any]) -> None:
        results.update(benchmark="cells", machine=describe_machine(threads=1), versions=versions())
        results.setdefault("tasks", {}).setdefault(name, {})[key] = result

    update_results(path, change)


if __name__ == "__main__":
    main()
