"""Text of a stream: the words of the whole, whatever the chunks and interruptions."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.sequences import Ragged
from crnn.tasks.decoding import Decoding
from crnn.tasks.transcribe import Transcribe, TranscribeConfig


def task_of(*texts, **options):
    return Transcribe.from_targets(texts, TranscribeConfig(**options))


def followed(task, outputs, cuts, stride=4):
    """(news that stand, the last partial text), the follower replaced by a restored one after every chunk."""
    follower, standing, partial = task.follow(Timing(stride, 0, 0), 100.0), [], ""
    for part in np.split(outputs, sorted(cuts)):
        for news in follower.push(part):
            if news.get("partial"):
                partial = news["text"]
            else:
                standing.append(news)
        again = task.follow(Timing(stride, 0, 0), 100.0)
        again.restore(json.loads(json.dumps(follower.state())))
        follower = again
    return standing + follower.finish(len(outputs) * stride - 1), partial


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 90), max_size=5), st.sampled_from([0, 4]))
def test_the_words_that_stand_are_those_of_the_whole(seed, cuts, beam):
    task = task_of("ab ba")
    task.decoding = Decoding(beam=beam)
    outputs = (2 * np.random.default_rng(seed).normal(size=(90, 4))).astype(np.float32)
    frames = Frames(Timing(4, 0, 0), torch.tensor([359]), torch.tensor([90]), 100.0)
    whole = task.predictions(Ragged.of([torch.from_numpy(outputs)]), frames)[0]
    standing, _ = followed(task, outputs, cuts)
    assert standing == whole["words"]


def test_a_word_stands_when_its_space_has_come_and_the_rest_is_partial():
    task = task_of("ab ba")
    path = [2, 3, 0, 1, 1, 3, 0]  # "ab", space, "b": labels are space, a, b
    follower = task.follow(Timing(1, 0, 0), None)
    news = [follower.push(8 * np.eye(4, dtype=np.float32)[[label]]) for label in path]
    assert news[0] == [{"partial": True, "text": "a"}]
    assert news[1] == [{"partial": True, "text": "ab"}]
    assert [(n["text"], n["start"], n["end"]) for n in news[5] if not n.get("partial")] == [("ab", 0.0, 2.0)]
    assert news[5][-1] == {"partial": True, "text": "b"}
    assert [n["text"] for n in follower.finish(7)] == ["b"]


def test_text_without_spaces_stands_letter_by_letter():
    task = task_of("ab", "ba")
    follower = task.follow(Timing(1, 0, 0), None)
    news = follower.push(8 * np.eye(3, dtype=np.float32)[[1, 0, 2]])
    assert [n["text"] for n in news] == ["a", "b"]
    assert [n.get("partial", False) for n in news] == [False, True]


def test_nothing_pushed_brings_nothing():
    follower = task_of("ab").follow(Timing(1, 0, 0), None)
    assert follower.push(np.zeros((0, 3), np.float32)) == []
    assert follower.finish(0) == []


@pytest.mark.parametrize("beam", [0, 4])
def test_memory_does_not_grow(beam):
    task = task_of("ab ba")
    task.decoding = Decoding(beam=beam)
    outputs = 8 * np.eye(4, dtype=np.float32)[[2, 0, 3, 0, 1, 0] * 400]
    follower = task.follow(Timing(1, 0, 0), None)
    sizes = []
    for part in np.split(outputs, 24):
        follower.push(part)
        sizes.append(len(json.dumps(follower.state())))
    assert max(sizes[12:]) < 1.3 * max(sizes[:12])
