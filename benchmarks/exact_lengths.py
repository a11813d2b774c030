"""What padding does to the tutorial network, and what it does not do to ours with the same layers and training.

    python benchmarks/exact_lengths.py [--seeds 0,1,2,3,4] [--quick]

The network that everybody copies (convolution, batch norm, ReLU, pooling, LSTM, a linear layer on `x[:, -1]`) is
written by hand, trained on zero-padded JapaneseVowels, and scored on the same test series in four ways: padded in a
batch as in training, one by one without padding, padded to 64 and to 128 frames. Our `seed` preset starts from the
same weights and sees the same batches in the same order.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from record import MISSING, RESULTS, describe_machine, find_data, set_threads, versions, write_results
from sets import load_archive, load_generated
from torch import Tensor, nn
from torch.nn import functional as F

from crnn.data.dataset import Dataset
from crnn.models.network import Network
from crnn.run import RunPlan, make_plan
from crnn.sequences import Sequences, pad

BATCH = 32
RATE = 1e-3
ALONE = "one by one"


class Tutorial(nn.Module):
    """The tutorial network; it knows no lengths.

    Shape:
        x: (batch, time, channels), zero-padded; returns (batch, classes).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 64, 3, padding=1)
        self.norm = nn.BatchNorm1d(64)
        self.lstm = nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool1d(F.relu(self.norm(self.conv(x.transpose(1, 2)))), 2)  # (batch, channels, time)
        return self.head(self.lstm(y.transpose(1, 2))[0][:, -1])  # type: ignore[no-any-return]


class Part(NamedTuple):
    """One side of the data, padded to the longest series of both sides."""

    x: Sequences
    targets: Tensor


Predict = Callable[[Sequences], Tensor]


def make_part(side: Dataset, plan: RunPlan, length: int) -> Part:
    series = [torch.from_numpy(example.load()) for example in side]
    return Part(pad(series, length=length), plan.task.encode(side.targets, [example.where for example in side]))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """The same layers in the same order under other names."""
    with torch.no_grad():
        for own, other in zip(target.state_dict().values(), source.state_dict().values(), strict=True):
            own.copy_(other)


def train(network: nn.Module, predict: Predict, part: Part, *, epochs: int, seed: int) -> None:
    """The plain loop, shuffled, with Adam."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    network.train()
    for _ in range(epochs):
        for indices in torch.randperm(len(part.targets), generator=generator).split(BATCH):
            optimizer.zero_grad()
            x = Sequences(part.x.data[indices], part.x.lengths[indices])
            F.cross_entropy(predict(x), part.targets[indices]).backward()
            optimizer.step()
    network.eval()


@torch.no_grad()
def outputs(predict: Predict, x: Sequences, length: int | None) -> Tensor:
    """For series padded to `length` frames in one batch; None feeds each by itself, without padding."""
    series = x.unpad()
    if length is None:
        return torch.cat([predict(pad([one])) for one in series])
    return predict(pad(series, length=length))


def score(predict: Predict, part: Part) -> dict[str, dict[str, float]]:
    """Accuracy in every way, and what has changed against the padded batch of training."""
    longest = part.x.data.shape[1]
    ways = {f"padded to {longest} in a batch": longest, ALONE: None, "padded to 64": 64, "padded to 128": 128}
    found: dict[str, dict[str, float]] = {}
    reference = outputs(predict, part.x, longest)
    for name, length in ways.items():
        out = outputs(predict, part.x, length)
        found[name] = {
            "accuracy": float((out.argmax(1) == part.targets).float().mean()),
            "labels_changed": float((out.argmax(1) != reference.argmax(1)).float().mean()),
            "largest_difference": float((out - reference).abs().max()),
        }
    return found


def compare(data: Dataset, *, epochs: int, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Both networks, trained and scored with one seed."""
    plan = make_plan(data, {"split": {"validation": 0.0}}, task="classify", preset="seed", seed=seed)
    assert plan.parts.test is not None, "the data has an official split"
    length = int(data.lengths.max())
    fitting, test = make_part(plan.parts.train, plan, length), make_part(plan.parts.test, plan, length)
    torch.manual_seed(seed)
    by_hand = Tutorial(len(data.channel_names), plan.task.num_outputs)
    ours: Network = plan.make_network()
    copy_weights(by_hand, ours)
    ways: dict[str, tuple[nn.Module, Predict]] = {
        "by hand": (by_hand, lambda x: by_hand(x.data)),
        "crnn seed": (ours, lambda x: ours(x)),
    }
    for network, predict in ways.values():
        train(network, predict, fitting, epochs=epochs, seed=seed)
    return {name: score(predict, test) for name, (_, predict) in ways.items()}


def summarise(runs: list[dict[str, dict[str, dict[str, float]]]]) -> list[dict[str, Any]]:
    """Mean and spread over the seeds."""
    rows = []
    for network, ways in runs[0].items():
        for way in ways:
            found = [run[network][way] for run in runs]
            accuracies = [one["accuracy"] for one in found]
            rows.append(
                {
                    "network": network,
                    "way": way,
                    "accuracy": round(statistics.fmean(accuracies), 4),
                    "accuracy_spread": round(statistics.stdev(accuracies), 4) if len(accuracies) > 1 else None,
                    "labels_changed": round(statistics.fmean(one["labels_changed"] for one in found), 4),
                    "largest_difference": float(f"{max(one['largest_difference'] for one in found):.2g}"),
                }
            )
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two epochs on generated data: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "exact_lengths.json")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    root = find_data()
    if options.quick:
        data, seeds, epochs = load_generated(Path(), 0), [0], 2
    elif root is None:
        raise SystemExit(f"skipped: {MISSING}")
    else:
        data, epochs = load_archive("ucr_uea", "JapaneseVowels")(root, 0), options.epochs
        seeds = [int(seed) for seed in options.seeds.split(",")]
    rows = summarise([compare(data, epochs=epochs, seed=seed) for seed in seeds])
    for row in rows:
        print(
            f"{row['network']:10s} {row['way']:26s} accuracy {row['accuracy']:.3f}  "
            f"labels changed {row['labels_changed']:.1%}  largest difference {row['largest_difference']:.2g}"
        )
    results = {
        "benchmark": "exact_lengths",
        "data": "generated" if options.quick else "JapaneseVowels, official split (270 / 370), 7 to 29 frames",
        "machine": describe_machine(options.threads),
        "versions": versions(),
        "seeds": seeds,
        "settings": {"epochs": epochs, "batch_size": BATCH, "optimizer": "adam", "learning_rate": RATE},
        "rows": rows,
    }
    write_results(options.out, results)


if __name__ == "__main__":
    main()
