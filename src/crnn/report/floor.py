"""The floor of the field: what trivial methods reach on the same split, to print beside a model's score.

On several public sets a trivial method equals published deep ones, so a score without its floor says little.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV, RidgeCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from crnn.config import config
from crnn.data.codec import BLANK
from crnn.data.dataset import Dataset
from crnn.errors import DataError
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, pad
from crnn.tasks.decoding import Decoding
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Task
from crnn.tasks.transcribe import Transcribe

Signal = NDArray[np.float32]
"""(frames, channels), finite: what every floor method starts from."""

Features = NDArray[np.float64]
"""(examples, features)."""

Scores = NDArray[np.float64]

Form = Literal["classes", "labels", "values", "steps"]
"""One class an example, a set of labels an example, a number, or an answer for every frame."""

Number = Annotated[float, pydantic.BeforeValidator(lambda v: math.nan if v is None else v)]
"""NaN is written as null, for JSON has no NaN."""

WHAT = {"audio": "log-mel frames", "symbols": "one-hot symbols", "series": "the series", "image": "columns of pixels"}
"""What a method of each kind of data works on."""

NUM_MELS = 40

MOST_WORDS = 4096
"""Different words of one length that are counted: 3 bases with their ambiguous ones, or 2 residues."""

ALPHAS = np.logspace(-3, 3, 10)
"""Ridge strengths tried by leave-one-out, as in Dempster et al. 2020."""

PROBABILISTIC = ("log_loss", "calibration", "pinball", "coverage")
"""Metrics that mean nothing for a method that gives scores but no probabilities; left out there."""


@config
class FloorConfig:
    """How much work the floors may do; beyond it examples are drawn at random, and the note says so."""

    max_examples: int = 2000
    """Of training and of test, each."""
    max_frames: int = 1024
    """Longer signals are averaged in blocks down to this."""
    num_kernels: int = 1000
    """Random convolutions; each gives two features."""
    max_work: float = 2e11
    """Multiply-adds of the random convolutions on training and on test, each: about a minute of one core. Beyond it
    signals are averaged to fewer frames."""


@dataclass(frozen=True)
class Floor:
    """One trivial method on the same split."""

    name: str
    metrics: dict[str, Number]
    note: str = ""
    """What it does, and what was cut to keep it quick."""
    source: str = ""


def measure_floors(
    task: Task, train: Dataset, test: Dataset, *, settings: FloorConfig | None = None, seed: int = 0
) -> list[Floor]:
    """Fit the field's trivial methods on `train` and score them on `test` with the task's own metrics.

    Classes: majority, nearest neighbour, random convolutions + ridge, and the length alone where it varies; audio also
    log-mel statistics + logistic regression; symbols also short words, and places of aligned windows. Numbers: mean,
    ridge on resampled signals, random convolutions + ridge.

    Raises:
        DataError: one of the two sets is empty.
    """
    settings = settings or FloorConfig()
    if isinstance(task, StepTask):
        return STEP_FLOORS[task.name](task, train, test, settings, seed) if task.name in STEP_FLOORS else []
    for name, data in (("training", train), ("test", test)):
        if len(data) == 0:
            raise DataError(f"{data.source}: the {name} set for the floor is empty; expected at least 1 example")
    rng = np.random.default_rng(seed)
    full_sizes = len(train), len(test)
    train, test = _subsample(train, settings.max_examples, rng), _subsample(test, settings.max_examples, rng)
    targets = task.encode(train.targets, [e.where for e in train])
    truth = task.encode(test.targets, [e.where for e in test])
    form = form_of(targets)
    frames = _affordable_frames(settings, max(len(train), len(test)), train)
    problem = _Problem(
        [read_signal(train, i, frames) for i in range(len(train))],
        [read_signal(test, i, frames) for i in range(len(test))],
        targets.double().numpy() if form == "values" else targets.long().numpy(),
        task.num_outputs,
        seed,
    )
    averaged = any(len(s) == frames and data[i].length > frames
                   for data, signals in ((train, problem.train), (test, problem.test))
                   for i, s in enumerate(signals))  # fmt: skip
    cut = _cut_note(full_sizes, (len(train), len(test)), frames if averaged else None)
    found = []
    for method in (_value_methods if form == "values" else _class_methods)(train, settings):
        outputs = torch.as_tensor(method.predict(problem), dtype=torch.float32).reshape(len(test), -1)
        metrics = task.scores(outputs.expand(-1, task.num_outputs), truth).metrics
        kept = {name: value for name, value in metrics.items() if method.keeps(name)}
        found.append(Floor(method.name, kept, f"{method.note}{cut}", method.source))
    return found


StepFloor = Callable[[Any, Dataset, Dataset, FloorConfig, int], list[Floor]]


def most_frequent_text(
    task: Transcribe, train: Dataset, test: Dataset, settings: FloorConfig, seed: int
) -> list[Floor]:
    """The training text that is there most often, said of everything."""
    text = task.most_frequent
    numbers = task.codec.encode(text, "the most frequent text")
    spelt = [row for number in numbers for row in (BLANK, number)]  # a blank before each, for letters that repeat
    outputs = Ragged.of([20.0 * torch.eye(task.num_outputs)[[*spelt, BLANK]]] * len(test))
    lengths = torch.full((len(test),), len(spelt) + 1)
    decoding, task.decoding = task.decoding, Decoding()
    counts = task.count(outputs, test.targets, Frames(Timing(1, 0, 0), lengths, lengths))
    task.decoding = decoding
    scores = {name: value for name, value in task.scores_of(counts.sum(0)).items() if name != "blank_share"}
    return [Floor("most frequent text", scores, f"{text[:60]!r} for every example")]


STEP_FLOORS: dict[str, StepFloor] = {"transcribe": most_frequent_text}
"""Name of a step task -> (task, train, test, settings, seed) to its floors, scored with its own counts."""


def form_of(targets: Tensor) -> Form:
    """What encoded targets are: class numbers (n,) int64, label sets (n, labels), or numbers (n,)."""
    if not targets.is_floating_point():
        return "classes"
    return "labels" if targets.dim() == 2 else "values"


@dataclass(frozen=True)
class _Problem:
    """What every method gets."""

    train: list[Signal]
    test: list[Signal]
    targets: NDArray[Any]
    """Of training: int64 (n,) classes, int64 (n, labels) of 0 and 1, or float64 (n,) values."""
    num_outputs: int
    seed: int


Predict = Callable[[_Problem], Scores]
"""Scores of the test examples: (n, classes), (n, labels) or (n,), as a network's outputs."""


