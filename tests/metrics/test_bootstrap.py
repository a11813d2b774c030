import math

import pytest
import torch

from crnn.metrics.bootstrap import bootstrap_interval, bootstrap_mean


def accuracy(outputs, targets):
    return float((outputs == targets).double().mean())


def test_both_forms_give_the_binomial_interval():
    # 80 of 100: the normal approximation gives 0.8 +- 1.96 * 0.04
    outputs, targets = torch.ones(100), (torch.arange(100) < 80).float()
    for interval in (
        bootstrap_interval(accuracy, outputs, targets, num_resamples=4000),
        bootstrap_mean(outputs == targets, num_resamples=4000),
    ):
        assert interval.low == pytest.approx(0.8 - 0.0784, abs=0.011)
        assert interval.high == pytest.approx(0.8 + 0.0784, abs=0.011)


def test_whole_groups_are_drawn():
    # two speakers, one always right, one always wrong: a resample is 0, 1/2 or 1
    correct = torch.tensor([1.0] * 50 + [0.0] * 50)
    groups = ["anna"] * 50 + ["bert"] * 50
    assert bootstrap_mean(correct, groups=groups) == (0.0, 1.0)
    assert bootstrap_interval(accuracy, correct, torch.ones(100), groups=groups) == (0.0, 1.0)
    alone = bootstrap_mean(correct, groups=[None] * 100)
    assert alone == bootstrap_mean(correct)
    assert 0.35 < alone.low < 0.45


def test_groups_of_unequal_size_are_weighted_by_their_examples():
    correct = torch.tensor([1.0] * 9 + [0.0])
    interval = bootstrap_mean(correct, groups=["a"] * 9 + ["b"], level=0.0)  # the median of 0, 0.9, 0.9, 1
    assert interval.low == pytest.approx(0.9)


def test_undefined_resamples_are_left_out():
    def precision(outputs, targets):
        return float("nan") if not outputs.any() else float(targets[outputs.bool()].mean())

    outputs, targets = torch.tensor([1.0, 0, 0, 0]), torch.ones(4)
    assert bootstrap_interval(precision, outputs, targets, num_resamples=200) == (1.0, 1.0)
    assert math.isnan(bootstrap_interval(lambda o, t: float("nan"), outputs, targets, num_resamples=5).low)


def test_the_same_seed_gives_the_same_interval():
    values = torch.rand(30)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
