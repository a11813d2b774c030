"""The engine's tables: what Python and C must agree on, weights in their blocks, rings that are just long enough."""

import itertools
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from crnn.errors import ExportError, StreamError
from crnn.native.library import SOURCES
from crnn.program import ops
from crnn.program.lower import lower
from crnn.program.program import Node, Program
from crnn.program.rings import Rings
from crnn.program.tables import FIELDS, FUNCTIONS, OPS, SUMMARY, VECTOR, tabulate
from nn.test_composition import CHANNELS, random_network
from program.test_lower import TASK, make_network
from streaming.test_engine import as_frames

ENGINE = next(path for path in SOURCES if path.name == "engine.h").read_text()
CONV, LSTM = {"type": "conv", "channels": 4}, {"type": "recurrent", "hidden_size": 3}


def column(tables, name):
    return tables.nodes[:, FIELDS.index(name)].tolist()


def test_operations_stand_in_the_order_of_the_engines_enum():
    names = re.search(r"enum \{([^}]*CRNN_INPUT[^}]*)\}", ENGINE)[1]
    assert tuple(name.strip().removeprefix("CRNN_").lower() for name in names.split(",")) == OPS


def test_fields_stand_in_the_order_of_the_engines_struct():
    body = re.search(r"typedef struct \{([^}]*)\} crnn_node;", ENGINE)[1]
    fields = re.findall(r"int32_t (\w+)(?:\[(\d)\])?;", body)
    assert tuple(f"{name}{i}" if n else name for name, n in fields for i in range(int(n or 1))) == FIELDS


def test_functions_stand_in_the_order_of_the_engines_cases():
    cases = re.findall(r"#if CRNN_HAS_MAP_(\w+)\n    case (\d):", ENGINE)
    assert [(name.lower(), int(i)) for name, i in cases] == [(name, i) for i, name in enumerate(FUNCTIONS)]


