import copy
import math

import pytest
import torch
from torch import nn

from crnn.training.config import TrainConfig
from crnn.training.optim import Average, Schedule, build_optimizer, shorten


def rates(steps, **options):
    schedule = Schedule(TrainConfig(learning_rate=1.0, **options), steps)
    return [schedule.rate(step) for step in range(steps)]


def test_one_cycle_rises_and_falls():
    values = rates(100, warmup=0.2)
    assert values[:20] == pytest.approx([(i + 1) / 21 for i in range(20)])
    assert values[20] == 1.0
    assert values[60] == pytest.approx(0.5)  # half way down
    assert values[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 79 / 80)))
    assert min(values) > 0


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_shortest_runs_have_a_rate(steps):
    assert all(0 < rate <= 1 for rate in rates(steps, warmup=0.9))


def test_constant_stays():
    assert rates(10, schedule="constant", warmup=0.0) == [1.0] * 10


def test_plateau_lowers_when_nothing_improves():
    schedule = Schedule(TrainConfig(schedule="plateau", learning_rate=1.0, warmup=0.0, plateau_patience=4), 100)
    for value in (3.0, 2.0, 2.5, 2.0):
        schedule.observe(value, 2)
    assert schedule.rate(50) == pytest.approx(0.1)
    again = Schedule(TrainConfig(schedule="plateau", learning_rate=1.0, warmup=0.0), 100)
    again.load(schedule.state())
    assert again.rate(50) == pytest.approx(0.1)
    assert again.state() == schedule.state()


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])  # adamw: below, by its numbers
def test_decay_spares_biases_and_norms(name):
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    groups = build_optimizer(network, TrainConfig(optimizer=name, weight_decay=0.3)).param_groups
    assert [(group["weight_decay"], [p.dim() for p in group["params"]]) for group in groups] == [
        (0.3, [2]),
        (0.0, [1, 1, 1]),
    ]
    (group,) = build_optimizer(network, TrainConfig(optimizer=name, weight_decay=0.0)).param_groups
    assert (group["weight_decay"], len(group["params"])) == (0.0, 4)


def test_average_by_hand():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.25)
    nn.init.ones_(network.weight)
    average.update(0)  # decay min(0.25, 1/10)
    assert float(average.network.weight.detach()) == pytest.approx(0.9)
    average.update(100)
    assert float(average.network.weight.detach()) == pytest.approx(0.9 * 0.25 + 0.75)
    assert not average.network.weight.requires_grad


def test_average_covers_running_statistics():
    network = nn.BatchNorm1d(2)
    average = Average(network, 0.5)
    before = copy.deepcopy(network.state_dict())
    network(torch.randn(8, 2) + 5)
    average.update(1000)
    expected = (before["running_mean"] + network.running_mean) / 2
    torch.testing.assert_close(average.network.running_mean, expected)
    assert int(average.network.num_batches_tracked) == 1


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_shorten_gives_the_numbers_of_clip_grad_norm(limit: float) -> None:
    parameters = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    ours = [parameter.grad.clone() for parameter in parameters]
    norm = shorten(ours, limit)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(parameters, limit))
    for own, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(own, parameter.grad, rtol=1e-5, atol=0)
    assert float(shorten([], limit)) == 0


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])  # fused, and not
def test_adamw_gives_the_numbers_of_pytorch_with_two_groups(precision: str) -> None:
    network = nn.Linear(4, 3)
    reference = copy.deepcopy(network)
    config = TrainConfig(learning_rate=0.05, weight_decay=0.3, precision=precision)
    ours = build_optimizer(network, config)
    groups = [
        {"params": [reference.weight], "weight_decay": 0.3},
        {"params": [reference.bias], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.999))
    for step in range(20):
        x = torch.randn(8, 4)
        for model, optimizer in ((network, ours), (reference, theirs)):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 / (step + 1)
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(network.weight, reference.weight)
    torch.testing.assert_close(network.bias, reference.bias)
