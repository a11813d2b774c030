"""The same network on the same series, trained by others and by crnn: CPU time for equally many epochs.

    python benchmarks/rival_trainers.py --rivals PYTHON [--rounds 3]

PYTHON is an interpreter of an environment that has tsai and speechbrain, whose needs and ours do not go together. The
network is one LSTM and a linear layer on its last frame; the series are noise of unequal length. tsai pads everything
to the longest; SpeechBrain's layer is given lengths, and packs; ours is exact.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
HIDDEN, CHANNELS, BATCH, EPOCHS, COUNT = 128, 8, 32, 3, 512
WORKER = "--worker"


def series() -> tuple[list[Any], list[int]]:
    """Noise of 40 to 400 frames (lognormal, sigma 0.6), two classes by their mean."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.8, 0.6, COUNT), 40, 400).astype(int)
    labels = [i % 2 for i in range(COUNT)]
    return [
        rng.normal(0.2 * y, 1, (n, CHANNELS)).astype(np.float32) for n, y in zip(lengths, labels, strict=True)
    ], labels


def crnn() -> float:
    """By crnn's own loop, in batches by frames."""
    from crnn.data.dataset import Dataset, array_example
    from crnn.models.network import Network
    from crnn.models.spec import spec_from_plain
    from crnn.tasks.classify import Classify, ClassifyConfig
    from crnn.training.config import TrainConfig
    from crnn.training.loop import fit

    x, y = series()
    examples = [
        array_example(f"{i}", f"{i}", a, target="ab"[label]) for i, (a, label) in enumerate(zip(x, y, strict=True))
    ]
    data = Dataset(tuple(examples), "series", tuple(f"c{i}" for i in range(CHANNELS)), None, "made")
    spec = spec_from_plain({"layers": [{"type": "recurrent", "hidden_size": HIDDEN}], "summary": {"type": "last"}})
    network = Network(spec, features=(CHANNELS,), outputs=2)
    task = Classify.from_targets(data.targets, ClassifyConfig())
    mean = statistics.fmean(len(a) for a in x)
    config = TrainConfig(
        epochs=EPOCHS, batch_frames=round(BATCH * mean), optimizer="adam", schedule="constant", threads=1
    )
    begin = time.process_time()
    fit(network, task, data, None, config)
    return time.process_time() - begin


def tsai() -> float:
    """By tsai's TSClassifier, on series padded to the longest."""
    from tsai.models.RNN import LSTM
    from tsai.tslearner import TSClassifier

    x, y = series()
    padded = np.zeros((COUNT, CHANNELS, max(map(len, x))), np.float32)
    for row, a in zip(padded, x, strict=True):
        row[:, : len(a)] = a.T
    options = {"arch_config": {"hidden_size": HIDDEN}, "bs": BATCH, "num_workers": 0}
    learner = TSClassifier(padded, np.array(y), splits=(list(range(COUNT)), None), arch=LSTM, **options)
    with learner.no_bar(), learner.no_logging():
        begin = time.process_time()
        learner.fit(EPOCHS, 1e-3)
        return time.process_time() - begin


def speechbrain() -> float:
    """SpeechBrain's LSTM, which packs by relative lengths, in a plain loop of shuffled batches."""
    import torch
    from speechbrain.nnet.RNN import LSTM
    from torch.nn import functional
    from torch.nn.utils.rnn import pad_sequence

    x, y = series()
    rnn, head = LSTM(hidden_size=HIDDEN, input_size=CHANNELS), torch.nn.Linear(HIDDEN, 2)
    optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()], lr=1e-3)
    rows, targets = [torch.from_numpy(a) for a in x], torch.tensor(y)
    lengths = torch.tensor([len(a) for a in x])
    begin = time.process_time()
    for _ in range(EPOCHS):
        for indices in torch.randperm(COUNT).split(BATCH):
            batch, own = pad_sequence([rows[i] for i in indices.tolist()], batch_first=True), lengths[indices]
            out, _ = rnn(batch, lengths=own / own.max())
            last = out[torch.arange(len(own)), own - 1]
            optimizer.zero_grad()
            functional.cross_entropy(head(last), targets[indices]).backward()
            optimizer.step()
    return time.process_time() - begin


WAYS: dict[str, Callable[[], float]] = {"crnn": crnn, "tsai": tsai, "speechbrain": speechbrain}


def seconds_of(name: str, python: str) -> tuple[float, dict[str, str]]:
    """CPU seconds of one way in a process of its own, and versions."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, str(HERE), WORKER, name], check=True, capture_output=True, text=True, env=environment, cwd=folder
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["versions"]


def work(name: str) -> None:
    """What a process of its own does."""
    import importlib.metadata

    import torch

    torch.set_num_threads(1)
    seconds = WAYS[name]()
    known = {package: importlib.metadata.version(package) for package in ("torch", *({name} - {"crnn"}))}
    print(json.dumps({"seconds": seconds, "versions": known}))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rivals", help="an interpreter that has tsai and speechbrain")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(WORKER, choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "rival_trainers.json")
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker)
        return
    if not options.rivals:
        print("skipped: --rivals names no interpreter with tsai and speechbrain")
        return
    from record import describe_machine, versions, write_results

    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    known: dict[str, dict[str, str]] = {}
    for _ in range(options.rounds):
        for name in WAYS:
            try:
                spent, known[name] = seconds_of(name, sys.executable if name == "crnn" else options.rivals)
            except subprocess.CalledProcessError as error:
                print(f"{name}: failed: {error.stderr.strip().splitlines()[-1]}")
                continue
            seconds[name].append(spent)
            print(name, round(spent, 2), flush=True)
    rows = [
        {"against": name, "versions": known[name], "ratio": round(statistics.median(
            a / b for a, b in zip(seconds["crnn"], spent, strict=False)), 3)}
        for name, spent in seconds.items() if name != "crnn" and spent
    ]  # fmt: skip
    settings = {"rounds": options.rounds, "epochs": EPOCHS, "batch_size": BATCH, "hidden_size": HIDDEN, "series": COUNT}
    results = {"benchmark": "rival_trainers", "machine": describe_machine(1), "versions": versions(), "rows": rows}
    write_results(options.out, {**results, "settings": settings})


if __name__ == "__main__":
    main()
