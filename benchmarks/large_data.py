"""Memory of training on folders of audio far larger than it: sparse files of silence and noise, one epoch, peak of RSS.

    python benchmarks/large_data.py [--gigabytes 50] [--quick]

Files of a minute at 16 kHz, 16 bits: a second of noise, then zeros that take no place on the disk. All of them are
decoded as any others are. A small network learns them whole, in batches of four, in a process of
its own; once on a tenth of the data and once on all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from record import RESULTS, describe_machine, versions, write_results

RATE, SECONDS = 16_000, 60
HEADER = 44
FILE_BYTES = HEADER + 2 * RATE * SECONDS
GOAL = 2.0
"""Gigabytes."""
TRAIN = "--train"


def make(folder: Path, count: int) -> None:
    """`count` sparse files of two classes."""
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        noise = (rng.normal(size=RATE) * (3000 if i % 2 else 300)).clip(-32768, 32767).astype("<i2")
        with (place / f"{i:06d}.wav").open("wb") as file:
            file.write(_header(2 * RATE * SECONDS) + noise.tobytes())
            file.truncate(FILE_BYTES)


def _header(size: int) -> bytes:
    """Of a wav file with `size` bytes of 16-bit samples (Microsoft, RIFF, 1991)."""
    words = np.array([16, 1 | 1 << 16, RATE, 2 * RATE, 2 | 16 << 16], "<u4").tobytes()
    return (
        b"RIFF"
        + np.array([36 + size], "<u4").tobytes()
        + b"WAVEfmt "
        + words
        + b"data"
        + np.array([size], "<u4").tobytes()
    )


def train(folder: Path) -> None:
    """What is started as a process of its own: one epoch; prints peak memory and seconds."""
    import torch

    import crnn
    from crnn.models.network import Network
    from crnn.models.spec import spec_from_plain
    from crnn.tasks.classify import Classify, ClassifyConfig
    from crnn.training.config import TrainConfig
    from crnn.training.loop import fit

    data = crnn.read(folder)
    mels = {"type": "log_mel", "sample_rate": RATE, "num_mels": 16, "hop_seconds": 0.1, "window_seconds": 0.1}
    layers = [mels, {"type": "channel_norm"}, {"type": "recurrent", "hidden_size": 8, "cell": "gru"}]
    torch.manual_seed(0)
    network = Network(spec_from_plain({"layers": layers, "summary": {"type": "mean"}}), features=(1,), outputs=2)
    task = Classify.from_targets(data.targets, ClassifyConfig())
    begin = time.monotonic()
    history = fit(network, task, data, None, TrainConfig(epochs=1, batch_size=4, threads=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {"gigabytes": round(len(data) * FILE_BYTES / 1e9, 2), "files": len(data), "peak_gigabytes": round(peak, 3)}
    print(json.dumps({**found, "seconds": round(time.monotonic() - begin), "loss": history.records[-1].train_loss}))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=50)
    parser.add_argument("--quick", action="store_true", help="0.02 GB: does it run?")
    parser.add_argument(TRAIN, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "large_data.json")
    options = parser.parse_args(arguments)
    if options.train is not None:
        train(options.train)
        return
    size = 0.02 if options.quick else options.gigabytes
    rows = []
    for share in (0.1, 1.0):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), max(4, round(share * size * 1e9 / FILE_BYTES)))
            on_disk = sum(512 * path.stat().st_blocks for path in Path(folder).rglob("*.wav")) / 1e9
            command = [sys.executable, str(Path(__file__).resolve()), TRAIN, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
            rows.append({**json.loads(done.stdout.splitlines()[-1]), "gigabytes_on_disk": round(on_disk, 3)})
            print(rows[-1], flush=True)
    results = {
        "benchmark": "large_data",
        "goal": GOAL,
        "machine": describe_machine(1),
        "versions": versions(),
        "rows": rows,
    }
    write_results(options.out, results)


if __name__ == "__main__":
    main()
