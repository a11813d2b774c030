"""The head, written out."""

import pytest
import torch
from torch.testing import assert_close

from crnn.config import build_config
from crnn.errors import ConfigError
from crnn.nn.head import Head, HeadConfig


def test_without_hidden_layers_it_is_linear():
    head, x = Head(3, HeadConfig(), 2), torch.randn(5, 3)
    assert_close(head(x), x @ head.linear.weight.T + head.linear.bias)


def test_hidden_layers_have_relu():
    head, x = Head(3, HeadConfig(hidden=(4,)), 2), torch.randn(5, 3)
    hidden = (x @ head.hidden[0].weight.T + head.hidden[0].bias).clamp(min=0)
    assert_close(head(x), hidden @ head.linear.weight.T + head.linear.bias)


def test_dropout_is_only_for_training():
    head, x = Head(3, HeadConfig(dropout=0.5), 2), torch.ones(5, 3)
    assert len(head(x).unique(dim=0)) > 1
    assert len(head.eval()(x).unique(dim=0)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "head.dropout=1.0; expected at least 0 and less than 1"),
        ({"hidden": [3, 0]}, r"head.hidden=\[3, 0\]; expected sizes of at least 1"),
        (
            {"ridge": True, "hidden": [3]},
            r"head.hidden=\[3\]: a ridge regression takes the place of hidden layers; set head.ridge to false",
        ),
        ({"alone": 2.0}, "head.alone=2.0; expected a share between 0 and 1"),
        ({"hiden": [3]}, "head.hiden: unknown option; did you mean 'hidden'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_config(HeadConfig, options, "head")


FIXED = torch.tensor([False, True, False, True])


def make_beside(alone: float) -> Head:
    torch.manual_seed(0)
    return Head(4, HeadConfig(ridge=True, alone=alone), 2, fixed=FIXED)


def test_ridge_is_half_of_the_answer_of_fixed_values():
    head, x = make_beside(0.5), torch.randn(50, 4)
    truth = torch.tensor([[3.0, -1.0], [0.5, 2.0]])
    aims = x[:, FIXED] @ truth.T + 1
    head.fit(x, aims, lambda outputs: (outputs - aims).square().mean())
    assert_close(head.linear.weight[:, FIXED], truth / 2, atol=1e-2, rtol=0)
    assert_close(head.linear.bias, torch.full((2,), 0.5), atol=1e-2, rtol=0)


def test_trained_values_answer_alone_and_count_double():
    head, x = make_beside(1.0), torch.randn(5, 4)
    torch.nn.init.normal_(head.linear.weight)
    own = x[:, ~FIXED] @ head.linear.weight[:, ~FIXED].T
    assert_close(head(x), 2 * own + head.linear.bias)
    assert_close(head.eval()(x), x @ head.linear.weight.T + head.linear.bias)


def test_weights_of_fixed_values_get_no_gradient():
    head = make_beside(0.0)
    head(torch.randn(5, 4)).square().sum().backward()
    assert not head.linear.weight.grad[:, FIXED].any()
    assert head.linear.weight.grad[:, ~FIXED].all()


@pytest.mark.parametrize("fixed", [None, torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)])
def test_ridge_does_nothing_without_fixed_values_beside_trained_ones(fixed):
    head, x = Head(4, HeadConfig(ridge=True), 2, fixed=fixed), torch.randn(5, 4)
    assert_close(head(x), x @ head.linear.weight.T + head.linear.bias)
    assert head.linear.weight.all()
