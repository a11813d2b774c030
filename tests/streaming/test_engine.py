"""The native engine gives a network's numbers as a stream, however it is cut, on each instruction set that is here."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from crnn.errors import ShapeError, StreamError
from crnn.native import library
from crnn.native.library import INSTRUCTION_SETS, LibraryError, load
from crnn.nn.head import HeadConfig
from crnn.program import ops
from crnn.program.lower import Builder, fold, lower
from crnn.program.program import Node, Program
from crnn.sequences import pad
from crnn.streaming.engine import NativeEngine
from nn.test_composition import CHANNELS, random_network
from program.reference import interpret
from program.test_lower import TASK, make_network
from test_promises import CHUNKINGS, EXPORTED, EXPORTED_SUMMARIES, cases, every_summary, make_layer, sequences


def here():
    """Instruction sets that this machine has and that were compiled."""
    found = []
    for name in INSTRUCTION_SETS:
        try:
            found.append(load(name).instruction_set)
        except LibraryError:
            continue
    return found


if not here():
    pytest.skip("the engine was not compiled: no C compiler at installation", allow_module_level=True)


def flat(row):
    """Frames as the engine takes them: (n, size) float32."""
    return np.ascontiguousarray(row.reshape(len(row), -1), np.float32)


def stream(engine, frames, sizes):
    """What a whole stream gives, pushed in chunks of these sizes and then the rest at once."""
    state, at, out = engine.start(), 0, []
    for size in [*sizes, len(frames)]:
        out.append(engine.push(state, frames[at : at + size]))
        at += size
    last = engine.finish(state)
    return last if engine.is_vector else np.concatenate([*out, last])


def assert_streams(program, row, expected, instruction_sets=None):
    for name in instruction_sets or here():
        engine = NativeEngine(program, instruction_set=name)
        assert engine.instruction_set == name
        whole = stream(engine, flat(row), [])
        assert_allclose(whole, expected, atol=1e-5, rtol=1e-5)
        for sizes in CHUNKINGS:
            assert_array_equal(stream(engine, flat(row), sizes), whole)


def as_frames(layer, features):
    """The program of a layer alone: frames in, frames out."""
    builder = Builder()
    with torch.no_grad():
        builder.layer(layer, builder.add(ops.Input(), [], features or (1,), "input"), "layers[0]")
    return Program(fold(builder.nodes), None, (), "none", 1, 0)


def assert_network_streams(network, features):
    program = lower(network, TASK)
    if not program.can_stream:
        with pytest.raises(
            StreamError, match=r"(layers|summary).*cannot stream.*bidirectional: false, and channel_norm"
        ):
            NativeEngine(program)
        return
    for row in sequences(features, [network.min_length, 40], seed=3):
        with torch.no_grad():
            expected = network(pad([row]))[0].numpy()
        assert_streams(program, row, expected)


every_layer = pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED))


@every_layer
def test_every_layer_streams(name, features, options):
    network = make_network([{"type": name, **options}], features, {"type": "attention"}, HeadConfig(hidden=(4,)))
    assert_network_streams(network, features)


@pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED_SUMMARIES))
def test_every_summary_streams(name, features, options):
    assert_network_streams(make_network([], features, {"type": name, **options}), features)


@every_layer
def test_every_layer_gives_frames_as_they_come(name, features, options):
    layer = make_layer(name, features, options)
    program = as_frames(layer, features)
    if program.nodes[-1].op.__class__ is ops.Input or not program.can_stream:
        pytest.skip("nothing to compute, or it needs the end first")
    (row,) = sequences(features, [31], seed=3)
    with torch.no_grad():
        expected = flat(layer(pad([row])).data[0].numpy())
    assert_streams(program, row, expected)


def test_frames_come_as_soon_as_the_layers_push_gives_them():
    torch.manual_seed(0)
    specs = [{"type": "conv", "channels": 3, "kernel_size": 5}, {"type": "pool", "tail": "ceil"}]
    network = make_network(specs, (3,))
    engine = NativeEngine(as_frames(network.body, (3,)))
    (row,) = sequences((3,), [23])
    state, theirs = engine.start(), network.body.start(1)
    for size in (1, 1, 0, 3, 2, 7, 1, 8):
        chunk, row = row[:size], row[size:]
        with torch.no_grad():
            expected, theirs = network.body.push(chunk[None], theirs)
        found = engine.push(state, chunk.numpy())
        assert found.shape == expected[0].shape
        assert_allclose(found, expected[0], atol=1e-5)
    with torch.no_grad():
        assert_allclose(engine.finish(state), network.body.finish(theirs)[0], atol=1e-5)


@every_summary
def test_answers_while_the_stream_goes_on_are_those_of_the_network(name, features, options):
    if features != (3,):
        pytest.skip("one shape of frames will do")
    network = make_network([{"type": "conv", "channels": 3}], features, {"type": name, **options})
    if not network.can_stream:
        pytest.skip("it needs the end first")
    engine = NativeEngine(lower(network, TASK))
    (row,) = sequences((3,), [30])
    state, theirs = engine.start(), network.start(1)
    for size in (0, 1, 1, 1, 2, 0, 5, 1, 1, 9, 1):
        chunk, row = row[:size], row[size:]
        with torch.no_grad():
            expected, theirs = network.push(chunk[None], theirs)
        found = engine.push(state, chunk.numpy())
        assert (found is None) == (expected is None)
        if found is not None:
            assert_allclose(found, expected[0], atol=1e-5)


@pytest.mark.parametrize("seed", range(60))
def test_random_layers_inside_of_layers_stream(seed):
    """Branches of different delay, strides in different places: each node's ring has just the room that it needs."""
    drawn = (random_network(1000 * seed + i)[0] for i in itertools.count())
    layers = next(layers for layers in drawn if layers.can_stream and len(layers.layers))
    program = as_frames(layers, (CHANNELS,))
    for n in (1, 7, 20, 43):
        (row,) = sequences((CHANNELS,), [n], seed=seed)
        with torch.no_grad():
            if int(layers.out_lengths(torch.tensor([n]))) == 0:
                continue
            expected = layers(pad([row])).data[0].flatten(1).numpy()
        assert_streams(program, row, expected, here()[-1:])


