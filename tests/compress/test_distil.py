"""Distillation: what the distance to a teacher is, and that a student comes nearer to its teacher than without one."""

from __future__ import annotations

import math

import pytest
import torch

import crnn
from compress.test_int8 import BRANCHED, data, model
from crnn.compress.distil import Pair, distance, distil, taught_task
from crnn.data.read import from_arrays
from crnn.errors import ConfigError
from crnn.models.spec import spec_from_plain
from crnn.sequences import pad
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training.config import TrainConfig

STUDENT = spec_from_plain({"layers": [{"type": "recurrent", "hidden_size": 12}], "summary": {"type": "mean"}})
CONFIG = TrainConfig(steps=40, batch_size=12, learning_rate=1e-2, keep="last")


def test_the_distance_of_classes_is_the_softened_divergence():
    """By hand: logits ln 9 and 0 at softness 2 are 3 : 1, equal logits are 1 : 1."""
    taught, own = torch.tensor([[math.log(9), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert float(distance(own, taught, "softmax", 2.0)) == pytest.approx(expected)
    assert float(distance(taught, taught, "softmax", 2.0)) == pytest.approx(0)


def test_the_distance_of_label_sets_and_of_numbers():
    """By hand: probability 0.75 of the teacher against 0.5 costs ln 2; numbers differ by 3 and 1."""
    taught = torch.tensor([[2 * math.log(3)]])
    assert float(distance(torch.zeros(1, 1), taught, "sigmoid", 2.0)) == pytest.approx(4 * math.log(2))
    assert float(distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]]), "none", 2.0)) == 5.0


def test_the_loss_is_shared_between_targets_and_teacher():
    task = Classify.from_targets(["a", "b"], ClassifyConfig())
    own, targets = torch.tensor([[2.0, -1.0]]), torch.tensor([1])
    taught = taught_task(task, 2.0, 0.25)
    both = taught.loss(torch.cat([own, torch.zeros(1, 2)], 1), targets)
    expected = 0.75 * task.loss(own, targets) + 0.25 * distance(own, torch.zeros(1, 2), "softmax", 2.0)
    torch.testing.assert_close(both, expected)
    assert torch.equal(taught.loss(own, targets), task.loss(own, targets))  # validation has no teacher
    assert torch.equal(task.loss(own, targets), torch.nn.functional.cross_entropy(own, targets))


def test_a_student_that_only_listens_comes_to_say_what_its_teacher_says():
    teacher = model(BRANCHED)
    before = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    targets = teacher.outputs(data())

    def difference(share: float) -> float:
        student = distil(teacher, STUDENT, data(), config=CONFIG, share=share)
        assert student.network.spec == STUDENT
        return float((student.outputs(data()).log_softmax(1) - targets.log_softmax(1)).abs().mean())

    assert difference(1.0) < 0.3 * difference(0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.network.state_dict().items())


def test_the_teacher_is_no_part_of_what_is_trained():
    student = model(BRANCHED).network
    pair = Pair(student, lambda x: torch.ones(len(x.lengths), 3))
    assert {name.removeprefix("student.") for name in pair.state_dict()} == set(student.state_dict())
    x = pad([torch.randn(5, 3), torch.randn(8, 3)])
    assert pair.train()(x).shape == (2, 6)
    assert torch.equal(pair(x)[:, 3:], torch.ones(2, 3))
    assert pair.eval()(x).shape == (2, 3)


def test_a_regression_can_be_taught():
    numbers = from_arrays([example.load() for example in data()], [0.3 * i for i in range(12)])
    teacher = crnn.train(numbers, preset="seed", settings={"train.steps": 2, "split.test": 0.0}).model
    config = TrainConfig(steps=2, batch_size=6)
    assert distil(teacher, STUDENT, numbers, config=config).outputs(numbers).shape == (12, 1)


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"softness=0, share=0.5; expected softness > 0 and 0 <= share <= 1"):
        distil(model(BRANCHED), STUDENT, data(), config=CONFIG, softness=0.0)
