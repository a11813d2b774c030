"""The promises, over every registered layer and summary: what registers is tested, or this file fails."""

import math

import pytest
import torch
from safetensors.torch import load, save
from torch.testing import assert_close

from crnn.errors import StreamError
from crnn.models.network import Network
from crnn.models.spec import NetworkSpec
from crnn.nn.blocks import build_layers
from crnn.nn.layers import LAYERS
from crnn.nn.summary import SUMMARIES, build_summary
from crnn.sequences import Sequences, pad

LENGTHS = [13, 4, 9, 7]
NAN = float("nan")

CONV = {"type": "conv", "channels": 4}
NORM = {"type": "norm"}
RELU = {"type": "activation"}
BOTH_WAYS = {"type": "recurrent", "hidden_size": 3, "bidirectional": True}

LAYER_EXAMPLES = {
    "conv": [
        ((3,), {"channels": 4}),
        ((4,), {"channels": 4, "kernel_size": 5, "stride": 2, "groups": 2}),
        ((3,), {"channels": 2, "kernel_size": 4, "dilation": 2, "padding": "causal", "bias": False}),
        ((3,), {"channels": 2, "kernel_size": 1, "stride": 3}),
    ],
    "conv2d": [
        ((2, 5), {"channels": 3, "stride": (2, 2)}),
        ((5,), {"channels": 3, "kernel_size": (4, 1), "padding": "causal"}),
    ],
    "pool": [
        ((3,), {}),
        ((3,), {"size": 3, "tail": "ceil"}),
        ((3,), {"size": 3, "stride": 2, "kind": "mean", "tail": "ceil"}),
        ((3,), {"size": 3, "stride": 1, "kind": "mean"}),
        ((3,), {"size": 2, "stride": 3, "tail": "ceil"}),
        ((2, 3), {"kind": "mean", "tail": "ceil"}),
        ((1, 2, 3), {"tail": "ceil"}),
    ],
    "pool2d": [
        ((2, 5), {}),
        ((2, 5), {"size": (3, 2), "stride": (2, 1), "kind": "mean", "tail": "ceil"}),
        ((2, 5), {"size": (1, 5)}),
    ],
    "norm": [
        ((3,), {}),
        ((3,), {"affine": False}),
        ((3, 2), {}),
        ((2, 2, 2), {}),
        ((3,), {"kind": "layer"}),
        ((3, 2), {"kind": "layer"}),
        ((3,), {"kind": "rms"}),
    ],
    "activation": [((3,), {"kind": kind}) for kind in ("relu", "gelu", "silu", "tanh", "leaky_relu", "elu")],
    "dropout": [((3,), {}), ((3,), {"kind": "channel"}), ((3, 2), {"kind": "channel", "rate": 0.3})],
    "patterns": [((2,), {}), ((3,), {"dilation": 2, "mixtures": 1}), ((5,), {"mixtures": 2, "seed": 3})],
    "position": [((3,), {"places": 3, "spacing": 2.0}), ((3, 2), {"places": 1})],
    "reverse_complement": [((4,), {})],
    "strands": [
        ((4,), {"layers": [CONV, NORM, RELU]}),
        ((4,), {"layers": [{**CONV, "stride": 2}, {"type": "recurrent", "hidden_size": 3}]}),
    ],
    "flatten": [((3, 2), {}), ((3, 2, 2), {})],
    "residual": [
        ((4,), {"layers": [CONV, NORM, RELU, {**CONV, "kernel_size": 5}]}),
        ((3,), {"layers": [{**CONV, "stride": 2}, NORM], "activation": None}),
        ((4,), {"layers": [CONV, {"type": "pool"}], "activation": "gelu"}),
        ((4,), {"layers": [{**CONV, "padding": "causal"}], "shortcut": "projection"}),
        ((2, 5), {"layers": [{"type": "conv2d", "channels": 3, "stride": [2, 2]}]}),
        ((4,), {"layers": [{"type": "residual", "layers": [CONV]}, {"type": "recurrent", "hidden_size": 4}]}),
        ((6,), {"layers": [BOTH_WAYS]}),
    ],
    "bottleneck": [((3,), {"channels": 8}), ((8,), {"channels": 8, "stride": 2, "reduction": 2, "padding": "causal"})],
    "parallel": [
        ((3,), {"branches": [[], [CONV], [{**CONV, "kernel_size": 9}, NORM]]}),
        ((3,), {"branches": [[{**CONV, "stride": 2}], [CONV, {"type": "pool"}]]}),
        ((2, 5), {"branches": [[], [{"type": "conv2d", "channels": 3}]]}),
        ((3,), {"branches": [[CONV], [{"type": "recurrent", "hidden_size": 3}]]}),
        ((3,), {"branches": [[CONV], [BOTH_WAYS]]}),
        ((3,), {"branches": [[], [{**CONV, "channels": 3}]], "join": "stack"}),
    ],
    "recurrent": [
        ((3,), {"hidden_size": 4}),
        ((3,), {"hidden_size": 4, "cell": "gru", "num_layers": 2, "dropout": 0.3, "learned_initial_state": True}),
        ((3,), {"hidden_size": 4, "cell": "rnn", "num_layers": 2, "layer_norm": True}),
        (
            (4,),
            {"hidden_size": 4, "num_layers": 3, "residual": True, "forget_bias": 1.0, "learned_initial_state": True},
        ),
        ((3,), {"hidden_size": 4, "num_layers": 2, "bidirectional": True, "learned_initial_state": True}),
        ((3,), {"hidden_size": 4, "cell": "gru", "bidirectional": True}),
        ((3,), {"hidden_size": 4, "cell": "gru", "reset": "before", "bidirectional": True}),
        ((3,), {"hidden_size": 4, "cell": "gru", "reset": "before", "num_layers": 2, "learned_initial_state": True}),
        ((3,), {"hidden_size": 4, "cell": "mingru", "learned_initial_state": True}),
        ((3,), {"hidden_size": 4, "cell": "minlstm", "num_layers": 2, "bidirectional": True}),
        ((3,), {"hidden_size": 4, "cell": "qrnn", "kernel_size": 3, "num_layers": 2, "learned_initial_state": True}),
        ((3,), {"hidden_size": 4, "cell": "qrnn", "kernel_size": 2, "bidirectional": True, "residual": True}),
        ((3,), {"hidden_size": 4, "cell": "lru", "learned_initial_state": True, "num_layers": 2}),
        ((3,), {"hidden_size": 4, "cell": "rg_lru", "bidirectional": True}),
    ],
    "channel_norm": [((3,), {}), ((3, 2), {})],
    "running_norm": [((3,), {"frames": 4}), ((3, 2), {})],
    "spec_augment": [((6,), {}), ((2, 6), {"band_share": 0.5})],
    "jitter": [((6,), {}), ((2, 3), {})],
    "level": [((2,), {}), ((2, 3), {})],
    "compress": [((3,), {}), ((3, 2), {})],
    "instance_norm": [((3,), {}), ((3,), {"divide": False}), ((3, 2), {})],
    "missing": [((3,), {}), ((3,), {"fill": "last", "mask": False}), ((3, 2), {"fill": "last"})],
    "difference": [((3,), {}), ((3, 2), {"keep": False})],
    "embedding": [((), {"vocab_size": 5, "channels": 3})],
    "one_hot": [((), {"vocab_size": 5})],
    "iupac": [((), {"alphabet": "dna"})],
    "log_mel": [
        ((1,), {"sample_rate": 200, "num_mels": 2, "fmin": 20}),
        ((2,), {"sample_rate": 200, "num_mels": 2, "fmin": 20, "preemphasis": 0.9, "power": 1}),
    ],
    "mfcc": [((1,), {"sample_rate": 200, "num_mels": 3, "num_coefficients": 2, "n_fft": 16})],
}

