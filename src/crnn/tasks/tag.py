"""Tagging: a label for every frame, for points (beats) or for intervals (sounds); what the three forms share.

Output frame t of a network with stride s stands for input frames t*s ... t*s + s - 1: targets are brought to the
output's rate by that, and predictions come back in input frames and seconds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crnn.config import build_config, config, nearest, to_plain
from crnn.data.aami import AAMI
from crnn.data.annotation import Annotation, Events, StepLabels
from crnn.data.dataset import Kind, Problem, Target
from crnn.errors import ConfigError, DataError
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged
from crnn.tasks.classify import named_weights, natural_order
from crnn.tasks.follow import Follower, News
from crnn.tasks.step_task import StepTask


@config
class TagConfig:
    """How labels of frames, points and intervals are trained, found and scored.

    Times are in seconds; in input frames where the data has no rate.
    """

    form: Literal["auto", "labels", "points", "intervals"] = "auto"
    """What the annotations are: a label a frame; events of one frame each; or events that last. Auto looks at them."""
    classes: Literal["as_labelled", "aami"] | dict[str, str] = "as_labelled"
    """Labels that are brought together: by a mapping, or heartbeat codes to the AAMI classes N, S, V, F and Q."""
    ignore: tuple[str, ...] = ()
    """Classes that count neither in the loss nor in the scores, such as Q: unclassifiable beats."""
    class_weights: Literal["none", "root", "balanced"] | dict[str, float] = "none"
    """Weight of each class in the loss: 1 for the most frequent one, and more for others by how much rarer they are
    (balanced), or by the root of that (root); or by name."""
    prior: float = 0.0
    """Points and labels: how far the decision is moved towards rare classes: 0 takes the likeliest, 1 takes each class
    as if all were equally frequent."""
    crf: bool = False
    """Labels: choose those of a sequence together, by scores of what follows what (a linear-chain conditional random
    field), in place of one by one."""
    width: float = 0.07
    """Points: frames up to this far from one are trained as it."""
    tolerance: float = 0.15
    """Points: how far a point that is found may lie from the true one; 150 ms is the standard's for heartbeats."""
    gap: float = 0.2
    """Points: no two are found within this."""
    threshold: float = 0.5
    """Points and intervals: probability from which something is there, until validation has chosen one."""
    collar: float = 0.2
    """Intervals: how far an onset that is found may lie from the true one, and an offset, or by half of the length."""
    smooth: float = 0.0
    """Intervals: length of the median filter over probabilities, until validation has chosen one."""
    shortest: float = 0.0
    """Intervals: what is shorter is not found, until validation has chosen."""

    def __post_init__(self) -> None:
        for name in ("prior", "width", "tolerance", "gap", "collar", "smooth", "shortest"):
            if getattr(self, name) < 0:
                raise ConfigError(f"task.{name}={getattr(self, name)}; expected 0 or more")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"task.threshold={self.threshold}; expected more than 0 and less than 1")
        if isinstance(self.class_weights, dict) and any(weight < 0 for weight in self.class_weights.values()):
            raise ConfigError(f"task.class_weights={self.class_weights}; expected weights of 0 or more")
        if self.crf and self.class_weights != "none":
            raise ConfigError(
                f"task.class_weights={self.class_weights}: weighs frames one by one, but task.crf=true trains on whole "
                "sequences; leave one of them away, or move the decision by task.prior"
            )


@dataclass(frozen=True)
class Found:
    """Something found in a sequence, in input frames."""

    start: int
    end: int
    label: str
    probability: float

    def to_dict(self, sample_rate: float | None) -> dict[str, Any]:
        """As plain values, with times in seconds where the rate is known."""
        plain: dict[str, Any] = {"label": self.label, "start": self.start, "end": self.end}
        if sample_rate:
            plain |= {"seconds": self.start / sample_rate, "end_seconds": self.end / sample_rate}
        return {**plain, "probability": self.probability}


