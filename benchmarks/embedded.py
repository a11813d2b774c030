"""Heartbeats by the exported C file: its bytes, its share of a core at 360 Hz, and the beats that `predict` finds.

    python benchmarks/embedded.py [--run RUN] [--seed 0] [--steps 1500] [--records 22] [--quick]

A model of preset `ecg-small`, trained as in benchmarks/tagging.py on the records of DS1 or given as RUN, is exported to
C and compiled; a driver feeds it the records of DS2 sample by sample, as they would come from two leads. What it gives
goes through the task's follower, and its beats are compared with those that `model.predict` finds in the whole record.
Time is CPU time of one core, all of a record by the seconds that it lasts.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import MISSING, RESULTS, describe_machine, find_data, set_threads, versions, write_results
from tagging import fit, load_ecg

from crnn.data.dataset import Dataset, Example
from crnn.export.c import CExport, find_compiler
from crnn.model import Model
from crnn.tasks.tag_points import TagPoints

RATE = 360.0
FLAGS = {"plain x86-64": ["-O2"], "-march=native": ["-O3", "-march=native"]}
DRIVER = r"""
#include "beats.h"
#include <stdio.h>
#include <time.h>

/* Frames from stdin, outputs to stdout; CPU seconds of all calls to stderr. */
int main(void) {
  static beats_state state;
  static float frames[BEATS_CHANNELS * 65536], out[BEATS_OUTPUTS * 65536];
  double seconds = 0.0;
  size_t n;
  int count;
  beats_init(&state);
  while ((n = fread(frames, BEATS_CHANNELS * sizeof(float), 65536, stdin)) > 0) {
    const clock_t start = clock();
    count = 0;
    for (size_t i = 0; i < n; i++) {
      count += beats_push(&state, frames + i * BEATS_CHANNELS, 1, out + (size_t)count * BEATS_OUTPUTS);
    }
    seconds += (double)(clock() - start) / CLOCKS_PER_SEC;
    fwrite(out, BEATS_OUTPUTS * sizeof(float), (size_t)count, stdout);
  }
  count = beats_finish(&state, out);
  fwrite(out, BEATS_OUTPUTS * sizeof(float), (size_t)count, stdout);
  fprintf(stderr, "%.6f\n", seconds);
  return 0;
}
"""


def build(model: Model, folder: Path) -> tuple[CExport, dict[str, Path]]:
    """The exported file, and a driver by the flags of its build."""
    compiler = find_compiler()
    if compiler is None:
        raise SystemExit("no C compiler here; install one, or set CC")
    details = model.export("c", folder, name="beats").details
    (folder / "driver.c").write_text(DRIVER)
    built = {}
    for name, flags in FLAGS.items():
        built[name] = folder / f"driver_{len(built)}"
        command = [*compiler, "-std=c99", *flags, "driver.c", "beats.c", "-lm", "-o", str(built[name])]
        subprocess.run(command, cwd=folder, check=True)
    return CExport(**details), built


def in_c(driver: Path, x: NDArray[np.float32], outputs: int) -> tuple[NDArray[np.float32], float]:
    """(frames, outputs) for a whole record, and the CPU seconds that it took."""
    done = subprocess.run([str(driver)], input=np.ascontiguousarray(x).tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32).reshape(-1, outputs), float(done.stderr)


def beats(model: Model, outputs: NDArray[np.float32], length: int) -> list[tuple[int, str]]:
    """Place and class of every beat, by the follower of a stream."""
    task = model.task
    assert isinstance(task, TagPoints)
    follower = task.follow(model.network.timing, RATE)
    news = [*follower.push(outputs), *follower.finish(length)]
    return [(each["start"], each["label"]) for each in news]


def measure_record(model: Model, data: Dataset, example: Example, drivers: dict[str, Path]) -> dict[str, Any]:
    """One record: beats here and there, the largest difference of the outputs, shares of a core."""
    x = example.load()
    (predicted,) = model.predict(data)
    whole = [(event["start"], event["label"]) for event in predicted["events"]]
    row: dict[str, Any] = {"record": example.group, "seconds": round(len(x) / RATE, 1), "beats": len(whole)}
    expected = model.outputs(data)[0].numpy()
    for name, driver in drivers.items():
        found, seconds = in_c(driver, x, len(expected[0]))
        streamed = beats(model, found, len(x))
        row[name] = {
            "share_of_a_core": seconds / (len(x) / RATE),
            "difference": float(np.abs(found - expected).max()),
            "other_beats": len(set(streamed) ^ set(whole)),
        }
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, help="a trained run of preset ecg-small, instead of training one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of training; enough for bytes, time and equality are a hundred")
    parser.add_argument("--records", type=int, default=22, help="of DS2")
    parser.add_argument("--quick", action="store_true", help="a hundred steps of training, two records: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "embedded.json")
    options = parser.parse_args(arguments)
    set_threads(1)
    root = find_data()
    if root is None:
        raise SystemExit(MISSING)
    train, test = load_ecg(root)
    steps = 100 if options.quick else options.steps
    if options.run is not None:
        model = Model.load(options.run)
    else:
        model = fit(train, "ecg-small", options.seed, {} if steps is None else {"train.steps": steps})
    count = 2 if options.quick else options.records
    with tempfile.TemporaryDirectory() as place:
        exported, drivers = build(model, Path(place, "beats"))
        rows = [measure_record(model, test.subset([i]), test[i], drivers) for i in range(count)]
    result = {
        "benchmark": "embedded",
        "machine": describe_machine(1),
        "versions": versions(),
        "data": "MIT-BIH, records of DS2, leads MLII and V1",
        "seed": None if options.run is not None else options.seed,
        "steps": steps,
        "flash_bytes": {"weights": exported.weight_bytes, "code": exported.code_bytes},
        "ram_bytes": {"a stream": exported.state_bytes, "stack": exported.scratch_bytes},
        "beats": sum(row["beats"] for row in rows),
        "records": rows,
    }
    for name in FLAGS:
        result[name] = {
            "share_of_a_core": float(np.median([row[name]["share_of_a_core"] for row in rows])),
            "other_beats": sum(row[name]["other_beats"] for row in rows),
            "difference": max(row[name]["difference"] for row in rows),
        }
        print(f"{name}: {result[name]} of {result['beats']} beats", flush=True)
    print(f"flash {result['flash_bytes']}, RAM {result['ram_bytes']}")
    write_results(options.out, result)


if __name__ == "__main__":
    main()