EXPORTED = {
    name: [case for case in examples if case[1].get("cell") not in ("lru", "rg_lru") and "reset" not in case[1]]
    for name, examples in LAYER_EXAMPLES.items()
    if name != "strands"
}
"""Without what reads a sequence from its end, and cells that no exporter knows; they say so."""

SUMMARY_EXAMPLES = {
    "last": [((3,), {}), ((3, 2), {}), ((4,), {"bidirectional": True})],
    "mean": [((3,), {}), ((3, 2), {})],
    "max": [((3,), {}), ((3, 2), {})],
    "above": [((3,), {}), ((3, 2), {"thresholds": 1, "scale": 0.1}), ((3,), {"maximum": False, "softness": 0.2})],
    "attention": [((3,), {}), ((3, 2), {"hidden_size": 5})],
    "strands": [
        ((4,), {"summary": {"type": "mean"}}),
        ((4,), {"layers": [CONV, NORM, RELU], "summary": {"type": "max"}, "join": "max"}),
    ],
    "concat": [
        ((3,), {"summaries": [{"type": "mean"}, {"type": "max"}, {"type": "attention"}]}),
        (
            (3,),
            {
                "summaries": [
                    {"type": "mean", "layers": [CONV, NORM, RELU]},
                    {"type": "last", "layers": [{"type": "recurrent", "hidden_size": 3}]},
                ]
            },
        ),
        ((3,), {"summaries": [{"type": "last", "bidirectional": True, "layers": [BOTH_WAYS]}, {"type": "mean"}]}),
        (
            (3,),
            {
                "summaries": [
                    {"type": "above", "scale": 0.05, "layers": [{"type": "patterns", "dilation": 2}]},
                    {"type": "max"},
                ]
            },
        ),
    ],
}

