"""A lowered network gives the network's numbers, by an interpreter that knows the operations' definitions only."""

import math

import numpy as np
import pytest
import torch

from crnn.errors import ExportError
from crnn.models.network import Network
from crnn.models.spec import NetworkSpec
from crnn.nn.blocks import build_layers
from crnn.nn.head import HeadConfig
from crnn.nn.layers import LAYERS, Layer
from crnn.nn.summary import SUMMARIES
from crnn.program import ops
from crnn.program.lower import LOWERINGS, SUMMARY_LOWERINGS, Builder, fold, lower
from crnn.program.program import Program, macs
from crnn.sequences import Sequences, pad
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.tasks.regress import Regress, RegressConfig
from nn.test_composition import CHANNELS, random_network
from program.reference import interpret
from test_promises import EXPORTED, EXPORTED_SUMMARIES, LAYER_EXAMPLES, cases, make_layer, sequences, settle

TASK = Classify.from_targets(["a", "b", "c"], ClassifyConfig())
LENGTHS = [4, 9, 14, 31]
EVERY_FRAME = "every frame"
every_summary = pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED_SUMMARIES))


def make_network(layers, features, summary=None, head=None, outputs=3):
    """Weights and statistics off their start; frames without channels become some. With EVERY_FRAME no summary."""
    torch.manual_seed(0)
    if not features and not layers:
        layers = [{"type": "embedding", "vocab_size": 5, "channels": 3}]
    summary = None if summary == EVERY_FRAME else summary or {"type": "last"}
    spec = NetworkSpec(layers=layers, summary=summary, head=head or HeadConfig())
    network = Network(spec, features=features, outputs=outputs)
    network.fit_statistics([pad(sequences(features))])
    return settle(network, features)


def of_network(network, scale=1.0, shift=0.0):
    """Rows -> outputs of each, as exporters want the model."""

    def reference(rows):
        with torch.no_grad():
            found = network(pad([torch.as_tensor(row) for row in rows]))
        return [row.numpy() * scale + shift for row in (found.unpad() if isinstance(found, Sequences) else found)]

    return reference


def assert_same(program, network, features, scale=1.0, shift=0.0):
    for row in sequences(features, LENGTHS, seed=3):
        (expected,) = of_network(network, scale, shift)([row])
        np.testing.assert_allclose(interpret(program, row.numpy())[-1], expected, atol=1e-5, rtol=1e-5)


def assert_same_frames(layer, features, lengths=LENGTHS):
    """Folded and not, on sequences one by one."""
    builder = Builder()
    with torch.no_grad():
        builder.layer(layer, builder.add(ops.Input(), [], features or (1,), "input"), "layers[0]")
    for nodes in (tuple(builder.nodes), fold(builder.nodes)):
        program = Program(nodes, None, (), "none", 1, 0)
        assert program.output.shape == layer.out_features
        for row in sequences(features, lengths, seed=3):
            frames = interpret(program, row.numpy())
            with torch.no_grad():
                expected = layer(pad([row])).data[0].flatten(1).numpy()
            np.testing.assert_allclose(frames[-1], expected, atol=1e-5, rtol=1e-5)
            assert program.out_length(len(row)) == [len(value) for value in frames]


every_layer = pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED))


@every_layer
def test_every_layer_as_operations_gives_its_frames(name, features, options):
    assert_same_frames(make_layer(name, features, options), features)


@pytest.mark.parametrize("seed", range(40))
def test_random_layers_inside_of_layers_as_operations_give_their_frames(seed):
    layers, _ = random_network(seed)
    assert_same_frames(layers, (CHANNELS,), [1, 7, 20])


@every_layer
def test_a_network_of_every_layer_is_the_same_when_lowered(name, features, options):
    network = make_network([{"type": name, **options}], features, {"type": "attention"}, HeadConfig(hidden=(4,)))
    assert_same(lower(network, TASK), network, features)


@every_layer
def test_a_network_of_every_layer_that_answers_for_every_frame_is_the_same_when_lowered(name, features, options):
    network = make_network([{"type": name, **options}, {"type": "flatten"}], features, EVERY_FRAME)
    program = lower(network, TASK)
    assert not program.output.is_vector
    assert program.stride == network.timing.stride
    assert_same(program, network, features)


@every_summary
def test_a_network_of_every_summary_is_the_same_when_lowered(name, features, options):
    network = make_network([], features, {"type": name, **options})
    assert_same(lower(network, TASK), network, features)


@pytest.mark.parametrize("options", [options for _, options in LAYER_EXAMPLES["missing"]])
@pytest.mark.parametrize("name", ["level", "instance_norm", "compress", "channel_norm"])
def test_missing_values_pass_front_ends_and_are_filled(name, options):
    network = make_network([{"type": name}, {"type": "missing", **options}], (3,), {"type": "mean"})
    row = sequences((3,), [9])[0]
    row[torch.rand(row.shape) < 0.4] = math.nan
    row[0, 1] = math.nan
    with torch.no_grad():
        expected = network(pad([row]))[0].numpy()
    values = interpret(lower(network, TASK), row.numpy())
    np.testing.assert_allclose(values[-1], expected, atol=1e-5, rtol=1e-5)


