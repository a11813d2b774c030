"""One default recipe on every public set: score, spread, floors and CPU time, without any option set by set.

    python benchmarks/classification.py [--sets JapaneseVowels,PLAID] [--seeds 0,1,2] [--threads 1] [--again] [--quick]

Every (set, fold, seed) is written to the result file as soon as it is done, and is not computed again unless the
recipe or the data has changed; so a run may be stopped at any time, and several may go on at once. Sets with one
official split are trained with five seeds, sets with folds once a fold. The floors are measured in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from record import MISSING, RESULTS, describe_machine, find_data, read_results, set_threads, update_results, versions
from sets import GENERATED, TASKS, Task

from crnn.config import nearest, to_plain
from crnn.data.dataset import Dataset
from crnn.report.floor import measure_floors
from crnn.run import RunPlan, fit_plan, make_plan

SEEDS = (0, 1, 2, 3, 4)
Asked = dict[str, Any]


def fingerprint(plan: RunPlan) -> str:
    """Hash of everything that decides a run: the resolved options (but for the seed) and the data."""
    options = to_plain(plan.config)
    for section in (options, options["train"]):
        section.pop("seed")
    text = json.dumps([options, plan.fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def train_once(plan: RunPlan, task: Task) -> dict[str, Any]:
    """Train and score on the test side; CPU time of all threads, for training and choosing weights alone."""
    start = time.process_time()
    model, history = fit_plan(plan)
    seconds = time.process_time() - start
    test = plan.parts.test
    assert test is not None, "every set of the benchmark has a test side"
    outputs = model.outputs(test)
    metrics = plan.task.scores(outputs, plan.task.encode(test.targets, [e.where for e in test])).metrics
    return {
        "score": round(metrics[task.metric], 5),
        "metrics": {name: round(value, 5) for name, value in metrics.items()},
        "cpu_seconds": round(seconds, 1),
        "parameters": model.network.num_parameters,
        "steps": history.steps,
        "counts": {name: len(side) for name, side in plan.parts.sides.items()},
        "recipe": fingerprint(plan),
        "versions": versions(),
    }


def floors(plan: RunPlan, task: Task) -> dict[str, Any]:
    """The trivial methods of the field, fitted on the same training side."""
    assert plan.parts.test is not None, "every set of the benchmark has a test side"
    start = time.process_time()
    found = measure_floors(plan.task, plan.parts.train, plan.parts.test)
    return {
        "data": plan.fingerprint,
        "cpu_seconds": round(time.process_time() - start, 1),
        "methods": [
            {"name": floor.name, "score": round(floor.metrics[task.metric], 5), "note": floor.note} for floor in found
        ],
    }


def run_set(task: Task, root: Path, seeds: tuple[int, ...], options: argparse.Namespace, asked: Asked) -> None:
    """Every fold and seed that is not in the result file yet."""
    for fold in range(task.folds):
        data = task.load(root, fold)
        for seed in seeds:
            run_one(task, data, fold, seed, options, asked)


def run_one(task: Task, data: Dataset, fold: int, seed: int, options: argparse.Namespace, asked: Asked) -> None:
    """One training, and with the first seed the floors of this fold."""
    plan = make_plan(data, asked, task=None, preset=options.preset, seed=seed)
    known = read_results(options.out).get("sets", {}).get(task.name, {})
    key = f"fold {fold} seed {seed}"
    place = f"{task.name}, {key}"
    if options.again or known.get("runs", {}).get(key, {}).get("recipe") != fingerprint(plan):
        result = {"fold": fold, "seed": seed, **train_once(plan, task)}
        save(options, task, "runs", key, result)
        print(f"{place}: {task.metric} {result['score']:.4f}, {result['cpu_seconds']:.0f} s of CPU", flush=True)
    else:
        print(f"{place}: known", flush=True)
    floor_key = f"fold {fold}"
    wanted = fold < task.floor_folds and seed == 0
    if wanted and (options.again or known.get("floors", {}).get(floor_key, {}).get("data") != plan.fingerprint):
        found = floors(plan, task)
        save(options, task, "floors", floor_key, {"fold": fold, **found})
        best = (max if task.higher_is_better else min)(found["methods"], key=lambda method: method["score"])
        print(f"{task.name}, {floor_key}: best floor {best['name']} {best['score']:.4f}", flush=True)


def save(options: argparse.Namespace, task: Task, part: str, key: str, value: dict[str, Any]) -> None:
    """Put one result into the file, beside whatever other processes have put there."""
    facts = {"metric": task.metric, "goal": task.goal, "split": task.split, "published": task.published}
    facts |= {"folds": task.folds, "floor_folds": task.floor_folds}

    def change(results: dict[str, Any]) -> None:
        results.update(benchmark="classification", machine=describe_machine(options.threads), preset=options.preset)
        own = results.setdefault("sets", {}).setdefault(task.name, {})
        own.update(facts)
        own.setdefault(part, {})[key] = value

    update_results(options.out, change)


def choose(names: str | None) -> list[Task]:
    """The sets asked for, all of them when none are."""
    if names is None:
        return TASKS
    known = {task.name: task for task in TASKS}
    for name in names.split(","):
        if name not in known:
            raise SystemExit(f"--sets {name}: no such set{nearest(name, list(known))}")
    return [known[name] for name in names.split(",")]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", help="names, separated by commas; all when not given")
    parser.add_argument("--seeds", help="numbers, separated by commas; 0,1,2,3,4, and 0 for sets with folds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="compute what is known anew")
    parser.add_argument("--quick", action="store_true", help="two epochs on generated data: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "classification.json")
    parser.add_argument("--preset", default="default", help=argparse.SUPPRESS)  # for trying the script itself
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    set_threads(options.threads)
    seeds = tuple(int(seed) for seed in options.seeds.split(",")) if options.seeds else None
    if options.quick:
        run_set(GENERATED, Path(), seeds or (0,), options, {"train": {"epochs": 2}})
        return
    tasks = choose(options.sets)
    root = find_data()
    if root is None:
        raise SystemExit(f"skipped: {MISSING}")
    for task in tasks:
        run_set(task, root, seeds or (SEEDS if task.folds == 1 else (0,)), options, {})


if __name__ == "__main__":
    main()