EXPORTED_SUMMARIES = {name: examples for name, examples in SUMMARY_EXAMPLES.items() if name != "strands"}


def cases(examples):
    return [
        pytest.param(name, features, options, id=f"{name}{i}")
        for name, several in examples.items()
        for i, (features, options) in enumerate(several)
    ]


every_layer = pytest.mark.parametrize(("name", "features", "options"), cases(LAYER_EXAMPLES))
every_summary = pytest.mark.parametrize(("name", "features", "options"), cases(SUMMARY_EXAMPLES))


def sequences(features, lengths=LENGTHS, seed=0):
    """Random frames; symbol ids 0 to 4 where a frame has no axis."""
    generator = torch.Generator().manual_seed(seed)
    if not features:
        return [torch.randint(5, (n,), generator=generator) for n in lengths]
    return [torch.randn(n, *features, generator=generator) for n in lengths]


def junk_padded(rows, junk, times=4):
    value = 999 if rows[0].dtype == torch.int64 else junk
    return pad(rows, length=times * max(map(len, rows)), value=value)


def make_layer(name, features, options, seed=0):
    torch.manual_seed(seed)
    layer = build_layers([{"type": name, **options}], features).layers[0]
    if layer.learns_statistics:
        layer.fit_statistics([pad(sequences(features))])
    return settle(layer, features)


def make_summary(name, features, options, seed=0):
    torch.manual_seed(seed)
    summary = build_summary({"type": name, **options}, features)
    if summary.learns_statistics:
        summary.fit_statistics([pad(sequences(features))])
    return settle(summary, features)


