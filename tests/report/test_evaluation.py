"""An evaluation holds what was measured: against numbers computed here, and through JSON."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from report_examples import SMALL, make_network, make_series

from crnn.data.dataset import Dataset, array_example
from crnn.errors import DataError
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.report.evaluation import Evaluation, Leaks, Measured, by_length, evaluate, find_leaks, thin
from crnn.report.exactness import measure_exactness
from crnn.report.floor import Floor
from crnn.report.html import render
from crnn.sequences import Sequences
from crnn.tasks.classify import Classify, ClassifyConfig

FORMS = ["classes", "labels", "values"]


def label(frequency: float) -> str:
    return "slow" if frequency < 1.2 else "quick"


@pytest.mark.parametrize("form", FORMS)
def test_json_and_back_is_the_same(form, request):
    evaluation = request.getfixturevalue(form)
    text = json.dumps(evaluation.to_dict(), allow_nan=False)
    again = Evaluation.from_dict(json.loads(text))
    assert again.to_dict() == evaluation.to_dict()
    assert again.form == form
    assert str(again) == str(evaluation)


def test_nan_is_null_in_json_and_nan_again(classes):
    undefined = dataclasses.replace(classes, metrics={"accuracy": Measured(math.nan, math.nan, math.nan)})
    assert undefined.to_dict()["metrics"]["accuracy"]["point"] is None
    assert math.isnan(Evaluation.from_dict(undefined.to_dict()).headline.point)
    assert undefined.verdict == "unknown"


def test_floors_may_be_undefined_where_the_test_part_has_one_class(classes):
    undefined = dataclasses.replace(classes, floors=[Floor("majority", {"accuracy": 0.5, "auroc": math.nan})])
    plain = json.loads(json.dumps(undefined.to_dict(), allow_nan=False))
    assert math.isnan(Evaluation.from_dict(plain).floors[0].metrics["auroc"])


def test_a_missing_key_is_named(classes):
    plain = classes.to_dict()
    del plain["primary"]
    with pytest.raises(DataError, match=r"evaluation: primary: .*; expected what Evaluation.to_dict writes"):
        Evaluation.from_dict(plain)


def test_metrics_and_confusion_come_from_the_outputs(classes):
    matrix = np.array(classes.confusion)
    assert matrix.sum() == classes.num_examples == 50
    assert classes.headline.point == pytest.approx(np.trace(matrix) / 50)
    assert classes.headline.low <= classes.headline.point <= classes.headline.high
    assert set(classes.metrics) >= {"accuracy", "macro_f1", "log_loss"}


def test_the_exactness_of_the_model_is_measured(classes):
    assert classes.exactness.num_examples == 50
    assert classes.exactness.largest < 1e-5
    assert classes.exactness.changed == 0
    assert classes.exactness.junk == "NaN"


def test_a_model_that_looks_at_padding_is_found_out():
    class Leaky(torch.nn.Module):
        """The mean over the whole batch's time axis: the tutorial mistake."""

        def forward(self, x: Sequences) -> torch.Tensor:
            return x.data.nan_to_num(9.0).mean(1) * torch.tensor([1.0, -1.0])

    data = make_series(20, label)
    found = measure_exactness(Leaky(), Classify.from_targets(data.targets, ClassifyConfig()), data)
    assert found.batched > 0.1
    assert found.padded > found.batched
    assert found.changed > 0


def test_worst_examples_are_wrong_and_come_worst_first(classes, values):
    assert all(worst.true != worst.predicted for worst in classes.worst)
    errors = [worst.error for worst in classes.worst]
    assert errors == sorted(errors, reverse=True)
    assert len(values.worst) == 8
    first = values.worst[0]
    assert first.error == pytest.approx(abs(float(first.true) - float(first.predicted)), rel=1e-3)
    largest = max(abs(true - predicted) for true, predicted in values.scatter)
    assert first.error == pytest.approx(largest, rel=1e-4)


def test_error_against_length_adds_up(classes, values):
    assert sum(b.count for b in classes.lengths) == 50
    wrong = sum(b.count * b.error for b in classes.lengths)
    assert wrong == pytest.approx(50 * (1 - classes.headline.point))
    assert classes.length_unit == "seconds"
    assert sum(b.count * b.error for b in values.lengths) / 50 == pytest.approx(values.metrics["mae"].point, rel=1e-4)


def test_equal_lengths_give_one_bin():
    data = make_series(10, label)
    same = data.subset([0] * 10)
    assert len(by_length(same, torch.zeros(10, dtype=torch.float64))) == 1


def test_cost_counts_the_parameters(classes):
    conv, lstm = 6 * 2 * 3 + 6, 4 * 6 * (6 + 6) + 2 * 4 * 6
    assert classes.cost.num_parameters == conv + lstm + 6 * 3 + 3
    assert classes.cost.per == "second"
    assert classes.cost.macs == pytest.approx(10 * (6 * 2 * 3 + 4 * 6 * (6 + 6)), rel=0.05)
    assert classes.cost.single_seconds > 0


