"""Recordings of hours: trained on windows, predicted as a stream, in memory that does not grow with them."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import crnn.training.outputs as outputs
from crnn.data.batch import Batches
from crnn.data.dataset import Dataset, Example, content_hash
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain


def made(length, seed):
    """An example that is only ever read in parts, once it is long."""
    data = np.random.default_rng(seed).normal(size=(length, 2)).astype(np.float32)
    return Example(f"e{seed}", f"e{seed}", length, lambda: data, part=lambda start, end: data[start:end])


def test_a_streamed_recording_gives_the_outputs_of_the_whole(monkeypatch):
    layers = [
        {"type": "conv", "channels": 4, "kernel_size": 7, "stride": 3},
        {"type": "recurrent", "cell": "gru", "hidden_size": 5},
    ]
    network = Network(spec_from_plain({"layers": layers, "summary": None}), features=(2,), outputs=3).eval()
    data = Dataset((made(40, 0), made(301, 1), made(25, 2), made(200, 3)), "series", ("a", "b"), 10.0, "made")
    whole = outputs.compute_outputs(network, Batches(data, 2, shuffle=False, seed=0))
    monkeypatch.setattr(outputs, "LONG_VALUES", 100)
    monkeypatch.setattr(outputs, "STREAMED_VALUES", 34)
    streamed = outputs.compute_outputs(network, Batches(data, 2, shuffle=False, seed=0))
    assert streamed.lengths.tolist() == whole.lengths.tolist()
    torch.testing.assert_close(streamed.data, whole.data, rtol=0, atol=1e-6)


def test_content_of_parts_is_content_of_the_whole(monkeypatch):
    import crnn.data.dataset as dataset

    example = made(100, 0)
    before = content_hash(example)
    monkeypatch.setattr(dataset, "PART", 7)
    assert content_hash(example) == before


DAY = """
import resource, sys
import numpy as np
import crnn
from crnn.data.synthetic import heartbeats
from crnn.data.readers.wfdb import write_annotations
from pathlib import Path

folder = Path(sys.argv[1])
made = heartbeats(3600, seed=1)
hours = 24
with open(folder / "day.dat", "wb") as file:  # format 16 by hand: writing by the package needs the whole in memory
    for _ in range(hours):
        file.write((made.signal[:, 0] * 1000).round().astype("<i2").tobytes())
length = hours * len(made.signal)
(folder / "day.hea").write_text(f"day 1 360 {length}\\nday.dat 16 1000/mV 16 0 0 0 0 MLII\\n")
from crnn.data.annotation import Event, Events
beats = [Event(e.start + h * len(made.signal), e.end + h * len(made.signal), e.label)
         for h in range(hours) for e in made.beats.items]
write_annotations(folder / "day.atr", Events(tuple(beats)), 360.0)
config = {"train": {"epochs": 1, "window": 72000, "batch_size": 8}, "split": {"test": 0, "validation": 0}}
run = crnn.train(folder / "day.hea", task="tag", preset="ecg-small", out=folder / "run", config=config)
found = run.predict(folder / "day.hea")[0]["events"]
print(len(beats), len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_day_in_less_than_two_gigabytes(tmp_path):
    pytest.importorskip("wfdb")
    done = subprocess.run([sys.executable, "-c", DAY, str(tmp_path)], capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stderr
    beats, found, megabytes = map(int, done.stdout.split())
    assert megabytes < 2048
    assert abs(found - beats) < 0.05 * beats
