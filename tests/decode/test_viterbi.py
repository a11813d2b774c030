"""The best path against all paths, whole and in parts."""

import itertools
import json

import numpy as np
import pytest

from crnn.decode.crf import Viterbi, best_path


def scores(frames, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(frames, classes)), random.normal(size=(frames, classes, classes)) * 2


def path_scores(emissions, transitions):
    """The score of every path, by definition."""
    for path in itertools.product(range(emissions.shape[1]), repeat=len(emissions)):
        steps = sum(transitions[t, path[t - 1], path[t]] for t in range(1, len(path)))
        yield path, sum(emissions[t, label] for t, label in enumerate(path)) + steps


@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_all_paths_and_what_its_labels_have(seed):
    emissions, transitions = scores(4, seed=seed)
    codes, probabilities = best_path(emissions, transitions)
    assert tuple(codes) == max(path_scores(emissions, transitions), key=lambda found: found[1])[0]
    for t in range(4):
        shares = dict.fromkeys(range(3), 0.0)
        for path, score in path_scores(emissions[: t + 1], transitions[: t + 1]):
            shares[path[-1]] += np.exp(score)
        assert probabilities[t] == pytest.approx(shares[int(codes[t])] / sum(shares.values()))


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_in_parts_it_is_the_same_path_and_most_of_it_is_told_before_the_end(chunk):
    emissions, transitions = scores(200)
    path, parts = Viterbi(3), []
    for at in range(0, 200, chunk):
        parts.append(path.push(emissions[at : at + chunk], transitions[at : at + chunk]))
        again = Viterbi(3)
        again.restore(json.loads(json.dumps(path.state())))
        path = again
    assert sum(len(codes) for codes, _ in parts) > 180
    parts.append(path.finish())
    whole = best_path(emissions, transitions)
    for i in range(2):
        assert np.array_equal(np.concatenate([part[i] for part in parts]), whole[i])


def test_no_frames_have_no_path():
    codes, probabilities = best_path(np.zeros((0, 3)), np.zeros((0, 3, 3)))
    assert (len(codes), len(probabilities)) == (0, 0)
