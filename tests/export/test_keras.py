"""A .keras file gives the network's numbers, loads without crnn, and whatever cannot be written is named before."""

import importlib.util
import json
import math
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from crnn.errors import ExportError, MissingExtraError
from crnn.export.keras import build_keras, export_keras, import_keras, sample_sequences
from crnn.export.keras_ops import WRITERS
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.head import HeadConfig
from crnn.presets.recipe import DataSummary
from crnn.presets.registry import find_preset
from crnn.program import ops
from crnn.program.lower import lower
from crnn.sequences import pad
from crnn.tasks.classify import Classify, ClassifyConfig
from crnn.tasks.multilabel import MultiLabel
from crnn.tasks.regress import Regress, RegressConfig
from nn.test_composition import random_network
from program.test_lower import EVERY_FRAME, make_network, of_network
from test_promises import EXPORTED, EXPORTED_SUMMARIES, cases, sequences

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # TensorFlow with NumPy 2

TASK = Classify.from_targets(["a", "b", "c"], ClassifyConfig())
CONV, GRU = {"type": "conv", "channels": 4}, {"type": "recurrent", "hidden_size": 3, "cell": "gru"}
BOTH_WAYS = {"type": "recurrent", "hidden_size": 3, "bidirectional": True, "learned_initial_state": True}
ATTENTION = {"type": "attention", "hidden_size": 4}


