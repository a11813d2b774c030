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
        ({"hiden": [3]}, "head.hiden: unknown option; did you mean 'hidden'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_config(HeadConfig, options, "head")
