"""The public sets of the classification benchmark: where each lies, how it is split, and what others reached on it.

A set is read as a user would read it. Its official split is used; where there is none, whole subjects or speakers are
left out, a fold at a time.
"""

from __future__ import annotations

import atexit
import csv
import functools
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from crnn.data.dataset import Dataset, Example
from crnn.data.read import from_arrays, read

Side = Literal["train", "test"]
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
WATCH_RATE = 50
WINDOW_SECONDS = 4

LITE = "MSD-IRIMAS/LITE results"
TSML = "Middlehurst et al. 2024 (tsml-eval results, given split)"
LSTM_FCN = "Karim et al. 2018 (LSTM-FCN, weights chosen on the training loss)"
FAWAZ = "Ismail Fawaz et al. 2019 (mean of 5 runs)"
BURNS = "Burns et al. 2018, arXiv:1802.01489"


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    name: str
    load: Callable[[Path, int], Dataset]
    """(folder of development data, fold) -> the data, every example marked as train or test."""
    split: str
    goal: float | None = None
    """Accuracy to reach; None where the goal is to beat the floors, or nothing but a measurement."""
    metric: Literal["accuracy", "rmse"] = "accuracy"
    published: str = ""
    """What others reached, and where that is written."""
    folds: int = 1
    floor_folds: int = 1
    """Folds on which the floors are measured too."""

    @property
    def higher_is_better(self) -> bool:
        return self.metric == "accuracy"


def load_archive(folder: str, name: str) -> Callable[[Path, int], Dataset]:
    """A .ts set with its TRAIN and TEST files."""
    return lambda root, fold: read(root / folder / name)


def load_mnist1d(root: Path, fold: int) -> Dataset:
    with np.load(root / "mnist1d" / "mnist1d.npz") as arrays:
        x = [*arrays["x"], *arrays["x_test"]]
        y = [f"digit {label}" for label in (*arrays["y"], *arrays["y_test"])]
        sides = ["train"] * len(arrays["x"]) + ["test"] * len(arrays["x_test"])
    return from_arrays(x, y, splits=sides, source="MNIST-1D")


@functools.cache
def _unpacked_digits(root: Path) -> Path:
    """The recordings in a folder that goes away with this process."""
    folder = tempfile.mkdtemp(prefix="digits-")
    atexit.register(shutil.rmtree, folder)
    with zipfile.ZipFile(root / "speech_fsdd" / "recordings.zip") as archive:
        archive.extractall(folder)
    return Path(folder)


def load_digits(root: Path, fold: int) -> Dataset:
    """The official split: takes 0 to 4 of every digit and speaker are the test."""
    data = read(_unpacked_digits(root), pattern="{label}_{speaker}_{take:d}", target="label")
    return mark(data, lambda example: "test" if int(_fields(example)[2]) < 5 else "train")


def load_digits_by_speaker(root: Path, fold: int) -> Dataset:
    """One speaker is the test; of the others one is left out to stop on, for groups stay whole."""
    folder = _unpacked_digits(root)
    data = read(folder, pattern="{label}_{speaker}_{take:d}", target="label", group="speaker")
    return mark(data, lambda example: "test" if example.group == SPEAKERS[fold] else "train")


def load_sounds(root: Path, fold: int) -> Dataset:
    """The fold is the first number of a file's name; clips cut from one recording share the second."""
    data = read(root / "sound_esc10")
    grouped = tuple(replace(example, group=_clip(example)[1]) for example in data)
    data = replace(data, examples=grouped)
    return mark(data, lambda example: "test" if int(_clip(example)[0]) == fold + 1 else "train")


def load_watch(root: Path, fold: int) -> Dataset:
    """Whole recordings; subjects fold + 1 and fold + 6 are the test (every subject did every exercise, twice)."""
    return _watch(root, fold, window=None)


def load_watch_windows(root: Path, fold: int) -> Dataset:
    """As load_watch, cut into windows of 4 seconds that do not overlap; a rest at the end is dropped."""
    return _watch(root, fold, window=WINDOW_SECONDS * WATCH_RATE)


