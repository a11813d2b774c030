import pytest

from crnn.errors import DataError
from crnn.tasks.infer import infer_task


@pytest.mark.parametrize(
    ("targets", "name", "reason"),
    [
        (["a", "b", None], "classify", "text, 2 different"),
        ([0.1, 0.7, 3.0], "regress", "numbers, 3 different"),
        ([0.0, 1.0] * 5, "classify", "2 whole numbers that repeat; --task regress"),
        ([float(i) for i in range(10)], "regress", "numbers"),
        ([("a",), ("a", "b"), ()], "multilabel", "set of labels, 2 different"),
    ],
)
def test_the_task_follows_from_the_targets(targets, name, reason):
    found, why = infer_task(targets)
    assert found == name
    assert reason in why


@pytest.mark.parametrize(
    ("targets", "message"),
    [([None, None], "no targets in 2 examples; give --labels"), (["a", 1.0], r"mixed kinds \(float, str\)")],
)
def test_targets_that_say_nothing_are_refused(targets, message):
    with pytest.raises(DataError, match=message):
        infer_task(targets)
