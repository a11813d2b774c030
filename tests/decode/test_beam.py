"""Prefix beam search against the sum over all paths, and against itself in chunks."""

import json
import math

import numpy as np
import pytest
from all_paths import outputs, paths
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crnn.decode.beam import BeamConfig, BeamSearch
from crnn.decode.ctc import Greedy, align, decode

WIDE = BeamConfig(width=10_000, min_log_prob=-1000.0)


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_is_the_sum_over_all_paths(seed):
    log_probs = outputs(5, 3, seed)
    total: dict[tuple[int, ...], float] = {}
    for _, text, score in paths(log_probs):
        total[text] = np.logaddexp(total.get(text, -math.inf), score)
    search = BeamSearch(WIDE)
    search.push(log_probs)
    found = search.hypotheses()
    assert {tuple(h.labels) for h in found} == set(total)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(total[tuple(hypothesis.labels)], abs=1e-9)
    assert tuple(found[0].labels) == max(total, key=total.get)


def test_the_sum_of_paths_can_beat_the_best_path():
    # Graves 2012, figure 7.5: the best path is all blank, the most probable transcript is one label
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert decode(Greedy(), log_probs) == []
    assert [span.label for span in decode(BeamSearch(), log_probs)] == [1]


@pytest.mark.parametrize("seed", range(4))
def test_times_are_those_of_the_best_path_of_the_transcript(seed):
    log_probs = outputs(12, 4, seed) * 2
    log_probs -= np.logaddexp.reduce(log_probs, 1, keepdims=True)
    spans = decode(BeamSearch(WIDE), log_probs[:8])
    best = align(log_probs[:8], [span.label for span in spans])
    assert [span[:3] for span in spans] == [span[:3] for span in best.spans]
    assert [span.confidence for span in spans] == pytest.approx([span.confidence for span in best.spans])


def in_parts(log_probs, config, cuts):
    """(spans told before the end, spans told at the end), through a saved state after every part."""
    search, found = BeamSearch(config), []
    for part in np.split(log_probs, sorted(cuts)):
        found += search.push(part)
        again = BeamSearch(config)
        again.restore(json.loads(json.dumps(search.state())))
        search = again
    return found, search.finish()


def noise(seed):
    log_probs = outputs(200, 4, seed) * 2
    return log_probs - np.logaddexp.reduce(log_probs, 1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 200), max_size=6))
@example(215, [])  # its hypotheses never agree before the end
def test_a_stream_equals_the_whole_for_any_chunks_and_interruptions(seed, cuts):
    config = BeamConfig(width=6)
    before, after = in_parts(noise(seed), config, cuts)
    assert before + after == decode(BeamSearch(config), noise(seed))


def test_something_becomes_final_before_the_end():
    before, after = in_parts(noise(0), BeamConfig(width=6), [50, 150])
    assert len(before) > 10
    assert after


@pytest.mark.parametrize("cycle", [[0, 1, 1, 0, 2, 0, 3], [1, 0, 2, 0, 3, 0, 1]])
def test_memory_stays_bounded_on_a_long_stream(cycle):
    best = np.tile(cycle, 500)
    log_probs = np.log(0.02 + 0.92 * np.eye(4)[best])
    search, count = BeamSearch(), 0
    sizes = []
    for part in np.split(log_probs, 35):
        count += len(search.push(part))
        sizes.append(len(json.dumps(search.state())))
    assert count + len(search.finish()) == len(decode(Greedy(), log_probs))
    assert max(sizes[10:]) < 1.5 * max(sizes[:10])


def test_an_empty_sequence_has_no_labels():
    assert decode(BeamSearch(), np.zeros((0, 3))) == []
