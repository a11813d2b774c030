"""Splits: shares, classes, groups, official sides, duplicates."""

from collections import Counter

import numpy as np
import pytest

from crnn.data.dataset import Dataset, array_example
from crnn.data.split import (
    SplitConfig,
    find_duplicates,
    find_seen,
    groups_on_two_sides,
    hash_sides,
    record,
    split,
)
from crnn.errors import ModelError, SplitError


def make(targets, groups=None, sides=None, data=None):
    examples = []
    for i, target in enumerate(targets):
        array = np.full((3, 1), float(i), np.float32) if data is None else np.asarray(data[i], np.float32)[:, None]
        examples.append(
            array_example(
                f"e{i}",
                f"table.csv row {i}",
                array,
                target=target,
                group=None if groups is None else groups[i],
                split=None if sides is None else sides[i],
            )
        )
    return Dataset(tuple(examples), "series", ("x",), None, "table.csv")


def ids(side):
    return {example.id for example in side}


SMALL = SplitConfig(min_validation=8)
"""So that data small enough for a test has a validation side."""


def test_default_shares_are_cut_in_every_class():
    splits = split(make(["a"] * 100 + ["b"] * 50), SMALL, seed=0)
    assert Counter(splits.test.targets) == {"a": 20, "b": 10}  # 20 %
    assert Counter(splits.validation.targets) == {"a": 12, "b": 6}  # 15 % of 80 and of 40
    assert Counter(splits.train.targets) == {"a": 68, "b": 34}
    assert ids(splits.train) | ids(splits.validation) | ids(splits.test) == {f"e{i}" for i in range(150)}
    assert "test: 30 of 150 (20%), stratified by class, seed 0" in splits.how


def test_shares_that_do_not_divide_go_to_the_largest_remainders():
    # 7, 5 and 3 examples at 20 %: 1.4 + 1.0 + 0.6 = 3 in all, so 1 each
    splits = split(make(["a"] * 7 + ["b"] * 5 + ["c"] * 3), SplitConfig(validation=0), seed=4)
    assert Counter(splits.test.targets) == {"a": 1, "b": 1, "c": 1}


def test_a_class_with_one_example_stays_in_train():
    for seed in range(10):
        splits = split(make(["a"] * 40 + ["rare"]), SplitConfig(test=0.5, validation=0.4), seed=seed)
        assert "rare" in splits.train.targets


def test_the_split_depends_on_seed_and_ids_and_not_on_order():
    data = make(["a", "b"] * 40)
    first = split(data, SMALL, seed=1)
    turned = split(data.subset(np.arange(80)[::-1]), SMALL, seed=1)
    assert ids(first.test) == ids(turned.test)
    assert ids(first.validation) == ids(turned.validation)
    assert ids(first.test) != ids(split(data, SMALL, seed=2).test)


def test_grouped_splits_do_not_depend_on_order_either():
    data = make(["a", "b"] * 40, groups=[f"s{i // 4}" for i in range(80)])
    first = split(data, SMALL, seed=1)
    turned = split(data.subset(np.arange(80)[::-1]), SMALL, seed=1)
    assert ids(first.test) == ids(turned.test)
    assert ids(first.validation) == ids(turned.validation)


def test_numbers_are_stratified_by_quantile():
    values = [float(v) for v in np.random.default_rng(0).exponential(size=100)]
    splits = split(make(values), SplitConfig(validation=0), seed=0)
    edges = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
    assert np.bincount(np.searchsorted(edges, splits.test.targets)).tolist() == [4, 4, 4, 4, 4]
    assert "quantile" in splits.how


def test_few_numbers_can_still_be_split():
    splits = split(make([1.0, 2.0, 3.0, 4.0, 5.0]), SplitConfig(), seed=0)
    assert len(splits.test) == 1
    assert splits.validation is None