WIDE = [
    {"type": "conv", "channels": 40, "kernel_size": 4, "stride": 2, "dilation": 2},
    {"type": "conv", "channels": 40, "groups": 40},
    {"type": "conv", "channels": 36, "groups": 2},
    {"type": "recurrent", "hidden_size": 37, "cell": "gru"},
    {"type": "recurrent", "hidden_size": 33},
    {"type": "recurrent", "hidden_size": 17, "cell": "rnn"},
]


def test_sizes_beyond_a_block_of_weights():
    network = make_network(WIDE, (21,), {"type": "attention", "hidden_size": 20}, HeadConfig(hidden=(19,)), outputs=3)
    assert_network_streams(network, (21,))


@pytest.fixture(scope="module")
def network():
    layers = [
        WIDE[0],
        {"type": "pool", "size": 3, "stride": 2, "tail": "ceil"},
        {"type": "recurrent", "hidden_size": 5},
    ]
    return make_network(layers, (3,), {"type": "mean"})


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), max_size=30))
def test_any_chunking_gives_the_same_bits(network, sizes):
    engine = NativeEngine(lower(network, TASK))
    (row,) = sequences((3,), [90], seed=1)
    assert_array_equal(stream(engine, flat(row), sizes), stream(engine, flat(row), []))


def test_nothing_comes_before_the_first_frame_and_of_nothing(network):
    engine = NativeEngine(lower(network, TASK))
    state = engine.start()
    assert engine.finish(state) is None
    assert engine.push(state, np.zeros((0, 3), np.float32)) is None
    assert engine.finish(state) is None
    assert engine.push(state, np.zeros((1, 3), np.float32)) is None  # conv and pool look ahead
    assert engine.finish(state).shape == (3,)


def test_finish_leaves_the_state_good_for_more(network):
    engine = NativeEngine(lower(network, TASK))
    (row,) = sequences((3,), [50])
    state = engine.start()
    engine.push(state, flat(row)[:20])
    before = state.copy()
    assert engine.finish(state) is not None
    assert_array_equal(state, before)
    engine.push(state, flat(row)[20:])
    assert_array_equal(engine.finish(state), stream(engine, flat(row), []))


def test_a_state_is_bytes_that_go_on_elsewhere_on_another_instruction_set(network):
    program = lower(network, TASK)
    (row,) = sequences((3,), [50])
    first, last = (NativeEngine(program, instruction_set=name) for name in (here()[0], here()[-1]))
    state = first.start()
    assert state.shape == (first.state_bytes,) == (last.state_bytes,)
    first.push(state, flat(row)[:17])
    moved = np.frombuffer(bytearray(state.tobytes()), np.uint8)
    last.push(moved, flat(row)[17:])
    assert_allclose(last.finish(moved), stream(first, flat(row), []), atol=1e-5)


