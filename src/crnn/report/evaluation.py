"""Everything that is measured on one data set by one model, as plain values: the report is a drawing of this."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crnn.config import without_nan
from crnn.data.annotation import Annotation
from crnn.data.batch import ONE_PASS_CACHE, Batches, one_pass_values
from crnn.data.dataset import PART, Dataset
from crnn.data.split import Splits, find_seen, record
from crnn.errors import DataError
from crnn.metrics.bootstrap import bootstrap_interval, percentile_interval
from crnn.metrics.calibration import Bin, calibration_error
from crnn.models.network import Network
from crnn.nn.frames import Frames
from crnn.report.cost import Cost, measure_cost
from crnn.report.exactness import Exactness, measure_exactness
from crnn.report.floor import Floor, FloorConfig, Form, Number, form_of, measure_floors
from crnn.report.picture import line_picture
from crnn.sequences import Ragged
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Table, Task
from crnn.training.memory import RELEASE_ABOVE, release_memory
from crnn.training.outputs import compute_outputs

SLOW_RESAMPLES = 200
"""Of the bootstrap, for metrics that take milliseconds each."""

MIN_GROUPS = 8
"""Fewer speakers or patients than this, and examples are resampled one by one."""


@dataclass(frozen=True)
class Measured:
    """A number and its 95 % bootstrap interval."""

    point: Number
    low: Number
    high: Number

    def __str__(self) -> str:
        return f"{self.point:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Calibration:
    """Whether a confidence of 0.8 is right eight times in ten."""

    bins: list[Bin]
    """Of the outputs as trained; equal numbers of examples each."""
    error: float
    """Expected calibration error: mean gap between confidence and accuracy, weighted by examples."""
    temperature: float | None = None
    """Fitted on validation; None when it was not."""
    bins_after: list[Bin] | None = None
    """With the temperature."""
    error_after: float | None = None


@dataclass(frozen=True)
class Leaks:
    """What of this data set training saw before."""

    duplicates: list[tuple[str, str]]
    """(id in this set, 'side: id' in the run) of equal data."""
    shared_groups: list[str]
    num_groups: int
    """Groups in this set; 0 when no group is known."""

    def __bool__(self) -> bool:
        return bool(self.duplicates or self.shared_groups)


@dataclass(frozen=True)
class LengthBin:
    """Examples of similar length, in seconds or steps."""

    low: float
    high: float
    count: int
    error: Number


@dataclass(frozen=True)
class WorstExample:
    """An example that the model got most wrong, with a copy of its signal small enough to draw."""

    id: str
    where: str
    true: str
    predicted: str
    confidence: float | None
    error: Number
    """Negative log-probability of the truth, or the absolute error."""
    duration: float
    channels: list[str]
    signal: list[list[float | None]]
    """Equally spaced points of each drawn channel; None where missing."""
    text: str = ""
    """For symbols: the beginning."""
    picture: str = ""
    """For line images: a small PNG as a data URI."""
    marks: list[tuple[float, float, str]] = field(default_factory=list)
    """What was read where, of a transcription: (start, end, text), as shares of the duration."""


@dataclass(frozen=True)
class RunFacts:
    """What only the caller knows: how the model came to be. The report leaves out what is empty."""

    split: str = "test"
    """Name of the measured part."""
    split_how: str = ""
    """How the parts were made, in words."""
    counts: dict[str, int] = field(default_factory=dict)
    """Examples of each part."""
    class_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Part -> label -> examples."""
    spec: str = ""
    """The network, as YAML."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Training options, plain values."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record an epoch, as `History.to_plain()["records"]`."""
    stopped: str = ""
    """Why training ended: "finished" or "early" as `History.stopped`, or words."""
    seed: int | None = None
    train_seconds: float | None = None
    train_fingerprint: str = ""
    model_bytes: int | None = None
    """Size of model.safetensors."""
    problems: list[str] = field(default_factory=list)
    """Problems of the training data; those of the measured data are added."""
    selection: bool = False
    """True when this part was used to choose the model (validation, or training itself)."""


