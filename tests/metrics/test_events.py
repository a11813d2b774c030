import numpy as np
import pytest

from crnn.metrics.ecg import cinc2017_f1, jk_index, kappa, predictivity, sensitivity
from crnn.metrics.events import f1, interval_counts, match_points, point_confusion


def test_points_match_their_nearest_within_the_tolerance():
    i, j = match_points(np.array([100, 200, 300]), np.array([92, 104, 215, 400]), 10)
    assert (i.tolist(), j.tolist()) == ([0], [1])  # 104 is nearer than 92; 215 is 15 away


def test_a_point_is_matched_once():
    i, j = match_points(np.array([100, 104]), np.array([103]), 10)
    assert (i.tolist(), j.tolist()) == ([1], [0])


def test_no_points():
    none = np.array([], int)
    assert match_points(none, none, 10)[0].size == 0
    assert match_points(np.array([5]), none, 10)[0].size == 0


def test_confusion_of_points_counts_missed_and_extra_ones_last():
    confusion = point_confusion(
        np.array([100, 200, 300]), np.array([0, 1, 1]), np.array([101, 205, 400]), np.array([0, 0, 1]), 10, 2
    )
    assert confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_a_point_of_no_class_counts_neither_way():
    confusion = point_confusion(np.array([100, 200]), np.array([-1, 0]), np.array([101, 200]), np.array([0, 0]), 10, 1)
    assert confusion.tolist() == [[1, 0], [0, 0]]


def test_intervals_by_collar_and_share_of_length():
    """Onset within 0.2 s, offset within max(0.2 s, half of the length), by hand."""
    true = [(1.0, 2.0, 0), (5.0, 9.0, 0), (3.0, 3.5, 1)]
    found = [(1.15, 2.45, 0), (5.3, 9.0, 0), (3.1, 4.0, 1)]
    counts = interval_counts(true, found, 2, collar=0.2)
    assert counts.tolist() == [[1, 2, 2], [0, 1, 1]]  # 5.3 begins late; 4.0 ends 0.5 late, 0.25 allowed
    assert interval_counts(true, found, 2, collar=0.2, offset_share=float("inf")).tolist() == [[1, 2, 2], [1, 1, 1]]


def test_as_many_intervals_match_as_can():
    """The second found fits only the first true one, so the first must take the other."""
    true = [(1.0, 2.0, 0), (1.3, 2.3, 0)]
    found = [(1.15, 2.1, 0), (0.9, 2.0, 0)]
    assert interval_counts(true, found, 1, collar=0.2).tolist() == [[2, 2, 2]]


def test_f1_of_nothing_is_undefined():
    assert np.isnan(f1(np.array([0]), np.array([0]), np.array([0]))).all()
    assert f1(np.array([3]), np.array([4]), np.array([5]))[0] == pytest.approx(2 / 3)


def test_scores_of_a_confusion():
    confusion = np.array([[40, 10], [5, 45]])
    assert sensitivity(confusion).tolist() == [0.8, 0.9]
    assert predictivity(confusion) == pytest.approx([40 / 45, 45 / 55])
    assert kappa(confusion) == pytest.approx(0.7)


def test_jk_index_by_hand():
    """Mar et al. 2011: kappa / 2 + (Se_S + Se_V + P_S + P_V) / 8."""
    confusion = np.array([[80, 5, 5], [2, 3, 0], [1, 0, 4]])
    expected = 0.5 * kappa(confusion) + 0.125 * (3 / 5 + 4 / 5 + 3 / 8 + 4 / 9)
    assert jk_index(confusion, ["N", "S", "V"]) == pytest.approx(expected)
    assert jk_index(np.diag([3, 2, 2]), ["N", "S", "V"]) == pytest.approx(1.0)


def test_cinc_2017_counts_noise_as_an_error_only():
    confusion = np.array([[9, 0, 0, 1], [0, 4, 0, 0], [1, 0, 5, 0], [0, 0, 0, 2]])
    expected = (2 * 9 / (10 + 10) + 1 + 2 * 5 / (5 + 6)) / 3
    assert cinc2017_f1(confusion, ["N", "A", "O", "~"]) == pytest.approx(expected)