@dataclass(frozen=True)
class _Method:
    name: str
    predict: Predict
    note: str
    source: str = ""
    has_probabilities: bool = False

    def keeps(self, metric: str) -> bool:
        """Whether this metric means something for this method."""
        return self.has_probabilities or not any(word in metric for word in PROBABILISTIC)


ROCKET = "Dempster, Petitjean & Webb 2020, arXiv:1910.13051"


def _class_methods(train: Dataset, settings: FloorConfig) -> list[_Method]:
    what = WHAT[train.kind]
    methods = [
        _Method("majority", _majority, "always the most frequent class of training", has_probabilities=True),
        _Method(
            "nearest neighbour",
            _nearest_neighbour,
            f"the training example with the smallest Euclidean distance, {what} resampled to one length and z-scored",
        ),
    ]
    if train.kind == "audio":
        note = "mean and spread of each log-mel band and of its change, logistic regression"
        methods.append(_Method("log-mel statistics", _statistics, note, has_probabilities=True))
    if train.kind == "symbols":
        methods += _symbol_methods(train)
    if train.lengths.min() < train.lengths.max():
        note = "the length and its logarithm, logistic regression; what it reaches says nothing of the content"
        methods.append(_Method("length alone", _length_alone, note, has_probabilities=True))
    methods.append(_random_convolutions(settings, what, z_scored=train.kind == "series"))
    return methods