def test_calibration_is_given_before_and_after_the_temperature(classes, labels, values):
    assert classes.calibration.temperature == 1.5
    assert classes.calibration.error_after == pytest.approx(classes.metrics["calibration_error"].point)
    assert sum(b.examples for b in classes.calibration.bins) == 50
    assert sum(b.examples for b in labels.calibration.bins) == 50 * 2
    assert values.calibration is None


def test_copies_and_shared_groups_are_found_by_content():
    train = make_series(10, label)
    copy = array_example("other name", "b.csv row 1", train[3].load().copy(), target="slow", group="ann")
    new = array_example("new", "b.csv row 2", train[4].load() + 1, target="slow", group="bob")
    test = dataclasses.replace(train, examples=(copy, new))
    grouped = dataclasses.replace(train, examples=tuple(dataclasses.replace(e, group="ann") for e in train))
    leaks = find_leaks(test, grouped, None)
    assert leaks == Leaks([("other name", "train: e3")], ["ann"], 2)
    assert find_leaks(test, None, None) is None


def test_warnings_name_what_a_reader_must_know(classes):
    leaking = dataclasses.replace(classes, leaks=Leaks([("a", "train: b")], ["ann"], 2))
    text = " ".join(said for level, said in leaking.warnings() if level == "bad")
    assert "1 of 50 examples is a copy of data that training saw" in text
    assert "1 of 2 groups" in text
    unsure = dataclasses.replace(classes, leaks=None)
    assert any("not known what training saw" in said for _, said in unsure.warnings())
    used = dataclasses.replace(classes, facts=dataclasses.replace(classes.facts, split="validation", selection=True))
    assert ("bad", "The validation set was used in training or to choose the model; this score says nothing about "
            "new data.") in used.warnings()  # fmt: skip


@pytest.mark.parametrize(
    ("floor", "higher", "expected"),
    [
        (0.5, True, "above"),
        (0.75, True, "within"),
        (0.9, True, "below"),
        (0.9, False, "within"),
        (0.96, False, "above"),
    ],
)
def test_the_verdict_compares_floor_and_interval(classes, floor, higher, expected):
    metrics = {"accuracy": Measured(0.8, 0.7, 0.95)}
    found = dataclasses.replace(
        classes, metrics=metrics, floors=[Floor("f", {"accuracy": floor})], higher_is_better=higher
    )
    assert found.verdict == expected


def test_text_shows_score_and_floor(values):
    text = str(values)
    assert "rmse" in text
    assert f"floor: {values.best_floor.name}" in text
    assert text.startswith("test: 50 examples of test.csv")


def test_symbols_are_measured_and_shown_as_text():
    rng = np.random.default_rng(0)
    examples = []
    for i in range(30):
        ids = rng.integers(i % 2 * 2, i % 2 * 2 + 2, int(rng.integers(5, 12)))  # A and C, or G and T
        examples.append(array_example(str(i), f"line {i}", ids, target="AC" if i % 2 == 0 else "GT"))
    data = Dataset(tuple(examples), "symbols", (), None, "dna.csv", vocabulary=tuple("ACGT"))
    task = Classify.from_targets(data.targets, ClassifyConfig())
    torch.manual_seed(0)
    layers = [{"type": "one_hot", "vocab_size": 4}, {"type": "recurrent", "hidden_size": 3}]
    spec = spec_from_plain({"layers": layers, "summary": {"type": "last"}})
    network = Network(spec, features=(), outputs=2)
    found = evaluate(network, task, data, train=data, resamples=10, floor_settings=SMALL)
    assert found.exactness.junk == "another symbol"
    assert found.exactness.largest < 1e-6
    assert found.length_unit == "symbols"
    assert set(found.worst[0].text) <= set("ACGT")
    assert found.worst[0].signal == []
    assert found.worst[0].text in render(found)
    assert len(found.leaks.duplicates) == 30


def test_no_examples_and_unseen_classes_are_refused():
    data = make_series(20, label)
    task = Classify.from_targets(data.targets, ClassifyConfig())
    network = make_network(data, task)
    with pytest.raises(DataError, match="there are no examples to evaluate; expected at least 1"):
        evaluate(network, task, data[:0])
    odd = dataclasses.replace(data, examples=(dataclasses.replace(data[0], target="sloww"),))
    with pytest.raises(DataError, match="'sloww' is not among the 2 classes"):
        evaluate(network, task, odd)


def test_the_same_seed_gives_the_same_intervals():
    data = make_series(30, label)
    task = Classify.from_targets(data.targets, ClassifyConfig())
    network = make_network(data, task)
    first, second = (evaluate(network, task, data, resamples=20, seed=4) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.floors == []
    assert first.leaks is None


def test_thinning_keeps_peaks_and_gaps():
    values = np.zeros(10_000, np.float32)
    values[4321] = 7
    found = thin(values, points=300)
    assert len(found) == 300
    assert max(found) == 7
    assert thin(np.array([1.0, np.nan, 2.0])) == [1.0, None, 2.0]
