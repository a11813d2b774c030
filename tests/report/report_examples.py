"""Small data, networks and evaluations that the tests of the report share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from crnn.data.dataset import Dataset, Target, array_example
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain, to_yaml
from crnn.report.evaluation import Evaluation, RunFacts, class_counts, evaluate
from crnn.report.floor import FloorConfig
from crnn.tasks.regress import Regress
from crnn.tasks.task import Task

SMALL = FloorConfig(num_kernels=40)
NASTY = "<script>alert('$x_1$')</script>"
"""A label that is HTML and that matplotlib would read as a formula."""


def make_series(count: int, target: Callable[[float], Target], *, seed: int = 0, name: str = "e") -> Dataset:
    """Noisy waves of different lengths with one gap; what is to be found is their frequency, 0.5 to 2."""
    rng = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        frequency, length = rng.uniform(0.5, 2.0), int(rng.integers(12, 40))
        time = np.arange(length) / 6
        data = np.stack([np.sin(frequency * time * 3), np.cos(frequency * time * 3)], axis=1)
        data = (data + rng.normal(0, 0.1, data.shape)).astype(np.float32)
        examples.append(array_example(f"{name}{i}", f"{name}.csv row {i}", data, target=target(frequency)))
    return Dataset(tuple(examples), "series", ("left", "right"), 10.0, f"{name}.csv")


def make_network(data: Dataset, task: Task) -> Network:
    torch.manual_seed(0)
    layers = [{"type": "conv", "channels": 6, "kernel_size": 3}, {"type": "recurrent", "hidden_size": 6}]
    spec = spec_from_plain({"layers": layers, "summary": {"type": "last"}})
    return Network(spec, features=data.features, outputs=task.num_outputs)


def train_briefly(network: Network, task: Task, data: Dataset) -> None:
    from crnn.data.batch import Batches

    targets = task.encode(data.targets, [e.where for e in data])
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for epoch in range(3):
        for x, indices in Batches(data, 16, shuffle=True, seed=0).epoch(epoch):
            optimiser.zero_grad()
            task.loss(network(x), targets[indices]).backward()
            optimiser.step()


def measure(task_class: type[Task], config: object, target: Callable[[float], Target]) -> Evaluation:
    train, test = make_series(60, target, seed=1, name="train"), make_series(50, target, seed=2, name="test")
    task = task_class.from_targets(train.targets, config)
    network = make_network(train, task)
    train_briefly(network, task, train)
    metrics = {task.primary: 0.5}
    facts = RunFacts(
        split_how="as the files say",
        counts={"train": 60, "test": 50},
        class_counts=class_counts({"train": train, "test": test}),
        spec=to_yaml(network.spec),
        settings={"epochs": 3},
        history=[
            {"epoch": i, "train_loss": 1 / i, "validation_loss": 2 / i, "metrics": metrics, "is_best": i == 2}
            for i in (1, 2, 3)
        ],
        seed=0,
    )
    temperature = None if task_class is Regress else 1.5
    return evaluate(
        network, task, test, train=train, temperature=temperature, floor_settings=SMALL, resamples=30, facts=facts
    )