def _watch(root: Path, fold: int, *, window: int | None) -> Dataset:
    folder = root / "har_watch_spar"
    arrays, labels, subjects = [], [], []
    with (folder / "index.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            recording = np.load(folder / row["file"])
            size = window or len(recording)
            pieces = [recording[i : i + size] for i in range(0, len(recording) - size + 1, size)]
            arrays += pieces
            labels += [row["label"]] * len(pieces)
            subjects += [row["subject"]] * len(pieces)
    sides = ["test" if (int(subject) - 1) % 5 == fold else "train" for subject in subjects]
    return from_arrays(arrays, labels, groups=subjects, splits=sides, sample_rate=WATCH_RATE, source="SPAR")


def load_generated(root: Path, fold: int) -> Dataset:
    """Rising and falling ramps in noise, of different lengths: for a run that only shows that the script runs."""
    random = np.random.default_rng(0)
    arrays, labels, sides = [], [], []
    for i in range(60):
        ramp = np.linspace(-1, 1, int(random.integers(12, 24)))[:, None] * (1 if i % 2 else -1)
        arrays.append((ramp + 0.1 * random.standard_normal((len(ramp), 2))).astype(np.float32))
        labels.append("up" if i % 2 else "down")
        sides.append("test" if i >= 40 else "train")
    return from_arrays(arrays, labels, splits=sides, source="generated ramps")


def mark(data: Dataset, side_of: Callable[[Example], Side]) -> Dataset:
    """The data with every example on a side."""
    return replace(data, examples=tuple(replace(example, split=side_of(example)) for example in data))


def _fields(example: Example) -> list[str]:
    return Path(example.id).stem.split("_")


def _clip(example: Example) -> tuple[str, str]:
    """Fold and source recording of an ESC clip such as '2-141584-A'."""
    found = re.match(r"(\d)-(\d+)-", Path(example.id).name)
    assert found is not None, example.id
    return found[1], found[2]


def _archive(name: str, goal: float, published: str) -> Task:
    return Task(name, load_archive("ucr_uea", name), "official", goal, published=published)


def _regression(name: str) -> Task:
    return Task(name, load_archive("tser", name), "official", metric="rmse")


FIVE = "subjects left out, 5 folds of 2"

TASKS = [
    _archive(
        "JapaneseVowels",
        0.985,
        f"ConvTran .989, InceptionTime .970, ResNet .914 ({LITE}); FCN .993 (older preparation, {FAWAZ})",
    ),
    _archive("PLAID", 0.944, f"InceptionTime .944, ResNet .940 ({LITE}, padded); MR-Hydra .944, HC2 .892 ({TSML})"),
    _archive("OSULeaf", 0.983, f"LSTM-FCN .983 ({LSTM_FCN}); ResNet .979, HC2 .967, InceptionTime .921 ({TSML})"),
    _archive("GunPoint", 1.0, f"LSTM-FCN 1.000 ({LSTM_FCN}); InceptionTime 1.000, ResNet .993 ({TSML})"),
    _archive("ItalyPowerDemand", 0.968, f"HC2 .970, MultiRocket .968, InceptionTime .966 ({TSML})"),
    _archive("ArrowHead", 0.897, f"LSTM-FCN .897 ({LSTM_FCN}); HC2 .869, InceptionTime .863 ({TSML})"),
    _archive("ECG200", 0.91, f"MLP .914, FCN .888, ResNet .874 ({FAWAZ})"),
    Task("MNIST-1D", load_mnist1d, "official", 0.94, published="CNN .94, GRU .91, MLP .68 (greydanus/mnist1d README)"),
    Task(
        "Spoken digits",
        load_digits,
        "official: takes 0-4 of every speaker",
        0.99,
        published="none on this split; a small CNN .97 on a random one (adhishthite/sound-mnist README)",
    ),
    Task("Spoken digits by speaker", load_digits_by_speaker, "one of 6 speakers left out", folds=6),
    Task(
        "SPAR windows",
        load_watch_windows,
        f"{FIVE}; windows of 4 s",
        0.889,
        published=f"random forest .873 on these 10 subjects, CRNN .889 on 20 ({BURNS})",
        folds=5,
        floor_folds=5,
    ),
    Task("SPAR recordings", load_watch, f"{FIVE}; whole recordings", folds=5, floor_folds=5),
    Task(
        "ESC-10",
        load_sounds,
        "official, 5 folds",
        0.90,
        published="random forest .727, listeners .957 (Piczak 2015), at 44.1 kHz",
        folds=5,
    ),
    _regression("Covid3Month"),
    _regression("CardanoSentiment"),
]
GENERATED = Task("Generated ramps", load_generated, "drawn")
