"""Labels of events: heartbeats of unseen patients, and sounds in scenes; each beside its floor.

    python benchmarks/tagging.py [--sets ecg,sounds] [--seeds 0,1,2] [--validate A] [--quick]

ecg: MIT-BIH arrhythmia database, trained on the 22 records of DS1, tested on the 22 of DS2 (de Chazal et al. 2004; one
patient, records 201 and 202, stands on both sides of that usual division). Numbers of three kinds, which must not be
mixed: `given`, the class at the annotated positions, as the literature has it, by preset `beats` on known beats;
`found`, what preset `ecg-small` finds in the signal and names, within 150 ms; `both`, what `ecg-small` finds and
`beats` names (these two with the first seed only). --validate trains without a part of DS1 and scores on that, for four
parts: whatever was chosen here was chosen so.

sounds: clips of ESC-10 laid over each other in scenes of 30 seconds, whole clips of folds 1-3 for training, 4 for
validation, 5 for the test; the generator is below. Event F1 as in sed_eval: onset within 200 ms, offset within 200 ms
or half of the event.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import MISSING, RESULTS, describe_machine, find_data, set_threads, update_results, versions
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from crnn.data.aami import AAMI, DS1, DS2
from crnn.data.annotation import Event, Events
from crnn.data.beats import beats
from crnn.data.dataset import Dataset, Example, array_example
from crnn.data.read import read
from crnn.metrics.ecg import jk_index, predictivity, sensitivity
from crnn.metrics.events import point_confusion
from crnn.model import Model
from crnn.run import fit_plan, make_plan
from crnn.sequences import Ragged
from crnn.tasks.tag_intervals import TagIntervals
from crnn.tasks.tag_labels import TagLabels
from crnn.tasks.tag_points import TagPoints

CLASSES = ("N", "S", "V", "F")
FOLDS = (
    ("209", "106", "114", "101", "112"),
    ("207", "220", "119", "116", "230"),
    ("118", "203", "124", "109", "122", "108"),
    ("223", "201", "215", "205", "115"),
)
"""Records of DS1 that choices were made on; those with many S beats are spread. Fusion beats stand in one record of DS1
almost alone, 208, which is never left out, so nothing could be chosen for them."""
TURNS = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0, None)
"""Degrees by which training sees the leads turned into each other; and the first lead alone."""
PUBLISHED = {
    "de Chazal et al. 2004": {"accuracy": 0.862, "mean_sensitivity": 0.832, "jk_index": 0.612},
    "Zhang et al. 2014": {"accuracy": 0.883, "mean_sensitivity": 0.868, "jk_index": 0.663},
    "Mar et al. 2011": {"accuracy": 0.899, "mean_sensitivity": 0.802, "jk_index": 0.649},
    "Mondejar-Guerra et al. 2019": {"accuracy": 0.945, "mean_sensitivity": 0.703, "jk_index": 0.773},
}
"""DS1 -> DS2, classes N, S, V, F at given positions; as collected by the last of them."""


def load_ecg(root: Path) -> tuple[Dataset, Dataset]:
    """Training and test records; leads by name, NaN where a record lacks V1."""
    data = read(root / "ecg_mitdb" / "flac", channels=["MLII", "V1?"], group="record")
    by_name = {example.group: example for example in data}
    return (
        replace(data, examples=tuple(by_name[name] for name in DS1)),
        replace(data, examples=tuple(by_name[name] for name in DS2)),
    )


def fit(train: Dataset, preset: str, seed: int, settings: dict[str, Any], validation: Dataset | None = None) -> Model:
    """A model trained on all of it; what is tuned, is tuned on validation."""
    examples = [replace(example, split="train") for example in train]
    if validation is not None:
        examples += [replace(example, split="validation") for example in validation]
    marked = replace(train, examples=tuple(examples))
    asked = {"settings": {"split.min_validation": 1, **settings}}
    plan = make_plan(marked, asked, task="tag", preset=preset, seed=seed)
    model, _ = fit_plan(plan, quiet=True)
    return model


def measure(model: Model, test: Dataset) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Counts by record, and the scores of all."""
    task = model.task
    assert isinstance(task, (TagPoints, TagIntervals))
    frames = model.network.frames(torch.from_numpy(test.lengths), test.sample_rate)
    counts = task.count(model.outputs(test, batch_size=1), test.targets, frames)
    return counts, task.scores_of(counts.sum(0))


