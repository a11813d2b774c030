"""Labels of frames as a path: trained, saved, streamed, exported."""

import json

import numpy as np
import pytest
import torch

import crnn
from crnn.data.annotation import Event, Events, StepLabels
from crnn.data.dataset import Dataset, array_example
from crnn.errors import ConfigError
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, Sequences
from crnn.tasks.tag import Tag, TagConfig

FRAME_BY_FRAME = {
    "model": {"layers": [{"type": "conv", "channels": 8, "kernel_size": 1}, {"type": "activation"}], "summary": None},
    "train": {"learning_rate": 0.02, "batch_size": 8, "ema_decay": 0.0, "augment": {}},
}
"""Nothing in it sees a frame's neighbours."""


def slow_changes(count=48, seed=0):
    """Two labels that stay for about 20 frames, seen through noise: a frame alone tells 3 of 4."""
    random = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        codes = (np.cumsum(random.random(int(random.integers(40, 80))) < 0.05) % 2).astype(np.int16)
        x = (2.0 * codes - 1 + random.normal(size=len(codes)) * 1.5).astype(np.float32)[:, None]
        shown = np.where(random.random(len(codes)) < 0.2, -1, codes).astype(np.int16)
        examples.append(array_example(f"{seed}-{i}", f"row {i}", x, target=StepLabels(shown, ("low", "up"))))
    return Dataset(tuple(examples), "series", ("x",), None, "changes")


def train(crf, **options):
    config = FRAME_BY_FRAME | {"task": {"crf": crf}}
    return crnn.train(slow_changes(), task="tag", preset="tag", config=config, seed=1, epochs=12, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(True, out=tmp_path_factory.mktemp("chain") / "run")


def accuracy(model):
    test = slow_changes(40, seed=7)
    frames = model.network.frames(torch.from_numpy(test.lengths))
    return model.task.scores_of(model.task.count(model.outputs(test), test.targets, frames).sum(0))["accuracy"]


def test_what_follows_what_is_learned(trained):
    assert accuracy(train(False).model) < 0.8
    assert accuracy(trained.model) > 0.86


def test_a_saved_model_is_the_same(trained, tmp_path):
    trained.model.save(tmp_path)
    data = slow_changes(6, seed=3)
    assert crnn.load(tmp_path).predict(data) == trained.model.predict(data)


@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_a_stream_tells_of_the_path_of_the_whole(trained, chunk):
    x = np.concatenate([example.load() for example in slow_changes(6, seed=4)])
    stream, told = trained.model.stream(), []
    for at in range(0, len(x), chunk):
        update = stream.push(x[at : at + chunk])
        told += update.news if update is not None else []
        stream = trained.model.stream(stream.save())
    assert len(told) > 2
    told += stream.finish().news
    (whole,) = trained.model.predict([x])
    assert [(e["label"], e["start"], e["end"]) for e in told] == [
        (e["label"], e["start"], e["end"]) for e in whole["events"]
    ]
    assert [e["probability"] for e in told] == pytest.approx([e["probability"] for e in whole["events"]], rel=1e-4)


def test_an_export_names_labels_and_pairs_and_leaves_the_path_to_its_user(trained, tmp_path):
    pytest.importorskip("onnx")
    import onnx

    trained.model.export("onnx", tmp_path / "chain.onnx")
    facts = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "chain.onnx").metadata_props}
    assert facts["crnn.labels"] == ["low", "up", "low>low", "low>up", "up>low", "up>up"]
    assert facts["crnn.activation"] == "none"
    assert "Viterbi" in facts["crnn.left_to_do"]


def test_the_loss_is_a_mean_over_labelled_frames():
    """Scores of zero: every label of a sequence has one half."""
    task = Tag.from_targets([StepLabels(np.array([0, 1]), ("a", "b"))], TagConfig(crf=True))
    targets = [StepLabels(np.array(codes), ("a", "b")) for codes in ([0, 1, -1], [1], [-1, -1])]
    n = torch.tensor([3, 1, 2])
    rows = task.encode(targets, ["", "", ""], Frames(Timing(1), n, n)).rows(torch.arange(3))
    loss = task.loss(Sequences(torch.zeros(3, 3, 6), n), rows)
    assert float(loss) == pytest.approx(np.log(2))
    assert float(task.weight(rows)) == 3
    outputs = torch.zeros(1, 2, 6, requires_grad=True)
    nothing = task.loss(Sequences(outputs, n[2:]), Sequences(torch.full((1, 2), -1), n[2:]))
    nothing.backward()
    assert nothing.item() == 0
    assert (outputs.grad == 0).all()


def test_a_transition_that_never_happens_is_not_found():
    task = Tag.from_targets([StepLabels(np.array([0, 1]), ("a", "b"))], TagConfig(crf=True))
    row = torch.tensor([[2.0, 0, 0, 0, 0, 0], [0, 1, 0, -9, 0, 0], [2, 0, 0, -9, 0, 0]])
    n = torch.tensor([3])
    (found,) = task.predictions(Ragged.of([row]), Frames(Timing(1), n, n))
    assert found["text"] == "aaa"


def test_what_a_crf_is_not_for():
    with pytest.raises(ConfigError, match=r"task\.crf=true: takes a label for every frame, found points"):
        Tag.from_targets([Events((Event(3, 4, "N"),))], TagConfig(crf=True))
    with pytest.raises(ConfigError, match=r"task\.class_weights=balanced: weighs frames one by one, but task\.crf"):
        TagConfig(crf=True, class_weights="balanced")


def test_a_saved_task_is_the_same():
    task = Tag.from_targets([StepLabels(np.array([0, 1]), ("a", "b"))], TagConfig(crf=True))
    again = Tag.from_state(json.loads(json.dumps(task.state())))
    assert (again.state(), type(again), again.num_outputs) == (task.state(), type(task), 6)
