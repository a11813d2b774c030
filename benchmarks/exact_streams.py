"""Does a stream equal the whole? 200 random networks in random chunks, and one stream of 24 hours of audio.

    python benchmarks/exact_streams.py [--networks 200] [--hours 24] [--quick]

Every random network, with random weights and batch-norm statistics, hears a random sequence in random chunks, some
of them empty, and must end with the outputs of the whole sequence. The long stream (16 kHz, log-mels, convolutions,
LSTM, a last-frame and a mean summary) is compared, hour by hour, with the same network in float64, which is what the
whole would give without rounding.
"""

from __future__ import annotations

import argparse
import itertools
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import RESULTS, describe_machine, set_threads, versions, write_results

from crnn.models.network import Network
from crnn.models.spec import NetworkSpec
from crnn.program.lower import lower
from crnn.sequences import pad
from crnn.streaming.engine import NativeEngine
from crnn.tasks.classify import Classify, ClassifyConfig

CHANNELS, CLASSES, RATE = 4, 5, 16000
SECONDS_AT_ONCE = 60

Spec = dict[str, Any]


def random_layer(random: np.random.Generator) -> Spec:
    """One layer that streams, with random options, that takes and gives CHANNELS channels."""

    def below(most: int) -> int:
        return int(random.integers(1, most + 1))

    def one_of(*choices: Any) -> Any:
        return choices[int(random.integers(len(choices)))]

    conv = {"type": "conv", "channels": CHANNELS, "kernel_size": below(5), "stride": below(2), "dilation": below(3)}
    conv |= {"padding": one_of("centred", "causal"), "groups": one_of(1, 2, 4)}
    cell = {"type": "recurrent", "cell": one_of("rnn", "lstm", "gru"), "hidden_size": CHANNELS, "num_layers": below(2)}
    cell |= {"residual": one_of(True, False), "layer_norm": one_of(True, False)}
    pool = {"type": "pool", "kind": one_of("max", "mean"), "size": below(3), "tail": one_of("floor", "ceil")}
    body = [{**conv, "stride": 1}, {"type": "norm"}, {"type": "activation", "kind": one_of("relu", "gelu", "silu")}]
    slower = [{"type": "conv", "channels": CHANNELS // 2, "kernel_size": below(9)}]
    faster = [{"type": "conv", "channels": CHANNELS // 2, "kernel_size": 3, "padding": "causal"}]
    return one_of(  # type: ignore[no-any-return]
        conv,
        cell,
        pool,
        {"type": "norm", "kind": one_of("batch", "layer", "rms")},
        {"type": "difference", "keep": False},
        {"type": "residual", "layers": body},
        {"type": "bottleneck", "channels": CHANNELS, "stride": below(2)},
        {"type": "parallel", "branches": [slower, faster]},
        {"type": "missing", "fill": one_of("zero", "last"), "mask": False},
    )


def random_spec(random: np.random.Generator) -> NetworkSpec:
    """One to five layers, and a summary or two of them, with layers of their own."""
    names = ("last", "mean", "max", "attention")
    parts: list[Spec] = []
    for _ in range(int(random.integers(1, 3))):
        layers = [random_layer(random) for _ in range(int(random.integers(0, 3)))]
        parts.append({"type": names[int(random.integers(len(names)))], "layers": layers})
    layers = [random_layer(random) for _ in range(int(random.integers(1, 6)))]
    return NetworkSpec(layers=layers, summary={"type": "concat", "summaries": parts})


def make_network(spec: NetworkSpec, channels: int, seed: int) -> Network:
    """With batch-norm statistics as after training, not 0 and 1."""
    torch.manual_seed(seed)
    network = Network(spec, features=(channels,), outputs=CLASSES)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return network.eval()


def make_task() -> Classify:
    return Classify.from_targets([f"c{i % CLASSES}" for i in range(2 * CLASSES)], ClassifyConfig())


def random_chunks(random: np.random.Generator, length: int) -> list[slice]:
    """Slices that cover `length` frames, some of them empty."""
    cuts = np.sort(random.integers(0, length + 1, int(random.integers(0, 12))))
    edges = [0, *cuts.tolist(), length]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


@torch.no_grad()
def compare_networks(count: int) -> dict[str, Any]:
    """Largest differences between streams and wholes, of both engines, as shares of the largest output (or of 1)."""
    largest = {"native": 0.0, "torch": 0.0}
    outputs_missing, done, seed = 0, 0, 0
    while done < count:
        random = np.random.default_rng(seed)
        network = make_network(random_spec(random), CHANNELS, seed)
        seed += 1
        length = int(random.integers(network.min_length, network.min_length + 120))
        data = random.standard_normal((length, CHANNELS)).astype(np.float32)
        whole = network(pad([torch.from_numpy(data)]))[0].numpy()
        chunks = random_chunks(random, length)
        found = {"native": native_stream(network, data, chunks), "torch": torch_stream(network, data, chunks)}
        for name, outputs in found.items():
            if outputs is None:
                outputs_missing += 1
                continue
            difference = float(np.abs(outputs - whole).max() / max(np.abs(whole).max(), 1.0))
            largest[name] = max(largest[name], difference)
        done += 1
    return {"networks": done, "largest_difference": largest, "without_outputs": outputs_missing}


def native_stream(network: Network, data: NDArray[np.float32], chunks: list[slice]) -> NDArray[np.float32] | None:
    engine = NativeEngine(lower(network, make_task()))
    state = engine.start()
    for chunk in chunks:
        engine.push(state, data[chunk])
    return engine.finish(state)


def torch_stream(network: Network, data: NDArray[np.float32], chunks: list[slice]) -> NDArray[np.float32] | None:
    state = network.start(1)
    for chunk in chunks:
        _, state = network.push(torch.from_numpy(data[None, chunk]), state)
    outputs = network.finish(state)
    return None if outputs is None else outputs[0].numpy()


def audio_network() -> Network:
    """Log-mels, convolutions, an LSTM; its last frame, and a mean that has to hold for 8.6 million frames."""
    layers: list[Spec] = [
        {"type": "log_mel", "sample_rate": RATE, "num_mels": 24, "n_fft": 512},
        {"type": "conv", "channels": 16, "kernel_size": 5},
        {"type": "activation"},
        {"type": "pool", "kind": "max", "size": 2},
        {"type": "recurrent", "hidden_size": 16},
    ]
    parts = [{"type": "last"}, {"type": "mean"}]
    spec = NetworkSpec(layers=layers, summary={"type": "concat", "summaries": parts})
    return make_network(spec, 1, 0)


def minute_of_sound(number: int) -> NDArray[np.float32]:
    """Noise whose loudness wanders, with a tone in it; every minute another."""
    random = np.random.default_rng(number)
    count = SECONDS_AT_ONCE * RATE
    loudness = 0.02 + 0.2 * random.random((SECONDS_AT_ONCE, 1)).repeat(RATE, 1).reshape(-1)
    tone = 0.1 * np.sin(2 * np.pi * random.uniform(100, 4000) / RATE * np.arange(count))
    return (loudness * random.standard_normal(count, np.float32) + tone).astype(np.float32)[:, None]


@torch.no_grad()
def long_stream(hours: float) -> dict[str, Any]:
    """One stream, hour by hour: difference from float64, and the memory of this process."""
    single, double = audio_network(), audio_network().double()
    engine = NativeEngine(lower(single, make_task()))
    state, exact = engine.start(), double.start(1)
    differences, memory = [], []
    minutes = round(hours * 60)
    for minute in range(minutes):
        sound = minute_of_sound(minute)
        found = engine.push(state, sound)
        wanted, exact = double.push(torch.from_numpy(sound[None]).double(), exact)
        if minute % 60 == 59 or minute == minutes - 1:
            assert found is not None, "a minute gives outputs"
            assert wanted is not None, "a minute gives outputs"
            differences.append(float(np.abs(found - wanted[0].numpy()).max()))
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    return {
        "hours": hours,
        "frames": minutes * SECONDS_AT_ONCE * RATE,
        "state_bytes": engine.state_bytes,
        "difference_of_hours": differences,
        "peak_memory_mb_of_hours": memory,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--quick", action="store_true", help="5 networks and a minute: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "exact_streams.json")
    options = parser.parse_args(arguments)
    set_threads(1)
    networks, hours = (5, 1 / 60) if options.quick else (options.networks, options.hours)
    results = {"random_networks": compare_networks(networks)}
    print(results["random_networks"], flush=True)
    results["long_stream"] = long_stream(hours)
    print(results["long_stream"])
    facts = {"benchmark": "exact_streams", "machine": describe_machine(1), "versions": versions()}
    write_results(options.out, {**facts, **results})


if __name__ == "__main__":
    main()
