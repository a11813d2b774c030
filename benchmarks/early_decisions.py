"""How early a live stream decides: accuracy against the share of a recording that it has heard.

    python benchmarks/early_decisions.py [--sets digits,watch] [--quick]

The preset `live` is trained on the training side; the test recordings are streamed in equal parts: spoken digits of
half a second, and exercises recorded by a watch, of people who are not in the training side. A deployed stream does
not know how long a recording will be; the share is only how it is looked at. With a threshold, it says its first answer
whose probability reaches it, and at the end of the recording whatever it has.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import HERE, MISSING, RESULTS, describe_machine, find_data, set_threads, update_results, versions
from sets import load_digits, load_watch

from crnn.data.dataset import Dataset
from crnn.data.read import read
from crnn.model import Model
from crnn.run import fit_plan, make_plan

PARTS = 20
"""Equal parts that a recording comes in."""
THRESHOLDS = (0.6, 0.8, 0.9, 0.95, 0.99)


def load(name: str, quick: bool) -> tuple[Dataset, str]:
    """A set and what it is; for the digits the recordings that come with the package, where the full set is not here.

    Raises:
        SystemExit: no such set, or it is not here.
    """
    root = find_data()
    if name == "digits":
        if quick or root is None:
            return read(
                HERE.parent / "examples" / "digits"
            ), "the recordings of examples/digits, folders test and train"
        return load_digits(root, 0), "spoken digits, takes 0-4 of every speaker for the test"
    if name != "watch":
        raise SystemExit(f"--sets {name}: no such set; expected digits or watch")
    if root is None:
        raise SystemExit(f"skipped: {MISSING}")
    return load_watch(root, 0), "SPAR smartwatch recordings, subjects 1 and 6 for the test"


def listen(model: Model, sound: NDArray[Any]) -> list[tuple[str, float]]:
    """(label, probability) after each part of a recording, ("", 0) before the first answer; the last is final."""
    stream, found = model.stream(), []
    for part in np.array_split(sound, PARTS):
        update = stream.push(part)
        found.append(("", 0.0) if update is None else (update.answer, update.prediction["probability"]))
    final = stream.finish()
    assert final is not None, "every recording is longer than the network's shortest sequence"
    return [*found, (final.answer, final.prediction["probability"])]


def decide(answers: list[tuple[str, float]], threshold: float) -> tuple[str, float]:
    """(label, share heard) of the first answer that is this sure; else the final one, of all."""
    for i, (label, probability) in enumerate(answers[:-1]):
        if probability >= threshold:
            return label, (i + 1) / PARTS
    return answers[-1][0], 1.0


def measure(model: Model, test: Dataset) -> dict[str, Any]:
    """Accuracy after each part and at the end; by threshold, accuracy and mean share heard."""
    heard = [listen(model, example.load()) for example in test]
    targets = test.targets
    after = [sum(a[i][0] == t for a, t in zip(heard, targets, strict=True)) / len(test) for i in range(PARTS + 1)]
    by_threshold = []
    for threshold in THRESHOLDS:
        decided = [decide(answers, threshold) for answers in heard]
        right = sum(label == target for (label, _), target in zip(decided, targets, strict=True))
        share = float(np.mean([share for _, share in decided]))
        by_threshold.append({"threshold": threshold, "accuracy": right / len(test), "mean_share": round(share, 4)})
    return {
        "shares": [round((i + 1) / PARTS, 4) for i in range(PARTS)],
        "accuracy": [round(value, 5) for value in after[:-1]],
        "final": round(after[-1], 5),
        "thresholds": by_threshold,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", default="digits,watch", help="names, separated by commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="ten updates on the bundled recordings: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "early_decisions.json")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    for name in options.sets.split(","):
        run_set(name, options)


def run_set(name: str, options: argparse.Namespace) -> None:
    """Train on one set, listen to its test side, and put what was found beside the other sets'."""
    data, described = load(name, options.quick)
    asked = {"train": {"steps": 10}} if options.quick else {}
    plan = make_plan(data, asked, task=None, preset="live", seed=options.seed)
    model, _ = fit_plan(plan)
    test = plan.parts.test
    assert test is not None, "every set has a test side"
    stream = model.stream()
    found = {
        "data": described,
        "counts": {side: len(part) for side, part in plan.parts.sides.items()},
        "seed": options.seed,
        "delay_seconds": stream.delay_seconds,
        "median_seconds": float(np.median(test.lengths)) / (data.sample_rate or 1),
        **measure(model, test),
    }

    def change(results: dict[str, Any]) -> None:
        facts = {"machine": describe_machine(options.threads), "versions": versions()}
        results.update(benchmark="early_decisions", **facts)
        results.setdefault("sets", {})[name] = found

    update_results(options.out, change)
    print(f"{name}: final {found['final']:.4f}, after half {found['accuracy'][PARTS // 2 - 1]:.4f}: {options.out}")


if __name__ == "__main__":
    main()