@pytest.fixture(scope="module")
def keras():
    missing = [name for name in ("keras", "tensorflow") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: pip install 'crnn[keras]'")
    return import_keras()


def assert_same(model, network, features, lengths):
    """One padded batch, junk in the padding, against the network on each sequence alone."""
    rows = sequences(features, lengths, seed=5)
    junk = math.nan if features else 999
    x = pad(rows, length=max(lengths) + 4, value=junk)
    data = x.data.numpy().astype(np.float32 if features else np.int32)
    got = model({"x": data, "lengths": np.array(lengths, np.int32)}, training=False)
    outputs = np.array(got["outputs"])
    for i, row in enumerate(rows):
        (expected,) = of_network(network)([row])
        found = outputs[i]
        if "out_lengths" in got:
            found, rest = np.split(found, [int(got["out_lengths"][i])])
            assert not rest.any()
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


# Each operation is in one of these at least; the long list below has every example of every layer.
NETWORKS = {
    "convolutions": (
        (4,),
        [
            {**CONV, "kernel_size": 4, "stride": 2, "padding": "causal"},
            {"type": "norm", "kind": "rms"},
            {**CONV, "channels": 8, "groups": 4},
            {**CONV, "channels": 6, "groups": 2, "dilation": 2, "stride": 2},
            {"type": "norm", "kind": "layer"},
            {"type": "activation", "kind": "gelu"},
        ],
        {"type": "max"},
    ),
    "blocks": (
        (4,),
        [
            {"type": "residual", "layers": [CONV, {"type": "pool"}], "activation": "leaky_relu"},
            {"type": "parallel", "branches": [[{**CONV, "stride": 2}], [CONV, {"type": "pool"}]]},
            {"type": "pool", "size": 3, "stride": 2, "kind": "mean", "tail": "ceil"},
            {"type": "pool", "size": 2, "tail": "ceil"},
        ],
        {"type": "concat", "summaries": [{"type": "mean"}, {"type": "last", "layers": [GRU]}]},
    ),
    "images": (
        (2, 5),
        [
            {"type": "conv2d", "channels": 3, "stride": [2, 2]},
            {"type": "pool2d", "size": [2, 2], "stride": [1, 1], "kind": "mean", "tail": "ceil"},
            {"type": "flatten"},
            {"type": "recurrent", "hidden_size": 3, "cell": "rnn", "num_layers": 2, "layer_norm": True},
        ],
        ATTENTION,
    ),
    "recurrence": ((3,), [BOTH_WAYS, GRU, {**BOTH_WAYS, "cell": "gru"}], {"type": "last", "bidirectional": True}),
    "gated means": (
        (3,),
        [{"type": "recurrent", "hidden_size": 3, "cell": cell} for cell in ("mingru", "minlstm", "qrnn")],
        {"type": "mean"},
    ),
    "missing": (
        (3,),
        [{"type": "channel_norm"}, {"type": "missing", "fill": "last"}, {"type": "difference"}, {"type": "compress"}],
        ATTENTION,
    ),
    "level": ((2,), [{"type": "level"}, {"type": "instance_norm"}], {"type": "max"}),
    "audio": (
        (2,),
        [{"type": "mfcc", "sample_rate": 200, "num_mels": 3, "num_coefficients": 2, "n_fft": 16, "preemphasis": 0.9}],
        ATTENTION,
    ),
    "symbols": ((), [{"type": "embedding", "vocab_size": 5, "channels": 3}], {"type": "mean"}),
    "every frame": ((3,), [CONV, {"type": "pool", "size": 3}, BOTH_WAYS], EVERY_FRAME),
    "every frame of two": ((3,), [{"type": "pool", "tail": "ceil"}, GRU], EVERY_FRAME),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_gives_the_networks_numbers(keras, tmp_path, name):
    features, layers, summary = NETWORKS[name]
    network = make_network(layers, features, summary, HeadConfig(hidden=(4,)))
    program = lower(network, TASK)
    done = export_keras(program, tmp_path / "n.keras", reference=of_network(network))
    assert done.difference <= 1e-5
    assert min(done.lengths) == network.min_length
    shortest = max(network.min_length, 2)
    assert_same(keras.models.load_model(tmp_path / "n.keras"), network, features, [9, shortest, 23, 14])
    assert [path.name for path in tmp_path.iterdir()] == ["n.keras"]


def test_every_operation_is_in_a_network_above():
    used = {
        type(node.op)
        for features, layers, summary in NETWORKS.values()
        for node in lower(make_network(layers, features, summary), TASK).nodes
    }
    assert WRITERS.keys() - used == {ops.Softmax}  # no layer comes down to it


@pytest.mark.slow
@pytest.mark.parametrize(("name", "features", "options"), cases(EXPORTED) + cases(EXPORTED_SUMMARIES))
def test_every_layer_and_summary(keras, tmp_path, name, features, options):
    if name in EXPORTED:
        network = make_network([{"type": name, **options}], features, ATTENTION)
    else:
        network = make_network([], features, {"type": name, **options})
    done = export_keras(lower(network, TASK), tmp_path / "n.keras", reference=of_network(network))
    assert done.difference <= 1e-5


PRESET_DATA = {
    "default": DataSummary("series", 3, None, 90, 60, 60, 40, 80, "classify", 3, has_missing=True, varied_scale=True),
    "live": DataSummary("series", 3, None, 90, 60, 60, 40, 80, "classify", 3, has_missing=True),
    "seed": DataSummary("symbols", 1, None, 90, 60, 60, 40, 80, "classify", 3, vocabulary_size=5),
    "lstm-fcn": DataSummary("series", 2, None, 90, 60, 60, 40, 80, "classify", 3),
    "default on audio": DataSummary("audio", 1, 4000, 90, 2000, 2000, 1500, 2500, "classify", 3),
    "live on audio": DataSummary("audio", 1, 4000, 90, 2000, 2000, 1500, 2500, "classify", 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESET_DATA)
def test_every_preset(keras, tmp_path, name):
    data = PRESET_DATA[name]
    features = () if data.kind == "symbols" else (data.num_channels,)
    torch.manual_seed(0)
    spec = spec_from_plain(find_preset(name.split()[0])(data)["model"])
    network, rows = Network(spec, features=features, outputs=3), pad(sequences(features, [data.max_length] * 3))
    network.fit_statistics([rows])
    network(rows)  # in training: batch norm learns
    done = export_keras(lower(network.eval(), TASK), tmp_path / "n.keras", reference=of_network(network))
    assert done.difference <= 1e-5 * max(1, done.largest_output)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_layers_inside_of_layers(keras, tmp_path, seed):
    layers, choose = random_network(seed)
    network = make_network([], layers.out_features, {"type": choose.choice(["last", "mean", "max", "attention"])})
    network.body, network.features = layers, layers.in_features
    done = export_keras(lower(network, TASK), tmp_path / "n.keras", reference=of_network(network))
    assert done.difference <= 1e-5 * max(1, done.largest_output)


@pytest.mark.slow
def test_a_file_is_read_in_safe_mode_by_a_python_that_has_no_crnn(keras, tmp_path):
    features, layers, summary = NETWORKS["recurrence"]
    network, path = make_network(layers, features, summary), tmp_path / "n.keras"
    export_keras(lower(network, TASK), path, reference=of_network(network))
    code = f"""
import sys
sys.modules["crnn"] = None  # importing it fails
import keras, numpy
model = keras.models.load_model({str(path)!r}, safe_mode=True)
x = numpy.linspace(-1, 1, 2 * 7 * 3, dtype="float32").reshape(2, 7, 3)
inputs = {{"x": x, "lengths": numpy.array([7, 4])}}
print(model.predict(inputs, verbose=0)["outputs"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    x = torch.linspace(-1, 1, 42).reshape(2, 7, 3)
    with torch.no_grad():
        expected = network(pad([x[0], x[1, :4]])).numpy()
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-5)


def test_a_file_names_nothing_but_keras(keras, tmp_path):
    network = make_network(*reversed(NETWORKS["missing"][:2]), NETWORKS["missing"][2])
    export_keras(lower(network, TASK), tmp_path / "n.keras", reference=of_network(network))
    with zipfile.ZipFile(tmp_path / "n.keras") as archive:
        text = archive.read("config.json").decode()
    modules, kinds = set(), set()

    def look(value):
        if isinstance(value, dict):
            modules.add(value.get("module"))
            kinds.add(value.get("class_name"))
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(inner)

    look(json.loads(text))
    assert all(module is None or module.split(".")[0] in ("keras", "builtins") for module in modules), modules
    assert "Lambda" not in kinds


def test_inputs_and_outputs_have_names_and_probabilities_are_those_of_the_task(keras):
    network = make_network([CONV], (3,))
    x = {"x": np.ones((2, 5, 3), np.float32), "lengths": np.array([5, 2])}
    for task, rule in (
        (TASK, lambda y: np.exp(y) / np.exp(y).sum(1, keepdims=True)),
        (MultiLabel.from_targets([("a",), ("b",), ("a", "c")], ClassifyConfig()), lambda y: 1 / (1 + np.exp(-y))),
    ):
        model = build_keras(lower(network, task), keras)
        assert sorted(model.input) == ["lengths", "x"]
        got = {name: np.array(value) for name, value in model(x).items()}
        assert got.keys() == {"outputs", "probabilities"}
        np.testing.assert_allclose(got["probabilities"], rule(got["outputs"]), rtol=1e-5)

    regression = build_keras(lower(make_network([CONV], (3,), outputs=1), regress()), keras)
    assert regression(x).keys() == {"outputs"}


def test_a_sequence_that_is_too_short_gives_nan_and_disturbs_no_other(keras, tmp_path):
    network = make_network([CONV, {"type": "pool", "size": 4}, GRU], (3,), {"type": "mean"})
    export_keras(lower(network, TASK), tmp_path / "n.keras", reference=of_network(network))
    model, row = keras.models.load_model(tmp_path / "n.keras"), sequences((3,), [9])[0]
    x = np.stack([row.numpy()] * 4)
    got = model({"x": x, "lengths": np.array([9, 3, 0, 4])}, training=False)
    for name in ("outputs", "probabilities"):
        assert np.isnan(np.array(got[name])).all(1).tolist() == [False, True, True, False]
    expected = of_network(network)([x[0], x[0, :4]])
    np.testing.assert_allclose(np.array(got["outputs"])[[0, 3]], expected, atol=1e-5)


def regress():
    return Regress.from_targets([10.0, 20.0, 60.0], RegressConfig())


def test_temperature_and_units_are_in_the_file(keras, tmp_path):
    network = make_network([CONV], (3,), outputs=1)
    scale, shift = regress().units
    done = export_keras(lower(network, regress()), tmp_path / "r.keras", reference=of_network(network, scale, shift))
    assert done.difference <= 1e-4
    assert done.largest_output > 20
    assert f"{tmp_path / 'r.keras'}: " in done.describe()
    assert f"largest difference from the model {done.difference:.1e}" in done.describe()

    network = make_network([CONV], (3,))
    program = lower(network, TASK, temperature=2.0)
    export_keras(program, tmp_path / "t.keras", reference=of_network(network, 0.5))


def test_a_file_that_gives_other_numbers_is_not_left(keras, tmp_path):
    network = make_network([CONV], (3,))
    before = tmp_path / "kept.keras"
    before.write_bytes(b"as it was")
    with pytest.raises(ExportError, match=r"new\.keras: not written: its outputs differ .* by 1,? .*at most 0\.0001"):
        export_keras(lower(network, TASK), tmp_path / "new.keras", reference=of_network(network, shift=1.0))
    with pytest.raises(ExportError, match="not written"):
        export_keras(lower(network, TASK), before, reference=of_network(network, shift=math.nan), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.keras"]
    assert before.read_bytes() == b"as it was"
    export_keras(lower(network, TASK), before, reference=of_network(network), overwrite=True)
    assert zipfile.is_zipfile(before)


# What follows is refused before Keras is loaded.


def test_a_name_that_cannot_be_written_is_refused_first(tmp_path):
    program = lower(make_network([CONV], (3,)), TASK)
    (tmp_path / "there.keras").write_text("mine")
    (tmp_path / "folder.keras").mkdir()
    for name, message in (
        ("m.h5", r"m\.h5: ends in '\.h5', expected '\.keras'"),
        ("there.keras", r"there\.keras: exists already; give another name"),
        ("folder.keras", r"folder\.keras: is a folder, expected the name of a file"),
    ):
        with pytest.raises(ExportError, match=message):
            export_keras(program, tmp_path / name, reference=of_network(None))
    assert (tmp_path / "there.keras").read_text() == "mine"


def test_an_operation_without_layers_is_named_before_anything_is_written(tmp_path):
    class Wavelet(ops.Op):
        pass

    program = lower(make_network([CONV, GRU], (3,)), TASK)
    nodes = list(program.nodes)
    strange = replace(program, nodes=(*nodes[:2], replace(nodes[2], op=Wavelet()), *nodes[3:]))
    with pytest.raises(ExportError, match=r"layers\[1\]: the Keras exporter does not know the operation 'Wavelet'"):
        export_keras(strange, tmp_path / "new" / "n.keras", reference=of_network(None))

    in_8_bits = lower(make_network([CONV, GRU], (3,)), TASK, peaks={1: (3.0,)})
    with pytest.raises(ExportError, match=r"layers\[0\]: computes in 8 bits"):
        export_keras(in_8_bits, tmp_path / "new" / "n.keras", reference=of_network(None))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(MissingExtraError, match=r"keras.* needs keras and jax: pip install 'crnn\[keras\]'"):
        import_keras()


def test_samples_are_like_the_data_that_a_network_was_fitted_to():
    network = make_network([{"type": "channel_norm"}, {"type": "missing"}, {"type": "pool", "size": 4}], (2,))
    network.body.layers[0].mean.copy_(torch.tensor([1000.0, -5.0]))
    network.body.layers[0].std.copy_(torch.tensor([0.1, 20.0]))
    rows = sample_sequences(lower(network, TASK))
    assert min(map(len, rows)) == 4
    values = np.concatenate(rows)
    assert np.isnan(values).any()
    np.testing.assert_allclose(np.nanmean(values, 0), [1000, -5], atol=5)
    np.testing.assert_allclose(np.nanstd(values, 0), [0.1, 20.0], rtol=0.3)

    symbols = sample_sequences(lower(make_network([], ()), TASK))
    assert {int(i) for row in symbols for i in row} == set(range(5))