def test_many_streams_at_once_are_each_as_alone(network):
    engine = NativeEngine(lower(network, TASK))
    rows = np.stack([flat(row) for row in sequences((3,), [40] * 5)])
    states = np.stack([engine.start() for _ in range(7)])
    alone = [engine.start() for _ in range(5)]
    places = np.array([6, 0, 3, 2, 5])
    for at, size in ((0, 2), (2, 0), (2, 11), (13, 27)):
        out, counts = engine.push_many(states, places, rows[:, at : at + size])
        for k, state in enumerate(alone):
            expected = engine.push(state, rows[k, at : at + size])
            assert counts[k] == (expected is not None)
            if expected is not None:
                assert_array_equal(out[k], expected)
            assert_array_equal(states[places[k]], state)
    assert not states[1].any() or (states[1] == engine.start()).all()  # the others are as they were


def test_many_streams_of_frames():
    network = make_network([{"type": "pool", "size": 2}], (3,))
    engine = NativeEngine(as_frames(network.body, (3,)))
    states = np.stack([engine.start() for _ in range(2)])
    engine.push(states[1], np.ones((1, 3), np.float32))
    out, counts = engine.push_many(states, np.arange(2), np.full((2, 3, 3), 2, np.float32))
    assert counts.tolist() == [1, 2]
    assert out.shape == (2, 3, 3)
    assert (out[0, :1] == 2).all()
    assert (out[1, :2] == 2).all()


def test_what_has_the_wrong_shape_is_refused(network):
    engine = NativeEngine(lower(network, TASK))
    state, frame = engine.start(), np.zeros((1, 3), np.float32)
    with pytest.raises(ShapeError, match=r"frames: found shape \(1, 4\), expected \(n, 3\)"):
        engine.push(state, np.zeros((1, 4), np.float32))
    with pytest.raises(ShapeError, match=r"frames: found shape \(3,\), expected \(n, 3\)"):
        engine.push(state, frame[0])
    with pytest.raises(
        ShapeError, match=r"state: found uint8 \(7,\), expected contiguous uint8 .* of the same program"
    ):
        engine.push(state[:7], frame)
    with pytest.raises(ShapeError, match=r"state: found float32"):
        engine.finish(state.astype(np.float32))
    states = np.stack([state, state])
    with pytest.raises(ShapeError, match=r"rows: found 0 to 2, expected 0 to 1"):
        engine.push_many(states, np.array([0, 2]), np.zeros((2, 1, 3), np.float32))
    with pytest.raises(ShapeError, match=r"frames: found shape \(1, 1, 3\), expected \(2, n, 3\)"):
        engine.push_many(states, np.array([0, 1]), frame[None])
    with pytest.raises(ShapeError, match=r"states: found uint8"):
        engine.push_many(states[:, :8], np.array([0]), frame[None])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("name", here())
def test_nan_and_infinity_end_with_the_window_that_holds_them(bad, name):
    """Defined and no crash: what has no memory is as before once the bad frame has gone by."""
    conv, gelu = {"type": "conv", "channels": 4}, {"type": "activation", "kind": "gelu"}
    network = make_network([conv, gelu, {"type": "pool"}], (3,))
    engine = NativeEngine(lower(network, TASK), instruction_set=name)
    (row,) = sequences((3,), [30])
    row[5] = bad
    state = engine.start()
    engine.push(state, flat(row)[:8])
    last = engine.finish(state)
    with torch.no_grad():
        assert_allclose(last, network(pad([row[:8]]))[0], atol=1e-4)
        engine.push(state, flat(row)[8:])
        assert_allclose(engine.finish(state), network(pad([row]))[0], atol=1e-5)


@pytest.mark.parametrize("name", here())
def test_nan_stays_nan_in_a_recurrence(name):
    network = make_network([{"type": "recurrent", "hidden_size": 4, "cell": "gru"}], (3,))
    engine = NativeEngine(lower(network, TASK), instruction_set=name)
    state = engine.start()
    assert np.isfinite(engine.push(state, np.full((1, 3), 1e30, np.float32))).all()  # gates that are fully open
    assert np.isfinite(engine.push(state, np.zeros((1, 3), np.float32))).all()
    assert np.isnan(engine.push(state, np.full((1, 3), np.nan, np.float32))).all()