def test_records_of_a_small_network():
    network = make_network([CONV, {"type": "pool"}, LSTM], (2,), {"type": "mean"})
    tables = tabulate(lower(network, TASK))
    assert [OPS[op] for op in column(tables, "op")] == ["input", "conv", "pool", "lstm", "mean", "dense"]
    assert column(tables, "kind")[-2:] == [SUMMARY, VECTOR]
    assert column(tables, "size") == [2, 4, 4, 3, 3, 3]
    assert column(tables, "in_size") == [0, 2, 4, 4, 3, 3]
    assert column(tables, "capacity") == [3, 2, 1, 1, 0, 0]  # the convolution's window, the pool's, and the newest
    assert column(tables, "extent") == [1, 3, 2, 1, 1, 1]
    assert tables.num_values == 3 * 2 + 2 * 4 + 4 + 3 + 2 * 16  # rings; h and the cell, filled up to 16 units
    assert tables.num_sums == 3
    assert tables.state_bytes == -(-(6 * 8 + 3 * 8 + tables.num_values * 4 + 2 * 6 * 4) // 8) * 8
    assert tables.features >= {"conv", "pool", "lstm", "mean", "dense", "matrix", "linear", "exp", "tanh", "sigmoid"}
    assert not tables.features & {"int8", "gru", "log_mel", "map"}


def test_weights_stand_in_blocks_of_16_outputs_input_by_input():
    weight = np.arange(20 * 3, dtype=np.float32).reshape(20, 3)
    dense = ops.Dense(weight=weight, bias=np.arange(20, dtype=np.float32))
    nodes = (Node(ops.Input(), (), (3,), False, ""), Node(dense, (0,), (20,), False, ""))
    tables = tabulate(Program(nodes, None, (), "none", 1, 0))
    at = column(tables, "weights_at0")[1]
    blocks = tables.weights[at : at + 2 * 3 * 16].reshape(2, 3, 16)
    assert_array_equal(blocks[0], weight[:16].T)
    assert_array_equal(blocks[1, :, :4], weight[16:].T)
    assert not blocks[1, :, 4:].any()
    at = column(tables, "weights_at1")[1]
    assert tables.weights[at : at + 32].tolist() == [*range(20), *[0] * 12]


def test_int8_weights_are_whole_multiples_of_each_outputs_step():
    weight = np.array([[127, -64, 3, 0, 1], [-254, 2, 0, 4, 6], [0, 0, 0, 0, 0]], np.float32) * 0.5
    dense = ops.Dense(weight=weight, bias=np.zeros(3, np.float32), peak=2.0)
    nodes = (Node(ops.Input(), (), (5,), False, ""), Node(dense, (0,), (3,), False, ""))
    tables = tabulate(Program(nodes, None, (), "none", 1, 0))
    at = column(tables, "bytes_at0")[1]
    groups = tables.bytes[at : at + 2 * 16 * 4].reshape(2, 16, 4)  # four inputs after another, output by output
    assert groups[:, 0].ravel().tolist() == [127, -64, 3, 0, 1, 0, 0, 0]
    assert groups[:, 1].ravel().tolist() == [-127, 1, 0, 2, 3, 0, 0, 0]
    assert not groups[:, 2:].any()
    at = column(tables, "offsets_at0")[1]
    assert tables.ints[at : at + 3].tolist() == [128 * 67, 128 * -121, 0]
    at = column(tables, "weights_at0")[1]
    assert tables.weights[at] == 127 / 2.0
    assert_allclose(tables.weights[at + 16 : at + 19], [0.5 * 2 / 127, 1.0 * 2 / 127, 0], rtol=1e-6)


def walk(program, length):
    """Frames that each node of a stream holds, at most, counted one by one; and what only the end gives."""
    nodes = program.nodes
    windows = [op if isinstance(op := node.op, ops.Windowed) else None for node in nodes]
    come, done, held = [0] * len(nodes), [False] * len(nodes), [1] * len(nodes)

    def place(i):
        w = windows[i]
        first = max(come[i] * w.stride - w.pad_left, 0) if w else come[i]
        last = come[i] * w.stride - w.pad_left + w.extent - 1 if w else come[i]
        return first, last

    def hold(j):
        for i, node in enumerate(nodes):
            if j in node.inputs:
                held[j] = max(held[j], come[j] - place(i)[0])

    def go():
        any_came = False
        for i, node in enumerate(nodes):
            if i == 0 or done[i]:
                continue
            ready = all(come[j] > place(i)[1] for j in node.inputs)
            if not ready and all(come[j] > place(i)[1] or done[j] for j in node.inputs):
                n = min(come[j] for j in node.inputs if come[j] <= place(i)[1])
                ready = come[i] < frames_of(windows[i], n)
                done[i] = not ready
            if ready:
                come[i] += 1
                hold(i)
                any_came = True
        return any_came

    for _ in range(length):
        come[0] += 1
        hold(0)
        go()
    before, done[0] = come[-1], True
    while go():
        continue
    return held, come[-1] - before


def frames_of(window, n):
    """What a node gives for n frames, by the definition in crnn.program.ops."""
    if window is None:
        return n
    return max((n - window.extent) // window.stride + 1, 0) if window.tail == "floor" else -(-n // window.stride)


@pytest.mark.parametrize("seed", range(25))
def test_rings_are_just_long_enough_for_streams_of_any_length(seed):
    drawn = (random_network(1000 * seed + i)[0] for i in itertools.count())
    layers = next(layers for layers in drawn if layers.can_stream and len(layers.layers))
    program = as_frames(layers, (CHANNELS,))
    found = [walk(program, n) for n in range(150)]
    rings = Rings(program)
    assert [rings.capacity(i) for i in range(len(program.nodes))] == np.max([held for held, _ in found], 0).tolist()
    assert rings.flushed == max(flushed for _, flushed in found)


def test_a_long_look_at_audio_is_counted_in_no_time():
    log_mel = {"type": "log_mel", "sample_rate": 16000, "num_mels": 20, "fmin": 60}
    layers = [log_mel, *[CONV, {"type": "pool", "tail": "ceil"}] * 4, LSTM]
    rings = Rings(lower(make_network(layers, (1,)), TASK))
    assert rings.capacity(0) == 400
    assert rings.capacity(1) == 3


def test_a_program_that_cannot_stream_has_no_tables():
    network = make_network([CONV, {**LSTM, "bidirectional": True}], (2,))
    with pytest.raises(
        StreamError, match=r"layers\[1\] \(bidirectional recurrence\) cannot stream: .*, and channel_norm"
    ):
        tabulate(lower(network, TASK))


def test_an_operation_that_the_engine_does_not_know_is_named():
    class Unknown(ops.Op):
        pass

    nodes = (Node(ops.Input(), (), (1,), False, "input"), Node(Unknown(), (0,), (1,), False, "layers[4]"))
    with pytest.raises(ExportError, match=r"layers\[4\]: operation 'Unknown' is none that the native engine knows"):
        tabulate(Program(nodes, None, (), "none", 1, 0))
