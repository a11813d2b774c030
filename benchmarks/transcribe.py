"""Transcription of speech: error rates on held-out recordings, beside the floor, and whether a stream says the same.

    python benchmarks/transcribe.py [--sets yesno,digits,speakers] [--presets speech,speech-small] [--seeds 3] [--quick]

yesno: 60 recordings of eight words by one speaker, the first 31 by name for training. digits: strings of three to seven
spoken digits of one speaker, joined with pauses; those of the test are made of the test recordings of the official
split (takes 0 to 4), each used twice. speakers: the same with each speaker left out in turn, seed n leaving out
speaker n.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import MISSING, RESULTS, describe_machine, find_data, set_threads, update_results, versions
from sets import SPEAKERS, load_digits

from crnn.data.dataset import Dataset, Example
from crnn.data.read import from_arrays, read
from crnn.model import Model
from crnn.report.floor import measure_floors
from crnn.run import fit_plan, make_plan

WORDS = {"0": "no", "1": "yes"}
TRAIN_FILES = 31
"""Of yesno, as in the recipe that made it known."""
DIGITS = (3, 7)
"""Least and most of a string."""
PAUSE_SECONDS = (0.02, 0.25)
USES = 2
"""Times that each recording stands in a string."""
GOALS = {"yesno": ("wer", 0.0), "digits": ("cer", 0.01), "speakers": ("cer", None)}


def load_yesno(root: Path, seed: int) -> tuple[Dataset, str]:
    """The recordings as they are; the words stand in the file names."""
    data = read(root / "speech_yesno" / "waves", targets=False)
    examples = []
    for i, example in enumerate(sorted(data, key=lambda e: e.id)):
        text = " ".join(WORDS[mark] for mark in Path(example.id).stem.split("_"))
        side = "train" if i < TRAIN_FILES else "test"
        examples.append(replace(example, target=text, split=side))
    return replace(data, examples=tuple(examples)), f"yesno, the first {TRAIN_FILES} recordings by name for training"


def load_strings(root: Path, seed: int) -> tuple[Dataset, str]:
    """Strings of digits, official split."""
    return _strings(load_digits(root, 0), seed=1), "strings of spoken digits, official split (takes 0-4 are the test)"


def load_strings_of_a_new_speaker(root: Path, seed: int) -> tuple[Dataset, str]:
    """Strings of digits, one speaker for the test alone."""
    speaker = SPEAKERS[seed % len(SPEAKERS)]
    digits = load_digits(root, 0)
    marked = [replace(e, split="test" if _speaker(e) == speaker else "train") for e in digits]
    return _strings(replace(digits, examples=tuple(marked)), seed=1), "strings of spoken digits, each speaker left out"


def _speaker(example: Example) -> str:
    return Path(example.id).stem.split("_")[1]


def _strings(digits: Dataset, seed: int) -> Dataset:
    """Recordings of one speaker and one side joined, in an order drawn by the seed; pauses of faint noise between."""
    random = np.random.default_rng(seed)
    rate = digits.sample_rate or 8000.0
    sounds, texts, sides, groups = [], [], [], []
    for side in ("train", "test"):
        for speaker in SPEAKERS:
            own = [example for example in digits if example.split == side and _speaker(example) == speaker]
            order = np.concatenate([random.permutation(len(own)) for _ in range(USES)]).tolist()
            while own and order:
                count = min(int(random.integers(DIGITS[0], DIGITS[1] + 1)), len(order))
                chosen, order = [own[i] for i in order[:count]], order[count:]
                sounds.append(_join([example.load()[:, 0] for example in chosen], rate, random))
                texts.append("".join(str(example.target) for example in chosen))
                sides.append(side)
                groups.append(speaker)
    apart = {g for g, side in zip(groups, sides, strict=True) if side == "test"} != set(SPEAKERS)
    return from_arrays(
        sounds,
        texts,
        groups=groups if apart else None,
        splits=sides,
        kind="audio",
        sample_rate=rate,
        source="digit strings",
    )


def _join(sounds: list[NDArray[Any]], rate: float, random: np.random.Generator) -> NDArray[np.float32]:
    parts = []
    for sound in sounds:
        pause = random.normal(0, 1e-4, int(random.uniform(*PAUSE_SECONDS) * rate))
        parts += [pause.astype(np.float32), sound.astype(np.float32)]
    return np.concatenate([*parts, random.normal(0, 1e-4, int(0.05 * rate)).astype(np.float32)])


SETS: dict[str, Callable[[Path, int], tuple[Dataset, str]]] = {
    "yesno": load_yesno,
    "digits": load_strings,
    "speakers": load_strings_of_a_new_speaker,
}


def streams_alike(model: Model, test: Dataset, count: int = 20) -> dict[str, Any] | None:
    """Whether text streamed in chunks of 20 ms is that of the whole; None where the model cannot stream."""
    if not model.network.can_stream:
        return None
    some = test[:count]
    whole = [answer["text"] for answer in model.predict(some)]
    size = round(0.02 * (test.sample_rate or 8000))
    streamed = []
    for example in some:
        stream, sound = model.stream(), example.load()
        news: list[dict[str, Any]] = []
        for start in range(0, len(sound), size):
            update = stream.push(sound[start : start + size])
            news += [] if update is None else update.news
        final = stream.finish()
        news += [] if final is None else final.news
        streamed.append(" ".join(item["text"] for item in news if not item.get("partial")))
    joined = streamed if any(" " in text for text in whole) else [text.replace(" ", "") for text in streamed]
    return {"texts": count, "alike": sum(a == b for a, b in zip(whole, joined, strict=True))}


def measure(name: str, preset: str, seed: int, options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Train with one preset and seed; scores on the test side, the floor beside."""
    data, described = SETS[name](root, seed)
    asked = {"train": {"steps": 10}} if options.quick else {}
    began = time.process_time()
    plan = make_plan(data, asked, task="transcribe", preset=preset, seed=seed)
    model, history = fit_plan(plan)
    test, task = plan.parts.test, model.task
    assert test is not None, "every set has a test side"
    frames = model.network.frames(torch.from_numpy(test.lengths), test.sample_rate)
    counts = task.count(model.outputs(test), test.targets, frames)  # type: ignore[attr-defined]
    floor = measure_floors(task, plan.parts.train, test)[0]
    return {
        "data": described,
        "seed": seed,
        "counts": {side: len(part) for side, part in plan.parts.sides.items()},
        "letters": int(sum(len(str(target)) for target in test.targets)),
        "scores": task.scores_of(counts.sum(0)),  # type: ignore[attr-defined]
        "floor": {"name": floor.name, **{key: floor.metrics[key] for key in ("cer", "wer")}},
        "streamed": streams_alike(model, test),
        "parameters": model.network.num_parameters,
        "updates": history.steps,
        "cpu_seconds": round(time.process_time() - began, 1),
        "versions": versions(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", default=",".join(SETS), help="names, separated by commas")
    parser.add_argument("--presets", default="speech,speech-small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="ten updates: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "transcribe.json")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    root = find_data()
    if root is None:
        raise SystemExit(f"skipped: {MISSING}")
    for name in options.sets.split(","):
        if name not in SETS:
            raise SystemExit(f"--sets {name}: no such set; expected some of {', '.join(SETS)}")
        for preset in options.presets.split(","):
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                found = measure(name, preset, seed, options, root)
                update_results(options.out, partial(_put, name, preset, found, options.threads))
                print(
                    f"{name} {preset} seed {seed}: {found['scores']['cer']:.4f} cer, {found['cpu_seconds']:.0f} s",
                    flush=True,
                )


def _put(name: str, preset: str, found: dict[str, Any], threads: int, results: dict[str, Any]) -> None:
    results.update(benchmark="transcribe", machine=describe_machine(threads))
    metric, goal = GOALS[name]
    one = results.setdefault("sets", {}).setdefault(f"{name}/{preset}", {"metric": metric, "goal": goal})
    one.setdefault("runs", {})[str(found["seed"])] = found


if __name__ == "__main__":
    main()
