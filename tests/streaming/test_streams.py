"""Many streams at once: each has the numbers that it has alone, whoever joins or leaves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_examples import ENGINES, HEARD, SMALL, frames, make_model

from crnn.errors import DataError, ShapeError, StreamError
from crnn.model import Model
from crnn.streaming.steps import EngineName

POOLED = {
    "layers": [{"type": "conv", "channels": 4, "stride": 2}, {"type": "norm"}],
    "summary": {
        "type": "concat",
        "summaries": [
            {"type": "last", "layers": [{"type": "pool", "size": 3}]},
            {"type": "attention", "layers": [{"type": "recurrent", "hidden_size": 3}]},
        ],
    },
}
ROUNDS = st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 4), max_size=5), max_size=12)


@settings(max_examples=15, deadline=None)
@given(rounds=ROUNDS, spec=st.sampled_from([SMALL, POOLED]), leave=st.integers(1, 12))
def test_streams_that_join_and_leave_equal_streams_alone(
    rounds: list[dict[str, int]], spec: dict[str, object], leave: int
) -> None:
    model = make_model(spec)
    for engine in ENGINES:
        check_together(model, engine, rounds, leave)


def check_together(model: Model, engine: EngineName, rounds: list[dict[str, int]], leave: int) -> None:
    """Streams in rounds of chunks, each against one of its own in PyTorch; after one round the first one leaves."""
    data = {name: frames(60, seed=i) for i, name in enumerate("abcde")}
    together, alone = model.streams(engine=engine), {name: model.stream(engine="torch") for name in "abcde"}
    at = dict.fromkeys("abcde", 0)
    for i, sizes in enumerate(rounds):
        for name in sizes:
            if name not in together:
                together.add(name)
                alone[name].restart()
                at[name] = 0
        chunks = {name: data[name][at[name] : at[name] + size] for name, size in sizes.items()}
        found = together.push(chunks)
        assert list(found) == list(chunks)
        for name, size in sizes.items():
            at[name] += size
            assert_same(found[name], alone[name].push(chunks[name]))
        if i == leave and len(together):
            name = next(iter(together))
            assert_same(together.finish(name), alone[name].finish())
            assert name not in together
    for name in list(together):
        assert_same(together.finish(name), alone[name].finish())


def assert_same(found, expected) -> None:
    assert (found is None) == (expected is None)
    if found is not None:
        assert (found.frames, found.looked_at, found.is_final) == (
            expected.frames,
            expected.looked_at,
            expected.is_final,
        )
        for name, probability in expected.prediction["probabilities"].items():
            assert abs(found.prediction["probabilities"][name] - probability) <= 1e-5


def test_streams_are_named_by_whoever_adds_them_or_numbered(small: Model) -> None:
    streams = small.streams()
    assert [streams.add(), streams.add("door"), streams.add(), streams.add(3), streams.add()] == [0, "door", 1, 3, 2]
    assert list(streams) == [0, "door", 1, 3, 2]
    assert repr(streams).startswith("<5 streams of series, 3 channels; answers 1 frames behind, a new one every 1; ")
    streams.remove(1)
    assert len(streams) == 4


def test_a_stream_moves_in_and_out(heard: Model) -> None:
    sound, one, streams = 0.1 * frames(200, 1)[:, 0], heard.stream(), heard.streams()
    one.push(sound[:77])
    name = streams.add(snapshot=one.save())
    moved = heard.stream(streams.save(name))
    here = streams.push({name: sound[77:]})[name]
    end = streams.finish(name)
    for stream in (one, moved):
        assert_same(stream.push(sound[77:]), here)
        assert_same(stream.finish(), end)


def test_nothing_is_fed_when_one_chunk_is_wrong(small: Model) -> None:
    streams, data = small.streams(), frames(9)
    streams.add("a")
    streams.add("b")
    for bad, error, said in (
        ({"a": data, "b": data[:, :2]}, ShapeError, r"stream 'b': chunk: found an array of shape \(9, 2\)"),
        ({"a": data, "b": ["x"]}, DataError, "stream 'b': chunk: found values"),
        ({"a": data, "c": data}, StreamError, r"stream 'c' is not there; .*add\('c'\)"),
    ):
        with pytest.raises(error, match=said):
            streams.push(bad)
    assert streams.push({"a": data})["a"].frames == 9
    assert streams.push({}) == {}
    with pytest.raises(StreamError, match="stream 'a' is there already"):
        streams.add("a")
    streams.finish("a")
    for use in (streams.finish, streams.remove, streams.save):
        with pytest.raises(StreamError, match="stream 'a' is not there; it was finished or removed"):
            use("a")


def test_a_snapshot_of_an_unlike_model_is_refused(small: Model) -> None:
    with pytest.raises(StreamError, match="of another model"):
        small.streams().add(snapshot=make_model(HEARD, channels=1, kind="audio", rate=1000).stream().save())
