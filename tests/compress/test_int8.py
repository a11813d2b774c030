"""8 bits: weights on their grid to the last bit, peaks that round best, steps that equal a plain loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import crnn
from crnn.compress.compare import outputs_of
from crnn.compress.int8 import best_peak, quantise
from crnn.data.read import from_arrays
from crnn.errors import ConfigError, ModelError
from crnn.model import Inputs, Model
from crnn.models.int8 import int8_weights, pack, round_weight, unpack
from crnn.models.network import Network
from crnn.models.rounding import in_8_bits, round_input
from crnn.models.spec import spec_from_plain
from crnn.program import ops
from crnn.program.lower import lower
from crnn.tasks.classify import Classify, ClassifyConfig
from program.reference import sigmoid
from test_promises import settle

CONV, NORM = {"type": "conv", "channels": 6}, {"type": "norm"}
BRANCHED = {
    "layers": [
        {"type": "channel_norm"},
        CONV,
        NORM,
        {"type": "residual", "layers": [CONV, NORM]},
        {"type": "recurrent", "hidden_size": 5, "num_layers": 2, "bidirectional": True, "learned_initial_state": True},
        {"type": "recurrent", "hidden_size": 4, "cell": "qrnn", "kernel_size": 2, "bidirectional": True},
        {"type": "recurrent", "hidden_size": 4, "cell": "mingru"},
    ],
    "summary": {
        "type": "concat",
        "summaries": [
            {"type": "concat", "layers": [CONV], "summaries": [{"type": "mean"}]},
            {"type": "max", "layers": [{**CONV, "channels": 3}]},
        ],
    },
    "head": {"hidden": [4]},
}


def data(count: int = 12, channels: int = 3) -> crnn.Dataset:
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(8 + i % 5, channels)) + i % 3 for i in range(count)]
    return from_arrays(x, ["abc"[i % 3] for i in range(count)])


def model(spec: dict[str, object]) -> Model:
    """Untrained, with weights and statistics off their start."""
    torch.manual_seed(0)
    examples = data()
    network = settle(Network(spec_from_plain(spec), features=(3,), outputs=3), (3,))
    return Model(network, Classify.from_targets(examples.targets, ClassifyConfig()), Inputs.of(examples))


@pytest.mark.parametrize("shape", [(5, 3, 4), (20, 7), (4, 2, 3, 3)])
@pytest.mark.parametrize("size", [1e-6, 0.3, 1e4])
def test_weights_are_whole_multiples_of_a_127th_of_the_channels_largest(shape, size):
    weight = size * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    rounded = round_weight(weight)
    for channel, before in zip(rounded.flatten(1).double(), weight.flatten(1).double(), strict=True):
        step = channel.abs().max() / 127
        assert (channel - before).abs().max() <= 0.5001 * step
        if step:
            steps = channel / step
            assert torch.equal(steps, steps.round())
            assert abs(float(channel.abs().max() / before.abs().max()) - 1) < 2**-15
    assert torch.equal(round_weight(rounded), rounded)


def test_a_packed_weight_is_unpacked_to_the_same_bits():
    state = {"w": round_weight(torch.randn(9, 4, 3)), "b": torch.randn(9)}
    packed = pack(state, ["w"])
    assert {name: tensor.dtype for name, tensor in packed.items()} == {
        "w": torch.int8,
        "w.scale": torch.float32,
        "b": torch.float32,
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in unpack(packed).items())


def test_a_saved_model_of_8_bits_equals_the_loaded_one_in_a_quarter_of_the_bytes(tmp_path):
    wide = {"layers": [{"type": "recurrent", "hidden_size": 64}], "summary": {"type": "mean"}}
    before = model(wide)
    after = quantise(before, data())
    before.save(tmp_path / "before")
    after.save(tmp_path / "after")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("before", "after")]
    assert sizes[1] < 0.32 * sizes[0]
    loaded = Model.load(tmp_path / "after")
    assert loaded.peaks == after.peaks
    assert torch.equal(loaded.outputs(data()), after.outputs(data()))
    assert torch.equal(outputs_of(loaded, data()), outputs_of(after, data()))
    assert loaded.info()["weights"] == "8 bits, inputs calibrated"


def test_damage_to_a_file_of_8_bits_is_named(tmp_path):
    quantise(model(BRANCHED), data()).save(tmp_path)
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole = config.read_text()
    config.write_text(whole.replace('"peaks": {', '"peaks": {"two": [1.0], '))
    with pytest.raises(ModelError, match=r"config.json: peaks: .*'two'; expected numbers for each place"):
        Model.load(tmp_path)
    config.write_text(whole)
    rewrite(file, lambda tensors: tensors.pop("head.linear.weight.scale"))
    with pytest.raises(ModelError, match=r"head.linear.weight holds torch.int8 without head.linear.weight.scale"):
        Model.load(tmp_path)


def rewrite(file: Path, change) -> None:
    from safetensors.torch import load, save

    tensors = load(file.read_bytes())
    change(tensors)
    file.write_bytes(save(tensors))


def test_every_operation_with_weights_has_a_peak_and_weights_on_the_grid_after_batch_norm_is_folded():
    quantised = quantise(model(BRANCHED), data())
    program = lower(quantised.network, quantised.task, peaks=quantised.peaks)
    weighted = [node.op for node in program.nodes if isinstance(node.op, ops.Weighted)]
    assert len(weighted) == 2 + 4 + 3 + 2 + 2
    for op in weighted:
        assert op.peak == pytest.approx(max(op.peak, 1e-9))
        matrices = [op.weight_x, op.weight_h] if isinstance(op, ops.Recurrent) else [op.weight]
        for matrix in matrices:
            rows = matrix.reshape(len(matrix), -1).astype(np.float64)
            steps = rows / (np.abs(rows).max(1, keepdims=True) / 127)
            assert np.abs(steps - steps.round()).max() < 1e-4


def test_peaks_belong_to_the_inputs_of_their_nodes():
    """Found by hand: the input of each node of the program, from an interpreter of plain loops."""
    from program.reference import interpret

    before = model(BRANCHED)
    quantised = quantise(before, data())
    program = lower(quantised.network, quantised.task)
    largest = {place: [0.0] * len(peaks) for place, peaks in quantised.peaks.items()}
    for example in data():
        values = interpret(program, example.load())
        for place, found in largest.items():
            node = program.nodes[place]
            found[0] = max(found[0], np.abs(values[node.inputs[0]]).max())
            if isinstance(node.op, ops.Recurrent):
                found[1] = max(found[1], np.abs(values[place]).max(), np.abs(node.op.initial[0]).max())
    assert sorted(map(len, largest.values())) == [1] * 9 + [2] * 4
    for place, peaks in quantised.peaks.items():
        assert peaks == pytest.approx(largest[place], rel=1e-4)  # few values: nothing is worth clipping


def test_the_peak_is_what_rounds_best():
    even = torch.linspace(0, 2, 1_000_001)
    assert best_peak(even) == pytest.approx(2.0, rel=2e-3)
    outlier = torch.cat([even, torch.tensor([20.0])])
    assert best_peak(outlier) == pytest.approx(2.0, abs=1e-3)
    assert best_peak(torch.zeros(5)) == 1.0
    assert round_input(torch.tensor([0.0, 0.5, -3.0, 1.2]), 1.27).tolist() == pytest.approx([0.0, 0.5, -1.27, 1.2])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_8_bits_of_a_recurrence_equal_a_plain_loop(cell):
    spec = {"layers": [{"type": "recurrent", "hidden_size": 4, "cell": cell}], "summary": {"type": "last"}}
    quantised = quantise(model(spec), data())
    program = lower(quantised.network, quantised.task, peaks=quantised.peaks)
    recurrent, dense = (node.op for node in program.nodes if isinstance(node.op, ops.Weighted))
    found = outputs_of(quantised, data())
    for example, row in zip(data(), found, strict=True):
        h = loop(recurrent, example.load().astype(np.float64))
        expected = dense.weight @ step(h, dense.peak) + dense.bias
        np.testing.assert_allclose(row, expected, atol=1e-5)


def step(x, peak):
    return np.clip(np.round(x * 127 / peak), -127, 127) * peak / 127


def loop(op, frames):
    h = np.zeros(op.hidden_size)
    c = np.zeros(op.hidden_size)
    for frame in frames:
        a, b = op.weight_x @ step(frame, op.peak) + op.bias_x, op.weight_h @ step(h, op.peak_h) + op.bias_h
        if op.cell == "rnn":
            h = np.tanh(a + b)
        elif op.cell == "lstm":
            i, f, g, o = np.split(a + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            (rx, zx, nx), (rh, zh, nh) = np.split(a, 3), np.split(b, 3)
            z = sigmoid(zx + zh)
            h = (1 - z) * np.tanh(nx + sigmoid(rx + rh) * nh) + z * h
    return h


@pytest.mark.parametrize("fixed", [{"type": "patterns"}, {"type": "mfcc", "sample_rate": 1000, "num_mels": 20}])
def test_weights_that_are_not_learned_stay_float32(fixed):
    torch.manual_seed(0)
    x = [np.random.default_rng(i).normal(size=(200, 1)) for i in range(4)]
    examples = from_arrays(x, ["a", "b"] * 2)
    spec = spec_from_plain({"layers": [fixed, CONV], "summary": {"type": "mean"}})
    task = Classify.from_targets(examples.targets, ClassifyConfig())
    quantised = quantise(Model(Network(spec, features=(1,), outputs=2), task, Inputs.of(examples)), examples)
    weighted = [node.op for node in quantised.program().nodes if isinstance(node.op, ops.Weighted)]
    assert [op.peak is None for op in weighted] == [True, False, False]


def test_8_bits_end_with_the_block():
    quantised = quantise(model(BRANCHED), data())
    plain = quantised.outputs(data())
    with in_8_bits(quantised.network, quantised.peaks):
        rounded = quantised.outputs(data())
    assert 0 < (rounded - plain).abs().max() < 0.2
    assert torch.equal(quantised.outputs(data()), plain)


def test_the_model_itself_stays_as_it_was():
    before = model(BRANCHED)
    outputs = before.outputs(data())
    quantise(before, data())
    assert torch.equal(before.outputs(data()), outputs)


def test_what_stays_float32():
    front = {"type": "mfcc", "sample_rate": 8000, "num_mels": 32}
    spec = spec_from_plain({"layers": [front, CONV], "summary": {"type": "attention"}})
    network = Network(spec, features=(1,), outputs=3)
    assert int8_weights(network) == ["body.layers.1.conv.weight", "head.linear.weight"]


def test_quantised_twice_is_refused():
    with pytest.raises(ConfigError, match="in 8 bits already"):
        quantise(replace(model(BRANCHED), peaks={1: (1.0,)}), data())
