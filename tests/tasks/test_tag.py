"""Labels of frames, points and intervals: encoded, found, scored, and the same in a stream."""

import json

import numpy as np
import pytest
import torch

import crnn
from crnn.data.annotation import Event, Events, StepLabels
from crnn.data.dataset import Dataset, array_example
from crnn.data.synthetic import heartbeats
from crnn.errors import ConfigError, DataError
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged, Sequences
from crnn.tasks.tag import Tag, TagConfig


def frames_of(*lengths, stride=1, rate=None):
    n = torch.tensor(lengths)
    return Frames(Timing(stride), n, -(-n // stride), rate)


def points(*pairs):
    return Events(tuple(Event(at, at + 1, label) for at, label in pairs))


def logits(codes, classes, scale=8.0):
    """Outputs that are sure of these classes."""
    return Ragged.of([torch.nn.functional.one_hot(torch.as_tensor(row), classes).float() * scale for row in codes])


BEATS = points((10, "N"), (30, "N"), (50, "V"))


def test_the_form_is_that_of_the_annotations():
    assert Tag.from_targets([BEATS], TagConfig()).form == "points"
    assert Tag.from_targets([Events((Event(3, 9, "dog"),))], TagConfig()).form == "intervals"
    assert Tag.from_targets([StepLabels(np.array([0, 1]), ("H", "C"))], TagConfig()).form == "labels"
    with pytest.raises(DataError, match="both labels of frames and events"):
        Tag.from_targets([BEATS, StepLabels(np.array([0, 1]), ("H", "C"))], TagConfig())
    with pytest.raises(DataError, match="found the target 'a', expected labels of frames or events"):
        Tag.from_targets(["a"], TagConfig())


def test_a_saved_task_is_the_same():
    config = TagConfig(classes="aami", ignore=("Q",), class_weights="root")
    task = Tag.from_targets([points((1, "N"), (2, "L"), (3, "A"), (4, "Q"))], config)
    task.tuned["threshold"] = 0.3
    again = Tag.from_state(task.state())
    assert (again.state(), type(again)) == (task.state(), type(task))
    assert (task.labels, task.counts) == (["N", "S"], [2, 1])
    assert task.class_weight.tolist() == pytest.approx([1, 2**0.5])


def test_points_are_encoded_at_the_rate_of_the_outputs():
    """Stride 4 at 100 Hz and a width of 0.04 s: one output frame on each side."""
    task = Tag.from_targets([BEATS], TagConfig(width=0.04))
    (row,) = task.encode([BEATS], [""], frames_of(60, stride=4, rate=100.0))
    assert row.tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 2, 2, 2, 0]


def test_an_ignored_point_is_masked():
    task = Tag.from_targets([points((1, "N"), (9, "Q"))], TagConfig(ignore=("Q",), width=1))
    codes = task.encode([points((5, "Q"), (12, "N"))], [""], frames_of(16))
    assert codes[0].tolist() == [0, 0, 0, 0, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    outputs = torch.randn(1, 16, 2, requires_grad=True)
    n = torch.tensor([16])
    task.loss(Sequences(outputs, n), codes.rows(torch.tensor([0]))).backward()
    assert (outputs.grad[0, 4:7] == 0).all()
    assert (outputs.grad[0, 7:] != 0).all()


def test_a_label_that_training_never_saw():
    task = Tag.from_targets([BEATS], TagConfig())
    with pytest.raises(DataError, match=r"a\.hea: label 'F' is not among the 2 classes.*task\.ignore"):
        task.encode([points((3, "F"))], ["a.hea"], frames_of(10))
    with pytest.raises(ConfigError, match=r"task\.ignore: 'X': no such class"):
        Tag.from_targets([BEATS], TagConfig(ignore=("X",)))


def test_points_are_found_where_they_are_and_scored():
    task = Tag.from_targets([BEATS], TagConfig(width=2, gap=3, tolerance=4))
    codes = np.zeros(60, int)
    for at, code in ((10, 1), (31, 1), (45, 2)):
        codes[at - 1 : at + 2] = code
    outputs = logits([codes], 3)
    for at in (10, 31, 45):
        outputs.data[at] *= 1.5  # surest in the middle
    found = task.find(outputs, frames_of(60))[0]
    assert [(f.start, f.label) for f in found] == [(10, "N"), (31, "N"), (45, "V")]
    total = task.count(outputs, [BEATS], frames_of(60)).sum(0)
    scores = task.scores_of(total)
    assert scores["mean_f1"] == pytest.approx((1 + 0) / 2)  # the V lies 5 frames off
    assert scores["detection_sensitivity"] == pytest.approx(2 / 3)
    assert scores["given_accuracy"] == pytest.approx(2 / 3)  # at 50 nothing tells N from V: the first is taken


def test_stages_are_encoded_by_the_middle_and_come_back_at_the_input_rate():
    labels = StepLabels(np.array([0] * 8 + [1] * 8 + [-1] * 2), ("W", "R"))
    task = Tag.from_targets([labels], TagConfig())
    frames = frames_of(18, stride=4)
    (row,) = task.encode([labels], [""], frames)
    assert row.tolist() == [1, 1, 0, 0, -1]  # labels in order of name: R, W
    outputs = logits([[1, 1, 0, 0, 0]], 2)
    (prediction,) = task.predictions(outputs, frames)
    assert [(e["label"], e["start"], e["end"]) for e in prediction["events"]] == [("W", 0, 8), ("R", 8, 18)]
    assert prediction["text"] == "W" * 8 + "R" * 10
    assert task.scores_of(task.count(outputs, [labels], frames)[0])["accuracy"] == 1.0  # of the 16 labelled frames


def test_labels_that_do_not_fit_their_frames():
    labels = StepLabels(np.array([0, 1]), ("H", "C"))
    task = Tag.from_targets([labels], TagConfig())
    (problem,) = task.find_problems([labels], ["chain 7"], frames_of(3))
    assert str(problem) == "chain 7: 2 labels for 3 frames; expected one a frame"


SOUNDS = Events((Event(10, 30, "dog"), Event(20, 40, "rain")))


def test_intervals_may_overlap():
    task = Tag.from_targets([SOUNDS], TagConfig(collar=2))
    (row,) = task.encode([SOUNDS], [""], frames_of(50, stride=2))
    assert row[:, 0].nonzero().ravel().tolist() == list(range(5, 15))
    assert row[:, 1].nonzero().ravel().tolist() == list(range(10, 20))
    outputs = Ragged.of([row.float() * 16 - 8])
    found = task.find(outputs, frames_of(50, stride=2))[0]
    assert sorted((f.start, f.end, f.label) for f in found) == [(10, 30, "dog"), (20, 40, "rain")]
    scores = task.scores_of(task.count(outputs, [SOUNDS], frames_of(50, stride=2))[0])
    assert scores == {"event_f1": 1.0, "event_f1_overall": 1.0, "segment_f1": 1.0}


def test_what_is_short_or_a_flicker_is_left_out():
    task = Tag.from_targets([SOUNDS], TagConfig(smooth=5, shortest=4))
    on = np.zeros((50, 2), np.float32)
    on[10:30, 0] = 1
    on[20, 0] = 0  # a gap of one frame
    on[3, 1] = 1  # a flicker
    on[40:43, 1] = 1
    found = task.find(Ragged.of([torch.from_numpy(on) * 16 - 8]), frames_of(50))[0]
    assert [(f.start, f.end, f.label) for f in found] == [(10, 30, "dog")]


def test_thresholds_are_chosen_on_validation():
    """Outputs that are right above 0.7 only."""
    task = Tag.from_targets([SOUNDS], TagConfig())
    low = np.full((50, 2), 0.65)
    low[10:30, 0] = low[20:40, 1] = 0.9
    outputs = Ragged.of([torch.from_numpy(np.log(low / (1 - low))).float()])
    frames = frames_of(50, rate=10.0)
    assert task.scores_of(task.count(outputs, [SOUNDS], frames)[0])["event_f1"] == 0
    task.tune(outputs, [SOUNDS], frames)
    assert task.scores_of(task.count(outputs, [SOUNDS], frames)[0])["event_f1"] == 1
    assert task.tuned["thresholds"] == [0.8, 0.8]


@pytest.mark.parametrize(
    ("target", "config"),
    [
        (BEATS, TagConfig(width=4, gap=7)),
        (StepLabels(np.array([0, 1, 2]), ("a", "b", "c")), TagConfig()),
        (SOUNDS, TagConfig(smooth=9, shortest=3)),
    ],
    ids=["points", "labels", "intervals"],
)
@pytest.mark.parametrize("stride", [1, 3])
def test_any_division_of_a_stream_finds_what_the_whole_does(target, config, stride):
    task = Tag.from_targets([target], config)
    random = np.random.default_rng(0)
    smooth = np.cumsum(random.normal(size=(400, task.num_outputs)), 0)
    outputs = (smooth - smooth.mean(0)).astype(np.float32)
    length = 400 * stride - stride // 2
    (whole,) = task.find(Ragged.of([torch.from_numpy(outputs)]), frames_of(length, stride=stride))
    assert len(whole) >= 5
    for _ in range(5):
        follower, found, at = task.follow(Timing(stride), None), [], 0
        while at < 400:
            size = int(random.integers(0, 30))
            found += follower.push(outputs[at : at + size])
            at += size
            again = task.follow(Timing(stride), None)  # it goes on where it was saved
            again.restore(json.loads(json.dumps(follower.state())))
            follower = again
        found += follower.finish(length)
        assert found == [one.to_dict(None) for one in whole]


def beats_data(count, seconds=20, seed=0):
    """Synthetic records."""
    examples = []
    for i in range(count):
        made = heartbeats(seconds, rate=120.0, seed=seed + i)
        examples.append(array_example(f"r{seed + i}", f"r{seed + i}", made.signal, target=made.beats, group=f"{i}"))
    return Dataset(tuple(examples), "series", ("MLII",), 120.0, "synthetic")


def test_beats_of_new_patients_are_found(tmp_path):
    """ecg-small learns a synthetic heart on windows; its stream finds the same beats."""
    data = beats_data(12)
    config = {"train": {"steps": 120, "window": 600, "learning_rate": 5e-3}}
    run = crnn.train(data, task="tag", preset="ecg-small", config=config, out=tmp_path / "run")
    assert run.evaluation.metrics["detection_f1"].point > 0.9
    model = crnn.load(tmp_path / "run")
    new = beats_data(2, seconds=30, seed=100)
    (prediction, _) = model.predict(new)
    assert prediction["events"][0].keys() == {"label", "start", "end", "seconds", "end_seconds", "probability"}
    network, task = model.network, model.task
    state, follower, found = network.start(1), task.follow(network.timing, 120.0), []
    with torch.no_grad():
        for chunk in torch.from_numpy(new[0].load())[None].split(97, 1):
            outputs, state = network.push(chunk, state)
            found += follower.push(outputs[0].numpy())
        found += follower.push(network.finish(state)[0].numpy())
    found += follower.finish(new[0].length)
    for name in ("start", "label"):
        assert [event[name] for event in found] == [event[name] for event in prediction["events"]]


def test_a_class_that_only_another_side_has_is_found_before_training():
    task = Tag.from_targets([BEATS], TagConfig())
    (problem,) = task.find_problems([BEATS, points((3, "Q"))], ["100.hea", "101.hea"], frames_of(60, 60))
    assert problem.where == "101.hea"
    assert problem.what.startswith("label 'Q' is not among the 2 classes seen in training")
    labels = Tag.from_targets([StepLabels(np.array([0, 1]), ("H", "C"))], TagConfig())
    other = StepLabels(np.array([0, 1]), ("H", "E"))
    (problem,) = labels.find_problems([other], ["chain 7"], frames_of(2))
    assert problem.what.startswith("label 'E' is not among")
