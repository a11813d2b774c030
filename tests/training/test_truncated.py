"""Truncated back-propagation: the state is carried exactly, and what is learned is what a plain loop learns."""

import copy
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn.data.augment import AugmentConfig
from crnn.data.consecutive import ConsecutiveWindows
from crnn.data.dataset import Dataset, array_example
from crnn.errors import ConfigError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.sequences import Ragged, Sequences
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training.config import TrainConfig
from crnn.training.loop import fit
from crnn.training.truncated import Carried, check_targets

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from step_example import Signs, SignsConfig, signs_data

LAYERS = [
    {"type": "conv", "channels": 8, "kernel_size": 5, "stride": 2},
    {"type": "norm"},
    {"type": "activation"},
    {"type": "recurrent", "hidden_size": 8, "cell": "gru"},
    {"type": "conv", "channels": 6, "kernel_size": 3},
    {"type": "recurrent", "hidden_size": 8, "learned_initial_state": True},
]


def network(summary=None, layers=LAYERS, outputs=2):
    torch.manual_seed(0)
    summary = None if summary is None else {"type": summary}
    return Network(spec_from_plain({"layers": layers, "summary": summary}), features=(2,), outputs=outputs)


def labelled(count=13, length=(60, 200)):
    """Series of two classes, by the sign of their mean."""
    random = np.random.default_rng(0)
    examples = []
    for i in range(count):
        x = random.normal(0.3 * (-1) ** i, 1, (int(random.integers(*length)), 2)).astype(np.float32)
        examples.append(array_example(f"{i}", f"row {i}", x, target="ab"[i % 2]))
    return Dataset(tuple(examples), "series", ("x", "y"), None, "made")


SIGNS = Signs(["below", "above"], SignsConfig())
CLASSES = Classify.from_targets(["a", "b"], ClassifyConfig())


def options(**changes):
    return TrainConfig(**{"epochs": 3, "batch_size": 4, "learning_rate": 0.01, **changes})


@pytest.mark.parametrize("summary", [None, "mean", "last", "max"])
def test_outputs_of_windows_are_those_of_the_whole(summary):
    data, net = labelled(), network(summary).eval()
    carried, windows = Carried(net, 20), ConsecutiveWindows(data, 4, frames=20, seed=0)
    found = {i: [] for i in range(len(data))}
    with torch.no_grad():
        for window in windows.steps(0):
            outputs, begin = carried.step(window, window.x)
            rows = outputs.unpad() if summary is None else outputs[:, None]
            for i, row in zip(window.indices.tolist(), rows, strict=True):
                assert summary is not None or begin == sum(len(part) for part in found[i])
                found[i].append(row)
        for i, example in enumerate(data):
            x = torch.from_numpy(example.load())[None]
            whole = net(Sequences(x, torch.tensor([example.length])))
            if summary is None:
                torch.testing.assert_close(torch.cat(found[i]), whole.data[0], atol=1e-6, rtol=1e-5)
            else:
                torch.testing.assert_close(found[i][-1], whole, atol=1e-6, rtol=1e-5)


def test_the_gradient_of_one_window_is_that_of_the_whole():
    layers = [layer for layer in LAYERS if layer["type"] != "norm"]
    data, one, other = labelled(3, (30, 31)), network(layers=layers), network(layers=layers)
    (window,) = ConsecutiveWindows(data, 3, frames=30, seed=0).steps(0)
    outputs, _ = Carried(one, 30).step(window, window.x)
    outputs.data.square().sum().backward()
    other(window.x).data.square().sum().backward()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("task", "data", "summary"), [(SIGNS, signs_data(12), None), (CLASSES, labelled(), "mean")])
def test_windows_longer_than_the_recordings_change_nothing(task, data, summary):
    layers = LAYERS[2:] if task is SIGNS else LAYERS
    nets = [network(summary, layers) for _ in range(2)]
    histories = [
        fit(net, task, data, None, options(truncate_frames=frames))
        for net, frames in zip(nets, (None, int(data.lengths.max())), strict=True)
    ]
    assert [r.train_loss for r in histories[0].records] == [r.train_loss for r in histories[1].records]
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(p, q)


