import math

import pytest
import torch
from sklearn import metrics
from torch.nn import functional as F

from crnn.errors import DataError
from crnn.tasks.classify import ClassifyConfig
from crnn.tasks.multilabel import MultiLabel

TRAINING = [("a",), ("a", "b"), (), ("c",)]


def make(**options):
    return MultiLabel.from_targets(TRAINING, ClassifyConfig(**options))


def test_label_sets_become_zeros_and_ones():
    assert make().labels == ["a", "b", "c"]
    assert make().encode([("b", "a"), (), "c"], ["", "", ""]).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (("a", "d"), "x.wav: label 'd' is not among the 3"),
        (None, "x.wav: found no target"),
        (1.0, "x.wav: found the number 1.0"),
    ],
)
def test_a_bad_target_is_named_with_its_place(target, message):
    with pytest.raises(DataError, match=message):
        make().encode([target], ["x.wav"])


def test_labels_that_all_have_teach_nothing():
    with pytest.raises(DataError, match=r"all 2 examples have the same labels \['a'\]"):
        MultiLabel.from_targets([("a",), ("a",)], ClassifyConfig())


def test_loss_is_binary_cross_entropy_with_weighted_presence():
    outputs, targets = torch.randn(4, 3), make().encode(TRAINING, [""] * 4)
    plain = F.binary_cross_entropy_with_logits(outputs, targets)
    torch.testing.assert_close(make().loss(outputs, targets), plain)
    torch.testing.assert_close(make(focal_gamma=1e-9).loss(outputs, targets), plain)
    # of 4 examples, 2 have a, 1 has b, 1 has c
    weighted = F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=torch.tensor([1.0, 3.0, 3.0]))
    torch.testing.assert_close(make(class_weights="balanced").loss(outputs, targets), weighted)


def test_scores_equal_scikit_learn_on_labels_that_occur():
    torch.manual_seed(0)
    targets = (torch.rand(50, 3) < 0.4).float()
    targets[:, 2] = 0  # never present
    outputs = torch.randn(50, 3) + targets
    values = make().scores(outputs, targets).metrics
    p, true = outputs.double().sigmoid(), targets.int()
    predicted = (outputs > 0).int()
    assert values["auroc"] == pytest.approx(metrics.roc_auc_score(true[:, :2], p[:, :2]))
    assert values["average_precision"] == pytest.approx(metrics.average_precision_score(true[:, :2], p[:, :2]))
    assert values["micro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="micro"))
    assert values["macro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="macro", zero_division=0.0))
    assert values["subset_accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert next(iter(values)) == make().primary


def test_scores_are_undefined_without_any_difference():
    values = make().scores(torch.randn(3, 3), torch.zeros(3, 3)).metrics
    assert math.isnan(values["auroc"])
    assert math.isnan(values["average_precision"])


def test_state_and_predictions():
    task = make(class_weights="balanced")
    again = MultiLabel.from_state(task.state())
    outputs = torch.tensor([[2.0, -2.0, 0.5]])
    targets = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.equal(task.loss(outputs, targets), again.loss(outputs, targets))
    (row,) = again.predictions(outputs)
    assert row["labels"] == ["a", "c"]
    assert row["probabilities"]["a"] == pytest.approx(1 / (1 + math.exp(-2)))


def test_a_linear_fit_aims_at_plus_and_minus_one():
    assert make().aims(torch.tensor([[1.0, 0.0]])).tolist() == [[1, -1]]
