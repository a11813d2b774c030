"""Training in batches by frames, and on windows of long sequences, from options to history."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import crnn
from crnn.data.dataset import Dataset, array_example
from crnn.errors import DataError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.run import check
from crnn.sequences import pad
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.training import estimate
from crnn.training.config import TrainConfig
from crnn.training.loop import fit

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
from step_example import Signs, SignsConfig, signs_data

LAYERS = [{"type": "conv", "channels": 8}, {"type": "activation"}, {"type": "recurrent", "hidden_size": 8}]


def labelled(lengths, seed=0):
    random = np.random.default_rng(seed)
    arrays = [random.normal(0.5 * (-1) ** i, 1, (n, 2)).astype(np.float32) for i, n in enumerate(lengths)]
    examples = [array_example(f"{i}", f"row {i}", x, target="ab"[i % 2]) for i, x in enumerate(arrays)]
    return Dataset(tuple(examples), "series", ("x", "y"), None, "made")


RAGGED = labelled([int(n) for n in np.random.default_rng(0).lognormal(3, 0.8, 40)])


@pytest.mark.parametrize(
    ("task", "data"),
    [
        (Classify.from_targets(["a", "b"], ClassifyConfig()), RAGGED),
        (Signs(["below", "above"], SignsConfig()), signs_data(40, length=(5, 60))),
    ],
)
def test_every_sequence_weighs_the_same_in_batches_of_different_sizes(task, data):
    torch.manual_seed(0)
    summary = {"type": "mean"} if task.name == "classify" else None
    net = Network(spec_from_plain({"layers": LAYERS, "summary": summary}), features=(2,), outputs=2)
    with torch.no_grad():
        x = pad([torch.from_numpy(example.load()) for example in data])
        outputs, places = net.eval()(x), [example.where for example in data]
        if summary is None:
            frames = net.frames(x.lengths)
            expected = task.loss(outputs, task.encode(data.targets, places, frames).rows(torch.arange(len(data))))
        else:
            expected = task.loss(outputs, task.encode(data.targets, places))
    config = TrainConfig(epochs=1, batch_frames=150, learning_rate=1e-12, weight_decay=0.0)
    history = fit(net, task, data, None, config)
    assert history.steps > 5
    assert history.records[0].train_loss == pytest.approx(float(expected), rel=1e-5)
    assert history.records[0].padding < 0.25


def test_a_run_by_frames_replaces_the_presets_batch_size_and_goes_on_as_it_was(tmp_path):
    options = {"preset": "seed", "epochs": 3, "settings": {"train.batch_frames": 200, "train.checkpoint_seconds": 0}}
    run = crnn.train(RAGGED, out=tmp_path / "run", **options)
    assert run.plan_facts["config"]["train"]["batch_size"] is None
    again = crnn.train(RAGGED, **options)
    for p, q in zip(run.model.network.parameters(), again.model.network.parameters(), strict=True):
        assert torch.equal(p, q)


def test_one_sequence_a_thousand_times_longer_is_said_and_can_be_cut(tmp_path, capsys, monkeypatch):
    data = labelled([10] * 30 + [10_000])
    options = {"preset": "seed", "epochs": 1, "quiet": False}
    crnn.train(data, settings={"split.test": 0.0}, **options)
    assert "memory   row 30: 10,000 frames (1,000 times the median): a batch of" in capsys.readouterr().out
    crnn.train(data, settings={"split.test": 0.0, "train.max_frames": 20}, **options)
    assert "memory" not in capsys.readouterr().out
    assert any("10,000 frames (1,000 times" in problem.what for problem in check(data).problems)
    monkeypatch.setattr(estimate, "free_bytes", lambda: 1 << 20)
    with pytest.raises(DataError, match=r"row 30: 10,000 frames .*--set train\.max_frames=\d+ trains on windows"):
        crnn.train(data, settings={"split.test": 0.0}, **options)


def test_a_run_reads_through_a_cache(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "data" / "ab"[i % 2] / f"{i}.npy", rng.standard_normal((9 + i, 2)).astype(np.float32))
    options = {"preset": "seed", "epochs": 1, "settings": {"train.checkpoint_seconds": 0}}
    runs = [
        crnn.train(tmp_path / "data", out=tmp_path / name, cache=cache, **options)
        for name, cache in (("plain", None), ("cached", tmp_path / "cache"), ("again", tmp_path / "cache"))
    ]
    assert "cache" in runs[1].model.origin["data"]
    for run in runs[1:]:
        for p, q in zip(run.model.network.parameters(), runs[0].model.network.parameters(), strict=True):
            assert torch.equal(p, q)
    assert crnn.Run(tmp_path / "cached").plan_facts["source"]["options"]["cache"] == str(tmp_path / "cache")
