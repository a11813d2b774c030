"""A stream of answers for every frame: together those of the whole, with their places and times, and what is new."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_examples import ENGINES, EVERY_FRAME, frames, make_model
from test_stream import CHANNELS, CHUNKS, LAYERS

from crnn.errors import ShapeError, StreamError
from crnn.model import Model


def whole(model: Model, data: np.ndarray) -> np.ndarray:
    """(frames, outputs); none where the sequence is too short for the network."""
    try:
        return np.asarray(model.outputs([data])[0]) if len(data) else np.zeros((0, 3))
    except ShapeError:
        return np.zeros((0, 3))


def chunks(data: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return np.split(data, np.cumsum(sizes))


@settings(max_examples=40, deadline=None)
@given(layers=LAYERS, sizes=CHUNKS, seed=st.integers(0, 9))
def test_any_stream_in_any_chunks_gives_the_frames_of_the_whole(
    layers: list[dict[str, Any]], sizes: list[int], seed: int
) -> None:
    model = make_model({"layers": layers, "summary": None}, channels=CHANNELS, seed=seed, rate=50, task="signs")
    data = frames(sum(sizes), CHANNELS, seed)
    expected, stride = whole(model, data), model.network.timing.stride
    for name in ENGINES:
        stream, found = model.stream(engine=name), []
        updates = [*(stream.push(chunk) for chunk in chunks(data, sizes)), stream.finish()]
        for update in filter(None, updates):
            assert update.first == sum(map(len, found))
            assert update.places.tolist() == [stride * (update.first + i) for i in range(len(update.outputs))]
            np.testing.assert_allclose(update.times, update.places / 50)
            found.append(update.outputs)
        together = np.concatenate(found) if found else np.zeros((0, 3))
        assert together.shape == expected.shape
        np.testing.assert_allclose(together, expected, atol=1e-5)
        assert (updates[-1] is None) == (len(expected) == 0)
        assert updates[-1] is None or updates[-1].is_final


@pytest.mark.parametrize("engine", ENGINES)
def test_a_frame_comes_as_soon_as_its_delay_allows(engine: Any) -> None:
    model = make_model(EVERY_FRAME, rate=100, task="signs")
    stream = model.stream(engine=engine)
    assert (stream.delay_frames, stream.delay_seconds) == (2, 0.02)  # one of the convolution, one of the pooling
    ready = [stream.push(frame[None]) for frame in frames(8)]
    assert [None if update is None else update.places.tolist() for update in ready] == [
        None, None, [0], None, [2], None, [4], None
    ]  # fmt: skip
    last = stream.finish()
    assert last.places.tolist() == [6]
    assert last.to_dict() == {"seconds": 0.08, "frames": 8, "answers": 4, "news": last.news, "final": True}
    assert str(last).startswith("0.08 s  1 frames")


@pytest.mark.parametrize("engine", ENGINES)
def test_news_do_not_depend_on_chunks_and_go_on_from_a_snapshot(engine: Any) -> None:
    model, data = make_model(EVERY_FRAME, rate=100, task="signs", seed=3), frames(90, seed=1)
    labels = np.array(model.task.labels)[whole(model, data).argmax(1)]
    turns = [i for i in range(len(labels)) if i == 0 or labels[i] != labels[i - 1]]
    expected = [{"frame": 2 * i, "seconds": 2 * i / 100, "label": labels[i]} for i in turns]
    assert len(expected) > 2
    for sizes in ([90], [1] * 90, [7, 0, 50]):
        stream, news = model.stream(engine=engine), []
        for chunk in chunks(data, sizes):
            update = stream.push(chunk)
            news += update.news if update else []
            stream = model.stream(stream.save())
        assert news + stream.finish().news == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_many_streams_give_the_frames_that_each_gives_alone(engine: Any) -> None:
    model, data = make_model(EVERY_FRAME, task="signs"), {name: frames(30, seed=i) for i, name in enumerate("abc")}
    streams = model.streams(engine=engine)
    alone = {name: model.stream(engine="torch") for name in data}
    for name in data:
        streams.add(name)
    at = dict.fromkeys(data, 0)
    for sizes in ({"a": 3, "b": 3}, {"a": 1, "b": 1, "c": 1}, {"c": 0}, {"a": 9, "c": 9}):
        pushed = {name: data[name][at[name] : at[name] + size] for name, size in sizes.items()}
        found = streams.push(pushed)
        for name, chunk in pushed.items():
            assert_same(found[name], alone[name].push(chunk))
            at[name] += len(chunk)
    moved = streams.save("a")
    streams.remove("a")
    streams.add("a", snapshot=moved)
    for name, one in alone.items():
        assert_same(streams.finish(name), one.finish())


def assert_same(found: Any, expected: Any) -> None:
    assert (found is None) == (expected is None)
    if expected is not None:
        assert (found.first, found.frames, found.news) == (expected.first, expected.frames, expected.news)
        np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-5)


def test_nothing_in_nothing_out() -> None:
    model = make_model(EVERY_FRAME, task="signs")
    for engine in ENGINES:
        stream = model.stream(engine=engine)
        assert stream.push([]) is None
        assert stream.finish() is None
        with pytest.raises(StreamError, match="this stream is finished"):
            stream.push(frames(1))
        stream.restart()
        assert stream.push(frames(9)).first == 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stream_of_hours_gives_the_same_frames_in_the_same_memory(engine: Any) -> None:
    """Ten hours of noise at 100 frames a second in the native engine, six minutes in PyTorch.

    The last minute is compared with a stream that began a minute before it: what was before that is forgotten.
    """
    import tracemalloc

    minutes = 600 if engine == "native" else 6
    model = make_model(EVERY_FRAME, rate=100, task="signs")
    stream, late = model.stream(engine=engine), model.stream(engine=engine)
    count, size = 0, len(stream.save())
    tracemalloc.start()
    for minute in range(minutes):
        data = frames(6000, seed=minute)
        update = stream.push(data)
        count += len(update.outputs)
        if minute == minutes // 10:
            tracemalloc.reset_peak()
            early = tracemalloc.get_traced_memory()[1]
        if minute == minutes - 2:
            late.push(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(update.outputs, late.push(data).outputs, atol=1e-5)
    last = stream.finish()
    assert count + len(last.outputs) == minutes * 3000
    assert last.frames == minutes * 6000
    assert peak < 2 * early + 1e6
    assert abs(len(model.stream(engine=engine).save()) - size) < 200