class Finder(Follower):
    """Tells of what is found as soon as it is certain.

    `delay` is how many output frames that takes, at most, from the frame of a point or the end of an interval.
    """

    delay: float

    def __init__(self, sample_rate: float | None) -> None:
        self._rate = sample_rate

    @abstractmethod
    def find(self, outputs: NDArray[np.floating[Any]]) -> list[Found]:
        """What has become certain by (n, outputs) more frames, in order of its end."""

    @abstractmethod
    def find_rest(self, length: int) -> list[Found]:
        """The rest, once the stream has ended after `length` input frames."""

    def push(self, outputs: NDArray[np.floating[Any]]) -> list[News]:
        return [found.to_dict(self._rate) for found in self.find(outputs)]

    def finish(self, length: int) -> list[News]:
        return [found.to_dict(self._rate) for found in self.find_rest(length)]


class Tag(StepTask):
    """Labels of frames, points or intervals: `from_targets` gives the form that the annotations have.

    Args:
        labels: classes, in the order of the outputs.
        counts: of training, by class: labelled frames, points or intervals.
        tuned: what validation has chosen, by name.
    """

    name = "tag"
    Config = TagConfig
    higher_is_better = True
    form: ClassVar[str]

    def __init__(
        self, labels: Sequence[str], counts: Sequence[int], config: TagConfig, tuned: dict[str, Any] | None = None
    ) -> None:
        self.labels, self.counts, self.config = list(labels), list(counts), config
        self.tuned = dict(tuned or {})
        self.index = {label: i for i, label in enumerate(self.labels)}
        self.class_weight = _class_weights(config, self.labels, self.counts)

    @classmethod
    def default_preset(cls, kind: Kind) -> str:
        return {"audio": "sed", "symbols": "bio"}.get(kind, "tag")

    @classmethod
    def from_targets(cls, targets: Sequence[Target], config: TagConfig) -> Tag:
        known = [annotation(target, f"training example {i}") for i, target in enumerate(targets)]
        form = config.form if config.form != "auto" else _form_of(known)
        counts: dict[str, int] = {}
        for target in known:
            for label, count in class_counts(target).items():
                name = class_of(label, config)
                counts[name] = counts.get(name, 0) + count
        labels = sorted((label for label in counts if label not in config.ignore), key=natural_order)
        for name in config.ignore:
            if name not in counts and not (config.classes == "aami" and name in AAMI.values()):
                raise ConfigError(f"task.ignore: {name!r}: no such class{nearest(name, sorted(counts))}")
        if not labels or (form == "labels" and len(labels) < 2):
            found = f"only the class {labels[0]!r}" if labels else "no labels"
            raise DataError(f"training targets: found {found}; expected at least {2 if form == 'labels' else 1}")
        return form_class(form, config)(labels, [counts[label] for label in labels], config)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Tag:
        read = build_config(TagConfig, state["config"], "task")
        return form_class(state["form"], read)(state["labels"], state["counts"], read, state["tuned"])

    def state(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "labels": self.labels,
            "counts": self.counts,
            "config": to_plain(self.config),
            "tuned": self.tuned,
        }

    @property
    def num_outputs(self) -> int:
        return len(self.labels)

    @abstractmethod
    def follow(self, timing: Timing, sample_rate: float | None) -> Finder:
        """What turns the outputs of a network with this timing, and data of this rate, into what is found."""

    def find(self, outputs: Ragged, frames: Frames) -> list[list[Found]]:
        """What is found in each sequence."""
        found = []
        for row, length in zip(outputs, frames.lengths.tolist(), strict=True):
            finder = self.follow(frames.timing, frames.sample_rate)
            found.append([*finder.find(row.numpy()), *finder.find_rest(length)])
        return found

    def predictions(self, outputs: Ragged, frames: Frames) -> list[dict[str, Any]]:  # type: ignore[override]
        """{'events': [{'label', 'start', 'end', 'seconds', 'end_seconds', 'probability'}, ...]}, in input frames."""
        return [{"events": [f.to_dict(frames.sample_rate) for f in found]} for found in self.find(outputs, frames)]

    def find_problems(self, targets: Sequence[Target], where: Sequence[str], frames: Frames) -> list[Problem]:
        """Labels that training never saw, on any side: found before training, not behind it."""
        found = []
        for target, place in zip(targets, where, strict=True):
            for label in sorted(target.labels) if isinstance(target, Annotation) else ():
                try:
                    self.code(label, place)
                except DataError as error:
                    found.append(Problem(place, str(error).removeprefix(f"{place}: ")))
        return found

    def code(self, label: str, where: str) -> int:
        """The place of a label among the classes; -1 for one that is ignored.

        Raises:
            DataError: training never saw it.
        """
        name = class_of(label, self.config)
        if name in self.index:
            return self.index[name]
        if name in self.config.ignore:
            return -1
        what = f"label {label!r}" if name == label else f"label {label!r} (class {name!r})"
        raise DataError(
            f"{where or 'labels'}: {what} is not among the {len(self.labels)} classes seen in training"
            f"{nearest(name, self.labels)}; leave it out with task.ignore"
        )

    def coded_events(self, target: Target, where: str) -> NDArray[np.int64]:
        """(events, 3): start, end and class of each, -1 for an ignored one."""
        if not isinstance(target, Events):
            raise DataError(f"{where}: found {_kind(target)}, expected events as in training")
        rows = [(event.start, event.end, self.code(event.label, where)) for event in target.items]
        return np.array(rows, np.int64).reshape(-1, 3)


