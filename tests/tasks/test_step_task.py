"""What every task that answers for every frame gets from the rooms around it."""

import json

import numpy as np
import pytest
import torch
from step_example import SIGNS_MODEL, Signs, signs_data

import crnn
from crnn.data.annotation import Event, Events, StepLabels
from crnn.errors import ConfigError, DataError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.run import check, resume
from crnn.sequences import Ragged, Sequences
from crnn.tasks.infer import TASKS


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(TASKS, "signs", Signs)


def train(out=None, *, epochs=8, model=None, **options):
    config = {"model": {**SIGNS_MODEL, **(model or {})}, "train": {"learning_rate": 0.02, "batch_size": 8, **options}}
    data = signs_data()
    return crnn.train(data, task="signs", preset="seed", config=config, epochs=epochs, out=out)


def test_it_is_trained_scored_saved_and_loaded(tmp_path):
    run = train(tmp_path / "run")
    found = run.evaluation
    assert found.form == "steps"
    assert found.metrics["accuracy"].low <= found.metrics["accuracy"].point <= found.metrics["accuracy"].high
    assert found.metrics["accuracy"].point > 0.9
    assert found.exactness.largest < 1e-5
    assert found.exactness.changed == 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    data = signs_data(5, 7)
    model = crnn.load(tmp_path / "run")
    assert model.predict(data) == run.model.predict(data)
    assert [len(p["labels"]) for p in model.predict(data)] == data.lengths.tolist()


def test_what_is_tuned_on_validation_is_saved(tmp_path):
    config = {"model": SIGNS_MODEL, "split": {"min_validation": 2}}
    run = crnn.train(signs_data(), task="signs", preset="seed", config=config, epochs=1, out=tmp_path / "run")
    assert run.model.task.bias == len(run.splits["sides"]["validation"]["ids"]) > 0
    assert crnn.load(tmp_path / "run").task.bias == run.model.task.bias


def test_batches_and_order_do_not_matter():
    model = train(epochs=2).model
    data = signs_data(6, 3)
    together = model.outputs(data)
    backwards = model.outputs(data.subset(range(5, -1, -1)), batch_size=1)
    for i in range(6):
        torch.testing.assert_close(together[i], backwards[5 - i], rtol=0, atol=1e-6)


def test_resumed_equals_uninterrupted(tmp_path):
    whole = train(tmp_path / "whole", epochs=4)
    stopped = train_until(tmp_path / "stopped", 2)
    again = resume(stopped, data=signs_data())
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, again.model.network.state_dict()[name]), name


def train_until(folder, epochs):
    """A run of 4 epochs, interrupted after some."""
    from crnn.run import asked_options, fit_plan, make_plan

    config = {"model": SIGNS_MODEL, "train": {"learning_rate": 0.02, "batch_size": 8, "checkpoint_seconds": 0}}
    asked = asked_options(config, None, 4)
    plan = make_plan(signs_data(), asked, task="signs", preset="seed", seed=0)
    plan.save(folder)

    def stop(update):
        if update.record is not None and update.record.epoch == epochs + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_plan(plan, folder=folder, watch=stop)
    return folder


def test_a_stream_gives_the_frames_of_the_whole():
    spec = spec_from_plain({**SIGNS_MODEL, "layers": [*SIGNS_MODEL["layers"], {"type": "pool", "tail": "ceil"}]})
    network = Network(spec, features=(2,), outputs=3).eval()
    x = torch.randn(1, 23, 2)
    state, parts = network.start(1), []
    with torch.no_grad():
        for chunk in x.split([5, 0, 1, 9, 8], 1):
            out, state = network.push(chunk, state)
            parts.append(out)
        parts.append(network.finish(state))
        whole = network(Sequences(x, torch.tensor([23])))
    torch.testing.assert_close(torch.cat(parts, 1), whole.data, rtol=0, atol=1e-6)
    assert whole.data.shape[1] == 12
    frames = network.frames(torch.tensor([23]), 100.0)
    assert frames.stride == 2
    assert frames.out_lengths.tolist() == [12]


def test_what_does_not_fit_the_frames_is_found_before_training():
    data = signs_data(30)
    short = signs_data(1, 9, (2, 3))[0]
    data = type(data)((*data.examples, short), "series", ("x", "y"), 100.0, "signs")
    with pytest.raises(DataError, match="row 0: has 2 frames, expected 3"):
        crnn.train(data, task="signs", preset="seed", config={"model": SIGNS_MODEL}, epochs=1)
    with pytest.raises(ConfigError, match="task signs answers for every frame"):
        check(data, task="signs", preset="seed")  # whose own summary does not go with the task


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model": {"summary": {"type": "mean"}}},
            "task signs answers for every frame, found a summary of type 'mean'",
        ),
        ({"train": {"augment": {"time_shift": 0.1}}}, "train.augment.time_shift=0.1: moves frames away"),
        ({"train": {"augment": {"mixup": 0.1}}}, "train.augment.mixup=0.1: moves frames away"),
    ],
)
def test_what_cannot_go_together_is_refused(config, message):
    config = {**config, "model": {**SIGNS_MODEL, **config.get("model", {})}}
    with pytest.raises(ConfigError, match=message):
        crnn.train(signs_data(), task="signs", preset="seed", config=config, epochs=1)


def test_one_answer_a_sequence_needs_a_summary():
    data = signs_data()
    examples = [type(e)(e.id, e.where, e.length, e.load, "ab"[i % 2]) for i, e in enumerate(data)]
    data = type(data)(tuple(examples), "series", ("x", "y"), 100.0, "classes")
    with pytest.raises(ConfigError, match="task classify gives one answer a sequence, found no summary"):
        crnn.train(data, config={"model": SIGNS_MODEL}, preset="seed", epochs=1)


def test_ragged_rows_are_the_sequences():
    ragged = Ragged.of([torch.arange(3), torch.arange(0), torch.arange(5)])
    assert len(ragged) == 3
    assert [row.tolist() for row in ragged] == [[0, 1, 2], [], [0, 1, 2, 3, 4]]
    assert ragged.rows(torch.tensor([2, 0])).data.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]
    assert ragged.subset([2]).lengths.tolist() == [5]


def test_annotations_are_checked_cut_and_told_apart():
    events = Events((Event(5, 6, "b"), Event(1, 4, "a")))
    assert events.items[0].label == "a"
    assert events.between(1, 3) == Events((Event(0, 2, "a"),))
    with pytest.raises(DataError, match="from frame 3 to 3; expected 0 <= start < end"):
        Events((Event(3, 3, "a"),))
    labels = StepLabels(np.array([0, 1, -1]), ("x", "y"))
    assert labels.labels == {"x", "y"}
    assert repr(labels) != repr(StepLabels(np.array([0, 1, 1]), ("x", "y")))
    with pytest.raises(DataError, match=r"outside of -1 \.\.\. 1"):
        StepLabels(np.array([2]), ("x", "y"))


def test_metrics_are_plain_json(tmp_path):
    train(tmp_path / "run", epochs=1)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["form"] == "steps"
