"""Classification with a set of labels per sequence: each label is present or not, independently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sklearn import metrics
from torch import Tensor
from torch.nn import functional as F

from crnn.config import to_plain
from crnn.data.dataset import Target
from crnn.errors import DataError
from crnn.metrics.calibration import calibration_error
from crnn.tasks.classify import (
    ClassifyConfig,
    calibration_table,
    named_weights,
    natural_order,
    one_vs_rest_auroc,
    read_config,
    unknown_label,
)
from crnn.tasks.task import Scores, Table, Task


class MultiLabel(Task):
    """Any number of labels per sequence, none included; sigmoid cross-entropy, decided at one half.

    Args:
        counts: training examples that have each label, by name; its order is the order of the outputs.
        total: training examples.
    """

    name = "multilabel"
    Config = ClassifyConfig
    primary = "auroc"
    higher_is_better = True
    activation = "sigmoid"

    def __init__(self, counts: dict[str, int], total: int, config: ClassifyConfig) -> None:
        self.config = config
        self.counts = counts
        self.total = total
        self.labels = list(counts)
        self._index = {label: i for i, label in enumerate(self.labels)}
        self._weight = named_weights(config.class_weights, self.labels)
        if config.class_weights == "balanced":
            self._weight = torch.tensor([max(total - n, 1) / n for n in counts.values()])

    @classmethod
    def from_targets(cls, targets: Sequence[Target], config: ClassifyConfig) -> MultiLabel:
        counts: dict[str, int] = {}
        for i, target in enumerate(targets):
            for label in label_set(target, f"training example {i}"):
                counts[label] = counts.get(label, 0) + 1
        if all(count == len(targets) for count in counts.values()):
            raise DataError(
                f"training targets: all {len(targets)} examples have the same labels {sorted(counts)}; "
                "expected a label that some have and others lack"
            )
        return cls({label: counts[label] for label in sorted(counts, key=natural_order)}, len(targets), config)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> MultiLabel:
        counts = dict(zip(state["labels"], state["counts"], strict=True))
        return cls(counts, state["total"], read_config(state["config"]))

    def state(self) -> dict[str, Any]:
        counts = list(self.counts.values())
        return {"labels": self.labels, "counts": counts, "total": self.total, "config": to_plain(self.config)}

    @property
    def num_outputs(self) -> int:
        return len(self.labels)

    def encode(self, targets: Sequence[Target], where: Sequence[str]) -> Tensor:
        """(n, labels) float32, one where the label is present."""
        codes = torch.zeros(len(targets), len(self.labels))
        for row, target, place in zip(codes, targets, where, strict=True):
            for label in label_set(target, place):
                if label not in self._index:
                    raise DataError(unknown_label(label, place, self.labels))
                row[self._index[label]] = 1
        return codes

    def aims(self, targets: Tensor) -> Tensor:
        """1 for a label that is present, -1 for one that is not."""
        return 2 * targets - 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean binary cross-entropy over labels; class_weights weigh the presence of a label against its absence."""
        weight = None if self._weight is None else self._weight.to(outputs)
        smoothing, gamma = self.config.label_smoothing, self.config.focal_gamma
        if smoothing:
            targets = targets * (1 - smoothing) + smoothing / 2
        if not gamma:
            return F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weight)
        p = outputs.sigmoid()
        present = targets * (1 - p).clamp(min=1e-6) ** gamma * F.logsigmoid(outputs)  # 0 has no slope for gamma < 1
        absent = (1 - targets) * p.clamp(min=1e-6) ** gamma * F.logsigmoid(-outputs)
        loss: Tensor = -((present if weight is None else present * weight) + absent).mean()
        return loss

    def scores(self, outputs: Tensor, targets: Tensor) -> Scores:
        """auroc and average_precision (mean over labels that some examples have and others lack; NaN without any),
        micro_f1, macro_f1, subset_accuracy, log_loss, calibration_error."""
        outputs, targets = outputs.detach().double().cpu(), targets.cpu()
        probabilities = outputs.sigmoid()
        predicted, true = (outputs > 0).int(), targets.int()
        per_label = self._per_label(probabilities, predicted, true)
        precisions = [row[-1] for row in per_label.rows if row[-1] is not None]
        confidence = torch.maximum(probabilities, 1 - probabilities).flatten()
        calibration = calibration_error(confidence, (predicted == true).flatten())
        matches = int((predicted & true).sum())
        stated = int(predicted.sum() + true.sum())
        values = {
            "auroc": one_vs_rest_auroc(probabilities, true),
            "average_precision": sum(precisions) / len(precisions) if precisions else float("nan"),
            "micro_f1": 2 * matches / stated if stated else 0.0,
            "macro_f1": sum(row[4] for row in per_label.rows) / len(per_label.rows),
            "subset_accuracy": float((predicted == true).all(1).double().mean()),
            "log_loss": float(F.binary_cross_entropy_with_logits(outputs, targets.double())),
            "calibration_error": calibration.error,
        }
        return Scores(values, [per_label, calibration_table(calibration)])

    def monitor(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        predicted, true = outputs > 0, targets > 0.5
        stated = int(predicted.sum() + true.sum())
        return {
            "auroc": one_vs_rest_auroc(outputs.detach().double().cpu(), true.int().cpu()),
            "micro_f1": 2 * int((predicted & true).sum()) / stated if stated else 0.0,
        }

    def _per_label(self, probabilities: Tensor, predicted: Tensor, true: Tensor) -> Table:
        """None for an area that is undefined because every example, or none, has the label."""
        precision, recall, f1, support = metrics.precision_recall_fscore_support(
            true, predicted, average=None, zero_division=0.0
        )
        rows: list[list[Any]] = []
        for i, label in enumerate(self.labels):
            areas: list[float | None] = [None, None]
            if 0 < support[i] < len(true):
                areas[0] = float(metrics.roc_auc_score(true[:, i], probabilities[:, i]))
                areas[1] = float(metrics.average_precision_score(true[:, i], probabilities[:, i]))
            rows.append([label, int(support[i]), float(precision[i]), float(recall[i]), float(f1[i]), *areas])
        columns = ["label", "examples", "precision", "recall", "F1", "AUROC", "average precision"]
        return Table("Per label", columns, rows)

    def predictions(self, outputs: Tensor) -> list[dict[str, Any]]:
        """{'labels', 'probabilities'} for each example; labels are those at one half or above."""
        result = []
        for row in outputs.detach().double().sigmoid().tolist():
            named = dict(zip(self.labels, row, strict=True))
            result.append({"labels": [label for label, p in named.items() if p > 0.5], "probabilities": named})
        return result


def label_set(target: Target, where: str) -> tuple[str, ...]:
    """The labels of one example; a single text is a set of one.

    Raises:
        DataError: no target, or a number.
    """
    if isinstance(target, tuple):
        return tuple(dict.fromkeys(target))
    if isinstance(target, str):
        return (target,)
    found = "no target" if target is None else f"the number {target!r}"
    raise DataError(f"{where}: found {found}, expected a set of labels; label it, or leave it out")
