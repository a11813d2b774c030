"""What a model costs: counted by hand for a small network, and said where it cannot be a C file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crnn.data.dataset import Dataset, array_example
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.program.lower import lower
from crnn.report import cost
from crnn.report.cost import count_embedded, describe_cost, embedded_of, measure_cost
from crnn.tasks.classify import Classify, ClassifyConfig

TASK = Classify.from_targets(["a", "b", "c"], ClassifyConfig())
CONV, LSTM = {"type": "conv", "channels": 8, "kernel_size": 3}, {"type": "recurrent", "hidden_size": 16}


def make(*layers):
    torch.manual_seed(0)
    spec = spec_from_plain({"layers": list(layers), "summary": {"type": "last"}})
    return Network(spec, features=(4,), outputs=3).eval()


def test_cost_of_a_small_network_is_as_counted_by_hand():
    network = make(CONV, LSTM)
    found = describe_cost(network, lower(network, TASK, sample_rate=50.0), 1234)
    per_frame = 8 * 4 * 3 + 4 * 16 * (8 + 16)
    assert found["multiply-adds per second of signal"] == 50 * per_frame
    assert found["parameters"] == 8 * 4 * 3 + 8 + 4 * 16 * (8 + 16 + 2) + 16 * 3 + 3
    assert found["bytes of model.safetensors"] == 1234
    assert (found["streams"], found["delay in frames"], found["delay in seconds"]) == ("yes", 1, 0.02)
    assert found["C file, flash in bytes beside the code"] >= 4 * (found["parameters"] - 4 * 16)  # biases are added up
    window, state = 3 * 4, 2 * 16
    assert found["C file, RAM of a stream in bytes"] >= 4 * (window + state)
    assert found["C file, RAM of a stream in bytes"] < 4000


def test_8_bits_take_a_quarter_of_the_flash_of_the_weights():
    network = make({**LSTM, "hidden_size": 128})
    program = lower(network, TASK)
    weighted = [i for i, node in enumerate(program.nodes) if hasattr(node.op, "peak")]
    small = embedded_of(lower(network, TASK, peaks=dict.fromkeys(weighted, (1.0,))))
    assert small.flash_bytes < 0.35 * embedded_of(program).flash_bytes


def test_a_layer_that_is_in_the_way_of_a_stream_is_named():
    network = make(CONV, {**LSTM, "bidirectional": True})
    assert count_embedded(network, TASK, None).startswith("layers[1] (bidirectional recurrence) cannot stream")
    found = describe_cost(network, lower(network, TASK), 10)
    assert found["streams"].startswith("no: layers[1] (bidirectional recurrence) cannot stream")
    assert "delay in frames" not in found
    assert count_embedded(make(CONV), TASK, None).delay_frames == pytest.approx(1)


def test_hours_are_timed_by_their_beginning(monkeypatch):
    """A day in one pass would take more memory than all the rest; its seconds are those of the beginning, scaled."""
    frames: list[int] = []
    network = make(CONV)
    network.register_forward_pre_hook(lambda module, args: frames.append(args[0].data.shape[1]))
    monkeypatch.setattr(cost, "one_pass_values", lambda data: 400)
    monkeypatch.setattr(cost, "_cpu_seconds", lambda run, budget: run() is not None and 0.5)
    day = array_example("day", "day", np.zeros((1000, 4), np.float32), target="a")
    data = Dataset((day,), "series", ("w", "x", "y", "z"), None, "made")
    found = measure_cost(network, data)
    assert frames == [100, 100]
    assert (found.single_seconds, found.batched_seconds, found.batch_size) == (5.0, 5.0, 1)
    assert found.macs_per_example == network.macs(1000)
