"""Random networks of layers inside layers: exact on padding, and the same as a stream, whatever is put together."""

import random

import pytest
import torch
from torch.testing import assert_close

from crnn.errors import ConfigError
from crnn.nn.blocks import build_layers
from crnn.sequences import pad

CHANNELS = 4


def random_layer(choose, depth):
    """A spec that keeps the number of channels, or doubles it; nested at most twice."""
    kinds = ["conv", "pool", "norm", "recurrent"] + ["residual", "parallel", "bottleneck"] * (depth < 2)
    kind = choose.choice(kinds)
    if kind == "conv":
        return {
            "type": "conv",
            "channels": CHANNELS,
            "kernel_size": choose.randint(1, 6),
            "stride": choose.choice([1, 1, 2, 3]),
            "dilation": choose.choice([1, 2]),
            "padding": choose.choice(["centred", "causal"]),
        }
    if kind == "pool":
        size, stride = choose.randint(1, 4), choose.choice([None, 1, 2, 3])
        return {"type": "pool", "size": size, "stride": stride, "kind": choose.choice(["max", "mean"]), "tail": "ceil"}
    if kind == "norm":
        return {"type": "norm", "kind": choose.choice(["batch", "layer", "rms"])}
    if kind == "recurrent":
        cell, both = choose.choice(["rnn", "lstm", "gru"]), choose.random() < 0.2
        return {"type": "recurrent", "hidden_size": CHANNELS, "cell": cell, "bidirectional": both}
    if kind == "residual":
        return {"type": "residual", "layers": random_layers(choose, depth + 1)}
    if kind == "parallel":
        return {"type": "parallel", "branches": [random_layers(choose, depth + 1) for _ in range(2)]}
    return {"type": "bottleneck", "channels": CHANNELS, "stride": choose.choice([1, 2]), "reduction": 2}


def random_layers(choose, depth=0):
    return [random_layer(choose, depth) for _ in range(choose.randint(0, 3))]


def random_network(seed):
    """The first one from this seed whose branches fit together."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    while True:
        try:
            network = build_layers(random_layers(choose), (CHANNELS,))
        except ConfigError:
            continue  # branches of unequal stride
        with torch.no_grad():
            network(pad([torch.randn(30, CHANNELS), torch.randn(60, CHANNELS)]))  # running statistics off their start
        return network.eval(), choose


@pytest.mark.parametrize("seed", range(40))
@torch.no_grad()
def test_a_random_network_is_exact_alone_padded_and_as_a_stream(seed):
    network, choose = random_network(seed)
    rows = [torch.randn(choose.randint(1, 40), CHANNELS) for _ in range(3)]
    y = network(pad(rows, length=60, value=float("nan")))
    for row, got in zip(rows, y.unpad(), strict=True):
        alone = network(pad([row])).data[0]
        assert_close(got, alone, atol=1e-5, rtol=1e-4)
        if network.can_stream:
            assert_close(stream(network, row, choose), alone, atol=1e-5, rtol=1e-4)


def stream(network, row, choose):
    state, out, at = network.start(1), [], 0
    while at < len(row):
        size = choose.randint(0, 5)
        frames, state = network.push(row[None, at : at + size], state)
        out.append(frames)
        at += size
    out += [network.finish(state)] if state else []
    return torch.cat(out, 1)[0]
