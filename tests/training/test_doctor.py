import numpy as np
import pytest
import torch
from torch import nn

from crnn.data.dataset import Dataset, array_example
from crnn.errors import TrainingError
from crnn.nn.blocks import Activation, ActivationConfig
from crnn.nn.layers import Chain
from crnn.sequences import Sequences
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training.config import TrainConfig
from crnn.training.doctor import Doctor, first_broken_layer, silent_layers
from crnn.training.loop import fit


class Net(nn.Module):
    """Mean over time, one hidden layer."""

    def __init__(self, channels=2):
        super().__init__()
        self.hidden = nn.Linear(channels, 8)
        self.relu = nn.ReLU()
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.relu(self.hidden(x.zeroed().data.mean(1))))


def dataset(count=24, bad=None, value=np.nan):
    random = np.random.default_rng(0)
    examples = []
    for i in range(count):
        data = random.normal(size=(5, 2)).astype(np.float32)
        if i == bad:
            data[2, 1] = value
        examples.append(array_example(str(i), f"wave {i}", data, target="ab"[i % 2]))
    return Dataset(tuple(examples), "series", ("x", "y"), None, "test")


def train(network, data, **options):
    task = Classify.from_targets(data.targets, ClassifyConfig())
    return fit(network, task, data, None, TrainConfig(batch_size=4, **{"epochs": 4, **options}))


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinite values")])
def test_bad_data_is_named(value, what):
    message = (
        f"epoch 1 of 4, batch . of 6: the loss is nan, first in hidden: the data is the cause: wave 7 holds {what}"
    )
    with pytest.raises(TrainingError, match=message):
        train(Net(), dataset(bad=7, value=value))


@pytest.mark.parametrize(
    ("bad", "message"),
    [(3, r"the outputs for 1 of 9 validation examples are not finite \(wave 3\)"), (None, "training diverged")],
)
def test_validation_that_cannot_be_scored_is_explained(bad, message):
    doctor, outputs = Doctor(Net()), torch.zeros(9, 2)
    doctor.check_outputs(outputs, dataset(9), "epoch 1", 0.1)
    outputs[slice(None) if bad is None else bad] = torch.nan
    with pytest.raises(TrainingError, match=message):
        doctor.check_outputs(outputs, dataset(9), "epoch 1", 0.1)
    task = Classify.from_targets(["a", "b"], ClassifyConfig())
    if bad is not None:
        with pytest.raises(TrainingError, match=message):
            fit(Net(), task, dataset(), dataset(9, bad=bad), TrainConfig(batch_size=4, epochs=1))


def test_a_learning_rate_that_diverges_is_named():
    with pytest.raises(TrainingError, match=r"training diverged.*lower train.learning_rate \(now 1e\+30\)"):
        train(
            Net(), dataset(), optimizer="sgd", learning_rate=1e30, max_grad_norm=None, schedule="constant", warmup=0.0
        )


def test_a_layer_that_breaks_is_named():
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    network = Net()
    network.relu = Log()
    with pytest.raises(
        TrainingError, match="the loss is nan, first in relu: its input is finite and its output is not"
    ):
        train(network, dataset())


def test_parameters_out_of_reach_are_named():
    network = Net()
    network.spare = nn.Linear(3, 3)
    with pytest.raises(TrainingError, match=r"no gradient ever reaches 2 parameters \(spare.weight, spare.bias\)"):
        train(network, dataset())
    network.spare.requires_grad_(False)
    train(network, dataset())


def test_dead_layers_are_named():
    network = Net()
    nn.init.constant_(network.hidden.bias, -100.0)
    with pytest.raises(TrainingError, match="epoch 2 of 4: dead layers: relu put out nothing but zeros"):
        train(network, dataset())


def test_layers_in_a_chain_are_watched_too():
    relu = Activation((2,), ActivationConfig())
    network = Chain((2,), [relu])
    x = Sequences(-torch.ones(1, 3, 2), torch.tensor([3]))
    assert silent_layers(network, x) == ["layers.0"]
    assert first_broken_layer(network, Sequences(x.data * torch.inf, x.lengths)) is None  # relu(-inf) = 0
    assert first_broken_layer(network, Sequences(-x.data * torch.inf, x.lengths)) == "layers.0"
    assert "compute" not in vars(relu)


def test_exploding_gradients_are_found():
    doctor = Doctor(Net())
    for _ in range(3):
        doctor.check_gradients(2.0, 0.7, 0.7, "epoch 3", 0.1)
    doctor.check_gradients(1e4, 0.7, 0.7, "epoch 4", 0.1)  # large, but the loss is well
    with pytest.raises(TrainingError, match=r"epoch 5: gradients exploded: their norm is 1e\+04 where 2 was usual"):
        doctor.check_gradients(1e4, 70.0, 0.7, "epoch 5", 0.1)


def test_a_run_resumed_at_the_end_of_an_epoch_is_not_blamed_for_gradients_that_were_not_seen():
    network = nn.Linear(2, 1)
    doctor = Doctor(network)
    doctor.check_reached()
    doctor.note_gradients()
    with pytest.raises(TrainingError, match="no gradient ever reaches 2 parameters"):
        doctor.check_reached()