def test_log_mel_of_audio_and_of_a_length_that_is_no_power_of_two():
    for n_fft, options in ((None, {}), (400, {"preemphasis": 0.97}), (441, {"power": 1})):
        log_mel = {"type": "log_mel", "sample_rate": 16000, "num_mels": 40, "fmin": 60, "n_fft": n_fft, **options}
        network = make_network([log_mel], (1,))
        engine = NativeEngine(as_frames(network.body, (1,)))
        (row,) = sequences((1,), [1700])
        with torch.no_grad():
            expected = network.body(pad([row])).data[0].numpy()
        found = stream(engine, flat(row), [1, 160, 333])
        assert_allclose(found, expected, atol=2e-5)
        assert_array_equal(stream(engine, flat(row), [1] * 700), found)


def test_functions_are_exact_to_a_millionth():
    x = np.concatenate([np.linspace(-40, 40, 4001), [-1e30, -90, 90, 1e30, 1e-30, 0]]).astype(np.float32)
    exact = {"tanh": np.tanh(x.astype(float)), "sigmoid": 1 / (1 + np.exp(-np.clip(x.astype(float), -700, 700)))}
    for function, expected in exact.items():
        nodes = (Node(ops.Input(), (), (1,), False, ""), Node(ops.Map(function=function), (0,), (1,), False, ""))
        for name in here():
            engine = NativeEngine(Program(nodes, None, (), "none", 1, 0), instruction_set=name)
            assert_allclose(engine.push(engine.start(), x[:, None])[:, 0], expected, atol=1e-6)


def test_a_mean_does_not_drift_over_millions_of_frames():
    nodes = (Node(ops.Input(), (), (1,), False, ""), Node(ops.Mean(), (0,), (1,), True, ""))
    engine = NativeEngine(Program(nodes, None, (), "none", 1, 0))
    chunk = np.random.default_rng(0).normal(1000, 1, (1_000_000, 1)).astype(np.float32)
    state = engine.start()
    for _ in range(20):
        mean = engine.push(state, chunk)
    assert_allclose(mean, chunk.astype(float).mean(), rtol=1e-7)
    assert engine.state_bytes < 100


def test_a_step_takes_less_time_than_in_torch(network):
    engine = NativeEngine(lower(network, TASK))
    state, theirs, frame = engine.start(), network.start(1), np.zeros((1, 3), np.float32)
    begun = time.thread_time()
    for _ in range(200):
        engine.push(state, frame)
    native = time.thread_time() - begun
    begun = time.thread_time()
    with torch.no_grad():
        for _ in range(200):
            _, theirs = network.push(torch.from_numpy(frame)[None], theirs)
    assert native < time.thread_time() - begun


def in_steps(x, peak):
    """As 8 bits hold it."""
    return np.clip(np.rint(x * (127 / peak)), -127, 127) * (peak / 127)


def on_a_grid(weight):
    """Whole multiples of 1/127 of each row's largest."""
    step = np.abs(weight).max(1, keepdims=True) / 127
    return (np.rint(weight / step) * step).astype(np.float32)


def random_weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.6, shape).astype(np.float32)


