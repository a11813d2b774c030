"""What test_ranks starts by torchrun: OUT [EPOCHS_BEFORE_DEATH | other | frames]; trains a network, writes its numbers.

With "other" the processes have different data, with "frames" batches are by frames and long sequences cut.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from crnn.data.dataset import Dataset, array_example
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training.config import TrainConfig
from crnn.training.history import History
from crnn.training.loop import fit
from crnn.training.ranks import this_place, was_restarted

CONFIG = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, ema_decay=0.9, checkpoint_seconds=0, keep="best")
BY_FRAMES = replace(CONFIG, batch_size=None, batch_frames=40, max_frames=9)
LAYERS = [
    {"type": "channel_norm"},
    {"type": "conv", "channels": 6, "bias": False},  # before a norm its gradient is nothing but rounding
    {"type": "norm"},
    {"type": "activation"},
    {"type": "recurrent", "hidden_size": 5},
]


def dataset(count: int, seed: int) -> Dataset:
    """Two classes of different mean, lengths of 3 to 12 frames."""
    rng = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        label = i * i % 3 % 2
        data = rng.normal(loc=0.5 * label, size=(int(rng.integers(3, 13)), 2)).astype(np.float32)
        examples.append(array_example(f"{seed}-{i}", f"row {i}", data, target="ab"[label]))
    return Dataset(tuple(examples), "series", ("x", "y"), None, "made")


def train(
    out: Path | None, *, resume: bool = False, die_after: int = 0, config: TrainConfig = CONFIG, seed: int = 0
) -> tuple[History, Network]:
    """37 examples in batches of 7 and 8; the second process kills itself after this many epochs."""
    data = dataset(37, seed)
    task = Classify.from_targets(data.targets, ClassifyConfig(class_weights="balanced"))
    torch.manual_seed(0)
    spec = spec_from_plain({"layers": LAYERS, "summary": {"type": "mean"}})
    network = Network(spec, features=(2,), outputs=task.num_outputs)
    if die_after and this_place().rank == 1:
        passes = iter(range(10**6))

        def hook(*_: object) -> None:
            if network.training and next(passes) == 5 * die_after + 2:
                os.kill(os.getpid(), signal.SIGKILL)

        network.register_forward_hook(hook)
    return fit(network, task, data, dataset(11, 1), config, out=out, resume=resume), network


def result(history: History, network: Network) -> dict[str, object]:
    """Losses and weights as plain values."""
    return {
        "train": [record.train_loss for record in history.records],
        "validation": [record.validation_loss for record in history.records],
        "norms": [record.grad_norm for record in history.records],
        "padding": [record.padding for record in history.records],
        "weights": {name: tensor.tolist() for name, tensor in network.state_dict().items()},
    }


def main(out: Path, how: str) -> None:
    """Train, and write result.json from the first process."""
    restarted = was_restarted()
    if how == "frames":
        found = train(None, config=BY_FRAMES)
    elif how == "other":
        found = train(None, seed=this_place().rank)
    else:
        found = train(out, resume=restarted, die_after=0 if restarted else int(how))
    if this_place().rank == 0:
        text = json.dumps({**result(*found), "restarted": restarted, "size": this_place().size})
        (out / "result.json").write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "0")
