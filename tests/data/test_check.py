"""Check: each thing that training would trip over is found, named, and weighed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from crnn.data.check import check
from crnn.data.dataset import Dataset, Example, Problem, array_example
from crnn.errors import DataError


def make(arrays=None, targets=None, groups=None, sides=None, kind="series", rate=None, count=12):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((10, 2)) for _ in range(count)] if arrays is None else arrays
    targets = ["a", "b"] * (len(arrays) // 2) + ["a"] * (len(arrays) % 2) if targets is None else targets
    examples = tuple(
        array_example(
            f"e{i}",
            f"row {i}",
            np.asarray(array, np.int64 if kind == "symbols" else np.float32),
            target=targets[i],
            group=groups and groups[i],
            split=sides and sides[i],
        )
        for i, array in enumerate(arrays)
    )
    names = () if kind == "symbols" else tuple("xyz"[: np.asarray(arrays[0]).shape[1]])
    return Dataset(examples, kind, names, rate, "table.csv")


def found(data, level=None, **options):
    return [str(p) for p in check(data, **options).problems if level in (None, p.level)]


def swap(data, index, **changes):
    examples = list(data.examples)
    examples[index] = replace(examples[index], **changes)
    return replace(data, examples=tuple(examples))


def test_good_data_has_no_problems():
    result = check(make())
    assert result.problems == ()
    assert result.exit_code == 0
    assert result.lines() == [
        "table.csv: 12 examples, series of 2 channels",
        "length: 10 to 10 frames, median 10",
        "targets: 2 classes: a 6, b 6",
        "memory: 960 bytes decoded, 960 bytes in the largest batch",
    ]


def test_the_summary_counts_everything():
    arrays = [np.random.default_rng(i).standard_normal((n, 1)) for i, n in enumerate([2, 4, 6, 8])]
    arrays[0][0] = np.nan
    data = make(arrays, list("aabb"), list("pqpq"), ["train", "test"] * 2, rate=2.0)
    summary = check(swap(swap(data, 1, group="q"), 3, group="q"), macs_per_frame=1e9, trained_frames=200).summary
    assert summary["length"] == {"min": 2, "median": 5.0, "max": 8}
    assert summary["seconds"] == {"min": 1.0, "median": 2.5, "max": 4.0}
    assert summary["targets"] == {"kind": "classes", "counts": {"a": 2, "b": 2}}
    assert summary["groups"] == {"count": 2, "smallest": 2, "largest": 2}
    assert summary["splits"] == {"train": 2, "test": 2}
    assert summary["missing_share"] == 1 / 20
    assert summary["memory"] == {"decoded_bytes": 80, "largest_batch_bytes": 4 * 8 * 4}
    assert summary["training_seconds"] == 3 * 1e9 * 20 * 10 / 5e9  # forth and back


def test_the_summary_of_numbers_reads_well():
    lines = check(make(targets=[float(i) for i in range(12)], rate=10.0), macs_per_frame=1e8).lines()
    assert lines[1:3] == [
        "length: 10 to 10 frames, median 10 (1 to 1 s, median 1 s)",
        "targets: numbers, 0 to 11, median 5.5, std 3.452",
    ]
    assert lines[-1] == "training: about 6 minutes on one core"  # 3 * 1e8 * 120 * 50 / 5e9 = 360 s


def test_transcripts_are_counted_as_texts_with_their_letters():
    result = check(make(targets=["no  yes", "yes", "no"] * 4), classes=False, texts=True)
    assert result.lines()[2] == "targets: 12 texts of 2 to 6 characters, median 3; 6 letters: ' enosy'"
    assert result.summary["targets"]["alphabet"] == list(" enosy")
    assert result.problems == ()


def test_it_can_be_written_as_json():
    result = check(make(targets=["a"] * 12))
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["exit_code"] == 1
    assert plain["problems"][0]["level"] == "error"
    assert plain["summary"]["examples"] == 12


def test_what_the_reader_left_out_is_listed():
    data = replace(make(), problems=(Problem("a.wav", "found 0 bytes"),))
    result = check(data)
    assert "unusable: 1, listed below" in result.lines()
    assert "error: a.wav: found 0 bytes" in result.lines()


def test_no_examples():
    result = check(replace(make(), examples=()))
    assert result.exit_code == 1
    assert result.lines()[-1].startswith("error: table.csv: found no examples; expected at least two")


def test_every_unreadable_file_is_named():
    def fail():
        raise OSError("unexpected end of file")

    data = swap(swap(make(), 3, load=fail), 5, load=lambda: np.zeros((9, 2), np.float32))
    assert found(data) == [
        "row 3: cannot be read (unexpected end of file); repair the file or leave it out",
        "row 5: found data of shape (9, 2), expected (10, 2) (frames, channels); the file changed since it was "
        "listed, or differs from the rest",
    ]
    assert check(data).summary["unreadable"] == 2


def test_a_readers_own_message_is_not_doubled():
    def fail():
        raise DataError("row 0: found 0 bytes")

    assert found(swap(make(), 0, load=fail)) == ["row 0: found 0 bytes"]


def test_every_example_is_loaded_once_and_let_go():
    calls = []
    data = make()

    def lazy(i):
        def load():
            calls.append(i)
            return data[i].load()

        return load

    done = []
    lazies = tuple(replace(example, load=lazy(i)) for i, example in enumerate(data))
    check(replace(data, examples=lazies), on_example=lambda i, of: done.append((i, of)))
    assert calls == list(range(12))
    assert done[-1] == (12, 12)


def test_an_empty_example():
    data = make()
    empty = Example("x", "x.wav", 0, lambda: np.zeros((0, 2), np.float32), "a")
    assert found(replace(data, examples=(*data.examples, empty))) == [
        "x.wav: has no frames, expected at least 1; remove it"
    ]


def changed(index, channel, value):
    data = make()
    arrays = [example.load().copy() for example in data]
    for array in arrays if index is None else [arrays[index]]:
        array[:, channel] = value
    return make(arrays)


def test_values_that_are_missing_constant_or_infinite():
    assert found(changed(None, 1, 4.0)) == [
        "table.csv: channel 'y': is 4 in every frame of every example; leave the channel out"
    ]
    assert found(changed(None, 1, np.nan), "error") == [
        "table.csv: channel 'y': has no value in any example; leave the channel out"
    ]
    assert found(changed(2, 1, np.nan)) == ["row 2: channel 'y' has no value here"]
    assert found(changed(2, slice(None), np.nan), "error") == ["row 2: has no value at all; remove it"]
    assert found(changed(2, slice(None), 1.0)) == [
        "row 2: every channel is constant; a sequence without change tells little"
    ]
    assert found(changed(2, 0, np.inf), "error") == [
        "row 2: has infinite values; replace them by numbers, or leave them empty as missing"
    ]


def test_the_same_warning_in_many_examples_is_one_problem():
    data = make()
    arrays = [example.load().copy() for example in data]
    for i in (3, 4, 7):
        arrays[i][:, 1] = np.nan
    assert found(make(arrays)) == ["3 of 12 examples, the first row 3: channel 'y' has no value here"]


def test_the_same_error_in_many_places_is_shortened_only_in_print():
    result = check(changed(None, 0, np.inf))
    what = "has infinite values; replace them by numbers, or leave them empty as missing"
    assert sum(problem.what == what for problem in result.problems) == 12
    assert sum(what in line for line in result.lines()) == 10
    assert "error: the same in 2 more places" in result.lines()


def test_mostly_missing_values():
    data = make()
    arrays = [example.load().copy() for example in data]
    for array in arrays:
        array[:7] = np.nan
    assert found(make(arrays)) == ["table.csv: 70% of all values are missing; is the marker of missing values right?"]


def test_silence_and_clipping():
    time = np.arange(1000) / 8000
    tone = [np.sin(2 * np.pi * (200 + i) * time)[:, None] * 0.5 for i in range(4)]
    tone[1] = np.clip(tone[1] * 4, -1, 1)
    tone[2] = tone[2] * 1e-5
    assert found(make(tone, kind="audio", rate=8000.0)) == [
        "row 1: clipped audio (recorded too loud); the network will learn the distortion",
        "row 2: silence; remove it, unless silence is a class",
    ]


def test_images_without_ink_and_with_too_much():
    lines = [np.zeros((40, 1, 16), dtype=np.float32) for _ in range(4)]
    for line in lines[:3]:
        line[2:30:3, 0, 4:12] = 1.0
    lines[1][5, 0, 6] = 0.2
    lines[2][:36] = 1.0
    data = replace(make(lines, kind="image"), height=16)
    assert found(data) == [
        "row 2: more than 60% of the image is ink; a line of text has less: look at it",
        "row 3: no ink: the image is empty, or too faint to tell writing from paper; look at it",
    ]


def test_symbols_are_checked_too():
    rng = np.random.default_rng(0)
    data = replace(make([rng.integers(0, 4, 30) for _ in range(6)], kind="symbols"), vocabulary=tuple("ACGT"))
    assert check(data).problems == ()
    assert check(data).lines()[0] == "table.csv: 6 examples, sequences of 4 different symbols"


def test_one_class_is_an_error_and_a_class_of_one_a_warning():
    assert found(make(targets=["a"] * 12), "error") == [
        "table.csv: every example is of the class 'a'; training needs at least two classes"
    ]
    assert found(make(targets=["a"] * 6 + ["b"] * 5 + ["zebra"]), "warning") == [
        "table.csv: classes with one example: 'zebra'; they can be learned or tested, not both; add examples or merge"
    ]


def test_a_target_column_that_is_an_id():
    ids = [f"patient {chr(97 + i)}" for i in range(12)]
    assert found(make(targets=ids), "error") == [
        "table.csv: 12 different targets in 12 examples: is this an id? name another target column"
    ]


def test_labels_that_differ_in_case_or_spaces():
    targets = ["afib"] * 6 + ["normal"] * 4 + ["Afib "] * 2
    assert found(make(targets=targets)) == [
        "row 10: label 'Afib ' (2 examples) differs from 'afib' (6) in case or spaces only; spell them alike"
    ]


def test_rare_labels_that_look_like_a_frequent_one():
    targets = ["walking"] * 40 + ["running"] * 40 + ["runing"] * 2
    assert found(make(targets=targets, count=82)) == [
        "row 80: label 'runing' (2 examples) is nearly 'running' (40); is it a typo?"
    ]


@pytest.mark.parametrize("rare", ["class 2", "running 2"])
def test_labels_that_differ_in_a_number_are_meant(rare):
    frequent = {"class 2": "class 1", "running 2": "running 1"}[rare]
    assert found(make(targets=[frequent] * 80 + [rare] * 2, count=82)) == []


def test_targets_that_are_missing_or_not_numbers():
    assert found(make(targets=["a", "b"] * 5 + [None, None])) == [
        "row 10 and 1 more: 2 of 12 examples have no target; add it or leave them out"
    ]
    assert found(make(targets=[None] * 12), "warning") == [
        "table.csv: no example has a target: good for predict, not for training; to train, give class sub-folders, a "
        "labels table, a target column, or a pattern such as '{label}_{take}'"
    ]
    assert found(make(targets=[1.0] * 5 + [float("nan")] * 2 + [2.0] * 5), "error") == [
        "row 5 and 1 more: target nan is not a finite number; correct it or leave the example out"
    ]
    assert found(make(targets=[3.0] * 12), "error") == [
        "table.csv: every target is 3, so there is nothing to predict; name another column"
    ]
    assert found(make(targets=[3.0] * 11 + ["x"]), "error") == [
        "row 11: target 'x' is of another kind than the rest: some are numbers, some text"
    ]


def test_several_labels_may_be_one_class_or_none():
    result = check(make(targets=[("p", "q"), ("p",), ()] * 4))
    assert result.problems == ()
    assert result.lines()[2] == "targets: 2 labels: p 8, q 4"


def test_a_class_that_training_never_sees():
    data = make(targets=["a", "b"] * 5 + ["c", "c"], sides=["train"] * 8 + ["test"] * 4)
    assert found(data) == [
        "row 10: class 'c' is in test but not in train, so it cannot be learned; correct it or leave it out"
    ]


def test_duplicates():
    arrays = [example.load() for example in make()]
    arrays[4] = arrays[0]
    assert found(make(arrays), "warning") == [
        "row 0 and row 4: hold the same data, so a random split may put it on two sides; remove the copies"
    ]
    assert found(make(arrays, sides=["train"] * 4 + ["test"] * 8), "warning") == [
        "row 0 and row 4: hold the same data on two sides of the official split, so the score flatters"
    ]
    arrays[5] = arrays[0]
    assert found(make(arrays), "error") == [
        "row 0 and row 5: hold the same data under different targets; correct or remove them: 'a' and 'b'"
    ]


def test_groups():
    assert found(make(groups=["p"] * 12), "error") == [
        "table.csv: every example is of the group 'p', so none can be held out; drop the group"
    ]
    assert found(make(groups=["p", "q"] * 5 + [None, None]), "warning") == [
        "row 10 and 1 more: no group, while others have one; each counts as a group of its own"
    ]
    data = make(groups=["p", "q", "q", "p"] * 3, sides=["train"] * 11 + ["test"])
    assert found(data, "error") == [
        "table.csv: the official split has groups on two sides: 'p' (train, test); set split.official=false for a "
        "split by group, or leave the group out to use the official split as it is"
    ]


def pooled_by_four(lengths):
    return (lengths - 2).div(4, rounding_mode="floor").clamp(min=0)


def test_sequences_that_pooling_would_wipe_out():
    rng = np.random.default_rng(0)
    data = make([rng.standard_normal((n, 1)) for n in (8, 5, 12, 3, 6, 9)])
    assert found(data, "error", out_lengths=pooled_by_four) == [
        "row 1 and 1 more: 3 frames, while the network needs at least 6; use less pooling, or leave it out"
    ]
    assert found(data, "error") == []


def test_lengths_far_from_the_rest():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((n, 1)) for n in (3, 3, 3, 3, 4000, 3)]
    assert found(make(arrays)) == ["row 4: 4000 frames, 1333 times the median; is it one sequence?"]
    arrays = [rng.standard_normal((n, 1)) for n in (3000, 3000, 2, 3000)]
    assert found(make(arrays)) == ["row 2: 2 frames, while the median is 3000; is it complete?"]
