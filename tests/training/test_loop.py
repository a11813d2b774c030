import copy
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crnn.data.augment import AugmentConfig
from crnn.data.batch import Batches
from crnn.data.dataset import Dataset, array_example
from crnn.errors import ConfigError, DataError, ModelError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.conv import Conv, ConvConfig
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.tasks.regress import Regress, RegressConfig
from crnn.training.config import TrainConfig
from crnn.training.loop import fit
from crnn.training.outputs import compute_outputs


class Net(nn.Module):
    """Convolution, dropout, batch norm of the mean over time, linear; counts its training passes."""

    def __init__(self, outputs=2, seed=0, dropout=0.2):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = Conv((2,), ConvConfig(channels=6))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(6)
        self.out = nn.Linear(6, outputs)
        self.passes, self.stop_at = 0, -1

    def forward(self, x):
        if self.training:
            self.passes += 1
            if self.passes == self.stop_at:
                signal.raise_signal(signal.SIGINT)
        y = self.conv(x)
        mean = F.relu(y.data).sum(1) / y.lengths[:, None]
        return self.out(self.norm(self.dropout(mean)))


def dataset(count=37, seed=0, kind="class"):
    random = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        label = int(random.integers(2))
        data = random.normal(loc=label, size=(int(random.integers(6, 11)), 2)).astype(np.float32)
        target = "ab"[label] if kind == "class" else float(data.mean())
        examples.append(array_example(f"{seed}-{i}", f"row {i}", data, target=target))
    return Dataset(tuple(examples), "series", ("x", "y"), None, "test")


TRAIN, VALIDATION = dataset(), dataset(15, 1)
TASK = Classify.from_targets(TRAIN.targets, ClassifyConfig())


def train(network, config, out=None, *, resume=False, progress=None, data=TRAIN):
    return fit(network, TASK, data, VALIDATION, config, out=out, resume=resume, progress=progress)


def options(**changes):
    return TrainConfig(**{"epochs": 4, "batch_size": 8, "learning_rate": 0.01, **changes})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


RECIPES = {
    "adamw": {},
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd"},
    "rmsprop": {"optimizer": "rmsprop"},
    "average": {"ema_decay": 0.9},
    "augmented": {"augment": AugmentConfig(noise=0.2, mixup=0.3)},
    "accumulated": {"accumulate": 2},
    "plateau": {"schedule": "plateau", "plateau_patience": 1},
    "last": {"keep": "last", "max_grad_norm": None, "max_grad_value": 0.1},
}


def beside(alone=0.5):
    """Patterns that a closed solution weighs, beside a trained convolution."""
    layers = [{"type": "channel_norm"}, {"type": "missing", "mask": False}]
    patterns = {"type": "above", "thresholds": 2, "scale": 0.1, "layers": [{"type": "patterns"}]}
    learned = {"type": "mean", "layers": [{"type": "conv", "channels": 3}]}
    head = {"ridge": True, "alone": alone, "dropout": 0.2}
    torch.manual_seed(0)
    summary = {"type": "concat", "summaries": [learned, patterns]}
    return Network(spec_from_plain({"layers": layers, "summary": summary, "head": head}), features=(2,), outputs=2)


def test_weights_in_closed_form_answer_before_training_and_stay():
    network = beside()
    config = options(epochs=1, learning_rate=1e-12, weight_decay=0.0)
    train(network, config)
    outputs = compute_outputs(network, Batches(TRAIN, 8, shuffle=False, seed=0))
    assert TASK.monitor(outputs, TASK.encode(TRAIN.targets, [""] * len(TRAIN)))["accuracy"] > 0.9
    trained = beside()
    train(trained, options(weight_decay=0.0))
    fixed = network.head.fixed
    assert fixed.tolist() == [False] * 3 + [True] * (len(fixed) - 3)
    assert torch.equal(trained.head.linear.weight[:, fixed], network.head.linear.weight[:, fixed])
    assert not torch.allclose(trained.head.linear.weight[:, ~fixed], network.head.linear.weight[:, ~fixed])