@dataclass(frozen=True)
class Evaluation:
    """One model measured on one data set. `save` writes it, `to_dict` gives JSON, notebooks show it."""

    task: str
    form: Form
    labels: list[str]
    primary: str
    higher_is_better: bool
    metrics: dict[str, Measured]
    resampled: Literal["examples", "groups"]
    """What the bootstrap draws: whole groups where there are enough of them."""
    tables: list[Table]
    confusion: list[list[int]] | None
    floors: list[Floor]
    calibration: Calibration | None
    lengths: list[LengthBin]
    length_unit: str
    length_measure: str
    worst: list[WorstExample]
    scatter: list[tuple[float, float]]
    """For numbers: (true, predicted) of up to 1,000 examples."""
    exactness: Exactness
    cost: Cost
    leaks: Leaks | None
    """None when it is not known what training saw."""
    source: str
    kind: str
    channels: list[str]
    sample_rate: float | None
    num_examples: int
    fingerprint: str
    problems: list[str]
    seed: int
    """Of the bootstrap and the floors."""
    versions: dict[str, str]
    facts: RunFacts = field(default_factory=RunFacts)

    @property
    def headline(self) -> Measured:
        """The primary metric."""
        return self.metrics[self.primary]

    @property
    def best_floor(self) -> Floor | None:
        """The trivial method with the best primary metric."""
        known = [f for f in self.floors if not math.isnan(f.metrics.get(self.primary, math.nan))]
        sign = 1 if self.higher_is_better else -1
        return max(known, key=lambda f: sign * f.metrics[self.primary], default=None)

    @property
    def verdict(self) -> Literal["above", "within", "below", "unknown"]:
        """The model against the best floor: better by more than the interval, within it, or worse."""
        floor = self.best_floor
        if floor is None or math.isnan(self.headline.point):
            return "unknown"
        sign = 1 if self.higher_is_better else -1
        level, worse_end = floor.metrics[self.primary], self.headline.low if sign > 0 else self.headline.high
        if sign * (self.headline.point - level) < 0:
            return "below"
        return "above" if sign * (worse_end - level) > 0 else "within"

    def warnings(self) -> list[tuple[Literal["bad", "caution"], str]]:
        """What a reader must know before believing the score."""
        found: list[tuple[Literal["bad", "caution"], str]] = []
        if self.facts.selection:
            found.append(("bad", f"The {self.facts.split} set was used in training or to choose the model; "
                                 "this score says nothing about new data."))  # fmt: skip
        if self.leaks and self.leaks.duplicates:
            count = len(self.leaks.duplicates)
            said = "is a copy" if count == 1 else "are copies"
            found.append(("bad", f"{count} of {self.num_examples} examples {said} "
                                 "of data that training saw; the score is too high by an unknown amount."))  # fmt: skip
        if self.leaks and self.leaks.shared_groups:
            count, total = len(self.leaks.shared_groups), self.leaks.num_groups
            found.append(("bad", f"{count} of {total} groups (speakers, patients, subjects) were also in training; "
                                 "the score does not hold for new ones."))  # fmt: skip
        floor = self.best_floor
        if floor is not None and self.verdict in ("below", "within"):
            level = f"{metric_words(self.primary)} {floor.metrics[self.primary]:.4g}"
            said = {"below": "beats this model", "within": "lies within the interval of this model"}[self.verdict]
            found.append(("bad" if self.verdict == "below" else "caution", f"The floor {said}: {floor.name}, {level}."))
        if self.exactness.largest > 1e-4 * max(1.0, self.exactness.largest_output) or self.exactness.changed:
            found.append(("bad", f"Outputs depend on the batch: they move by {self.exactness.largest:.2g}, and "
                                 f"{self.exactness.changed} predictions change."))  # fmt: skip
        if self.leaks is not None and self.resampled == "examples" and self.leaks.num_groups > 0:
            found.append(("caution", f"Only {self.leaks.num_groups} groups were measured; the interval speaks of new "
                                     "examples of these groups, not of new groups."))  # fmt: skip
        if self.num_examples < 100:
            found.append(("caution", f"Only {self.num_examples} examples were measured; the interval is wide."))
        if self.leaks is None:
            found.append(("caution", "It is not known what training saw, so copies of training data in this set "
                                     "were not looked for."))  # fmt: skip
        if self.problems:
            found.append(("caution", f"{len(self.problems)} problems in the data; see the end of this report."))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return without_nan(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of `to_dict`.

        Raises:
            DataError: a key is missing or has the wrong type.
        """
        try:
            return _adapter().validate_python(values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(part) for part in first["loc"])
            raise DataError(
                f"evaluation: {at}: {first['msg'].lower()}; expected what Evaluation.to_dict writes"
            ) from None

    def save(self, path: str | Path) -> Path:
        """Write the report: JSON when the name ends in .json, else one HTML file that works offline."""
        from crnn.report.html import render

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text: str = json.dumps(self.to_dict(), indent=1) if path.suffix == ".json" else render(self)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
        return path

    def _repr_html_(self) -> str:
        from crnn.report.html import render_compact

        return render_compact(self)

    def __str__(self) -> str:
        """Metrics with their interval, and the best floor beside."""
        floor = self.best_floor
        columns = ["metric", "value", "95% interval"] + ([f"floor: {floor.name}"] if floor else [])
        rows = []
        for name, value in self.metrics.items():
            row = [name, f"{value.point:.4g}", f"{value.low:.4g} .. {value.high:.4g}"]
            rows.append(row + ([f"{floor.metrics[name]:.4g}" if name in floor.metrics else "-"] if floor else []))
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [columns, *rows]]
        return "\n".join([f"{self.facts.split}: {self.num_examples} examples of {self.source}", *lines])


def metric_words(name: str) -> str:
    """A metric's name as it is written in text."""
    special = {
        "rmse": "RMSE",
        "mae": "MAE",
        "r2": "R²",
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "mcc": "MCC",
        "macro_f1": "macro F1",
        "micro_f1": "micro F1",
    }
    return special.get(name, name.replace("_", " "))


@lru_cache(maxsize=1)
def _adapter() -> pydantic.TypeAdapter[Evaluation]:
    return pydantic.TypeAdapter(Evaluation)


def evaluate(
    network: Network,
    task: Task,
    data: Dataset,
    *,
    train: Dataset | None = None,
    recorded: Mapping[str, Any] | None = None,
    temperature: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
    floors: bool = True,
    floor_settings: FloorConfig | None = None,
    resamples: int = 1000,
    facts: RunFacts | None = None,
) -> Evaluation:
    """Measure a trained network on a data set.

    Args:
        train: what the floors are fitted on; without it there are none.
        recorded: ids and content hashes (and "groups", if kept) of each side that the run saw, as
            `crnn.data.split.record` gives them, to look for copies in `data`; made from `train` when None.
        temperature: divides the outputs of a classifier; fitted on validation.
        floors: False leaves the trivial methods out.
        resamples: of the bootstrap.
        facts: what only the caller knows, for the report.
    Raises:
        DataError: no examples, or a target that training never saw.
    """
    if len(data) == 0:
        raise DataError(f"{data.source}: there are no examples to evaluate; expected at least 1")
    facts = facts or RunFacts()
    batches = Batches(
        data, batch_size, shuffle=False, seed=0, cache_bytes=ONE_PASS_CACHE, max_values=one_pass_values(data)
    )
    outputs = compute_outputs(network, batches)
    del batches  # and with it what it kept decoded
    release_memory(RELEASE_ABOVE)
    groups = resampling_groups(data)
    if isinstance(task, StepTask):
        frames = network.frames_of(data)
        scored = score_steps(task, outputs, data, frames, groups=groups, resamples=resamples, seed=seed)
    else:
        scored = _score_sequences(task, outputs, data, temperature, groups=groups, resamples=resamples, seed=seed)
    return Evaluation(
        task=task.name,
        form=scored.form,
        labels=list(task.labels),
        primary=task.primary,
        higher_is_better=task.higher_is_better,
        metrics=scored.metrics,
        resampled="examples" if groups is None else "groups",
        tables=scored.tables,
        confusion=scored.confusion,
        floors=measure_floors(task, train, data, settings=floor_settings, seed=seed) if floors and train else [],
        calibration=scored.calibration,
        lengths=by_length(data, scored.length_errors),
        length_unit=length_unit(data),
        length_measure=scored.length_measure,
        worst=[worst_example(data, i, scored.predictions[i], error) for i, error in scored.worst],
        scatter=scored.scatter,
        exactness=measure_exactness(network, task, data),
        cost=measure_cost(network, data, task=task, batch_size=batch_size, model_bytes=facts.model_bytes),
        leaks=find_leaks(data, train, recorded),
        source=data.source,
        kind=data.kind,
        channels=list(data.channel_names),
        sample_rate=data.sample_rate,
        num_examples=len(data),
        fingerprint=data.fingerprint(),
        problems=list(dict.fromkeys([*facts.problems, *(str(p) for p in data.problems)])),
        seed=seed,
        versions=versions(),
        facts=facts,
    )


@dataclass(frozen=True)
class Scored:
    """What is found out about one task's outputs."""

    form: Form
    metrics: dict[str, Measured]
    predictions: list[dict[str, Any]]
    worst: list[tuple[int, float]]
    """Place and error of the examples that went most wrong, the worst first."""
    length_errors: Tensor
    """(examples,): what is drawn against length."""
    length_measure: str
    tables: list[Table]
    confusion: list[list[int]] | None = None
    calibration: Calibration | None = None
    scatter: list[tuple[float, float]] = field(default_factory=list)


def _score_sequences(
    task: Task,
    raw: Tensor,
    data: Dataset,
    temperature: float | None,
    *,
    groups: Sequence[str | None] | None,
    resamples: int,
    seed: int,
) -> Scored:
    """One answer a sequence."""
    targets = task.encode(data.targets, [example.where for example in data])
    form = form_of(targets)
    outputs = raw / temperature if temperature is not None and form != "values" else raw
    scores = task.scores(outputs, targets)
    predictions = task.predictions(outputs)
    errors = example_errors(task, form, outputs, targets)
    is_value = form == "values"
    return Scored(
        form=form,
        metrics=measure_intervals(
            task, outputs, targets, scores.metrics, groups=groups, resamples=resamples, seed=seed
        ),
        predictions=predictions,
        worst=[(i, float(errors[i])) for i in _most_wrong(form, errors, outputs, targets)],
        length_errors=errors if is_value else _mistakes(form, outputs, targets),
        length_measure="mean absolute error" if is_value else "share wrong",
        tables=scores.tables,
        confusion=scores.confusion,
        calibration=None if is_value else _calibration(form, raw, targets, temperature),
        scatter=_scatter(predictions, data) if is_value else [],
    )


def score_steps(
    task: StepTask,
    outputs: Ragged,
    data: Dataset,
    frames: Frames,
    *,
    groups: Sequence[str | None] | None,
    resamples: int,
    seed: int,
    most: int = 8,
) -> Scored:
    """One answer a frame: scores are made of counts of each example, and the bootstrap draws rows of them."""
    counts = task.count(outputs, data.targets, frames)
    total = counts.sum(0)
    errors = torch.from_numpy(np.asarray(task.errors(counts), np.float64))
    order = [i for i in errors.argsort(descending=True, stable=True).tolist() if errors[i] > 0]
    return Scored(
        form="steps",
        metrics=count_intervals(task, counts, groups=groups, resamples=resamples, seed=seed),
        predictions=task.predictions(outputs, frames),
        worst=[(i, float(errors[i])) for i in order[:most]],
        length_errors=errors,
        length_measure="error",
        tables=task.tables(outputs, data.targets, frames, counts),
        confusion=task.confusion(total),
    )


def count_intervals(
    task: StepTask,
    counts: NDArray[np.float64],
    *,
    groups: Sequence[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Measured]:
    """Every metric of a step task with its bootstrap interval, from the counts of each example."""
    rows = torch.from_numpy(counts)
    drawn: list[dict[str, float]] = []

    def score(sample: Tensor, _: Tensor) -> float:
        drawn.append(task.scores_of(sample.sum(0).numpy()))
        return math.nan

    bootstrap_interval(score, rows, rows, groups=groups, num_resamples=resamples, seed=seed)
    return {
        name: Measured(point, *percentile_interval(np.array([values[name] for values in drawn])))
        for name, point in task.scores_of(counts.sum(0)).items()
    }


def measure_intervals(
    task: Task,
    outputs: Tensor,
    targets: Tensor,
    metrics: Mapping[str, float],
    *,
    groups: Sequence[str | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Measured]:
    """A bootstrap interval for every metric of the task.

    Those that the task monitors, the primary one among them, are resampled `resamples` times; the others are slow to
    compute, and are resampled SLOW_RESAMPLES times at most.
    """
    found: dict[str, Measured] = {}
    quick = [name for name in task.monitor(outputs, targets) if name in metrics]
    slow = [name for name in metrics if name not in quick]
    for names, score, count in (
        (quick, task.monitor, resamples),
        (slow, lambda o, t: task.scores(o, t).metrics, min(resamples, SLOW_RESAMPLES)),
    ):
        scored: list[dict[str, float]] = []

        def first(o: Tensor, t: Tensor, score: Any = score, scored: list[dict[str, float]] = scored) -> float:
            scored.append(score(o, t))
            return math.nan

        options: dict[str, Any] = {"groups": groups, "num_resamples": count, "seed": seed}
        if names:
            bootstrap_interval(first, outputs, targets, **options)
        for name in names:  # the same seed draws the same resamples, so each is scored once for all metrics
            replay = iter([values[name] for values in scored])
            low, high = bootstrap_interval(lambda o, t, r=replay: next(r), outputs, targets, **options)  # type: ignore[misc]
            found[name] = Measured(metrics[name], low, high)
    return {name: found[name] for name in metrics}


def resampling_groups(data: Dataset) -> list[str | None] | None:
    """The groups to resample as a whole; None when there are too few of them for an interval to mean anything."""
    groups = [example.group for example in data]
    return groups if len({g for g in groups if g is not None}) >= MIN_GROUPS else None


def find_leaks(data: Dataset, train: Dataset | None, recorded: Mapping[str, Any] | None) -> Leaks | None:
    """Examples of `data` that the run learned or stopped on, by content, and groups of `train` that occur in `data`."""
    if recorded is None and train is None:
        return None
    if recorded is None and train is not None:
        recorded = record(Splits(train, None, None, ""))
    assert recorded is not None
    seen = [(data[s.index].id, f"{s.side}: {s.id}") for s in find_seen(recorded, data)]
    groups = {e.group for e in data if e.group is not None}
    before = {e.group for e in train or () if e.group is not None}
    for side in ("train", "validation"):
        before.update(recorded["sides"].get(side, {}).get("groups", ()))
    return Leaks(seen, sorted(groups & before), len(groups))


def example_errors(task: Task, form: Form, outputs: Tensor, targets: Tensor) -> Tensor:
    """How wrong each example is: negative log-probability of the truth, or the absolute error in the target's units."""
    if form == "classes":
        return F.cross_entropy(outputs, targets, reduction="none")
    if form == "labels":
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(1)
    predicted = outputs.new_tensor([p["value"] for p in task.predictions(outputs)], dtype=torch.float64)
    true = task.predictions(targets[:, None].expand(-1, task.num_outputs))  # targets are scaled as outputs are
    return (predicted - torch.tensor([p["value"] for p in true], dtype=torch.float64)).abs()


def _mistakes(form: Form, outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the prediction is wrong; for label sets the share of wrong labels."""
    if form == "classes":
        return (outputs.argmax(1) != targets).double()
    return ((outputs > 0) != (targets > 0.5)).double().mean(1)


def _most_wrong(form: Form, errors: Tensor, outputs: Tensor, targets: Tensor, most: int = 8) -> list[int]:
    """Positions of the largest errors; of a classifier only examples that are wrong."""
    order = errors.argsort(descending=True, stable=True).tolist()
    if form == "values":
        return order[:most]
    wrong = _mistakes(form, outputs, targets) > 0
    return [i for i in order if wrong[i]][:most]


def worst_example(data: Dataset, index: int, prediction: dict[str, Any], error: float) -> WorstExample:
    """What is shown of an example that went wrong."""
    example = data[index]
    frames = example.read_part(0, min(example.length, PART))
    drawn = [thin(frames[:, c]) for c in _drawn_channels(frames)] if data.kind in ("series", "audio") else []
    symbols: list[str] = []
    if data.kind == "symbols":
        symbols = [data.vocabulary[int(i)] if data.vocabulary else str(i) for i in frames[:120]]
    predicted, confidence = _in_words(prediction)
    return WorstExample(
        id=example.id,
        where=example.where,
        true=_target_text(example.target),
        predicted=predicted,
        confidence=confidence,
        error=error,
        duration=example.length / (data.sample_rate or 1),
        channels=[data.channel_names[c] for c in _drawn_channels(frames)] if drawn else [],
        signal=drawn,
        text="".join(symbols) if all(len(s) == 1 for s in symbols) else " ".join(symbols),
        picture=line_picture(frames) if data.kind == "image" else "",
        marks=_marks(prediction, example.length / (data.sample_rate or 1)) if drawn else [],
    )


def _marks(prediction: dict[str, Any], duration: float) -> list[tuple[float, float, str]]:
    """Words of a transcript in time, or its characters where it has one word."""
    words = prediction.get("words", [])
    pieces = words if len(words) > 1 else prediction.get("characters", [])
    if not duration or not isinstance(pieces, list):
        return []
    return [(round(p["start"] / duration, 4), round(p["end"] / duration, 4), p["text"]) for p in pieces]


def _in_words(prediction: dict[str, Any]) -> tuple[str, float | None]:
    if "label" in prediction:
        return prediction["label"], float(prediction["probabilities"][prediction["label"]])
    if "labels" in prediction:
        return ", ".join(prediction["labels"]) or "(none)", None
    if "value" in prediction:
        return f"{prediction['value']:.5g}", None
    return str(prediction.get("text", "")), prediction.get("confidence")


def _target_text(target: Any) -> str:
    if isinstance(target, Annotation):
        return ", ".join(sorted(target.labels)) or "(none)"
    if isinstance(target, tuple):
        return ", ".join(target) or "(none)"
    return f"{target:.5g}" if isinstance(target, float) else str(target)


def _drawn_channels(frames: NDArray[Any], most: int = 3) -> list[int]:
    """The channels that move most, in their order."""
    if frames.shape[1] <= most:
        return list(range(frames.shape[1]))
    spread = np.nan_to_num(np.where(np.isfinite(frames), frames, 0.0).std(0))
    return sorted(np.argsort(-spread, kind="stable")[:most].tolist())


def thin(values: NDArray[Any], points: int = 300) -> list[float | None]:
    """At most `points` equally spaced values; where many fall on one, its least and greatest in turn are kept."""
    if len(values) > points:
        edges = np.linspace(0, len(values), points // 2 + 1).astype(int)
        known = np.isfinite(values)
        low = np.minimum.reduceat(np.where(known, values, np.inf), edges[:-1])
        high = np.maximum.reduceat(np.where(known, values, -np.inf), edges[:-1])
        values = np.stack([low, high], axis=1).reshape(-1)
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in values.tolist()]


def _calibration(form: Form, raw: Tensor, targets: Tensor, temperature: float | None) -> Calibration:
    error, bins = _confidence(form, raw, targets)
    if temperature is None:
        return Calibration(bins, error)
    error_after, bins_after = _confidence(form, raw / temperature, targets)
    return Calibration(bins, error, temperature, bins_after, error_after)


def _confidence(form: Form, outputs: Tensor, targets: Tensor) -> tuple[float, list[Bin]]:
    """The error as the task's metric has it, and bins wide enough to draw: at least 25 predictions each.

    For label sets every label is a prediction of its own, with the probability of what was decided.
    """
    outputs = outputs.double()
    if form == "classes":
        confidence, predicted = outputs.softmax(1).max(1)
        right = predicted == targets
    else:
        probability = outputs.sigmoid()
        confidence = torch.maximum(probability, 1 - probability).flatten()
        right = ((probability > 0.5) == (targets > 0.5)).flatten()
    drawn = calibration_error(confidence, right, num_bins=max(2, min(15, len(right) // 25)))
    return calibration_error(confidence, right).error, drawn.bins


def by_length(data: Dataset, errors: Tensor, most: int = 8) -> list[LengthBin]:
    """Mean error in bins of length with about equal numbers of examples; one bin when all have one length."""
    lengths, rate = data.lengths, data.sample_rate or 1
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, min(most, max(1, len(data) // 5)) + 1)))
    which = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for i in np.unique(which):
        inside = which == i
        low, high = lengths[inside].min() / rate, lengths[inside].max() / rate
        found.append(LengthBin(float(low), float(high), int(inside.sum()), float(errors.numpy()[inside].mean())))
    return found


def length_unit(data: Dataset) -> str:
    """What a length is counted in, in words."""
    if data.sample_rate:
        return "seconds"
    return {"symbols": "symbols", "image": "columns"}.get(data.kind, "steps")


def _scatter(predictions: list[dict[str, Any]], data: Dataset, most: int = 1000) -> list[tuple[float, float]]:
    chosen = np.linspace(0, len(data) - 1, min(most, len(data))).astype(int)
    return [(float(data[int(i)].target), float(predictions[int(i)]["value"])) for i in chosen]  # type: ignore[arg-type]


def class_counts(sides: Mapping[str, Dataset]) -> dict[str, dict[str, int]]:
    """Side -> label -> examples, for RunFacts; empty for numbers."""
    counts: dict[str, dict[str, int]] = {}
    for side, data in sides.items():
        counts[side] = {}
        for target in data.targets:
            if isinstance(target, (float, Annotation)):
                return {}
            for label in target if isinstance(target, tuple) else (str(target),):
                counts[side][label] = counts[side].get(label, 0) + 1
    return counts


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    try:
        own = importlib.metadata.version("crnn")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
    return {
        "crnn": own,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
