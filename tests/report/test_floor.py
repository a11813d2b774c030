"""Floors: the transform against a plain loop, and each method on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from report_examples import make_series

from crnn.data.dataset import Dataset, array_example
from crnn.errors import DataError
from crnn.report.floor import (
    FloorConfig,
    RandomConvolutions,
    fill_gaps,
    log_mel,
    measure_floors,
    read_signal,
    word_shares,
    z_score,
)
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.tasks.multilabel import MultiLabel
from crnn.tasks.regress import Regress, RegressConfig

SMALL = FloorConfig(num_kernels=60)


def by_name(task, train, test, **options):
    floors = measure_floors(task, train, test, settings=FloorConfig(**{"num_kernels": 60, **options}))
    return {floor.name: floor for floor in floors}


def features_by_loop(kernels: RandomConvolutions, signal: np.ndarray) -> list[float]:
    """Largest value and share above zero of each kernel, tap by tap, in float64."""
    found = []
    for dilation, padded, weights, biases in kernels.groups:
        reach, largest, share = dilation * 4, [], []
        for weight, bias in zip(weights.double().numpy(), biases.double().numpy(), strict=True):
            outputs = {}
            for t in range(len(signal)):
                taps = range(t - reach, t + reach + 1, dilation)
                outputs[t] = bias + sum(weight[:, k] @ signal[at] for k, at in enumerate(taps) if 0 <= at < len(signal))
            whole = [outputs[t] for t in range(reach, len(signal) - reach)]
            kept = whole if whole and not padded else list(outputs.values())
            largest.append(max(kept))
            share.append(np.mean([value > 0 for value in kept]))
        found += largest + share
    return found


def test_random_convolutions_equal_a_plain_loop_on_every_length():
    rng = np.random.default_rng(0)
    signals = [rng.normal(size=(length, 3)).astype(np.float32) for length in (40, 5, 23, 9, 60)]
    kernels = RandomConvolutions(30, signals, seed=3)
    found = kernels.transform(signals)
    assert found.shape == (5, 60)
    for row, signal in zip(found, signals, strict=True):
        np.testing.assert_allclose(row, features_by_loop(kernels, signal), atol=2e-5)


def test_random_convolutions_do_not_depend_on_the_batch():
    rng = np.random.default_rng(0)
    signals = [rng.normal(size=(length, 2)).astype(np.float32) for length in (11, 50, 30)]
    kernels = RandomConvolutions(20, signals)
    together = kernels.transform(signals)
    alone = np.concatenate([kernels.transform([signal]) for signal in signals])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_majority_scores_the_share_of_the_most_frequent_training_class():
    data = make_series(40, lambda f: "a" if f < 1.4 else "b", seed=1)
    test = make_series(30, lambda f: "a" if f < 1.4 else "b", seed=2)
    floors = by_name(Classify.from_targets(data.targets, ClassifyConfig()), data, test)
    assert floors["majority"].metrics["accuracy"] == pytest.approx(np.mean([t == "a" for t in test.targets]))
    share = np.mean([t == "a" for t in data.targets])
    expected = -np.mean([np.log(share if t == "a" else 1 - share) for t in test.targets])
    assert floors["majority"].metrics["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_methods_find_an_easy_class_and_leave_out_what_needs_probabilities():
    data = make_series(60, lambda f: "slow" if f < 1.2 else "quick", seed=1)
    test = make_series(40, lambda f: "slow" if f < 1.2 else "quick", seed=2)
    floors = by_name(Classify.from_targets(data.targets, ClassifyConfig()), data, test)
    assert floors["random convolutions + ridge"].metrics["accuracy"] > 0.9
    assert "log_loss" not in floors["random convolutions + ridge"].metrics
    assert "calibration_error" not in floors["nearest neighbour"].metrics
    assert "1910.13051" in floors["random convolutions + ridge"].source


def test_nearest_neighbour_finds_copies():
    data = make_series(30, lambda f: f"{f:.6f}"[-1], seed=1)
    floors = by_name(Classify.from_targets(data.targets, ClassifyConfig()), data, data)
    assert floors["nearest neighbour"].metrics["accuracy"] == 1.0


def test_mean_and_ridge_of_numbers_match_what_is_computed_by_hand():
    data, test = make_series(40, lambda f: f, seed=1), make_series(20, lambda f: f, seed=2)
    floors = by_name(Regress.from_targets(data.targets, RegressConfig()), data, test)
    error = np.array(test.targets, float) - np.mean(np.array(data.targets, float))
    assert floors["mean"].metrics["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert floors["random convolutions + ridge"].metrics["rmse"] < floors["mean"].metrics["rmse"]


def test_quantile_regression_gets_floors_without_the_measures_of_an_interval():
    data, test = make_series(30, lambda f: f, seed=1), make_series(20, lambda f: f, seed=2)
    floors = by_name(Regress.from_targets(data.targets, RegressConfig(loss="quantile")), data, test)
    assert set(floors["ridge"].metrics) == {"rmse", "mae", "r2"}


@pytest.mark.parametrize("kind", ["audio", "symbols"])
def test_audio_and_symbols_have_floors_with_one_label_and_with_several(kind):
    rng, examples = np.random.default_rng(0), []
    for i in range(40):
        quick = i % 2
        if kind == "audio":
            time = np.arange(int(rng.integers(1500, 3000))) / 8000
            wave = np.sin(2 * np.pi * (2000 if quick else 300) * time) + rng.normal(0, 0.01, len(time))
            data = wave[:, None].astype(np.float32)
        else:
            data = rng.choice(4, int(rng.integers(10, 30)), p=[0.7, 0.1, 0.1, 0.1] if quick else [0.1, 0.1, 0.1, 0.7])
        examples.append(array_example(str(i), str(i), data, target="quick" if quick else "slow"))
    names = ("mono",) if kind == "audio" else ()
    rate, vocabulary = (8000.0, ()) if kind == "audio" else (None, tuple("ACGT"))
    data = Dataset(tuple(examples), kind, names, rate, "made", vocabulary=vocabulary)
    train, test = data[:24], data[24:]
    floors = by_name(Classify.from_targets(train.targets, ClassifyConfig()), train, test)
    assert floors["random convolutions + ridge"].metrics["accuracy"] > 0.9
    assert kind == "symbols" or floors["log-mel statistics"].metrics["accuracy"] == 1.0
    several = by_name(MultiLabel.from_targets(train.targets, ClassifyConfig()), train, test)
    assert set(several) == set(floors)
    assert several["random convolutions + ridge"].metrics["subset_accuracy"] > 0.9


def test_large_sets_are_cut_and_the_note_says_so():
    data = make_series(60, lambda f: "a" if f < 1.4 else "b", seed=1)
    task = Classify.from_targets(data.targets, ClassifyConfig())
    floors = by_name(task, data, data[:20], max_examples=30)
    assert all(floor.note.endswith("; on 30 of 60 training examples, drawn at random") for floor in floors.values())


def test_long_signals_are_averaged_to_what_the_work_allows_and_the_note_says_so():
    data = make_series(60, lambda f: "a" if f < 1.4 else "b", seed=1)
    task = Classify.from_targets(data.targets, ClassifyConfig())
    a_frame = 60 * 2 * 9 * 60  # examples, channels, taps, kernels
    floors = by_name(task, data, data, max_work=20 * a_frame)
    assert all(floor.note.endswith("; signals averaged in time to at most 20 frames") for floor in floors.values())


def test_the_same_seed_gives_the_same_floors():
    data, test = make_series(40, lambda f: f, seed=1), make_series(20, lambda f: f, seed=2)
    task = Regress.from_targets(data.targets, RegressConfig())
    assert by_name(task, data, test) == by_name(task, data, test)


def test_an_empty_set_is_refused():
    data = make_series(20, lambda f: f)
    with pytest.raises(DataError, match="the test set for the floor is empty; expected at least 1 example"):
        measure_floors(Regress.from_targets(data.targets, RegressConfig()), data, data[:0])


def test_gaps_are_filled_by_hand_computed_lines():
    nan = np.nan
    signal = np.array([[1, nan, 3, nan], [nan, nan, nan, nan]], np.float32).T
    np.testing.assert_array_equal(fill_gaps(signal).T, [[1, 2, 3, 3], [0, 0, 0, 0]])


def test_z_score_makes_a_constant_zero():
    found = z_score(np.array([[1, 5], [3, 5]], np.float32))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0]])


def test_long_signals_are_averaged_in_blocks():
    data = Dataset(
        (array_example("a", "a", np.arange(10, dtype=np.float32)[:, None], target=1.0),), "series", ("c",), None, "made"
    )
    np.testing.assert_allclose(read_signal(data, 0, 5)[:, 0], [0.5, 2.5, 4.5, 6.5, 8.5])


def test_log_mel_peaks_in_the_band_of_a_tone():
    rate = 8000
    wave = np.sin(2 * np.pi * 1000 * np.arange(4000) / rate).astype(np.float32)
    band = int(log_mel(wave, rate).mean(0).argmax())
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 42) / 2595) - 1)
    assert edges[band] < 1000 < edges[band + 2]
    assert torch.isfinite(torch.from_numpy(log_mel(wave[:10], rate))).all()


def test_symbols_have_floors_of_words_and_of_places():
    rng, examples = np.random.default_rng(0), []
    for i in range(80):
        ids = rng.integers(0, 4, 12)
        ids[5] = 3 if i % 2 else 1  # one place tells all
        examples.append(array_example(str(i), str(i), ids, target="yes" if i % 2 else "no"))
    data = Dataset(tuple(examples), "symbols", (), None, "made", vocabulary=tuple("ACGT"))
    floors = by_name(Classify.from_targets(data.targets, ClassifyConfig()), data[:60], data[60:])
    assert floors["symbols by place + logistic regression"].metrics["accuracy"] > 0.9
    assert floors["words + logistic regression"].metrics["accuracy"] > 0.4
    assert "length alone" not in floors


def test_a_label_that_follows_from_the_length_is_found_out():
    rng, examples = np.random.default_rng(0), []
    for i in range(60):
        data = rng.normal(size=(30 + 20 * (i % 2) + int(rng.integers(5)), 1)).astype(np.float32)
        examples.append(array_example(str(i), str(i), data, target="long" if i % 2 else "short"))
    data = Dataset(tuple(examples), "series", ("value",), None, "made")
    floors = by_name(Classify.from_targets(data.targets, ClassifyConfig()), data[:40], data[40:])
    assert floors["length alone"].metrics["accuracy"] == 1.0


def test_shares_of_words_by_hand():
    signal = np.eye(2, dtype=np.float32)[[0, 1, 1]]
    assert word_shares(signal, 2).tolist() == pytest.approx([1 / 3, 2 / 3, 0, 0, 1 / 2, 1 / 2])  # 00, 10, 01, 11
