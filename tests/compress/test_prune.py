"""Magnitude pruning: the smallest weights of each tensor are zero, before and after fine-tuning."""

from __future__ import annotations

import pytest
import torch

from compress.test_int8 import BRANCHED, data, model
from crnn.compress.prune import kept_at_zero, prune, share_of_zeros
from crnn.errors import ConfigError
from crnn.models.int8 import int8_weights
from crnn.training.config import TrainConfig

CONFIG = TrainConfig(steps=4, batch_size=4, ema_decay=0.5, keep="last")


def test_half_of_each_tensor_is_zero_and_stays_so_in_training():
    before = model(BRANCHED)
    after = prune(before, data(), share=0.5, config=CONFIG)
    assert share_of_zeros(before) == 0
    old, new = before.network.state_dict(), after.network.state_dict()
    for name in int8_weights(before.network):
        assert abs((new[name] == 0).double().mean() - 0.5) <= 0.5 / new[name].numel() + 1e-9
        largest = old[name].abs() > old[name].abs().median()
        assert (new[name] != 0)[largest].all()  # the large ones are those that stay
        assert not torch.equal(new[name][largest], old[name][largest])  # and they have learned
    assert not torch.equal(new["body.layers.2.weight"], old["body.layers.2.weight"])


def test_what_the_front_end_learned_stays():
    before = model(BRANCHED)
    mean = before.network.state_dict()["body.layers.0.mean"].clone()
    assert torch.equal(prune(before, data(), share=0.5, config=CONFIG).network.state_dict()["body.layers.0.mean"], mean)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_no_optimiser_moves_a_zero(optimizer):
    config = TrainConfig(steps=3, batch_size=4, optimizer=optimizer)
    assert 0.29 < share_of_zeros(prune(model(BRANCHED), data(), share=0.3, config=config, epochs=2)) < 0.31


def test_gradients_are_whole_again_afterwards():
    weight = torch.nn.Parameter(torch.tensor([0.0, 2.0]))
    with kept_at_zero([weight]):
        weight.sum().backward()
    assert weight.grad.tolist() == [0.0, 1.0]
    weight.grad = None
    weight.sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 50.0])
def test_a_share_that_leaves_everything_or_nothing_is_refused(share):
    with pytest.raises(ConfigError, match=f"prune={share:g}; expected a share between 0 and 1, such as 0.5"):
        prune(model(BRANCHED), data(), share=share, config=CONFIG)
