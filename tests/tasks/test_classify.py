import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional as F

from crnn.errors import ConfigError, DataError
from crnn.tasks.classify import Classify, ClassifyConfig, one_vs_rest_auroc
from crnn.tasks.infer import find_task


def make(targets=("a", "b", "c", "a"), **options):
    return Classify.from_targets(list(targets), ClassifyConfig(**options))


def test_classes_are_sorted_naturally_and_counted():
    task = make(["10", "9", "2", "9"])
    assert task.labels == ["2", "9", "10"]
    assert task.counts == {"2": 1, "9": 2, "10": 1}
    assert task.num_outputs == 3


def test_whole_numbers_are_class_numbers():
    assert make([1.0, 0.0, 1.0]).labels == ["0", "1"]
    assert make([1.0, 0.0]).encode([1.0, "0"], ["x", "y"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "row 7: found no target, expected a class"),
        (0.5, "row 7: found the number 0.5, expected a class; use --task regress"),
        (float("nan"), "row 7: found the number nan"),
        (("a", "b"), "row 7: found a set of labels .* use --task multilabel"),
        ("afib ", r"row 7: label 'afib ' is not among the 2 classes .*space.*did you mean 'afib'"),
        ("zzz", "row 7: label 'zzz' .*known: afib, normal"),
    ],
)
def test_a_bad_target_is_named_with_its_place(target, message):
    with pytest.raises(DataError, match=message):
        make(["afib", "normal"]).encode([target], ["row 7"])


@pytest.mark.parametrize(("targets", "message"), [(["a", "a"], "only the class 'a'"), ([], "no targets")])
def test_one_class_cannot_be_learned(targets, message):
    with pytest.raises(DataError, match=f"{message}; expected at least 2 classes"):
        make(targets)


def test_state_gives_the_same_task():
    task = make(class_weights={"b": 3.0}, focal_gamma=1.0, label_smoothing=0.1)
    again = find_task("classify").from_state(task.state())
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    assert again.labels == task.labels
    assert again.config == task.config
    assert torch.equal(again.loss(outputs, targets), task.loss(outputs, targets))


def test_balanced_weights_give_classes_equal_say():
    # 3 a, 1 b: weights 4/(2*3), 4/(2*1)
    task = make(["a", "a", "a", "b"], class_weights="balanced")
    outputs, targets = torch.randn(4, 2), torch.tensor([0, 0, 0, 1])
    each = F.cross_entropy(outputs, targets, reduction="none")
    expected = (each[:3].mean() + each[3]) / 2
    torch.testing.assert_close(task.loss(outputs, targets), expected)


def test_focal_loss_by_hand():
    task = make(["a", "b"], focal_gamma=2.0)
    outputs = torch.tensor([[math.log(3.0), 0.0]])  # p = 3/4, 1/4
    assert float(task.loss(outputs, torch.tensor([0]))) == pytest.approx(-(0.25**2) * math.log(0.75), rel=1e-5)


def test_focal_loss_has_finite_slopes_where_it_is_certain():
    outputs = torch.tensor([[60.0, -60.0]], requires_grad=True)
    make(["a", "b"], focal_gamma=0.5).loss(outputs, torch.tensor([0])).backward()
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_weights": "balanced"},
        {"label_smoothing": 0.2},
        {"focal_gamma": 2.0, "label_smoothing": 0.1},
        {"class_weights": {"a": 2.0}, "label_smoothing": 0.1},
    ],
)
def test_whole_shares_of_classes_equal_class_numbers(options):
    task = make(**options)
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    shares = task.mix(targets, torch.arange(5).flip(0), torch.ones(5))
    torch.testing.assert_close(task.loss(outputs, shares), task.loss(outputs, targets))