def annotation(target: Target, where: str) -> Annotation:
    """A target that says something about parts of a sequence.

    Raises:
        DataError: another one.
    """
    if not isinstance(target, Annotation):
        raise DataError(
            f"{where}: found {_kind(target)}, expected labels of frames or events; use --task classify for one label a "
            "sequence"
        )
    return target


def _kind(target: Target) -> str:
    if target is None:
        return "no target"
    return "labels of frames" if isinstance(target, StepLabels) else f"the target {target!r}"


def _form_of(targets: Sequence[Annotation]) -> str:
    kinds = {type(target) for target in targets}
    if len(kinds) != 1:
        raise DataError("training targets: found both labels of frames and events; expected one kind of annotation")
    if kinds == {StepLabels}:
        return "labels"
    lengths = {event.end - event.start for target in targets if isinstance(target, Events) for event in target.items}
    return "points" if lengths <= {1} else "intervals"


def form_class(form: str, config: TagConfig) -> type[Tag]:
    """The task of a form.

    Raises:
        ConfigError: a CRF for what is no label a frame.
    """
    from crnn.tasks.tag_chain import TagChain
    from crnn.tasks.tag_intervals import TagIntervals  # they stand on this file
    from crnn.tasks.tag_labels import TagLabels
    from crnn.tasks.tag_points import TagPoints

    if config.crf and form != "labels":
        raise ConfigError(f"task.crf=true: takes a label for every frame, found {form}; leave it away")
    if config.crf:
        return TagChain
    forms: tuple[type[Tag], ...] = (TagLabels, TagPoints, TagIntervals)
    return next(cls for cls in forms if cls.form == form)


def class_of(label: str, config: TagConfig) -> str:
    """The class that a label belongs to."""
    if config.classes == "as_labelled":
        return label
    return (AAMI if config.classes == "aami" else config.classes).get(label, label)


def class_counts(target: Annotation) -> dict[str, int]:
    """Labelled frames, or events, by label."""
    if isinstance(target, StepLabels):
        codes, counts = np.unique(target.codes[target.codes >= 0], return_counts=True)
        return {target.names[code]: int(count) for code, count in zip(codes, counts, strict=True)}
    found: dict[str, int] = {}
    for event in target.items:
        found[event.label] = found.get(event.label, 0) + 1
    return found


def _class_weights(config: TagConfig, labels: list[str], counts: list[int]) -> Tensor:
    """(classes,): 1 for the most frequent one where they follow from counts."""
    if isinstance(config.class_weights, dict):
        given = named_weights(config.class_weights, labels)
        assert given is not None
        return given
    power = {"none": 0.0, "root": 0.5, "balanced": 1.0}[config.class_weights]
    most = max(counts)
    return torch.tensor([(most / count) ** power for count in counts])


def in_frames(time: float, sample_rate: float | None) -> float:
    """An option in seconds as input frames; it is in frames already where the data has no rate."""
    return time * (sample_rate or 1.0)


def log_odds_of_rarity(counts: Iterable[int], prior: float) -> NDArray[np.float32]:
    """What is added to log-probabilities of classes, to move the decision towards rare ones.

    Source: logit adjustment, Menon et al. 2021, arXiv:2007.07314, with a share of the prior.
    """
    share = np.array(list(counts), float)
    return np.asarray(-prior * np.log(share / share.sum()), np.float32)