def beat_scores(confusion: NDArray[np.int64]) -> dict[str, Any]:
    """What the literature reports."""
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "mean_sensitivity": float(np.nanmean(sensitivity(confusion))),
        "jk_index": jk_index(confusion, CLASSES),
        "sensitivity": dict(zip(CLASSES, sensitivity(confusion).tolist(), strict=True)),
        "predictivity": dict(zip(CLASSES, predictivity(confusion).tolist(), strict=True)),
    }


def rhythm_features(example: Example, rate: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logarithms of intervals before and after each beat, against each other and the last ten; and classes."""
    assert isinstance(example.target, Events)
    places = np.array([event.start for event in example.target.items]) / rate
    labels = [AAMI[event.label] for event in example.target.items]
    between = np.maximum(np.diff(places), 0.1)
    before, after = np.concatenate([between[:1], between]), np.concatenate([between, between[-1:]])
    usual = np.array([np.median(before[max(0, i - 10) : i + 1]) for i in range(len(before))])
    features = np.log(np.stack([before / usual, after / usual, after / before, usual], axis=1))
    kept = np.array([label in CLASSES for label in labels])
    codes = np.array([CLASSES.index(label) if label in CLASSES else -1 for label in labels])
    return features[kept], codes[kept]


def ecg_floor(train: Dataset, test: Dataset) -> dict[str, Any]:
    """Always N; and a balanced logistic regression on intervals between beats."""
    rate = train.sample_rate or 360.0
    sides = []
    for data in (train, test):
        parts = [rhythm_features(example, rate) for example in data]
        sides.append((np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])))
    (x, y), (x_test, y_test) = sides
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced")).fit(x, y)
    results = {}
    for name, found in (("majority", np.zeros_like(y_test)), ("rhythm", model.predict(x_test))):
        confusion = np.zeros((4, 4), np.int64)
        np.add.at(confusion, (y_test, found), 1)
        results[name] = beat_scores(confusion)
    return results


def run_ecg(root: Path, seed: int, settings: dict[str, Any], *, find: bool) -> dict[str, Any]:
    """One seed: the class of given beats; and if asked, beats found, and both."""
    train, test = load_ecg(root)
    started = time.process_time()
    namer = fit(beats(train, turns=TURNS, classes=CLASSES), "beats", seed, settings)
    named = time.process_time() - started
    described = beats(test, classes=CLASSES)
    counts, _ = measure_labels(namer, described)
    fewer_fusions, _ = measure_labels(namer, described, f_as_v=True)
    result = {
        "seed": seed,
        "given": beat_scores(counts.sum(0)),
        "given_f_as_v": beat_scores(fewer_fusions.sum(0)),
        "records": {str(e.group): round(float(np.trace(c) / c.sum()), 4) for e, c in zip(test, counts, strict=True)},
        "parameters": {"beats": namer.network.num_parameters},
        "train_cpu_seconds": {"beats": round(named)},
    }
    if not find:
        return result
    started = time.process_time()
    finder = fit(train, "ecg-small", seed, settings)
    _, scores = measure(finder, test)
    result["found"] = {name: value for name, value in scores.items() if not name.startswith("given")}
    result["both"] = name_found(finder, namer, test)
    result["parameters"]["ecg-small"] = finder.network.num_parameters
    result["train_cpu_seconds"]["ecg-small"] = round(time.process_time() - started)
    return result


def validate_ecg(root: Path, seed: int, settings: dict[str, Any]) -> None:
    """The class of given beats on parts of DS1, by part and in all; prints only."""
    total = np.zeros((4, 4), np.int64)
    whole, _ = load_ecg(root)
    described = beats(whole, turns=TURNS, classes=CLASSES)
    for fold in FOLDS:
        kept = [i for i, example in enumerate(described) if example.group not in fold]
        model = fit(described.subset(kept), "beats", seed, settings)
        left = [i for i, e in enumerate(described) if e.group in fold and " " not in e.id]
        counts, _ = measure_labels(model, described.subset(left))
        total += counts.sum(0)
        print(f"{', '.join(fold)}: {beat_scores(counts.sum(0))}", flush=True)
    print(f"all: {beat_scores(total)}", flush=True)


def measure_labels(
    model: Model, test: Dataset, *, f_as_v: bool = False
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Confusions by sequence, (sequences, 4, 4), and the classes found, in the order N, S, V, F.

    With `f_as_v`, F is decided for as if it had been weighed like V, not by its own rarity: nearly all F of training
    are one patient's, and such a weight lets all that is somewhat like them pass for F. Chosen on parts of DS1.
    """
    task = model.task
    assert isinstance(task, TagLabels)
    frames = model.network.frames(torch.from_numpy(test.lengths), test.sample_rate)
    outputs = model.outputs(test, batch_size=1)
    if f_as_v:
        f, v = task.labels.index("F"), task.labels.index("V")
        shift = torch.zeros(len(task.labels))
        shift[f] = np.log(task.counts[f] / task.counts[v])
        outputs = Ragged.of([row + shift for row in outputs])
    order = [task.labels.index(label) for label in CLASSES]
    counts = task.count(outputs, test.targets, frames).reshape(len(test), len(task.labels), len(task.labels))
    found = [np.array([CLASSES.index(task.labels[c]) for c in task.decide(row.numpy())[0]]) for row in outputs]
    return counts[:, order][:, :, order].round().astype(np.int64), found


def name_found(finder: Model, namer: Model, test: Dataset) -> dict[str, Any]:
    """Beats found by one model and named by the other, against the true ones within 150 ms."""
    found = [
        Events(tuple(Event(e["start"], e["end"], "N") for e in prediction["events"]))
        for prediction in finder.predict(test, batch_size=1)
    ]
    as_found = replace(test, examples=tuple(replace(e, target=f) for e, f in zip(test, found, strict=True)))
    _, codes = measure_labels(namer, beats(as_found, classes=CLASSES))
    total = np.zeros((5, 5), np.int64)
    for example, events, named in zip(test, found, codes, strict=True):
        assert isinstance(example.target, Events)
        true = np.array([(e.start, _code(e.label)) for e in example.target.items])
        places = np.array([e.start for e in events.items])
        total += point_confusion(true[:, 0], true[:, 1], places, named, 0.15 * (test.sample_rate or 360.0), 4)
    sensitive, predictive = sensitivity(total)[:4], predictivity(total)[:4]
    return {
        "mean_sensitivity": float(sensitive.mean()),
        "sensitivity": dict(zip(CLASSES, sensitive.tolist(), strict=True)),
        "predictivity": dict(zip(CLASSES, predictive.tolist(), strict=True)),
    }


def _code(label: str) -> int:
    """The place of a WFDB code's class; -1 for another class, which counts neither way."""
    name = AAMI[label]
    return CLASSES.index(name) if name in CLASSES else -1


SCENE_SECONDS, SOUNDS_A_SCENE, SCENE_RATE = 30.0, (4, 8), 16_000


def scenes(clips: Dataset, folds: Sequence[str], count: int, seed: int) -> Dataset:
    """Scenes of 30 seconds: 4 to 8 clips of these folds, each at its own level, anywhere, over a quiet noise."""
    random = np.random.default_rng(seed)
    of_class: dict[str, list[Example]] = {}
    for clip in clips:
        if clip.id.split("/")[-1][0] in folds:
            of_class.setdefault(str(clip.target), []).append(clip)
    examples = []
    length = round(SCENE_SECONDS * SCENE_RATE)
    for i in range(count):
        mix = random.normal(0, 10 ** random.uniform(-3.5, -2.5), length)
        events: list[Event] = []
        for label in random.choice(sorted(of_class), random.integers(*SOUNDS_A_SCENE, endpoint=True), replace=False):
            choices = of_class[str(label)]
            sound = choices[random.integers(len(choices))].load()[:, 0]
            sound = _without_silence(sound)
            start = int(random.integers(0, length - len(sound)))
            mix[start : start + len(sound)] += sound / np.abs(sound).max() * 10 ** random.uniform(-1.0, -0.2)
            events.append(Event(start, start + len(sound), str(label)))
        data = np.clip(mix / max(np.abs(mix).max(), 1.0), -1, 1).astype(np.float32)[:, None]
        name = f"{''.join(folds)}-{i}"
        examples.append(array_example(name, f"scene {name}", data, target=Events(tuple(events))))
    return Dataset(tuple(examples), "audio", ("audio",), float(SCENE_RATE), f"scenes of folds {folds}, seed {seed}")


def _without_silence(sound: NDArray[Any]) -> NDArray[Any]:
    """Cut where nothing is heard at the ends (60 dB below the peak), so that intervals are what sounds; 5 s at most."""
    loud = np.flatnonzero(np.abs(sound) > 1e-3 * np.abs(sound).max())
    return np.asarray(sound[loud[0] : loud[-1] + 1][: 5 * SCENE_RATE])


def run_sounds(root: Path, seed: int, quick: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """One seed; also of the scenes."""
    clips = read(root / "sound_esc10", sample_rate=SCENE_RATE)
    sizes = (12, 4, 6) if quick else (240, 60, 100)
    sides = zip(("123", "4", "5"), sizes, strict=True)
    train, validation, test = (scenes(clips, folds, size, 1000 * seed + i) for i, (folds, size) in enumerate(sides))
    started = time.process_time()
    model = fit(train, "sed", seed, settings, validation)
    seconds = time.process_time() - started
    _, scores = measure(model, test)
    task = model.task
    assert isinstance(task, TagIntervals)
    return {
        "seed": seed,
        "scores": scores,
        "tuned": task.tuned,
        "floor": sounds_floor(train, validation, test, task),
        "scenes": dict(zip(("train", "validation", "test"), sizes, strict=True)),
        "parameters": model.network.num_parameters,
        "train_cpu_seconds": round(seconds),
    }


def sounds_floor(train: Dataset, validation: Dataset, test: Dataset, trained: TagIntervals) -> dict[str, float]:
    """A logistic regression for each class on single frames of log-mels, with the same tuned post-processing."""
    from crnn.nn.frames import Frames
    from crnn.nn.layers import Timing
    from crnn.nn.spectral import LogMel, LogMelConfig
    from crnn.sequences import Sequences

    layer = LogMel((1,), LogMelConfig(sample_rate=SCENE_RATE, num_mels=40, hop_seconds=0.04, window_seconds=0.064))
    task = TagIntervals(trained.labels, trained.counts, trained.config)

    def frames_of(data: Dataset) -> Frames:
        lengths = torch.from_numpy(data.lengths)
        return Frames(Timing(layer.timing.stride), lengths, layer.out_lengths(lengths), data.sample_rate)

    def features(data: Dataset) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            sounds = (torch.from_numpy(np.asarray(example.load(), np.float32))[None] for example in data)
            return [layer(Sequences(x, torch.tensor([x.shape[1]]))).data[0].reshape(-1, 40).numpy() for x in sounds]

    true = task.encode(train.targets, [example.where for example in train], frames_of(train)).data.numpy()
    x = np.concatenate(features(train))
    some = np.random.default_rng(0).permutation(len(x))[:20_000]
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(x[some], true[some, code])
        for code in range(len(task.labels))
    ]

    def outputs(data: Dataset) -> Ragged:
        rows = [np.stack([model.decision_function(row) for model in models], axis=1) for row in features(data)]
        return Ragged.of([torch.from_numpy(row.astype(np.float32)) for row in rows])

    task.tune(outputs(validation), validation.targets, frames_of(validation))
    return task.scores_of(task.count(outputs(test), test.targets, frames_of(test)).sum(0))


def main(argv: list[str] | None = None) -> None:
    """Run what is asked for, one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="ecg,sounds")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--validate", action="store_true", help="ecg only: score on left-out records of DS1")
    parser.add_argument("--set", action="append", default=[], help="an option of the preset, such as train.steps=100")
    parser.add_argument(
        "--given", action="store_true", help="ecg only: leave out what takes long, beats that are found"
    )
    parser.add_argument("--quick", action="store_true", help="a few updates, to see that it runs; nothing is written")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "tagging.json")
    options = parser.parse_args(argv)
    root = find_data()
    if root is None:
        print(f"skipped: {MISSING}")
        return
    set_threads(options.threads)
    settings: dict[str, Any] = {"train.steps": 3} if options.quick else {}
    for pair in options.set:
        name, _, value = pair.partition("=")
        settings[name] = float(value) if "." in value or "e" in value else int(value)
    for name in options.sets.split(","):
        found = []
        for i, seed in enumerate(map(int, options.seeds.split(","))):
            if options.validate:
                validate_ecg(root, seed, settings)
                continue
            one = run_ecg(root, seed, settings, find=i == 0 and not options.given) if name == "ecg" else None
            found.append(one or run_sounds(root, seed, options.quick, settings))
            print(f"{name} seed {seed}: {found[-1]}", flush=True)
        if options.quick or options.validate:
            continue
        entry: dict[str, Any] = {"seeds": found, "versions": versions(), "machine": describe_machine(options.threads)}
        if name == "ecg":
            entry |= {"split": "DS1 -> DS2", "floor": ecg_floor(*load_ecg(root)), "published": PUBLISHED}
        update_results(options.out, lambda results, name=name, entry=entry: results.update({name: entry}))


if __name__ == "__main__":
    main()
