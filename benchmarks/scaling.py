"""Two processes against one: the same global batch, the same losses, and how many sequences a second.

    python benchmarks/scaling.py [--rounds 3] [--quick]

Each is started by torchrun with one thread a process, on generated series; the rounds take turns. The ratio of seconds
an epoch means something on a machine with two cores that do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import RESULTS, describe_machine, versions, write_results

GOAL = 1.6
"""Throughput of two processes, in that of one."""
TRAIN = "--train"


def train(out: Path, quick: bool) -> None:
    """What torchrun starts: a few epochs; the first process writes losses and seconds."""
    import numpy as np
    import torch

    from crnn.data.dataset import Dataset, array_example
    from crnn.models.network import Network
    from crnn.models.spec import spec_from_plain
    from crnn.tasks.classify import Classify, ClassifyConfig
    from crnn.training.config import TrainConfig
    from crnn.training.loop import fit
    from crnn.training.ranks import this_place

    rng = np.random.default_rng(0)
    count, frames = (64, 40) if quick else (512, 200)
    arrays = [rng.normal(0.1 * (i % 2), 1, (int(rng.integers(frames // 2, frames)), 8)) for i in range(count)]
    examples = [array_example(f"{i}", f"{i}", x.astype(np.float32), target="ab"[i % 2]) for i, x in enumerate(arrays)]
    data = Dataset(tuple(examples), "series", tuple("abcdefgh"), None, "made")
    layers = [
        {"type": "conv", "channels": 64, "kernel_size": 5},
        {"type": "norm"},
        {"type": "activation"},
        {"type": "recurrent", "hidden_size": 128},
    ]
    torch.manual_seed(0)
    network = Network(spec_from_plain({"layers": layers, "summary": {"type": "mean"}}), features=(8,), outputs=2)
    task = Classify.from_targets(data.targets, ClassifyConfig())
    history = fit(network, task, data, None, TrainConfig(epochs=3, batch_size=32, threads=1, learning_rate=1e-3))
    if this_place().rank == 0:
        found = [{"loss": record.train_loss, "seconds": record.seconds} for record in history.records]
        out.write_text(json.dumps(found))


def start(processes: int, quick: bool) -> list[dict[str, float]]:
    """Losses and seconds of the epochs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += [str(Path(__file__).resolve()), TRAIN, "--out", str(out), *(["--quick"] if quick else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL, timeout=1800)
        return json.loads(out.read_text())  # type: ignore[no-any-return]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of little data: does it run?")
    parser.add_argument(TRAIN, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    options = parser.parse_args(arguments)
    if options.train:
        train(options.out, options.quick)
        return
    rows: list[dict[str, Any]] = []
    for _ in range(1 if options.quick else options.rounds):
        one, two = start(1, options.quick), start(2, options.quick)
        difference = max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(one, two, strict=True))
        seconds = [statistics.median(epoch["seconds"] for epoch in run[1:]) for run in (one, two)]
        rows.append({"throughput": round(seconds[0] / seconds[1], 3), "largest_difference": difference})
        print(rows[-1], flush=True)
    results = {
        "benchmark": "scaling",
        "goal": GOAL,
        "machine": describe_machine(2),
        "versions": versions(),
        "load": os.getloadavg()[0],
        "throughput": statistics.median(row["throughput"] for row in rows),
        "largest_difference": max(row["largest_difference"] for row in rows),
        "rows": rows,
    }
    write_results(options.out, results)


if __name__ == "__main__":
    main()
