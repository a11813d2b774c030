"""Greedy decoding, forced alignment and likelihoods against all paths of small examples."""

import itertools
import math

import numpy as np
import pytest
import torch
from all_paths import collapse, outputs, paths
from hypothesis import given
from hypothesis import strategies as st

from crnn.decode.ctc import Greedy, Span, align, decode, frames_needed, log_likelihood
from crnn.errors import ShapeError


@pytest.mark.parametrize("seed", range(5))
def test_likelihood_is_the_sum_over_all_paths(seed):
    log_probs = outputs(5, 3, seed)
    total: dict[tuple[int, ...], float] = {}
    for _, text, score in paths(log_probs):
        total[text] = np.logaddexp(total.get(text, -math.inf), score)
    for text, score in total.items():
        assert log_likelihood(log_probs, text) == pytest.approx(score, abs=1e-9)
    assert log_likelihood(log_probs, (1, 1, 1, 1)) == -math.inf


def test_likelihood_is_that_of_torch():
    log_probs = outputs(12, 5, 0)
    loss = torch.nn.functional.ctc_loss(
        torch.tensor(log_probs)[:, None], torch.tensor([[1, 2, 2, 4]]), [12], [4], reduction="sum"
    )
    assert log_likelihood(log_probs, [1, 2, 2, 4]) == pytest.approx(-float(loss))


@pytest.mark.parametrize("text", [(), (1,), (1, 1), (1, 2), (2, 1, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_alignment_is_the_best_of_all_paths(text, seed):
    log_probs = outputs(6, 3, seed)
    best_path, _, best = max((p for p in paths(log_probs) if p[1] == text), key=lambda p: p[2])
    found = align(log_probs, text)
    assert found.log_prob == pytest.approx(best)
    runs, t = [], 0
    for label, run in itertools.groupby(best_path):
        size = len(list(run))
        runs += [(label, t, t + size)] if label else []
        t += size
    assert [span[:3] for span in found.spans] == runs


def test_alignment_without_enough_frames_is_refused():
    with pytest.raises(ShapeError, match="2 output frames, but 2 labels need at least 3"):
        align(outputs(2, 3, 0), [1, 1])


def test_frames_needed_counts_repeats():
    assert frames_needed([]) == 0
    assert frames_needed([1, 2, 3]) == 3
    assert frames_needed([1, 1, 2, 2, 2]) == 8


def test_greedy_gives_labels_with_times():
    best = [0, 1, 1, 0, 1, 2, 2, 0]
    log_probs = np.log(np.full((8, 3), 0.1) + 0.7 * np.eye(3)[best])
    spans = decode(Greedy(), log_probs)
    assert [span[:3] for span in spans] == [(1, 1, 3), (1, 4, 5), (2, 5, 7)]
    assert spans[0].confidence == pytest.approx(0.8)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_greedy_does_not_depend_on_chunks(best, cuts):
    log_probs = np.log(np.full((len(best), 3), 0.1) + 0.7 * np.eye(3)[best]) if best else np.zeros((0, 3))
    whole = decode(Greedy(), log_probs)
    decoder, found = Greedy(), []
    for part in np.split(log_probs, sorted(min(cut, len(best)) for cut in cuts)):
        found += decoder.push(part)
        again = Greedy()
        again.restore(decoder.state())
        decoder = again
    assert found + decoder.pending() == whole
    assert found + decoder.finish() == whole
    assert tuple(span.label for span in whole) == collapse(tuple(best))
    assert all(isinstance(span, Span) and span.start < span.end for span in whole)
