"""A stream gives what the whole gives, says when it can answer, and refuses what it cannot use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_examples import ENGINES, HEARD, LOG_MEL, SMALL, frames, make_model

from crnn.errors import ConfigError, DataError, ShapeError, StreamError
from crnn.model import Model
from crnn.native.library import LibraryError
from crnn.nn.blocks import Activation
from crnn.program.lower import LOWERINGS
from crnn.streaming import engine as native
from crnn.streaming.steps import EngineName
from crnn.streaming.update import Update

CHANNELS = 4


def layer_specs() -> st.SearchStrategy[dict[str, Any]]:
    """One layer that streams and keeps 4 channels, or makes them 4."""
    small = st.integers(1, 4)
    padding = st.sampled_from(["centred", "causal"])
    conv = st.builds(
        lambda k, s, d, p: {
            "type": "conv", "channels": CHANNELS, "kernel_size": k, "stride": s, "dilation": d, "padding": p
        },
        small, st.integers(1, 2), st.integers(1, 2), padding,
    )  # fmt: skip
    pool = st.builds(
        lambda size, kind, tail: {"type": "pool", "size": size, "kind": kind, "tail": tail},
        st.integers(1, 3), st.sampled_from(["max", "mean"]), st.sampled_from(["floor", "ceil"]),
    )  # fmt: skip
    recurrent = st.builds(
        lambda cell, layers: {"type": "recurrent", "cell": cell, "num_layers": layers, "hidden_size": CHANNELS},
        st.sampled_from(["rnn", "lstm", "gru"]), st.integers(1, 2),
    )  # fmt: skip
    plain = st.sampled_from(
        [
            {"type": "norm"},
            {"type": "norm", "kind": "layer"},
            {"type": "activation", "kind": "tanh"},
            {"type": "difference", "keep": False},
            {"type": "residual", "layers": [{"type": "conv", "channels": CHANNELS}, {"type": "activation"}]},
            {"type": "bottleneck", "channels": CHANNELS, "stride": 2},
        ]
    )
    return st.one_of(conv, pool, recurrent, plain)


def summary_specs() -> st.SearchStrategy[dict[str, Any]]:
    single = st.sampled_from([{"type": name} for name in ("last", "mean", "max", "attention")])
    part = st.builds(lambda part, layers: {**part, "layers": layers}, single, st.lists(layer_specs(), max_size=2))
    return st.one_of(
        single, st.builds(lambda p: {"type": "concat", "summaries": p}, st.lists(part, min_size=1, max_size=2))
    )


LAYERS = st.lists(layer_specs(), min_size=1, max_size=4)
SPECS = st.builds(
    lambda layers, summary: {"layers": layers, "summary": summary},
    LAYERS,
    summary_specs(),
)
CHUNKS = st.lists(st.integers(0, 9), max_size=12)


def answer_of_the_whole(model: Model, data: np.ndarray) -> dict[str, Any] | None:
    """None where it is too short for the network."""
    try:
        return model.predict([data])[0] if len(data) else None
    except ShapeError:
        return None


def assert_same(update: Update | None, expected: dict[str, Any] | None) -> None:
    assert (update is None) == (expected is None)
    if update is None or expected is None:
        return
    assert update.is_final
    for name, probability in expected["probabilities"].items():
        assert abs(update.prediction["probabilities"][name] - probability) <= 1e-5


@settings(max_examples=40, deadline=None)
@given(spec=SPECS, sizes=CHUNKS, seed=st.integers(0, 9))
def test_any_stream_in_any_chunks_equals_the_whole(spec: dict[str, Any], sizes: list[int], seed: int) -> None:
    model, data = make_model(spec, channels=CHANNELS, seed=seed), frames(sum(sizes), CHANNELS, seed)
    for name in ENGINES:
        stream, at = model.stream(engine=name), 0
        for size in sizes:
            stream.push(data[at : at + size])
            at += size
        assert_same(stream.finish(), answer_of_the_whole(model, data))


@pytest.mark.parametrize("sizes", [[120], [1] * 120, [0, 7, 0, 113], [50, 70]], ids=["whole", "single", "empty", "two"])
def test_audio_in_any_chunks_equals_the_whole(heard: Model, sizes: list[int]) -> None:
    sound, stream = 0.1 * frames(120, 1)[:, 0], heard.stream()
    for chunk in np.split(sound, np.cumsum(sizes)[:-1]):
        stream.push(chunk)
    assert_same(stream.finish(), heard.predict(sound)[0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "front", [{"type": "embedding", "vocab_size": 5, "channels": 3}, {"type": "one_hot", "vocab_size": 5}]
)
def test_an_unknown_symbol_is_refused_by_every_engine(front: dict, engine: str) -> None:
    spec = {"layers": [front, {"type": "recurrent", "hidden_size": 4}], "summary": {"type": "last"}}
    stream = make_model(spec, kind="symbols").stream(engine=engine)  # type: ignore[arg-type]
    for chunk, wrong in (([4, 5], 5), ([0, -1], -1)):
        with pytest.raises(DataError, match=f"chunk: found symbol id {wrong} at 1, expected 0 to 4"):
            stream.push(chunk)
    assert stream.frames == 0


def test_symbols_and_values_stream_too() -> None:
    layers = [{"type": "embedding", "vocab_size": 5, "channels": 3}, {"type": "recurrent", "hidden_size": 4}]
    ids = np.random.default_rng(0).integers(5, size=40)
    stream = make_model({"layers": layers, "summary": {"type": "last"}}, kind="symbols").stream()
    for part in np.split(ids, [3, 3, 25]):
        stream.push(part)
    whole = make_model({"layers": layers, "summary": {"type": "last"}}, kind="symbols").stream()
    whole.push(ids)
    assert_same(stream.finish(), whole.finish().prediction)
    model, data = make_model(SMALL, task="regress"), frames(40)
    stream = model.stream()
    stream.push(data)
    assert stream.finish().answer == pytest.approx(model.predict([data])[0]["value"], abs=1e-5 * 3)


def test_the_memory_of_a_long_stream_is_flat(heard: Model) -> None:
    stream, sizes = heard.stream(), set()
    for i in range(30):
        stream.push(0.1 * frames(400, 1, i)[:, 0])
        sizes.add(len(stream.save()) - len(str(stream.frames)))  # the header counts frames
    assert max(sizes) - min(sizes) <= 8  # safetensors aligns its header


def test_an_update_says_what_it_has_heard_and_prints_well(heard: Model) -> None:
    stream = heard.stream()
    assert (stream.delay_frames, stream.delay_seconds) == (42, 0.042)  # window 25 - 1 - 2 before, pooling 20
    assert stream.push(np.zeros(42, np.float32)) is None
    update = stream.push(np.zeros(8, np.float32))
    assert (update.frames, update.seconds, update.looked_at, update.is_final) == (50, 0.05, 43, False)
    final = stream.finish()
    assert (final.frames, final.looked_at, final.is_final) == (50, 50, True)
    assert str(update) == f"0.05 s  {update.answer} {update.prediction['probability']:.2f}"
    assert str(final).endswith("  (final)")
    assert list(final.to_dict()) == [
        *("seconds", "frames", "looked_at", "label", "probability", "probabilities", "final"),
    ]
    assert repr(stream).startswith(
        "<Stream of audio, 1 channel, 1000 Hz; answers 0.042 s behind, a new one every 0.04 s; "
    )


@settings(max_examples=20, deadline=None)
@given(spec=SPECS, seed=st.integers(0, 9))
def test_frames_past_what_was_looked_at_change_nothing(spec: dict[str, Any], seed: int) -> None:
    model, data = make_model(spec, channels=CHANNELS, seed=seed), frames(40, CHANNELS, seed)
    for name in ENGINES:
        update, changed = model.stream(engine=name).push(data), data.copy()
        if update is not None:
            changed[update.looked_at :] += 5.0
            assert model.stream(engine=name).push(changed).prediction == update.prediction


@pytest.mark.parametrize("engine", ENGINES)
def test_an_array_may_be_used_again_for_the_next_chunk(engine: EngineName) -> None:
    model = make_model({"layers": [], "summary": {"type": "last", "bidirectional": False}})
    data, room = frames(6), np.empty((2, 3), np.float32)
    stream = model.stream(engine=engine)
    for i in range(0, 6, 2):
        room[:] = data[i : i + 2]
        stream.push(room)
    room[:] = 99
    assert_same(stream.finish(), model.predict([data])[0])


def test_no_answer_for_nothing_or_for_less_than_the_shortest_sequence() -> None:
    model = make_model({"layers": [{"type": "pool", "size": 3}], "summary": {"type": "max"}})
    stream = model.stream()
    assert stream.finish() is None
    stream.restart()
    assert stream.push(frames(2)) is None
    assert stream.finish() is None


def test_after_the_end_nothing_goes_in_until_it_restarts(small: Model) -> None:
    stream, data = small.stream(), frames(9)
    stream.push(data)
    first = stream.finish()
    for use in (lambda: stream.push(data), stream.finish, stream.save):
        with pytest.raises(StreamError, match=r"finished; begin the next sequence with restart\(\)"):
            use()
    stream.restart()
    stream.push(data)
    assert stream.finish().to_dict() == first.to_dict()


def test_wrong_chunks_are_refused_and_the_stream_goes_on(small: Model, heard: Model) -> None:
    stream, data = small.stream(), frames(9)
    for bad, error, said in (
        (frames(5, 2), ShapeError, r"found an array of shape \(5, 2\), expected \(n, 3\) or one frame \(3,\)"),
        (frames(5, 3).T, ShapeError, "turn it: chunk.T"),
        (np.zeros(5), ShapeError, r"shape \(5,\)"),
        (["a", "b", "c"], DataError, "expected numbers"),
        ([[1, 2, 3], [1, 2]], DataError, "found a ragged list"),
    ):
        with pytest.raises(error, match=said):
            stream.push(bad)
    stream.push(data, sample_rate=100)  # the model knows no rate, so there is none to disagree with
    assert_same(stream.finish(), small.predict([data])[0])
    with pytest.raises(DataError, match="found 44100 frames per second, but the model takes 1000; resample it"):
        heard.stream().push(np.zeros(9, np.float32), sample_rate=44100)
    with pytest.raises(ConfigError, match="engine: found 'cuda', expected auto, torch or native"):
        small.stream(engine="cuda")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (
            {"type": "recurrent", "hidden_size": 4, "bidirectional": True},
            "recurrent cannot stream: it is bidirectional",
        ),
        ({"type": "instance_norm"}, "instance_norm cannot stream"),
        ({"type": "level"}, "level cannot stream"),
    ],
)
def test_what_cannot_stream_names_the_layer_and_a_preset_that_can(layer: dict[str, Any], said: str) -> None:
    model = make_model({"layers": [layer], "summary": {"type": "mean"}})
    for use in (model.stream, model.streams):
        with pytest.raises(StreamError, match=said) as error:
            use()
        assert str(error.value).endswith("crnn train DATA --preset live")


def test_a_layer_that_cannot_stream_is_found_inside_of_a_summary() -> None:
    part = {"type": "mean", "layers": [{"type": "recurrent", "hidden_size": 4, "bidirectional": True}]}
    model = make_model({"layers": [], "summary": {"type": "concat", "summaries": [part]}})
    with pytest.raises(StreamError, match=r"recurrent cannot stream.*--preset live"):
        model.stream()


def test_a_saved_stream_goes_on_elsewhere_with_the_same_numbers(heard: Model) -> None:
    sound = 0.1 * frames(300, 1)[:, 0]
    whole, stream = heard.stream(), heard.stream()
    whole.push(sound[:133])
    stream.push(sound[:133])
    moved = heard.stream(stream.save())
    assert moved.frames == 133
    assert moved.push(sound[133:]).to_dict() == whole.push(sound[133:]).to_dict()
    assert moved.finish().to_dict() == whole.finish().to_dict()


def test_a_stream_of_an_unlike_model_or_no_snapshot_is_refused(small: Model) -> None:
    saved = small.stream(engine="torch").save()
    with pytest.raises(StreamError, match="snapshot: it is of another model"):
        make_model(SMALL, seed=1).stream(saved)
    for damaged in (b"", b"junk", saved[:40], saved[:-3], b"\xff" * 200):
        with pytest.raises(StreamError, match=r"snapshot: (found other bytes|cannot be read)"):
            small.stream(damaged)
    for other, kind in (("snapshot.bin", "str"), (3, "int")):
        with pytest.raises(StreamError, match=rf"snapshot: found {kind}, expected the bytes that save\(\) gave"):
            small.stream(other)  # type: ignore[arg-type]
    newer = saved.replace(b'"format":"1"', b'"format":"9"')
    assert newer != saved
    with pytest.raises(StreamError, match="format 9, written by a newer crnn"):
        small.stream(newer)


def test_a_snapshot_of_the_other_engine_says_so(small: Model) -> None:
    saved = {name: small.stream(engine=name).save() for name in ENGINES}
    for name, snapshot in saved.items():
        assert small.stream(snapshot).engine.startswith(name)
        for other in set(ENGINES) - {name}:
            with pytest.raises(StreamError, match=f"snapshot: it is of the {name} engine, whose state only that can"):
                small.stream(snapshot, engine=other)
    cut = saved["torch"].replace(b'"state.0"', b'"state.9"')
    assert cut != saved["torch"]
    with pytest.raises(StreamError, match="its state is not that of this model's layers"):
        small.stream(cut)


def test_without_compiled_kernels_torch_steps_in_and_says_why(small: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(instruction_set: str | None = None) -> None:
        raise LibraryError("no compiler was there")

    monkeypatch.setattr(native, "load", load)
    assert small.stream().engine == "torch: the native engine is not available: no compiler was there"
    with pytest.raises(
        StreamError, match=r"engine native: .*no compiler was there; engine auto or torch gives the same"
    ):
        small.stream(engine="native")


def test_a_layer_that_the_native_engine_does_not_know_streams_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LOWERINGS, Activation)
    assert "layer 'activation' has no operations" in make_model(SMALL).stream().engine


def test_a_model_in_training_mode_streams_as_it_predicts() -> None:
    model = make_model({**SMALL, "layers": [*SMALL["layers"], {"type": "dropout"}]})
    model.network.train()
    stream, data = model.stream(), frames(30)
    stream.push(torch.from_numpy(data))
    assert_same(stream.finish(), model.predict([data])[0])


def test_the_front_end_of_audio_is_in_the_stream() -> None:
    both = {"layers": [LOG_MEL, {"type": "channel_norm"}, {"type": "difference"}], "summary": {"type": "max"}}
    model, sound = make_model(both, channels=1, kind="audio", rate=1000), frames(777, 1)[:, 0]
    stream = model.stream()
    for chunk in np.array_split(np.round(sound * 3000).astype(np.int16), 50):
        stream.push(chunk)
    assert_same(stream.finish(), model.predict(np.round(sound * 3000) / np.float32(32768))[0])
    assert HEARD["layers"][0] == LOG_MEL
