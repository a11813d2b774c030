"""A recording of 24 hours: trained on and predicted in less than two gigabytes. Minutes long, so a file of its own."""

import subprocess
import sys

import pytest

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