@pytest.fixture(scope="module")
def in_8_bits():
    """Two linear layers around an LSTM, and its frames by plain loops that round as the definition says."""
    hidden, size, peaks = 21, 37, (2.5, 3.0, 1.0)
    first, last = (on_a_grid(random_weights(*shape, seed=i)) for i, shape in enumerate([(size, 7), (5, hidden)]))
    cell = ops.Recurrent(
        cell="lstm",
        weight_x=on_a_grid(random_weights(4 * hidden, size, seed=2)),
        weight_h=on_a_grid(random_weights(4 * hidden, hidden, seed=3)),
        bias_x=random_weights(4 * hidden, seed=4),
        bias_h=random_weights(4 * hidden, seed=5),
        initial=np.zeros((2, hidden), np.float32),
        peak=peaks[1],
        peak_h=0.8,
    )
    layers = [ops.Dense(weight=first, bias=random_weights(size), peak=peaks[0]), cell]
    layers.append(ops.Dense(weight=last, bias=random_weights(5), peak=peaks[2]))
    nodes = [Node(ops.Input(), (), (7,), False, "")]
    for i, (op, n) in enumerate(zip(layers, (size, hidden, 5), strict=True)):
        nodes.append(Node(op, (i,), (n,), False, ""))
    frames = random_weights(40, 7, seed=6) * 2
    h, c, expected = np.zeros(hidden), np.zeros(hidden), []
    for x in frames:
        y = first @ in_steps(x, peaks[0]) + layers[0].bias
        gates = cell.weight_x @ in_steps(y, peaks[1]) + cell.weight_h @ in_steps(h, 0.8) + cell.bias_x + cell.bias_h
        i, f, g, o = np.split(gates.astype(np.float64), 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        expected.append(last @ in_steps(h, peaks[2]) + layers[2].bias)
    return Program(tuple(nodes), None, (), "none", 1, 0), frames, np.array(expected)


def test_8_bits_are_rounded_as_the_definition_says_and_the_same_on_every_instruction_set(in_8_bits):
    program, frames, expected = in_8_bits
    found = [stream(NativeEngine(program, instruction_set=name), frames, [3, 0, 1]) for name in here()]
    assert_allclose(found[0], expected, atol=1e-5)
    for other in found[1:]:
        assert_array_equal(other, found[0])


@pytest.mark.parametrize("spec", WIDE[:3])
def test_convolutions_in_8_bits_are_sums_of_rounded_inputs(spec):
    network = make_network([spec], (40,))
    program = as_frames(network.body, (40,))
    op = program.nodes[1].op
    rounded = replace(op, weight=on_a_grid(op.weight.reshape(len(op.weight), -1)).reshape(op.weight.shape))
    program = replace(program, nodes=(program.nodes[0], replace(program.nodes[1], op=replace(rounded, peak=2.0))))
    plain = replace(program, nodes=(program.nodes[0], replace(program.nodes[1], op=rounded)))
    frames = random_weights(30, 40) * 2
    expected = interpret(plain, in_steps(frames, 2.0))[-1]
    found = [stream(NativeEngine(program, instruction_set=name), frames, [3, 0, 1]) for name in here()]
    assert_allclose(found[0], expected, atol=1e-5)
    for other in found[1:]:
        assert_array_equal(other, found[0])


@pytest.mark.parametrize("name", here())
def test_nan_and_infinity_in_8_bits_are_zero_and_the_peak(name):
    dense = ops.Dense(weight=np.ones((1, 1), np.float32), bias=np.zeros(1, np.float32), peak=4.0)
    nodes = (Node(ops.Input(), (), (1,), False, ""), Node(dense, (0,), (1,), False, ""))
    engine = NativeEngine(Program(nodes, None, (), "none", 1, 0), instruction_set=name)
    x = np.array([[np.nan], [np.inf], [-np.inf], [3e38], [-5], [4], [1 / 127]], np.float32)
    found = engine.push(engine.start(), x)[:, 0]
    assert_allclose(found, [0, 4, -4, 4, -4, 4, 0], atol=1e-6)


def test_without_a_compiled_library_it_says_so(monkeypatch, network):
    load.cache_clear()
    monkeypatch.setattr(library, "built", lambda kind, instruction_set: None)
    with pytest.raises(StreamError, match=r"native engine is not available: .*not compiled when crnn was installed"):
        NativeEngine(lower(network, TASK))
    assert library.describe().startswith("torch: the step engine was not compiled")
    load.cache_clear()


def test_the_fastest_library_is_taken():
    assert load().instruction_set == here()[-1]
    assert library.describe() == f"native ({here()[-1]})"


def test_interpreter_and_engine_agree_on_vectors_behind_a_summary():
    """Softmax and slices, which no layer of ours comes down to as a frame's operation yet."""
    rng = np.random.default_rng(0)
    dense = ops.Dense(weight=rng.normal(size=(5, 3)).astype(np.float32), bias=np.ones(5, np.float32))
    nodes = (
        Node(ops.Input(), (), (3,), False, ""),
        Node(dense, (0,), (5,), False, ""),
        Node(ops.Softmax(), (1,), (5,), False, ""),
        Node(ops.Max(), (2,), (5,), True, ""),
        Node(ops.Slice(start=1, stop=4), (3,), (3,), True, ""),
        Node(ops.Softmax(), (4,), (3,), True, ""),
        Node(ops.Concat(), (5, 3), (8,), True, ""),
    )
    program = Program(nodes, None, (), "none", 1, 0)
    frames = rng.normal(size=(9, 3)).astype(np.float32)
    assert_streams(program, torch.from_numpy(frames), interpret(program, frames)[-1])