def test_weights_in_closed_form_survive_an_interruption(tmp_path):
    whole, first, second = beside(), beside(), beside()
    train(whole, options(ema_decay=0.9))

    def interrupt(update):
        if update.record is not None and update.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(first, options(ema_decay=0.9), tmp_path, progress=interrupt)
    train(second, options(ema_decay=0.9), tmp_path, resume=True)
    assert same(second, whole)


@pytest.mark.parametrize("stop", ["in an epoch", "after an epoch"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_resumed_equals_uninterrupted(recipe, stop, tmp_path):
    config = options(**RECIPES[recipe])
    whole = Net()
    expected = train(whole, config)

    def interrupt(update):
        if update.record is not None and update.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    first = Net()
    first.stop_at = 8 if stop == "in an epoch" else -1  # of 5 batches an epoch
    with pytest.raises(KeyboardInterrupt, match=r"saved to .*last.safetensors"):
        train(first, config, tmp_path, progress=interrupt if stop == "after an epoch" else None)
    second = Net(seed=99)
    history = train(second, config, tmp_path, resume=True)
    assert same(second, whole)
    assert [replace(r, seconds=0) for r in history.records] == [replace(r, seconds=0) for r in expected.records]
    assert (history.best_epoch, history.stopped, history.steps) == (expected.best_epoch, "finished", expected.steps)


def test_a_finished_run_resumes_to_the_same_weights(tmp_path):
    first, second = Net(), Net(seed=5)
    train(first, options(), tmp_path)
    history = train(second, options(), tmp_path, resume=True)
    assert same(first, second)
    assert second.passes == 0
    assert len(history.records) == 4


def test_the_same_seed_gives_the_same_numbers_and_leaves_torchs_state_alone():
    config = options(augment=AugmentConfig(noise=0.1))
    one, two, other = Net(), Net(), Net()
    train(one, config)
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    train(two, config)
    assert torch.equal(torch.get_rng_state(), before)
    train(other, replace(config, seed=1))
    assert same(one, two)
    assert not same(one, other)


def test_training_equals_a_plain_loop():
    config = options(epochs=3, optimizer="adamw", schedule="constant", warmup=0.0, keep="last", max_grad_norm=0.5)
    network, plain = Net(dropout=0.0), Net(dropout=0.0)
    fit(network, TASK, TRAIN, None, config)
    decayed = [p for p in plain.parameters() if p.dim() > 1]
    spared = [p for p in plain.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    targets = torch.tensor(["ab".index(t) for t in TRAIN.targets])
    batches = Batches(TRAIN, 8, shuffle=True, seed=0)
    for epoch in range(3):
        for x, indices in batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(plain(x), targets[indices]).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
            optimizer.step()
    for a, b in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_accumulated_batches_equal_one_large_batch():
    data = dataset(32)
    plain = {"schedule": "constant", "warmup": 0.0, "optimizer": "sgd", "momentum": 0.0, "keep": "last", "epochs": 1}
    small, large = Net(dropout=0.0).eval(), Net(dropout=0.0).eval()
    for network, config in (
        (small, options(batch_size=8, accumulate=4, **plain)),
        (large, options(batch_size=32, **plain)),
    ):
        network.norm = nn.Identity()  # batch norm would see other batches
        fit(network, TASK, data, None, config)
    for a, b in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_best_epoch_is_kept():
    seen = []

    class Watch:
        def __init__(self, network):
            self.network = network

        def __call__(self, update):
            if update.record is not None:
                seen.append((update.record, copy.deepcopy(self.network.state_dict())))

    network = Net()
    history = train(network, options(learning_rate=0.05, epochs=6), progress=Watch(network))
    scores = [(record.metrics["accuracy"], -record.validation_loss) for record, _ in seen]
    best = scores.index(max(scores))
    assert history.best_epoch == best + 1
    assert history.best.is_best
    kept = seen[best][1]
    assert all(torch.equal(kept[name], tensor) for name, tensor in network.state_dict().items())
    assert not network.training


def test_patience_stops_early():
    network = Net()
    config = options(epochs=50, patience=2, learning_rate=1e-9, schedule="constant", warmup=0.0)
    for p in network.norm.buffers():
        p.data = p.data.clone()
    network.norm.momentum = 0.0  # so that nothing changes
    history = train(network, config)
    assert history.stopped == "early"
    assert len(history.records) == history.best_epoch + 2


def test_averaged_weights_are_kept():
    history_of = {}
    for decay in (None, 0.999):
        network = Net(dropout=0.0)
        start = copy.deepcopy(network.out.weight)
        train(network, options(ema_decay=decay, keep="last", learning_rate=0.05, epochs=1))
        history_of[decay] = float((network.out.weight - start).detach().norm())
    assert 0 < history_of[0.999] < history_of[None]


def test_regression_learns():
    data = dataset(60, kind="value")
    task = Regress.from_targets(data.targets, RegressConfig())
    network = Net(outputs=1, dropout=0.0)
    history = fit(network, task, data, dataset(20, 3, kind="value"), options(epochs=30, learning_rate=0.02))
    assert history.best.metrics["rmse"] < 0.5 * task.std
    assert min(r.train_loss for r in history.records) < 0.5 * history.records[0].train_loss


def test_front_ends_see_training_data_once(tmp_path):
    class Learns(Net):
        seen = 0

        def fit_statistics(self, batches):
            self.seen = sum(len(x.lengths) for x in batches)

    network = Learns()
    train(network, options(epochs=1), tmp_path)
    assert network.seen == 37
    again = Learns()
    train(again, options(epochs=1), tmp_path, resume=True)
    assert again.seen == 0


def test_outputs_come_in_the_order_of_the_data():
    network = Net(dropout=0.0).eval()
    outputs = compute_outputs(network.train(), Batches(TRAIN, 4, shuffle=True, seed=0))
    assert network.training
    network.eval()
    alone = torch.cat([network(x) for x, _ in (next(Batches(TRAIN[i : i + 1], 1, shuffle=False, seed=0).epoch(0))
                                               for i in range(len(TRAIN)))])  # fmt: skip
    torch.testing.assert_close(outputs, alone)


def test_another_run_cannot_be_resumed(tmp_path):
    with pytest.raises(ModelError, match="no checkpoint to resume from"):
        train(Net(), options(), tmp_path, resume=True)
    train(Net(), options(epochs=1), tmp_path)
    with pytest.raises(ConfigError, match=r"was trained with train.epochs=1, found 2; resume with the same options"):
        train(Net(), options(epochs=2), tmp_path, resume=True)
    with pytest.raises(ConfigError, match="the training data differs"):
        train(Net(), options(epochs=1), tmp_path, resume=True, data=TRAIN[:30])
    with pytest.raises(ConfigError, match="the network differs"):
        train(Net(outputs=3), options(epochs=1), tmp_path, resume=True)
    with pytest.raises(ConfigError, match="needs out"):
        train(Net(), options(), resume=True)
    train(Net(), options(epochs=1, checkpoint_seconds=0), tmp_path, resume=True)


def test_short_epochs_are_not_spent_on_writing(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("crnn.training.loop.save_checkpoint", lambda path, checkpoint: written.append(path))
    train(Net(), options(), tmp_path)
    assert len(written) == 1  # the last
    train(Net(), options(checkpoint_seconds=0), tmp_path)
    assert len(written) == 1 + 4


def test_without_a_folder_nothing_is_saved():
    network = Net()
    network.stop_at = 3
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background
    with pytest.raises(KeyboardInterrupt, match="epoch 1 of 4, batch 3 of 5; nothing was saved"):
        train(network, options())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_stops_at_once(tmp_path):
    def twice(update):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(Net(), options(), tmp_path, progress=twice)
    assert not (tmp_path / "checkpoints").exists()


def test_a_class_that_training_never_saw_is_named():
    odd = Dataset((array_example("x", "late.wav", np.zeros((6, 2), np.float32), target="c"),), "series", ("x", "y"),
                  None, "test")  # fmt: skip
    with pytest.raises(DataError, match=r"late.wav: label 'c' is not among the 2 classes"):
        fit(Net(), TASK, TRAIN, odd, options())


def test_mixed_precision_on_a_cpu():
    network = Net()
    history = train(network, options(precision="bf16-mixed", epochs=2))
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert history.steps == 10
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="16-mixed needs a GPU"):
            train(network, options(precision="16-mixed"))


def test_history_is_plain_json():
    history = train(Net(), options(epochs=2))
    again = type(history).from_plain(history.to_plain())
    assert again == history
