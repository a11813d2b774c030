import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional as F

from crnn.errors import DataError
from crnn.tasks.regress import Regress, RegressConfig

TARGETS = [1000.0, 1002.0, 1004.0, 1010.0]


def make(**options):
    return Regress.from_targets(TARGETS, RegressConfig(**options))


def test_targets_are_scaled_by_the_training_set():
    scaled = make().encode(TARGETS, [""] * 4)
    expected = (np.array(TARGETS) - 1004) / np.std(TARGETS)
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


def test_large_targets_keep_their_differences():
    targets = [1e9, 1e9 + 1, 1e9 + 2]
    task = Regress.from_targets(targets, RegressConfig())
    np.testing.assert_allclose(task.encode(targets, [""] * 3), [-math.sqrt(1.5), 0, math.sqrt(1.5)], rtol=1e-6)


def test_predictions_are_in_the_targets_units():
    task = make()
    values = [row["value"] for row in task.predictions(task.encode(TARGETS, [""] * 4)[:, None])]
    assert values == pytest.approx(TARGETS)


@pytest.mark.parametrize(
    ("loss", "function"),
    [("mse", F.mse_loss), ("mae", F.l1_loss), ("huber", lambda a, b: F.huber_loss(a, b, delta=0.5))],
)
def test_losses_are_torchs(loss, function):
    outputs, targets = torch.randn(5, 1), torch.randn(5)
    torch.testing.assert_close(
        make(loss=loss, huber_delta=0.5).loss(outputs, targets), function(outputs[:, 0], targets)
    )


def test_quantile_loss_by_hand():
    # errors of +1 at 0.25 and 0.5, -1 at 0.75: 0.25, 0.5, 0.25
    task = make(loss="quantile", quantiles=(0.25, 0.5, 0.75))
    assert task.num_outputs == 3
    assert float(task.loss(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([1.0]))) == pytest.approx(1 / 3)


def test_scores_equal_scikit_learn():
    torch.manual_seed(0)
    task, true = make(), np.array([1003.0, 1001.0, 1009.0])
    outputs = torch.randn(3, 1)
    predicted = [row["value"] for row in task.predictions(outputs)]
    values = task.scores(outputs, task.encode(true.tolist(), [""] * 3)).metrics
    assert values["rmse"] == pytest.approx(metrics.root_mean_squared_error(true, predicted), rel=1e-5)
    assert values["mae"] == pytest.approx(metrics.mean_absolute_error(true, predicted), rel=1e-5)
    assert values["r2"] == pytest.approx(metrics.r2_score(true, predicted), rel=1e-5)
    assert next(iter(values)) == task.primary == "rmse"
    assert not task.higher_is_better


def test_crossing_quantiles_are_put_in_order():
    task = make(loss="quantile")
    outputs = torch.tensor([[1.0, -1.0, 0.0]])
    (row,) = task.predictions(outputs)
    assert list(row["quantiles"].values()) == sorted(row["quantiles"].values())
    assert row["value"] == row["quantiles"]["0.5"] == pytest.approx(task.mean)
    values = task.scores(outputs.expand(4, 3), torch.tensor([0.0, 0.5, -2.0, 3.0])).metrics
    assert values["coverage"] == 0.5
    assert values["pinball"] == pytest.approx(
        np.mean(
            [metrics.mean_pinball_loss([0, 0.5, -2, 3], [q] * 4, alpha=a) for q, a in ((-1, 0.1), (0, 0.5), (1, 0.9))]
        )
        * task.std
    )


def test_r2_of_equal_targets_is_undefined():
    assert math.isnan(make().scores(torch.zeros(2, 1), torch.zeros(2)).metrics["r2"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (float("nan"), "case 3: found the target nan, expected a finite number"),
        (None, "case 3: found no target"),
        ("high", "case 3: found 'high', expected a number; use --task classify"),
        (("a",), "case 3: found a set of labels"),
    ],
)
def test_a_bad_target_is_named_with_its_place(target, message):
    with pytest.raises(DataError, match=message):
        make().encode([target], ["case 3"])


def test_a_constant_target_is_refused():
    with pytest.raises(DataError, match="all 3 are 2; expected at least 2 different numbers"):
        Regress.from_targets([2.0, 2.0, 2.0], RegressConfig())


@pytest.mark.parametrize("quantiles", [(0.1, 0.9), (0.5, 0.1), (0.5, 1.0)])
def test_quantiles_need_order_and_a_median(quantiles):
    with pytest.raises(ValueError, match=r"ascending numbers between 0 and 1, 0\.5 among them"):
        RegressConfig(quantiles=quantiles)


def test_state_gives_the_same_task():
    task = make(loss="quantile")
    again = Regress.from_state(task.state())
    assert (again.mean, again.std, again.config, again.labels) == (task.mean, task.std, task.config, task.labels)


def test_a_linear_fit_aims_at_the_value_with_every_output():
    assert make(loss="quantile").aims(torch.tensor([0.5, -1.0])).tolist() == [[0.5] * 3, [-1.0] * 3]
