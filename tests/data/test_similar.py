"""Near copies among sequences of symbols: found, named, and no chance resemblance taken for one."""

import numpy as np
import pytest

from crnn.alphabets import DNA
from crnn.data.check import check
from crnn.data.dataset import Dataset, array_example
from crnn.data.similar import near_copies


def make(splits=(None, None), groups=(None, None)):
    """20 random sequences; the last is the first with two bases changed and an end cut off."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 4, 200) for _ in range(19)]
    copy = rows[0][:190].copy()
    copy[[60, 120]] = (copy[[60, 120]] + 1) % 4
    rows.append(copy)
    examples = [
        array_example(str(i), f"x.fa line {i}", row, target="ab"[i % 2], split=splits[i == 19], group=groups[i == 19])
        for i, row in enumerate(rows)
    ]
    return Dataset(tuple(examples), "symbols", (), None, "made", vocabulary=DNA.vocabulary)


def test_a_near_copy_is_found_and_nothing_else():
    ((first, second, shared),) = near_copies(make())
    assert (first, second) == (19, 0)
    assert shared == pytest.approx((183 - 16) / 183)  # each change touches 8 of its 183 words


@pytest.mark.parametrize(
    ("splits", "groups", "said"),
    [
        ((None, None), (None, None), "and a random split may put them on two sides"),
        (("train", "test"), (None, None), "on two sides of the official split"),
        (("train", "train"), (None, None), None),
        ((None, None), ("f", "f"), None),
    ],
)
def test_check_names_near_copies_that_a_split_may_leak(splits, groups, said):
    warnings = [str(p) for p in check(make(splits, groups)).problems if "share" in p.what]
    if said is None:
        assert warnings == []
    else:
        assert warnings == [
            f"x.fa line 19 and x.fa line 0: share 91% of their words, {said}, so the score flatters; name their family "
            "as group"
        ]