def _symbol_methods(train: Dataset) -> list[_Method]:
    """Which short words occur, and where windows are aligned which symbol stands at which place."""
    size = max(len(train.vocabulary), 2)
    longest = max(1, int(math.log(MOST_WORDS, size)))

    def words(problem: _Problem) -> Scores:
        counted = ([word_shares(s, longest) for s in part] for part in (problem.train, problem.test))
        return _logistic(problem, *(np.stack(rows) for rows in counted), strength=0.01)

    note = f"shares of all words of 1 to {longest} symbols, logistic regression"
    methods = [_Method("words + logistic regression", words, note, has_probabilities=True)]
    if train.lengths.min() == train.lengths.max():
        note = "which symbol stands at which place, logistic regression"
        methods.append(_Method("symbols by place + logistic regression", _by_place, note, has_probabilities=True))
    return methods


def word_shares(signal: Signal, longest: int) -> Features:
    """(words,): share of each word of 1 to `longest` symbols among the words of its length, from one-hot frames."""
    ids, size = signal.argmax(1), signal.shape[1]
    shares = []
    for length in range(1, longest + 1):
        count = len(ids) - length + 1
        codes = sum(ids[i : i + max(count, 0)] * size**i for i in range(length))
        shares.append(np.bincount(codes, minlength=size**length) / max(count, 1))
    return np.concatenate(shares)


def _by_place(problem: _Problem) -> Scores:
    length = len(problem.train[0])
    rows = []
    for part in (problem.train, problem.test):
        made = np.zeros((len(part), length, problem.train[0].shape[1]))
        for row, signal in zip(made, part, strict=True):
            row[: min(len(signal), length)] = signal[:length]
        rows.append(made.reshape(len(part), -1))
    return _logistic(problem, *rows, strength=0.01)


def _length_alone(problem: _Problem) -> Scores:
    rows = (np.array([len(s) for s in part], np.float64)[:, None] for part in (problem.train, problem.test))
    return _logistic(problem, *(np.concatenate([n, np.log(n)], axis=1) for n in rows))


def _value_methods(train: Dataset, settings: FloorConfig) -> list[_Method]:
    what = WHAT[train.kind]
    return [
        _Method("mean", _mean, "always the mean of the training targets"),
        _Method("ridge", _ridge, f"ridge regression on {what} resampled to one length"),
        _random_convolutions(settings, what, z_scored=False),
    ]


