"""Classification with one label per sequence: targets, loss, metrics and predictions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional as F

from crnn.config import build_config, config, nearest, to_plain
from crnn.data.annotation import Annotation
from crnn.data.dataset import Target
from crnn.errors import ConfigError, DataError
from crnn.metrics.calibration import Calibration, calibration_error
from crnn.metrics.matthews import matthews_correlation
from crnn.tasks.task import Scores, Table, Task


@config
class ClassifyConfig:
    """Loss of a classification, with one label or with several."""

    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """Weight of each class in the loss: "balanced" gives rare classes as much say as frequent ones, or by name."""
    focal_gamma: float = 0.0
    """Above 0, examples that are already right count less (focal loss)."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes."""

    def __post_init__(self) -> None:
        if self.focal_gamma < 0:
            raise ConfigError(f"task.focal_gamma={self.focal_gamma}; expected 0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing={self.label_smoothing}; expected 0 <= label_smoothing < 1")
        if isinstance(self.class_weights, dict) and any(weight < 0 for weight in self.class_weights.values()):
            raise ConfigError(f"task.class_weights={self.class_weights}; expected weights of 0 or more")


class Classify(Task):
    """One class per sequence; softmax cross-entropy.

    Args:
        counts: training examples of each class, by name; its order is the order of the outputs.
    """

    name = "classify"
    Config = ClassifyConfig
    primary = "accuracy"
    higher_is_better = True
    activation = "softmax"

    def __init__(self, counts: dict[str, int], config: ClassifyConfig) -> None:
        self.config = config
        self.counts = counts
        self.labels = list(counts)
        self._index = {label: i for i, label in enumerate(self.labels)}
        self._weight = named_weights(config.class_weights, self.labels)
        if config.class_weights == "balanced":
            total = sum(counts.values())
            self._weight = torch.tensor([total / (len(counts) * n) for n in counts.values()])

    @classmethod
    def from_targets(cls, targets: Sequence[Target], config: ClassifyConfig) -> Classify:
        names = [class_name(target, f"training example {i}") for i, target in enumerate(targets)]
        counts = Counter(names)
        if len(counts) < 2:
            found = f"only the class {names[0]!r}" if names else "no targets"
            raise DataError(f"training targets: found {found}; expected at least 2 classes to tell apart")
        return cls({label: counts[label] for label in sorted(counts, key=natural_order)}, config)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Classify:
        return cls(dict(zip(state["labels"], state["counts"], strict=True)), read_config(state["config"]))

    def state(self) -> dict[str, Any]:
        return {"labels": self.labels, "counts": list(self.counts.values()), "config": to_plain(self.config)}

    @property
    def num_outputs(self) -> int:
        return len(self.labels)

    def encode(self, targets: Sequence[Target], where: Sequence[str]) -> Tensor:
        """Class numbers, (n,) int64."""
        codes = []
        for target, place in zip(targets, where, strict=True):
            label = class_name(target, place)
            if label not in self._index:
                raise DataError(unknown_label(label, place, self.labels))
            codes.append(self._index[label])
        return torch.tensor(codes, dtype=torch.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; targets are class numbers (batch,) or shares of the classes (batch, classes)."""
        weight = None if self._weight is None else self._weight.to(outputs)
        soft = targets.is_floating_point()
        if self.config.focal_gamma or (soft and weight is not None):
            return self._focal(outputs, targets if soft else F.one_hot(targets, len(self.labels)).to(outputs), weight)
        return F.cross_entropy(outputs, targets, weight, label_smoothing=self.config.label_smoothing)

    def _focal(self, outputs: Tensor, shares: Tensor, weight: Tensor | None) -> Tensor:
        """Source: Lin et al. 2017, arXiv:1708.02002, for softmax and shares of classes; gamma 0 is cross-entropy.

        Unlike torch for shares of classes, the mean is by weight, so that a share of 1 equals the class number.
        """
        smoothing = self.config.label_smoothing
        smoothed = shares * (1 - smoothing) + smoothing / len(self.labels)
        log_p = outputs.log_softmax(1)
        wrong = (1 - log_p.exp()).clamp(min=1e-6)  # 0 has no finite slope for gamma below 1
        per_class = -smoothed * wrong**self.config.focal_gamma * log_p
        loss: Tensor = per_class.sum() / len(shares)
        if weight is not None:
            loss = (per_class * weight).sum() / (shares * weight).sum()
        return loss

    def aims(self, targets: Tensor) -> Tensor:
        """1 for the true class, -1 for the others."""
        return 2.0 * F.one_hot(targets, len(self.labels)) - 1

    def mix(self, targets: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
        return super().mix(F.one_hot(targets, len(self.labels)).float(), partner, weight)

    def monitor(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        confusion = self._confusion(outputs, targets)
        recall = confusion.diagonal() / confusion.sum(1)
        return {
            "accuracy": float(confusion.diagonal().sum() / confusion.sum()),
            "balanced_accuracy": float(recall.nanmean()),  # over the classes that occur
            "mcc": matthews_correlation(confusion),
        }

    def _confusion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        size = len(self.labels)
        return torch.bincount(targets * size + outputs.argmax(1), minlength=size * size).reshape(size, size)

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """accuracy, balanced_accuracy (over the classes that occur), mcc, macro_f1, log_loss, auroc, calibration_error;
        auprc of two classes.

        auroc is the mean over the classes that occur, each against the rest; NaN when only one occurs. auprc (average
        precision) is that of the class that is rarer in training, of two equal ones the second.
        """
        outputs, targets = outputs.detach().double().cpu(), targets.cpu()
        probabilities = outputs.softmax(1)
        confidence, predicted = probabilities.max(1)
        confusion = self._confusion(outputs, targets)
        per_class = self._per_class(confusion.double())
        f1 = [row[-1] for i, row in enumerate(per_class.rows) if confusion[i].any() or confusion[:, i].any()]
        calibration = calibration_error(confidence, predicted == targets)
        values = {
            **self.monitor(outputs, targets),
            "macro_f1": sum(f1) / len(f1),
            "log_loss": float(F.cross_entropy(outputs, targets)),
            "auroc": one_vs_rest_auroc(probabilities, F.one_hot(targets, len(self.labels))),
            **self._auprc(probabilities, targets),
            "calibration_error": calibration.error,
        }
        tables = [per_class, calibration_table(calibration)]
        return Scores(values, tables, confusion.tolist())

    def _auprc(self, probabilities: Tensor, targets: Tensor) -> dict[str, float]:
        if len(self.labels) != 2:
            return {}
        first, second = self.counts.values()
        positive = 0 if first < second else 1
        if not bool((targets == positive).any()):
            return {"auprc": math.nan}
        return {"auprc": float(average_precision_score(targets == positive, probabilities[:, positive]))}

    def _per_class(self, confusion: Tensor) -> Table:
        """Precision, recall and F1 of each class; 0 where they are undefined."""
        right, true, stated = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        precision, recall, f1 = right / stated.clamp(min=1), right / true.clamp(min=1), 2 * right / (true + stated)
        columns = (self.labels, true.long().tolist(), precision.tolist(), recall.tolist(), f1.nan_to_num().tolist())
        rows = [list(row) for row in zip(*columns, strict=True)]
        return Table("Per class", ["class", "examples", "precision", "recall", "F1"], rows)

    def predictions(self, outputs: Tensor) -> list[dict[str, Any]]:
        """{'label', 'probability', 'probabilities'} for each example; no label (None) where the outputs are NaN."""
        probabilities = outputs.detach().double().softmax(1)
        result = []
        for row, best in zip(probabilities.tolist(), outputs.argmax(1).tolist(), strict=True):
            named = dict(zip(self.labels, row, strict=True))
            label = None if math.isnan(row[best]) else self.labels[best]
            result.append({"label": label, "probability": row[best], "probabilities": named})
        return result


def class_name(target: Target, where: str) -> str:
    """A class label as text; whole numbers are accepted as class numbers.

    Raises:
        DataError: no target, a fraction, NaN, or a set of labels.
    """
    if isinstance(target, str):
        return target
    if target is None:
        raise DataError(f"{where}: found no target, expected a class; label it, or leave it out")
    if isinstance(target, tuple):
        raise DataError(f"{where}: found a set of labels {target!r}, expected one class; use --task multilabel")
    if isinstance(target, Annotation):
        raise DataError(f"{where}: found labels of frames or events, expected one class; use --task tag")
    if target != target or target in (float("inf"), float("-inf")) or target != int(target):
        raise DataError(f"{where}: found the number {target!r}, expected a class; use --task regress for values")
    return str(int(target))


def natural_order(label: str) -> tuple[int, float, str]:
    """Sort key: class numbers by value (2 before 10), then names."""
    try:
        number = float(label)
    except ValueError:
        return 1, 0.0, label
    return (0, number, label) if number == number else (1, 0.0, label)


def unknown_label(label: str, where: str, known: list[str]) -> str:
    """Message for a label that training never saw."""
    hint = nearest(label, known) if len(known) <= 20 or "did you mean" in nearest(label, known) else ""
    space = " (a space at its end or start?)" if label != label.strip() else ""
    return f"{where}: label {label!r} is not among the {len(known)} classes seen in training{space}{hint}"


def named_weights(weights: str | dict[str, float], labels: list[str]) -> Tensor | None:
    """One weight a label from a mapping by name (1 where none is given); None where no mapping is given.

    Raises:
        ConfigError: a name that is no label.
    """
    if isinstance(weights, str):
        return None
    for label in weights:
        if label not in labels:
            raise ConfigError(f"task.class_weights.{label}: unknown class{nearest(label, labels)}")
    return torch.tensor([weights.get(label, 1.0) for label in labels])


def read_config(values: dict[str, Any]) -> ClassifyConfig:
    """The config kept in a task's state."""
    return build_config(ClassifyConfig, values, "task")


def one_vs_rest_auroc(scores: Tensor, positive: Tensor) -> float:
    """Mean area under the ROC curve over the columns that have both positives and negatives; NaN without any.

    The area is the share of pairs, one positive and one negative, in which the positive has the higher score; a tie
    counts half. It follows from the ranks of the scores, for all columns at once.

    Shape:
        scores, positive: (n, labels).
    """
    positives = positive.sum(0)
    columns = (positives > 0) & (positives < len(positive))
    if not bool(columns.any()):
        return float("nan")
    ranks = rankdata(scores[:, columns].numpy(), axis=0)  # equal scores share their mean rank
    chosen, count = positive[:, columns].numpy(), positives[columns].numpy()
    areas = ((ranks * chosen).sum(0) - count * (count + 1) / 2) / (count * (len(chosen) - count))
    return float(areas.mean())


def calibration_table(calibration: Calibration) -> Table:
    """The bins of a calibration error as a section of the report."""
    rows = [[b.low, b.high, b.examples, b.confidence, b.accuracy] for b in calibration.bins]
    note = f"Expected calibration error {calibration.error:.4f}: mean gap between confidence and accuracy."
    return Table("Calibration", ["from", "to", "examples", "confidence", "accuracy"], rows, note)
