import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from crnn.metrics.calibration import calibration_error, fit_temperature


def test_error_by_hand():
    # sorted by confidence: (.6 wrong, .7 right) and (.9 right, 1. right): gaps |.65 - .5| and |.95 - 1|
    confidence = torch.tensor([0.9, 0.6, 1.0, 0.7])
    correct = torch.tensor([True, False, True, True])
    result = calibration_error(confidence, correct, num_bins=2)
    assert result.error == pytest.approx((0.15 + 0.05) / 2, abs=1e-6)
    assert [b.examples for b in result.bins] == [2, 2]
    assert result.bins[0].low == pytest.approx(0.6)


def test_true_probabilities_are_calibrated():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(50_000, generator=generator)
    correct = torch.rand(50_000, generator=generator) < p
    assert calibration_error(p, correct).error < 0.01
    assert calibration_error(p.sqrt(), correct).error == pytest.approx(1 / 6, abs=0.01)  # mean of sqrt(p) - p


def test_fewer_examples_than_bins():
    assert calibration_error(torch.tensor([0.5]), torch.tensor([True])).error == 0.5
    assert np.isnan(calibration_error(torch.empty(0), torch.empty(0, dtype=torch.bool)).error)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_undoes_a_factor(factor):
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(20_000, 4, generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.05)


def test_temperature_is_the_best_there_is():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(5000, 3, generator=generator)
    targets = (torch.rand(5000, 3, generator=generator) < (logits * 0.4).sigmoid()).float()
    best = minimize_scalar(lambda t: float(F.binary_cross_entropy_with_logits(logits / t, targets)), bounds=(0.1, 10))
    assert fit_temperature(logits, targets) == pytest.approx(best.x, rel=0.02)


def test_a_perfect_small_set_does_not_ask_for_certainty():
    logits, targets = torch.eye(2).repeat(5, 1) * 3, torch.arange(10) % 2
    confidence = (logits / fit_temperature(logits, targets)).softmax(1).max(1).values
    assert confidence[0] == pytest.approx(1 - 1 / 12, abs=1e-3)  # (10 + 1) / (10 + 2)