def test_training_equals_a_plain_loop():
    """One recording, an LSTM: nn.LSTM with its state detached between windows of 10, the last one taking the rest."""
    layers = [{"type": "recurrent", "hidden_size": 8}]
    data, net = signs_data(1, length=(47, 48)), network(layers=layers)
    plain = copy.deepcopy(net)
    config = options(epochs=2, optimizer="sgd", schedule="constant", warmup=0.0, momentum=0.0, weight_decay=0.0,
                     max_grad_norm=None, truncate_frames=10, learning_rate=0.1)  # fmt: skip
    history = fit(net, SIGNS, data, None, config)
    assert history.steps == 8
    x, y = torch.from_numpy(data[0].load())[None], torch.from_numpy(data[0].target.codes.astype(np.int64))
    lstm, linear = plain.body.layers[0].forwards[0], plain.head.linear
    sgd = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        state = None
        for begin, end in ((0, 10), (10, 20), (20, 30), (30, 47)):
            out, (h, c) = lstm(x[:, begin:end], state)
            state = h.detach(), c.detach()
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(linear(out[0]), y[begin:end]).backward()
            sgd.step()
    for (name, p), q in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("task", "data", "summary"), [(SIGNS, signs_data(12, length=(60, 90)), None), (CLASSES, labelled(), "mean")]
)
@pytest.mark.parametrize("pushes", [9, 20])
def test_resumed_equals_uninterrupted_in_the_midst_of_a_recording(task, data, summary, pushes, tmp_path):
    layers = LAYERS[2:] if task is SIGNS else LAYERS
    config = options(truncate_frames=20)
    whole = network(summary, layers)
    expected = fit(whole, task, data, None, config)
    first, push = network(summary, layers), Network.push
    left = [pushes]

    def counted(self, data, state):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        return push(self, data, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "push", counted)
        with pytest.raises(KeyboardInterrupt, match="saved to"):
            fit(first, task, data, None, config, out=tmp_path)
    again = network(summary, layers)
    history = fit(again, task, data, None, config, out=tmp_path, resume=True)
    assert [replace(r, seconds=0) for r in history.records] == [replace(r, seconds=0) for r in expected.records]
    for (name, p), q in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_long_recordings_are_learned():
    net = network(layers=LAYERS[2:])
    data = signs_data(6, length=(300, 500))
    history = fit(net, SIGNS, data, signs_data(3, 1, (300, 500)), options(epochs=6, truncate_frames=30))
    assert history.records[-1].metrics["accuracy"] > 0.9


def test_what_cannot_carry_is_refused_by_name():
    layers = [{"type": "recurrent", "hidden_size": 8, "bidirectional": True}]
    with pytest.raises(ConfigError, match=r"truncate_frames=20: nothing can be carried: recurrent cannot stream"):
        fit(network("mean", layers), CLASSES, labelled(), None, options(truncate_frames=20))
    with pytest.raises(ConfigError, match=r"truncate_frames=2: this network answers after \d+ frames"):
        fit(network("mean"), CLASSES, labelled(), None, options(truncate_frames=2))
    with pytest.raises(ConfigError, match=r"train.augment.mixup=0.2: moves frames from one window into another"):
        fit(network("mean"), CLASSES, labelled(), None, options(truncate_frames=20, augment=AugmentConfig(mixup=0.2)))
    with pytest.raises(ConfigError, match=r"train.max_frames=9: has no place beside train.truncate_frames"):
        options(truncate_frames=20, max_frames=9)
    with pytest.raises(ConfigError, match=r"task letters has one target for a whole sequence of frames"):
        check_targets(Ragged(torch.zeros(3), torch.tensor([2, 1])), torch.tensor([5, 5]), "letters", 20)


def test_windows_of_max_frames_are_refused_for_targets_a_frame():
    with pytest.raises(ConfigError, match=r"train.max_frames=9: task signs has a target for every frame"):
        fit(network(layers=LAYERS[2:]), SIGNS, signs_data(12), None, options(max_frames=9))