@pytest.mark.parametrize("seed", range(5))
def test_a_group_never_stands_on_two_sides(seed):
    rng = np.random.default_rng(seed)
    groups = [f"s{g}" for g in rng.integers(0, 25, 300)]
    targets = [str(t) for t in rng.integers(0, 4, 300)]
    splits = split(make(targets, groups), SplitConfig(), seed=seed)
    assert groups_on_two_sides(splits.sides) == {}
    assert 0.15 < len(splits.test) / 300 < 0.25
    assert set(splits.train.targets) == set(targets)
    shares = [splits.test.targets.count(t) / targets.count(t) for t in sorted(set(targets))]
    assert max(shares) - min(shares) < 0.15


def test_different_seeds_hold_out_different_groups():
    data = make(["a", "b"] * 40, groups=[f"s{i // 8}" for i in range(80)])
    held = {frozenset(e.group for e in split(data, SplitConfig(), seed=s).test) for s in range(8)}
    assert len(held) > 2


def test_three_large_groups_give_one_to_test_and_none_to_validation():
    data = make(["a", "b"] * 30, groups=["s0"] * 20 + ["s1"] * 20 + ["s2"] * 20)
    splits = split(data, SplitConfig(), seed=0)
    assert len(splits.test) == 20
    assert splits.validation is None  # it would be half of the training data
    assert "validation: none" in splits.how


def test_the_only_group_of_a_class_stays_in_train():
    data = make(["a"] * 20 + ["b"] * 20 + ["c"] * 4, groups=[f"s{i // 4}" for i in range(44)])
    for seed in range(5):
        assert "c" in split(data, SplitConfig(), seed=seed).train.targets


def test_no_group_can_be_held_out():
    data = make(["a"] * 10 + ["b"] * 10, groups=["s0"] * 10 + ["s1"] * 10)
    with pytest.raises(SplitError, match=r"no group can be held out as test.*2 groups.*split\.test=0"):
        split(data, SplitConfig(), seed=0)
    assert split(data, SplitConfig(test=0), seed=0).test is None


def test_several_labels_keep_their_shares():
    rng = np.random.default_rng(0)
    targets = [tuple(label for label in "abc" if rng.random() < 0.3) for _ in range(200)]
    splits = split(make(targets), SplitConfig(validation=0), seed=0)
    assert 35 <= len(splits.test) <= 45
    for label in "abc":
        share = sum(label in t for t in splits.test.targets) / sum(label in t for t in targets)
        assert 0.15 < share < 0.25


def test_a_tiny_validation_side_is_left_in_train():
    splits = split(make(["a", "b", "c"] * 12, sides=["train"] * 36), SplitConfig(test=0), seed=0)
    assert splits.validation is None  # 15 % of 36 is 5, fewer than 8
    assert "validation: none, because 15% of 36 training examples would be too few to stop on" in splits.how
    assert len(splits.train) == 36


def test_many_classes_do_not_forbid_a_validation_side():
    splits = split(make([f"c{i % 100}" for i in range(500)]), SplitConfig(test=0), seed=0)
    assert len(splits.validation) == 75  # fewer than 2 a class, but enough to stop on


def test_official_sides_win_and_validation_comes_from_train():
    data = make(["a", "b"] * 50, sides=["train"] * 70 + ["test"] * 30)
    splits = split(data, SMALL, seed=0)
    assert ids(splits.test) == {f"e{i}" for i in range(70, 100)}
    assert len(splits.validation) == 10  # 15 % of 70 is 10.5, rounded to even
    assert ids(splits.train) | ids(splits.validation) == {f"e{i}" for i in range(70)}
    assert "test: 30 examples as the files say" in splits.how


def test_official_validation_is_used_as_it_is():
    data = make(["a", "b"] * 10, sides=["train"] * 10 + ["validation"] * 4 + ["test"] * 6)
    splits = split(data, SplitConfig(), seed=0)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 4, 6)


def test_official_can_be_put_aside():
    data = make(["a", "b"] * 50, sides=["train"] * 70 + ["test"] * 30)
    assert len(split(data, SplitConfig(official=False), seed=0).test) == 20


