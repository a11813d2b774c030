"""A small task that answers for every frame, for tests of what is common to all of them."""

import numpy as np
import torch
from torch.nn import functional as F

from crnn.config import config, to_plain
from crnn.data.annotation import StepLabels
from crnn.data.dataset import Dataset, Problem, array_example
from crnn.sequences import Ragged
from crnn.tasks.step_task import StepTask


@config
class SignsConfig:
    """No options."""


class Signs(StepTask):
    """The label in the middle of what each output frame stands for."""

    name = "signs"
    Config = SignsConfig
    activation = "softmax"
    primary = "accuracy"
    higher_is_better = True

    def __init__(self, labels, config, bias=0.0):
        self.labels, self.config, self.bias = list(labels), config, bias

    @classmethod
    def from_targets(cls, targets, config):
        return cls(targets[0].names, config)

    @classmethod
    def from_state(cls, state):
        return cls(state["labels"], SignsConfig(), state["bias"])

    def state(self):
        return {"labels": self.labels, "config": to_plain(self.config), "bias": self.bias}

    @property
    def num_outputs(self):
        return len(self.labels)

    def encode(self, targets, where, frames):
        rows = []
        for target, length in zip(targets, frames.out_lengths.tolist(), strict=True):
            rows.append(torch.from_numpy(target.codes[:: frames.stride][:length].astype(np.int64)))
        return Ragged.of(rows)

    def loss(self, outputs, targets):
        return F.cross_entropy(outputs.data[outputs.valid], targets.data[targets.valid])

    def weight(self, targets):
        return targets.lengths.sum().float()

    def count(self, outputs, targets, frames):
        true = self.encode(targets, [""] * len(targets), frames)
        return np.array([[float((o.argmax(1) == t).sum()), len(t)] for o, t in zip(outputs, true, strict=True)])

    def scores_of(self, total):
        return {"accuracy": float(total[0] / total[1])}

    def errors(self, counts):
        return 1 - counts[:, 0] / counts[:, 1]

    def predictions(self, outputs, frames):
        return [{"labels": [self.labels[i] for i in row.argmax(1).tolist()]} for row in outputs]

    def tune(self, outputs, targets, frames):
        self.bias = float(len(targets))

    def find_problems(self, targets, where, frames):
        short = zip(targets, where, frames.out_lengths.tolist(), strict=True)
        return [Problem(place, f"has {n} frames, expected 3") for target, place, n in short if n < 3]


def signs_data(count=40, seed=0, length=(12, 30)):
    """Series whose labels are the signs of their first channel."""
    random = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        x = random.normal(size=(int(random.integers(*length)), 2)).astype(np.float32)
        target = StepLabels((x[:, 0] > 0).astype(np.int16), ("below", "above"))
        examples.append(array_example(f"{seed}-{i}", f"row {i}", x, target=target))
    return Dataset(tuple(examples), "series", ("x", "y"), 100.0, "signs")


SIGNS_MODEL = {
    "layers": [
        {"type": "conv", "channels": 8, "kernel_size": 3},
        {"type": "activation"},
        {"type": "recurrent", "hidden_size": 8},
    ],
    "summary": None,
}
"""On top of a preset."""