def test_mixed_targets_are_shares():
    mixed = make(["a", "b"]).mix(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    assert mixed.tolist() == [[0.75, 0.25], [0.5, 0.5]]


def test_scores_equal_scikit_learn():
    torch.manual_seed(0)
    task, targets = make(), torch.randint(0, 3, (60,))
    outputs = torch.randn(60, 3) + F.one_hot(targets, 3)
    p, predicted = outputs.double().softmax(1).numpy(), outputs.argmax(1)
    scores = task.scores(outputs, targets)
    expected = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(targets, predicted),
        "mcc": metrics.matthews_corrcoef(targets, predicted),
        "macro_f1": metrics.f1_score(targets, predicted, average="macro"),
        "log_loss": metrics.log_loss(targets, p),
        "auroc": metrics.roc_auc_score(targets, p, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert scores.metrics[name] == pytest.approx(value, abs=1e-6), name
    assert next(iter(scores.metrics)) == task.primary == "accuracy"
    assert scores.confusion == metrics.confusion_matrix(targets, predicted).tolist()
    assert [row[1] for row in scores.tables[0].rows] == np.bincount(targets).tolist()


def test_of_two_classes_the_rarer_one_is_scored_by_precision_and_recall():
    task = Classify.from_targets(["promoter", "other", "other"], ClassifyConfig())
    targets = torch.tensor([0, 1, 0, 1, 0])  # other, promoter
    outputs = torch.tensor([[0.0, -1], [0, 2], [0, 0.5], [0, 0.2], [0, -2]])
    found = task.scores(outputs, targets).metrics
    assert found["auprc"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)  # promoters stand first and third
    assert found["mcc"] == pytest.approx((2 * 2 - 1 * 0) / math.sqrt(3 * 2 * 3 * 2))
    assert math.isnan(task.scores(outputs[:1], targets[:1]).metrics["auprc"])
    assert "auprc" not in make().scores(torch.randn(4, 3), torch.arange(4) % 3).metrics


def test_scores_with_classes_that_do_not_occur():
    scores = make().scores(torch.tensor([[9.0, 0, 0], [9.0, 0, 0]]), torch.tensor([0, 0]))
    assert scores.metrics["accuracy"] == scores.metrics["balanced_accuracy"] == scores.metrics["macro_f1"] == 1.0
    assert math.isnan(scores.metrics["auroc"])


def test_predictions_name_the_classes():
    (row,) = make(["a", "b"]).predictions(torch.tensor([[0.0, math.log(3.0)]]))
    assert row["label"] == "b"
    assert row["probability"] == pytest.approx(0.75)
    assert row["probabilities"] == pytest.approx({"a": 0.25, "b": 0.75})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "task.label_smoothing=1.0"),
        ({"focal_gamma": -1.0}, "task.focal_gamma=-1.0"),
        ({"class_weights": {"a": -1.0}}, "weights of 0 or more"),
        ({"class_weights": {"bb": 1.0}}, "task.class_weights.bb: unknown class"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        make(**options)


@pytest.mark.parametrize(("examples", "classes"), [(7, 2), (40, 3), (200, 12)])
def test_the_area_under_the_curve_is_sklearns_with_ties_and_absent_classes(examples, classes):
    generator = torch.Generator().manual_seed(examples)
    scores = (torch.rand(examples, classes, generator=generator) * 5).round() / 5
    positive = F.one_hot(torch.randint(classes - 1, (examples,), generator=generator), classes)  # the last never occurs
    columns = [i for i in range(classes) if 0 < int(positive[:, i].sum()) < examples]
    expected = [metrics.roc_auc_score(positive[:, i], scores[:, i]) for i in columns]
    found = one_vs_rest_auroc(scores, positive)
    assert found == pytest.approx(sum(expected) / len(expected), nan_ok=True) if expected else math.isnan(found)


def test_the_table_per_class_is_sklearns():
    task = Classify.from_targets(list("aabbccd"), ClassifyConfig())
    outputs, targets = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    found = task.scores(outputs, targets)
    expected = metrics.precision_recall_fscore_support(targets, outputs.argmax(1), labels=range(4), zero_division=0.0)
    for i, row in enumerate(found.tables[0].rows):
        assert row[1:] == pytest.approx([expected[3][i], *(column[i] for column in expected[:3])])
    assert all(isinstance(count, int) for row in found.confusion for count in row)


def test_a_linear_fit_aims_at_one_for_the_class_and_minus_one_for_others():
    task = make()
    assert task.aims(torch.tensor([1, 0])).tolist() == [[-1, 1, -1], [1, -1, -1]]