def test_every_registered_layer_can_be_lowered():
    assert not {name for name, cls in LAYERS.items() if not set(cls.__mro__) & LOWERINGS.keys()}
    assert SUMMARY_LOWERINGS.keys() == set(SUMMARIES.values())


def test_what_reads_both_strands_says_that_it_is_not_exported():
    part = {"type": "strands", "layers": [], "summary": {"type": "mean"}}
    network = make_network([], (4,), part)
    with pytest.raises(ExportError, match="strands reads the sequence from its end too"):
        lower(network, TASK)


def test_temperature_and_units_are_in_the_last_layer():
    network = make_network([], (3,))
    cooled = lower(network, TASK, temperature=2.5)
    assert len(cooled.nodes) == 3  # input, last, dense: nothing was added behind it
    assert_same(cooled, network, (3,), scale=1 / 2.5)
    assert (cooled.labels, cooled.activation) == (("a", "b", "c"), "softmax")

    targets = [10.0, 20.0, 60.0]
    task, network = Regress.from_targets(targets, RegressConfig()), make_network([], (3,), outputs=1)
    assert_same(lower(network, task), network, (3,), scale=float(np.std(targets)), shift=30.0)


def test_batch_norm_is_multiplied_into_the_convolution_before_it():
    conv, norm = {"type": "conv", "channels": 4}, {"type": "norm"}
    program = lower(make_network([conv, norm, conv, norm], (3,)), TASK)
    assert [type(node.op) for node in program.nodes] == [ops.Input, ops.Conv, ops.Conv, ops.Last, ops.Dense]

    # what is read twice cannot take the norm of one reader in
    branches = {"type": "residual", "layers": [norm]}
    program = lower(make_network([conv, branches], (3,)), TASK)
    assert any(isinstance(node.op, ops.Affine) for node in program.nodes)


@pytest.mark.parametrize(("other", "stays"), [([{"type": "conv", "channels": 2}], 0), ([], 1)])
def test_batch_norm_is_multiplied_into_every_branch_before_it_or_into_none(other, stays):
    branches = {"type": "parallel", "branches": [[{"type": "conv", "channels": 4, "kernel_size": 5}], other]}
    layers = build_layers([branches, {"type": "norm"}], (3,)).eval()
    norm = layers.layers[1]
    torch.manual_seed(0)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    assert_same_frames(layers, (3,))
    builder = Builder()
    with torch.no_grad():
        builder.layer(layers, builder.add(ops.Input(), [], (3,), "input"), "")
    assert sum(isinstance(node.op, ops.Affine) for node in fold(builder.nodes)) == stays


def test_a_norm_before_the_convolution_stays_where_zeros_are_padded():
    network = make_network([{"type": "norm"}, {"type": "conv", "channels": 4}], (3,))
    program = lower(network, TASK)
    assert [type(node.op) for node in program.nodes[:3]] == [ops.Input, ops.Affine, ops.Conv]


def test_what_cannot_stream_is_named():
    both = {"type": "recurrent", "hidden_size": 3, "bidirectional": True}
    program = lower(make_network([{"type": "conv", "channels": 2}, both], (3,)), TASK)
    assert not program.can_stream
    assert program.why_no_stream() == "layers[1] (bidirectional recurrence)"
    assert lower(make_network([], (3,)), TASK).can_stream


def test_a_layer_without_operations_is_named():
    class Strange(Layer):
        pass

    builder = Builder()
    with pytest.raises(ExportError, match=r"layers\[2\]: layer 'Strange' has no operations .*crnn\.lowerings"):
        builder.layer(Strange((3,)), builder.add(ops.Input(), [], (3,), "input"), "layers[2]")


@pytest.mark.parametrize(
    ("options", "name"),
    [({"cell": "lru"}, "Lru"), ({"cell": "rg_lru"}, "RgLru"), ({"cell": "gru", "reset": "before"}, "GruBefore")],
)
def test_a_cell_without_operations_is_refused_by_name(options, name):
    network = make_network([{"type": "recurrent", "hidden_size": 3, **options}], (3,))
    with pytest.raises(ExportError, match=rf"layers\[0\]: recurrent cell {name} has no operations.*take one of rnn"):
        lower(network, TASK)


def test_multiply_adds_are_those_of_the_operations():
    conv = {"type": "conv", "channels": 4, "stride": 2}
    program = lower(make_network([conv, {"type": "recurrent", "hidden_size": 5}], (3,)), TASK)
    # 10 frames -> 5: conv 4*3*3 each, lstm 4*5*(4 + 5) each; the head 3*5 once
    assert macs(program, 10) == 5 * 36 + 5 * 180 + 15
    assert program.out_length(10) == [10, 5, 5, 1, 1]