def _random_convolutions(settings: FloorConfig, what: str, *, z_scored: bool) -> _Method:
    """Half of the kernels see every signal z-scored by itself, where only shape counts; the rest also see its level."""

    def predict(problem: _Problem) -> Scores:
        views = [_standardised(problem.train, problem.test)]
        if z_scored:
            views.append(_z_scored(problem))
        features = []
        for i, (train, test) in enumerate(views):
            kernels = RandomConvolutions(settings.num_kernels // len(views), train, seed=problem.seed + i)
            features.append((kernels.transform(train), kernels.transform(test)))
        model = RidgeCV(ALPHAS) if problem.targets.dtype.kind == "f" else RidgeClassifierCV(ALPHAS)
        train_features, test_features = (np.concatenate(part, axis=1) for part in zip(*features, strict=True))
        return _fit_scores(model, problem, train_features, test_features)

    halves = ", half of them z-scored one by one" if z_scored else ""
    note = f"{settings.num_kernels} random convolutions of {what}{halves}: largest value and share above zero, ridge"
    return _Method("random convolutions + ridge", predict, note, ROCKET)


def _majority(problem: _Problem) -> Scores:
    targets = problem.targets
    if targets.ndim == 2:
        rate = targets.mean(0).clip(1e-6, 1 - 1e-6)
        scores = np.log(rate / (1 - rate))
    else:
        counts = np.bincount(targets, minlength=problem.num_outputs).astype(np.float64)
        scores = np.log(counts.clip(1e-6) / counts.sum())
    return np.tile(scores, (len(problem.test), 1))


def _mean(problem: _Problem) -> Scores:
    return np.full(len(problem.test), float(problem.targets.mean()))


def _nearest_neighbour(problem: _Problem) -> Scores:
    points = _common_length(problem.train)
    train, test = _z_scored(problem)
    model = KNeighborsClassifier(n_neighbors=1).fit(_resampled(train, points), problem.targets)
    predicted = model.predict(_resampled(test, points))
    return np.asarray(predicted * 2.0 - 1.0 if predicted.ndim == 2 else np.eye(problem.num_outputs)[predicted])


def _ridge(problem: _Problem) -> Scores:
    points = _common_length(problem.train)
    train, test = _resampled(problem.train, points), _resampled(problem.test, points)
    return _fit_scores(RidgeCV(ALPHAS), problem, train, test)


def _statistics(problem: _Problem) -> Scores:
    return _logistic(problem, *(np.stack([_summary(s) for s in part]) for part in (problem.train, problem.test)))


def _logistic(problem: _Problem, train: Features, test: Features, *, strength: float = 1.0) -> Scores:
    """Of classes, or of each label.

    Args:
        strength: the inverse of how far weights are held back (C of scikit-learn).
    """
    model = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a floor that stopped after 1,000 steps is still a floor
        if problem.targets.ndim == 1:
            return _fit_scores(model, problem, train, test)
        scale = StandardScaler().fit(train)
        return _each_label(model, scale.transform(train), problem.targets, scale.transform(test))


def _each_label(model: LogisticRegression, train: Features, targets: NDArray[Any], test: Features) -> Scores:
    """One classifier a label; a label that training always or never has keeps its constant."""
    scores = np.empty((len(test), targets.shape[1]))
    for label, column in enumerate(targets.T):
        if column.min() == column.max():
            scores[:, label] = 14.0 if column[0] else -14.0  # a probability of one in a million
        else:
            scores[:, label] = clone(model).fit(train, column).decision_function(test)
    return scores


def _fit_scores(model: Any, problem: _Problem, train: Features, test: Features) -> Scores:
    """Standardise, fit, and give values, or decision values in the order of the task's classes."""
    fitted = make_pipeline(StandardScaler(), model).fit(train, problem.targets)
    if problem.targets.dtype.kind == "f":
        return np.asarray(fitted.predict(test), dtype=np.float64)
    values = np.asarray(fitted.decision_function(test), dtype=np.float64)
    if problem.targets.ndim == 2:
        return values.reshape(len(test), -1)
    if values.ndim == 1:
        values = np.stack([-values, values], axis=1) / 2  # softmax of this is the sigmoid of the margin
    scores = np.full((len(test), problem.num_outputs), -1e9)  # classes that the drawn examples lack
    scores[:, fitted.classes_] = values
    return scores


class RandomConvolutions:
    """Random dilated convolutions over time; of each, the largest value and the share of positive ones.

    Exact on sequences of different lengths: frames outside a sequence count as zero, and only windows centred on (or,
    without padding, lying within) true frames are counted.

    Args:
        num_kernels: convolutions; 2 features each.
        signals: training signals; their number of channels and median length set the kernels' channels and dilations.
    Source: Dempster, Petitjean & Webb 2020, arXiv:1910.13051; ours draws dilations from powers of two and uses 9 taps,
        so that kernels of one dilation run as one convolution.
    """

    TAPS = 9

    def __init__(self, num_kernels: int, signals: Sequence[Signal], *, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        length, channels = int(np.median([len(s) for s in signals])), signals[0].shape[1]
        exponents = max(1, int(math.log2(max(1.0, (length - 1) / (self.TAPS - 1)))) + 1)
        weights = torch.randn(num_kernels, channels, self.TAPS, generator=generator)
        used = 2 ** (torch.rand(num_kernels, generator=generator) * math.log2(min(channels, self.TAPS) + 1))
        order = torch.rand(num_kernels, channels, generator=generator).argsort(1).argsort(1)
        weights = weights - weights.mean(2, keepdim=True)
        weights = weights * (order < used.long().clamp(1, channels)[:, None])[..., None]
        bias = torch.rand(num_kernels, generator=generator) * 2 - 1
        dilation = 2 ** torch.randint(exponents, (num_kernels,), generator=generator)
        padded = torch.rand(num_kernels, generator=generator) < 0.5
        self.groups: list[tuple[int, bool, Tensor, Tensor]] = []
        for d in dilation.unique().tolist():
            for p in (False, True):
                chosen = (dilation == d) & (padded == p)
                if chosen.any():
                    self.groups.append((int(d), p, weights[chosen], bias[chosen]))

    @torch.inference_mode()
    def transform(self, signals: Sequence[Signal], *, batch_size: int = 64) -> Features:
        """(examples, 2 * num_kernels), in the order given."""
        order = np.argsort([len(s) for s in signals], kind="stable")
        rows: list[NDArray[np.float64]] = [np.empty(0)] * len(signals)
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            x = pad([torch.from_numpy(signals[i]) for i in chosen])
            data = x.data.transpose(1, 2).contiguous()  # (batch, channels, time)
            found = torch.cat([self._features(data, x.lengths, *group) for group in self.groups], dim=1)
            for i, row in zip(chosen, found.double().numpy(), strict=True):
                rows[i] = row
        return np.stack(rows)

    def _features(
        self, data: Tensor, lengths: Tensor, dilation: int, padded: bool, weight: Tensor, bias: Tensor
    ) -> Tensor:
        reach = dilation * (self.TAPS - 1) // 2
        y = F.conv1d(data, weight, bias, padding=reach, dilation=dilation)  # (batch, kernels, time), centred
        frame = torch.arange(y.shape[2])
        inside = frame < lengths[:, None]
        whole = inside & (frame >= reach) & (frame < lengths[:, None] - reach)
        if not padded:  # a sequence shorter than the kernel has no whole window: it keeps the padded ones
            inside = torch.where(whole.any(1, keepdim=True), whole, inside)
        largest = y.masked_fill(~inside[:, None], -math.inf).amax(2)
        share = ((y > 0) & inside[:, None]).sum(2) / inside.sum(1, keepdim=True)
        return torch.cat([largest, share], dim=1)


def read_signal(data: Dataset, index: int, max_frames: int) -> Signal:
    """One example as finite (frames, channels): log-mel for audio, one-hot for symbols, gaps filled for series."""
    raw = data[index].load()
    signal: NDArray[Any]
    if data.kind == "symbols":
        signal = np.eye(max(len(data.vocabulary), 1), dtype=np.float32)[np.asarray(raw, dtype=np.int64)]
    elif data.kind == "audio":
        signal = log_mel(np.asarray(raw, dtype=np.float32).mean(1), data.sample_rate or 16000.0)
    elif data.kind == "image":
        signal = np.asarray(raw, dtype=np.float32).reshape(len(raw), -1)
    else:
        signal = fill_gaps(np.asarray(raw, dtype=np.float32))
    if len(signal) > max_frames:
        edges = np.linspace(0, len(signal), max_frames + 1).astype(int)
        signal = np.add.reduceat(signal, edges[:-1], axis=0) / np.diff(edges)[:, None]
    return np.ascontiguousarray(signal, dtype=np.float32)


def fill_gaps(signal: Signal) -> Signal:
    """Missing values interpolated over time; a channel that is missing throughout becomes zero."""
    if np.isfinite(signal).all():
        return signal
    signal, frames = signal.copy(), np.arange(len(signal))
    for channel in signal.T:
        known = np.isfinite(channel)
        channel[:] = np.interp(frames, frames[known], channel[known]) if known.any() else 0.0
    return signal


def log_mel(wave: NDArray[np.float32], sample_rate: float, *, num_bands: int = NUM_MELS) -> Signal:
    """Log power in triangular mel bands, 32 ms windows every 16 ms: (frames, bands)."""
    size = max(16, round(sample_rate * 0.032))
    wave = np.pad(wave, (0, max(0, size - len(wave))))
    window = torch.hann_window(size)
    spectrum = torch.stft(torch.from_numpy(wave), size, size // 2, window=window, center=False, return_complex=True)
    power = spectrum.abs().square().numpy().T  # (frames, bins)
    return np.asarray(np.log(power @ _mel_bands(size, sample_rate, num_bands) + 1e-6), dtype=np.float32)


def _mel_bands(size: int, sample_rate: float, num_bands: int) -> NDArray[np.float32]:
    """(bins, bands) triangles, equally spaced on the mel scale 2595 log10(1 + f/700)."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, num_bands + 2) / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, size // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def z_score(signal: Signal) -> Signal:
    """Each channel with mean 0 and spread 1 within this signal; a constant channel becomes zero."""
    spread = signal.std(0)
    flat = spread < 1e-7 * (1 + np.abs(signal).max(0))
    return np.where(flat, 0, (signal - signal.mean(0)) / np.where(flat, 1, spread)).astype(np.float32)


def _z_scored(problem: _Problem) -> tuple[list[Signal], list[Signal]]:
    return [z_score(s) for s in problem.train], [z_score(s) for s in problem.test]


def _standardised(train: list[Signal], test: list[Signal]) -> tuple[list[Signal], list[Signal]]:
    """Channels scaled by the statistics of training, so that the level of a signal still tells something."""
    frames = np.concatenate(train).astype(np.float64)
    mean, spread = frames.mean(0), frames.std(0)
    spread[spread < 1e-12] = 1.0
    return tuple([((s - mean) / spread).astype(np.float32) for s in part] for part in (train, test))  # type: ignore[return-value]


def _common_length(signals: list[Signal], most: int = 256) -> int:
    return int(min(most, np.median([len(s) for s in signals])))


def _resampled(signals: list[Signal], points: int) -> Features:
    """(examples, points * channels): linear interpolation to one length, whatever the length was."""
    rows = []
    for signal in signals:
        at = np.linspace(0, len(signal) - 1, points)
        rows.append(np.concatenate([np.interp(at, np.arange(len(signal)), channel) for channel in signal.T]))
    return np.stack(rows)


def _summary(signal: Signal) -> Features:
    """Mean and spread of each channel, and mean size of its change from frame to frame."""
    change = np.abs(np.diff(signal, axis=0)).mean(0) if len(signal) > 1 else np.zeros(signal.shape[1])
    return np.concatenate([signal.mean(0), signal.std(0), change]).astype(np.float64)


def _subsample(data: Dataset, most: int, rng: np.random.Generator) -> Dataset:
    if len(data) <= most:
        return data
    return data.subset(np.sort(rng.choice(len(data), most, replace=False)))


def _affordable_frames(settings: FloorConfig, num_examples: int, data: Dataset) -> int:
    """Frames a signal may have for the random convolutions to stay within the work that is allowed."""
    width = {"audio": NUM_MELS, "symbols": len(data.vocabulary), "series": len(data.channel_names)}[data.kind]
    a_frame = num_examples * max(width, 1) * RandomConvolutions.TAPS * settings.num_kernels
    return int(max(16, min(settings.max_frames, settings.max_work / a_frame)))


def _cut_note(full: tuple[int, int], kept: tuple[int, int], frames: int | None) -> str:
    """What was left out to keep the floors quick, in words."""
    parts = [
        f"{k} of {n} {name} examples" for name, n, k in zip(("training", "test"), full, kept, strict=True) if k < n
    ]
    note = f"; on {' and '.join(parts)}, drawn at random" if parts else ""
    return f"{note}; signals averaged in time to at most {frames} frames" if frames else note