def settle(module, features):
    """Weights and running statistics that are not at their start, so that a forgotten one shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        module(pad(sequences(features)))
    return module.eval()


def chunked(data, sizes):
    at = 0
    for size in sizes:
        yield data[:, at : at + size]
        at += size
    yield data[:, at:]


CHUNKINGS = [[1] * 30, [0, 13], [5, 0, 1, 2], [2, 3, 4, 0, 0, 1]]


def test_every_registered_name_has_an_example():
    assert set(LAYER_EXAMPLES) == set(LAYERS)
    assert set(SUMMARY_EXAMPLES) == set(SUMMARIES)


@every_layer
@pytest.mark.parametrize("junk", [0.0, 7.0, NAN])
def test_padding_never_changes_what_a_layer_gives(name, features, options, junk):
    layer, rows = make_layer(name, features, options), sequences(features)
    alone = [layer(pad([row])).data[0] for row in rows]
    order = [2, 0, 3, 1]
    for y, expected in (
        (layer(pad(rows)), alone),
        (layer(junk_padded(rows, junk)), alone),
        (layer(junk_padded([rows[i] for i in order], junk)), [alone[i] for i in order]),
    ):
        assert y.lengths.tolist() == [len(row) for row in expected]
        assert y.data.shape == (4, max(map(len, expected)), *layer.out_features)
        assert not y.data.masked_select(~y.valid.reshape(*y.valid.shape, *[1] * len(layer.out_features))).any()
        for got, row in zip(y.unpad(), expected, strict=True):
            assert_close(got, row, atol=1e-5, rtol=1e-5)


@every_layer
@pytest.mark.parametrize("junk", [0.0, NAN])
def test_padding_never_changes_a_network_that_answers_for_every_frame(name, features, options, junk):
    torch.manual_seed(0)
    layers = [{"type": name, **options}, {"type": "flatten"}]
    network = Network(NetworkSpec(layers=layers, summary=None), features=features, outputs=3)
    rows = sequences(features)
    network.fit_statistics([pad(rows)])
    network = settle(network, features)
    alone = [network(pad([row])).data[0] for row in rows]
    found = network(junk_padded(rows, junk))
    assert not found.data.masked_select(~found.valid[..., None]).any()
    for got, row in zip(found.unpad(), alone, strict=True):
        assert got.shape == row.shape
        assert_close(got, row, atol=1e-5, rtol=1e-5)


@every_layer
def test_output_lengths_are_known_before(name, features, options):
    layer = make_layer(name, features, options)
    for n in range(4, 20):
        y = layer(pad(sequences(features, [n])))
        lengths = torch.tensor([n])
        assert y.lengths.tolist() == layer.out_lengths(lengths).tolist() == [y.data.shape[1]]
        assert y.lengths.dtype == torch.int64


@every_layer
def test_padding_never_changes_the_training_of_a_layer(name, features, options):
    assert_training_is_exact(lambda: make_layer(name, features, options), features, lambda y: y.data)


@every_summary
def test_padding_never_changes_the_training_of_a_summary(name, features, options):
    assert_training_is_exact(lambda: make_summary(name, features, options), features, lambda y: y)


@every_layer
def test_padding_inside_of_a_chain_never_changes_the_training_of_a_layer(name, features, options):
    """A chain calls compute, on zeros past the ends that no one has trimmed."""
    if name == "dropout" or options.get("dropout"):
        pytest.skip("draws for every column that it is given")

    def values(y):
        return y.trimmed().data

    assert_training_is_exact(lambda: make_layer(name, features, options), features, values, inside=True)


def assert_training_is_exact(make, features, values, inside=False):
    rows, results = sequences(features), []
    for x in (pad(rows), junk_padded(rows, NAN)):
        module = make().train()
        torch.manual_seed(1)
        y = values(module.compute(x.zeroed()) if inside else module(x))
        if any(p.requires_grad for p in module.parameters()):
            y.square().sum().backward()
        results.append((y.detach(), {k: p.grad for k, p in module.named_parameters()}, dict(module.named_buffers())))
    for tight, wide in zip(*results, strict=True):
        assert_close(wide, tight, atol=1e-5, rtol=1e-4)


@every_layer
def test_a_layers_stream_equals_the_whole(name, features, options):
    layer = make_layer(name, features, options)
    if not layer.can_stream:
        with pytest.raises(
            StreamError,
            match=r"cannot stream.*(bidirectional: false|use channel_norm|augment.scale|without it|inside of it)",
        ):
            layer.start(2)
        return
    data = torch.stack(sequences(features, [19] * 3))
    whole = layer(Sequences(data, torch.tensor([19] * 3))).data
    for sizes in CHUNKINGS:
        state, out = layer.start(3), []
        for chunk in chunked(data, sizes):
            frames, state = layer.push(chunk, state)
            out.append(frames)
            assert all(tensor.is_contiguous() and tensor.shape[0] == 3 for tensor in state)
        last = layer.finish(state)
        out += [last] if state else []  # without memory, nothing can be left
        assert_close(torch.cat(out, 1), whole, atol=1e-5, rtol=1e-5)


@every_layer
def test_closing_a_stream_is_its_last_push_and_its_finish(name, features, options):
    layer = make_layer(name, features, options)
    if not layer.can_stream:
        pytest.skip("cannot stream, and says so")
    data = torch.stack(sequences(features, [19] * 3))
    whole = layer(Sequences(data, torch.tensor([19] * 3))).data
    for size in (0, 11, 18):
        out, state = layer.push(data[:, :size], layer.start(3))
        assert_close(torch.cat([out, layer.close(data[:, size:], state)], 1), whole, atol=1e-5, rtol=1e-5)


@every_layer
def test_a_stream_as_short_as_allowed_equals_the_whole(name, features, options):
    layer = make_layer(name, features, options)
    if not layer.can_stream:
        pytest.skip("cannot stream, and says so")
    for n in range(1, 7):
        data = torch.stack(sequences(features, [n] * 2))
        if int(layer.out_lengths(torch.tensor([n]))) == 0:
            continue
        first, state = layer.push(data, layer.start(2))
        out = torch.cat([first, layer.finish(state)], 1) if state else first
        assert_close(out, layer(Sequences(data, torch.tensor([n] * 2))).data, atol=1e-5, rtol=1e-5)


def dependence(layer, features, n):
    """(outputs, inputs) bool: does output frame t change with input frame j? Found by changing each input frame."""
    data = torch.stack(sequences(features, [n]))
    lengths = torch.tensor([n])
    before = layer(Sequences(data, lengths)).data[0]
    depends = torch.zeros(len(before), n, dtype=torch.bool)
    for j in range(n):
        for other in (1, 2) if not features else (1e3, -1e3):
            changed = data.clone()
            changed[:, j] = (changed[:, j] + other) % 5 if not features else changed[:, j] + other
            after = layer(Sequences(changed, lengths)).data[0]
            depends[:, j] |= (after != before).flatten(1).any(1)
    return depends


@every_layer
def test_timing_is_what_outputs_depend_on(name, features, options):
    layer = make_layer(name, features, options)
    stride, look_back, look_ahead = layer.timing
    depends = dependence(layer, features, 30)
    back = ahead = -math.inf
    for t, j in depends.nonzero().tolist():
        back, ahead = max(back, t * stride - j), max(ahead, j - t * stride)
    assert back <= look_back
    assert ahead <= look_ahead
    if math.isinf(look_back) or math.isinf(look_ahead) or name == "position":  # which depends on no frame at all
        return
    window_starts_with_zero = 1 if name in ("log_mel", "mfcc") else 0  # the Hann window does
    assert look_back - back <= window_starts_with_zero
    assert look_ahead == max(ahead, 0)


@every_layer
def test_a_saved_layer_equals_the_loaded_one(name, features, options):
    assert_saved_equals_loaded(make_layer, (name, features, options), lambda y: y.data)


@every_summary
def test_a_saved_summary_equals_the_loaded_one(name, features, options):
    assert_saved_equals_loaded(make_summary, (name, features, options), lambda y: y)


def assert_saved_equals_loaded(make, case, values):
    before, after = make(*case), make(*case, seed=1)
    after.load_state_dict(load(save(before.state_dict())))
    x = pad(sequences(case[1]))
    assert torch.equal(values(before(x)), values(after(x)))


@every_summary
@pytest.mark.parametrize("junk", [0.0, 7.0, NAN])
def test_padding_never_changes_a_summary(name, features, options, junk):
    summary, rows = make_summary(name, features, options), sequences(features)
    alone = torch.cat([summary(pad([row])) for row in rows])
    order = [2, 0, 3, 1]
    assert alone.shape == (4, summary.out_features)
    assert_close(summary(pad(rows)), alone, atol=1e-5, rtol=1e-5)
    assert_close(summary(junk_padded(rows, junk)), alone, atol=1e-5, rtol=1e-5)
    assert_close(summary(junk_padded([rows[i] for i in order], junk)), alone[order], atol=1e-5, rtol=1e-5)


@every_summary
def test_a_summarys_stream_equals_the_whole(name, features, options):
    summary = make_summary(name, features, options)
    if not summary.can_stream:
        with pytest.raises(
            StreamError,
            match=r"cannot stream.*(bidirectional: false|use channel_norm|augment.scale|without it|inside of it)",
        ):
            summary.start(2)
        return
    data = torch.stack(sequences(features, [19] * 3))
    for sizes in CHUNKINGS:
        state, seen = summary.start(3), 0
        assert not summary.has_frames(state)
        with pytest.raises(StreamError, match="no frame has come yet"):
            summary.read(state)
        for chunk in chunked(data, sizes):
            state, seen = summary.push(chunk, state), seen + chunk.shape[1]
            assert all(tensor.is_contiguous() and tensor.shape[0] == 3 for tensor in state)
            if seen:  # finished after any chunk: the summary of what has come so far
                so_far = summary(Sequences(data[:, :seen], torch.tensor([seen] * 3)))
                assert_close(summary.read(summary.finish(state)), so_far, atol=1e-5, rtol=1e-5)
