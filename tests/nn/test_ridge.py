"""Ridge regression against the textbook: solved anew without each example, one after the other."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from crnn.nn.ridge import PENALTIES, best_scale, fit_ridge


def solve(features, targets, penalty):
    """Normal equations with a free intercept."""
    centre, level = features.mean(0), targets.mean(0)
    x, y = features - centre, targets - level
    weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ y).T
    return weight, level - weight @ centre


@pytest.mark.parametrize("num_features", [3, 30])
def test_left_out_outputs_are_those_of_fits_without_the_example(num_features):
    torch.manual_seed(0)
    x = torch.randn(12, num_features).double()
    y = x[:, :2] + torch.randn(12, 2)
    found = fit_ridge(x, y)
    unit = ((x - x.mean(0)) @ (x - x.mean(0)).T).diagonal().mean()
    by_hand = []
    for penalty in PENALTIES * unit:
        rest = [torch.arange(12) != i for i in range(12)]
        fits = [solve(x[r], y[r], penalty) for r in rest]
        by_hand.append(torch.stack([weight @ x[i] + bias for i, (weight, bias) in enumerate(fits)]))
    errors = [float((outputs - y).square().mean()) for outputs in by_hand]
    best = errors.index(min(errors))
    assert_close(found.left_out, by_hand[best])
    weight, bias = solve(x, y, PENALTIES[best] * unit)
    assert_close(found.weight, weight)
    assert_close(found.bias, bias)


def test_noise_is_answered_by_the_mean():
    torch.manual_seed(0)
    x, y = torch.randn(40, 100), torch.randn(40, 1)
    assert float((fit_ridge(x, y).left_out - y.mean()).std()) < 0.2


def test_useless_outputs_are_scaled_away_and_good_ones_are_made_sure():
    torch.manual_seed(0)
    targets = torch.arange(40) % 2
    aims = 2.0 * F.one_hot(targets, 2) - 1

    def loss(outputs):
        return F.cross_entropy(outputs, targets)

    assert best_scale(-aims, loss) == 0
    assert best_scale(aims, loss) > 5
    assert best_scale(torch.randn(40, 2), loss) < 0.5
