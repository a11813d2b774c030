"""An ONNX file gives the network's numbers, on padded batches and in any chunks, or it is not written."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn.errors import ExportError, MissingExtraError
from crnn.export.onnx import OnnxStream, build_onnx, check_onnx, export_onnx, open_onnx
from crnn.export.onnx_graph import Graph
from crnn.export.onnx_ops import PARTS, WRITERS
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.head import HeadConfig
from crnn.presets.recipe import DataSummary
from crnn.presets.registry import find_preset
from crnn.program import ops
from crnn.program.lower import lower
from crnn.sequences import pad
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.tasks.regress import Regress, RegressConfig
from program.test_lower import EVERY_FRAME, make_network, of_network
from test_promises import CHUNKINGS, EXPORTED, EXPORTED_SUMMARIES, NAN, cases, chunked, sequences

pytest.importorskip("onnx", reason="not installed: pip install 'crnn[onnx]'")
pytest.importorskip("onnxruntime", reason="not installed: pip install 'crnn[onnx]'")

TASK = Classify.from_targets(["a", "b", "c"], ClassifyConfig())
CONV, LSTM = {"type": "conv", "channels": 4, "kernel_size": 5}, {"type": "recurrent", "hidden_size": 5}
SMALL = ([CONV, {"type": "activation"}, {"type": "pool", "tail": "ceil"}, LSTM], (3,), {"type": "last"})


def opened(network, **options):
    return OnnxStream(open_onnx(build_onnx(lower(network, TASK), **options).SerializeToString()))


def assert_batches(stream, network, rows):
    """One padded batch, with what no one may look at in the padding, against each sequence alone."""
    junk = 999 if rows[0].dtype == torch.int64 else NAN
    x = pad(rows, length=max(map(len, rows)) + 4, value=junk)
    expected = [of_network(network)([row])[0] for row in rows]
    assert_rows(stream.whole(x.data.numpy(), x.lengths.numpy()), expected)


def assert_rows(found, expected):
    assert len(found) == len(expected)
    for got, row in zip(found, expected, strict=True):
        assert got.shape == row.shape
        np.testing.assert_allclose(got, row, atol=1e-5 * max(1, np.abs(row).max()))


def assert_chunks(stream, network, rows):
    """Several streams at once in chunks, single frames and empty ones among them, against the whole."""
    data = torch.stack(rows)
    expected = of_network(network)(rows)
    for sizes in CHUNKINGS:
        stream.states = {}
        parts = [stream.push(chunk.numpy(), np.full(len(rows), chunk.shape[1])) for chunk in chunked(data, sizes)]
        parts.append(stream.push(data[:, :0].numpy(), np.zeros(len(rows), np.int64), end=True))
        per_step = expected[0].ndim == 2
        assert_rows([np.concatenate(each) for each in zip(*parts, strict=True)] if per_step else parts[-1], expected)
        assert all(np.isfinite(state).all() for state in stream.states.values())


def assert_same(network, features):
    stream = opened(network)
    n = network.min_length
    assert_batches(stream, network, sequences(features, [n + 9, n, n + 3, n + 4]))
    if not network.can_stream:
        assert stream.start == {}
        return
    for length in {19, max(n, 2)}:
        assert_chunks(stream, network, sequences(features, [length] * 3))
    assert_whole(network, features)


def assert_whole(network, features):
    """As it is written for whole sequences."""
    stream = opened(network, whole=True)
    assert stream.start == {}
    assert not stream.takes_end
    n = network.min_length
    for lengths in ([n + 2, n + 9, n, n + 40, n + 9], [n], [n, n]):
        assert_batches(stream, network, sequences(features, lengths))


@pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED))
def test_every_layer_gives_its_numbers(name, features, options):
    assert_same(make_network([{"type": name, **options}], features, {"type": "mean"}), features)


@pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED))
def test_every_layer_gives_its_numbers_where_nothing_streams(name, features, options):
    """Without states, operators pad by themselves."""
    first = [{"type": "instance_norm"}] if features else []
    last = {"type": "recurrent", "hidden_size": 3, "bidirectional": True}
    network = make_network([*first, {"type": name, **options}, {"type": "flatten"}, last], features, {"type": "mean"})
    stream = opened(network)
    assert stream.start == {}
    for n in range(3):
        lengths = [network.min_length + each for each in (9 + n, 0, 3, 4)]
        assert_batches(stream, network, sequences(features, lengths))


@pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED))
def test_every_layer_gives_its_numbers_for_every_frame(name, features, options):
    layers = [{"type": name, **options}, {"type": "flatten"}, {**CONV, "channels": 3}]
    assert_same(make_network(layers, features, EVERY_FRAME), features)


@pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED_SUMMARIES))
def test_every_summary_gives_its_numbers(name, features, options):
    assert_same(make_network([], features, {"type": name, **options}, HeadConfig(hidden=(4,))), features)
    if len(features) == 1:  # behind something that waits, so that there is nothing to summarise at first
        network = make_network([{"type": "conv", "channels": features[0]}], features, {"type": name, **options})
        assert_same(network, features)


PRESETS = {
    "default": DataSummary("series", 3, None, 90, 60, 60, 40, 80, "classify", 3, has_missing=True, varied_scale=True),
    "live": DataSummary("series", 3, None, 90, 60, 60, 40, 80, "classify", 3, has_missing=True),
    "seed": DataSummary("symbols", 1, None, 90, 60, 60, 40, 80, "classify", 3, vocabulary_size=5),
    "lstm-fcn": DataSummary("series", 2, None, 90, 60, 60, 40, 80, "classify", 3),
    "default audio": DataSummary("audio", 1, 4000, 90, 2000, 2000, 1500, 2500, "classify", 3),
    "live audio": DataSummary("audio", 1, 4000, 90, 2000, 2000, 1500, 2500, "classify", 3),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_whole_preset_gives_its_numbers(name):
    data = PRESETS[name]
    torch.manual_seed(0)
    features = () if data.kind == "symbols" else (data.num_channels,)
    spec = spec_from_plain(find_preset(name.split()[0])(data)["model"])
    network = Network(spec, features=features, outputs=3)
    rows = sequences(features, [data.median_length, data.min_length])
    network.fit_statistics([pad(rows)])
    network(pad(rows))  # in training: batch norm learns
    network.eval()
    program = lower(network, TASK)
    batches, chunks = check_onnx(open_onnx(build_onnx(program).SerializeToString()), program, of_network(network))
    assert batches <= 1e-5
    assert (chunks is None) == (name in ("default", "default audio"))
    assert chunks is None or chunks <= 1e-5
    if data.kind == "series":
        rows[0][3:7, 0] = NAN
        assert_batches(opened(network), network, rows)


def test_a_large_level_cancels():
    network = make_network([{"type": "channel_norm"}, CONV], (2,), {"type": "mean"})
    rows = [row + 1e5 for row in sequences((2,), [19] * 3)]
    network.fit_statistics([pad(rows)])
    stream = opened(network)
    assert_batches(stream, network, rows)
    assert_chunks(stream, network, rows)


@pytest.mark.parametrize("options", [{"fill": "last"}, {"fill": "last", "mask": False}, {}])
def test_missing_values_are_filled_across_chunks(options):
    network = make_network([{"type": "missing", **options}, CONV], (2,), {"type": "mean"})
    rows = sequences((2,), [19] * 3)
    for i, row in enumerate(rows):
        row[i : i + 6, 0] = NAN
        row[2, 1] = NAN
    stream = opened(network)
    assert_batches(stream, network, [row[: 19 - i] for i, row in enumerate(rows)])
    assert_chunks(stream, network, rows)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrences_over_whole_sequences_skip_those_that_have_ended(cell, bidirectional):
    layer = {"type": "recurrent", "cell": cell, "hidden_size": 5, "num_layers": 2, "learned_initial_state": True}
    network = make_network([{"type": "pool"}, {**layer, "bidirectional": bidirectional}], (3,), {"type": "attention"})
    stream = opened(network, whole=True)
    kinds = [node.op_type for node in build_onnx(lower(network, TASK), whole=True).graph.node]
    assert kinds.count(cell.upper()) == PARTS * 2 * (1 + bidirectional)
    for lengths in ([2, 3, 90, 4, 41, 40, 2], [70, 70], [2], [5, 60, 2]):
        assert_batches(stream, network, sequences((3,), lengths))


def test_streams_may_end_at_different_frames():
    network = make_network(*SMALL)
    rows = sequences((3,), [15, 11, 8])
    stream = opened(network)
    x = pad(rows, value=NAN)
    stream.push(x.data[:, :8].numpy(), np.full(3, 8))
    found = stream.push(x.data[:, 8:].numpy(), x.lengths.numpy() - 8, end=True)
    with torch.no_grad():
        expected = torch.cat([network(pad([row])) for row in rows]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_every_operation_is_written():
    kinds = {kind for kind in vars(ops).values() if isinstance(kind, type) and issubclass(kind, ops.Op)}
    assert kinds - WRITERS.keys() == {ops.Op, ops.Input, ops.Windowed, ops.Weighted}


def test_what_stands_in_the_file(tmp_path):
    import onnx

    network = make_network(*SMALL)
    done = export_onnx(lower(network, TASK, sample_rate=50.0), tmp_path / "a" / "m.onnx", reference=of_network(network))
    model = onnx.load(done.path)
    assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "Scan"}
    shapes = {
        each.name: [d.dim_value or d.dim_param for d in each.type.tensor_type.shape.dim]
        for each in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "x": ["batch", "time", 3],
        "lengths": ["batch"],
        "end": [1],
        "conv_1": ["batch", 3, "conv_1_frames"],
        "conv_1_out": ["batch", 3, "conv_1_frames_out"],
        "pool_3": ["batch", 4, "pool_3_frames"],
        "pool_3_out": ["batch", 4, "pool_3_frames_out"],
        "recurrent_4_hidden": ["batch", 5],
        "recurrent_4_hidden_out": ["batch", 5],
        "recurrent_4_cell": ["batch", 5],
        "recurrent_4_cell_out": ["batch", 5],
        "last_5": ["batch", 5],
        "last_5_out": ["batch", 5],
        "outputs": ["batch", 3],
        "probabilities": ["batch", 3],
    }
    facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert facts["crnn.labels"] == ["a", "b", "c"]
    assert facts["crnn.sample_rate"] == 50.0
    assert facts["crnn.delay_frames"] == 3  # two frames of the convolution, one of the pooling
    assert facts["crnn.states"]["conv_1"] == {"shape": ["batch", 3, 2], "type": "float32"}
    assert facts["crnn.states"]["pool_3"] == {"shape": ["batch", 4, 0], "type": "float32"}
    assert done.bytes == done.path.stat().st_size
    assert set(done.states) == set(facts["crnn.states"])
    assert max(done.batches, done.chunks) <= 1e-5
    assert "random chunkings" in done.describe()
    done = export_onnx(lower(network, TASK), tmp_path / "w.onnx", reference=of_network(network), whole=True)
    assert (done.chunks, done.states) == (None, ())
    assert "whole sequences only" in done.describe()


def test_what_stands_in_the_file_of_a_network_that_answers_for_every_frame(tmp_path):
    import onnx

    network = make_network(*SMALL[:2], EVERY_FRAME)
    done = export_onnx(lower(network, TASK), tmp_path / "m.onnx", reference=of_network(network))
    model = onnx.load(done.path)
    shapes = {
        each.name: [d.dim_value or d.dim_param for d in each.type.tensor_type.shape.dim]
        for each in model.graph.output
        if not each.name.endswith("_out")
    }
    assert shapes == {
        "out_lengths": ["batch"],
        "outputs": ["batch", "frames", 3],
        "probabilities": ["batch", "frames", 3],
    }
    facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert (facts["crnn.stride"], facts["crnn.delay_frames"]) == (2, 3)
    assert max(done.batches, done.chunks) <= 1e-5
    with pytest.raises(ExportError, match="not written"):
        export_onnx(
            lower(network, TASK), tmp_path / "n.onnx", reference=lambda rows: [r[1:] for r in of_network(network)(rows)]
        )


def test_probabilities_are_those_of_the_outputs():
    session = opened(make_network([LSTM, {**LSTM, "bidirectional": True}], (3,), {"type": "mean"})).session
    assert [each.name for each in session.get_inputs()] == ["x", "lengths"]  # whole sequences only: no end, no states
    x = np.random.default_rng(0).standard_normal((2, 7, 3)).astype(np.float32)
    outputs, probabilities = session.run(None, {"x": x, "lengths": np.array([7, 4])})
    np.testing.assert_allclose(probabilities, np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True), rtol=1e-5)


def test_outputs_have_the_models_temperature_and_units():
    network = make_network(*SMALL, outputs=1)
    task = Regress.from_targets([10.0, 20.0, 60.0], RegressConfig())
    scale, shift = task.units
    stream = OnnxStream(open_onnx(build_onnx(lower(network, task, temperature=2.0)).SerializeToString()))
    rows = sequences((3,), [9])
    with torch.no_grad():
        expected = network(pad(rows)).numpy() / 2 * scale + shift
    np.testing.assert_allclose(stream.whole(rows[0][None].numpy(), np.array([9])), expected, rtol=1e-5)
    assert "probabilities" not in stream.names


def test_a_file_that_differs_is_not_written(tmp_path):
    network = make_network(*SMALL)
    with pytest.raises(
        ExportError, match=r"m.onnx: not written: its outputs differ .* by 0.05.* at most 0.0001; please"
    ):
        export_onnx(lower(network, TASK), tmp_path / "m.onnx", reference=of_network(network, shift=0.05))
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_nan_are_not_let_pass(tmp_path):
    network = make_network(*SMALL)
    with torch.no_grad():
        network.head.linear.bias[0] = NAN
    with pytest.raises(ExportError, match="not written"):
        export_onnx(lower(network, TASK), tmp_path / "m.onnx", reference=of_network(network))


def test_chunks_that_differ_are_found(tmp_path, monkeypatch):
    """A graph whose windows forget their buffers is right on whole sequences only."""
    carry = Graph.carry

    def forgetful(graph, name, value):
        carry(graph, name, graph.cut(value, graph.integers(0), graph.integers(0), 2) if "conv" in name else value)

    monkeypatch.setattr(Graph, "carry", forgetful)
    network = make_network(*SMALL)
    program = lower(network, TASK)
    batches, chunks = check_onnx(open_onnx(build_onnx(program).SerializeToString()), program, of_network(network))
    assert batches <= 1e-5 < 1e-3 < chunks
    with pytest.raises(ExportError, match="not written"):
        export_onnx(program, tmp_path / "m.onnx", reference=of_network(network))


def test_a_file_that_is_there_is_kept(tmp_path):
    network, path = make_network(*SMALL), tmp_path / "m.onnx"
    path.write_text("mine")
    with pytest.raises(ExportError, match=r"m.onnx: is there already; name another file"):
        export_onnx(lower(network, TASK), path, reference=of_network(network))
    assert path.read_text() == "mine"
    export_onnx(lower(network, TASK), path, reference=of_network(network), overwrite=True)
    assert path.stat().st_size > 1000


def test_an_operation_without_a_function_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.delitem(WRITERS, ops.Conv)
    network = make_network(*SMALL)
    with pytest.raises(ExportError, match=r"layers\[0\]: the ONNX exporter does not know the operation 'Conv', only"):
        export_onnx(lower(network, TASK), tmp_path / "m.onnx", reference=of_network(network))
    assert not list(tmp_path.iterdir())


def test_weights_of_8_bits(tmp_path):
    import onnx

    wide = [{**CONV, "channels": 64}, {**LSTM, "hidden_size": 64}]
    network = make_network(wide, (8,), {"type": "last"})
    program = lower(network, TASK)
    whole = export_onnx(program, tmp_path / "f.onnx", reference=of_network(network))
    small = export_onnx(program, tmp_path / "i.onnx", reference=of_network(network), int8=True)
    assert small.bytes < 0.4 * whole.bytes
    assert 1e-5 < small.batches < 0.1
    integers = [t for t in onnx.load(small.path).graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert sorted(tuple(t.dims) for t in integers) == [(1, 256, 64), (1, 256, 64), (3, 64), (64, 8, 5)]
    stream = OnnxStream(open_onnx(small.path))
    rows = sequences((8,), [19] * 3)
    data = torch.stack(rows).numpy()
    expected = stream.whole(data, np.full(3, 19))
    stream.states = {}
    for i in range(19):
        stream.push(data[:, i : i + 1], np.full(3, 1))
    np.testing.assert_allclose(stream.push(data[:, :0], np.zeros(3, int), end=True), expected, atol=1e-5)


def test_a_model_of_8_bits_keeps_its_weights(tmp_path):
    """Weights that are whole multiples of their largest over 127 are the same numbers in the file."""
    network = make_network(*SMALL)
    with torch.no_grad():
        for weight in (p for p in network.parameters() if p.dim() > 1):
            step = weight.abs().flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1)) / 127
            weight.copy_((weight / step).round() * step)
    program = lower(network, TASK)
    peaks = {i: (3.0,) for i, node in enumerate(program.nodes) if isinstance(node.op, ops.Weighted)}
    done = export_onnx(lower(network, TASK, peaks=peaks), tmp_path / "m.onnx", reference=of_network(network))
    assert max(done.batches, done.chunks) <= 1e-5


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path, absent):
    real = builtins.__import__

    def without(name, *rest):
        if name == absent:
            raise ImportError(name)
        return real(name, *rest)

    network = make_network(*SMALL)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=rf"needs {absent}, which is not installed; pip install 'crnn\[onnx\]'"):
        export_onnx(lower(network, TASK), tmp_path / "m.onnx", reference=of_network(network))
    assert not list(tmp_path.iterdir())


def test_the_program_on_the_page_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    block = next(text for text in page.split("```text\n")[1:] if text.startswith("import json, numpy, onnxruntime"))
    network = make_network(*SMALL)
    export_onnx(lower(network, TASK), tmp_path / "digits.onnx", reference=of_network(network))
    monkeypatch.chdir(tmp_path)
    exec(block.split("```")[0], {})