def test_official_group_on_two_sides_is_named():
    data = make(["a", "b"] * 4, groups=["ann", "bob"] * 4, sides=["train"] * 7 + ["test"])
    with pytest.raises(SplitError, match=r"has groups on two sides: 'bob' \(train, test\); set split\.official=false"):
        split(data, SplitConfig(), seed=0)


def test_official_split_that_covers_a_part_is_refused():
    data = make(["a", "b"] * 4, sides=["train"] * 6 + ["test", None])
    with pytest.raises(SplitError, match=r"table\.csv row 7: 1 of 8 examples do not say"):
        split(data, SplitConfig(), seed=0)


def test_only_test_examples_cannot_train():
    with pytest.raises(SplitError, match=r"only test examples, none to train on"):
        split(make(["a", "b"], sides=["test"] * 2), SplitConfig(), seed=0)


def test_a_small_validation_side_stays_in_train():
    for count, kept in ((550, 66), (500, None)):  # 20 % test, then 15 % of 440 or 400: 66 or 60
        splits = split(make(["a"] * count), SplitConfig(), seed=0, stratify=False)
        assert (None if splits.validation is None else len(splits.validation)) == kept


def test_nothing_to_split():
    with pytest.raises(SplitError, match="no examples"):
        split(make([]), SplitConfig(), seed=0)
    with pytest.raises(SplitError, match=r"with 2 examples in 2 classes, none has one to spare"):
        split(make(["a", "b"]), SplitConfig(), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"test": 1.0}, r"split\.test=1\.0"), ({"validation": -0.1}, "split.validation"), ({"bins": 0}, "split.bins=0")],
)
def test_impossible_shares_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitConfig(**options)


def test_duplicates_within_and_across_sides():
    arrays = [[1, 2], [3, 4], [1, 2], [5, 6], [3, 4], [7, 8]]
    data = make(["a", "b", "a", "b", "a", "b"], sides=["train"] * 4 + ["test"] * 2, data=arrays)
    splits = split(data, SplitConfig(), seed=0)
    inside, across = find_duplicates(splits.sides)
    assert inside.ids == ("e0", "e2")
    assert not inside.is_across
    assert not inside.is_conflicting
    assert across.ids == ("e1", "e4")
    assert across.is_across
    assert across.is_conflicting
    assert str(across) == (
        "same data with different targets: table.csv row 1 (train, 'b'), table.csv row 4 (test, 'a')"
    )


def test_same_numbers_in_another_shape_are_no_duplicate():
    flat = array_example("a", "a", np.arange(4, dtype=np.float32)[:, None])
    wide = array_example("b", "b", np.arange(4, dtype=np.float32).reshape(2, 2))
    hashes = hash_sides({"train": Dataset((flat, wide), "series", ("x",), None, "s")})
    assert len(set(hashes["train"])) == 2


def test_a_record_knows_what_was_seen():
    splits = split(make(["a", "b"] * 20), SplitConfig(), seed=0)
    kept = record(splits)
    assert kept["sides"]["test"]["ids"] == [e.id for e in splits.test]
    assert find_seen(kept, splits.test) == []
    seen = find_seen(kept, splits.train[:3])
    assert [(s.index, s.side, s.id) for s in seen] == [(i, "train", splits.train[i].id) for i in range(3)]
    assert len(find_seen(kept, splits.test, sides=("test",))) == len(splits.test)


def test_a_record_keeps_the_groups_of_each_side():
    data = make(["a", "b"] * 20, groups=[f"g{i // 4}" for i in range(40)])
    splits = split(data, SplitConfig(), seed=0)
    for name, side in splits.sides.items():
        assert record(splits)["sides"][name]["groups"] == sorted({e.group for e in side})


def test_a_foreign_record_is_refused():
    with pytest.raises(ModelError, match=r"splits\.json: side 'train'"):
        find_seen({"train": []}, make(["a"]))
