"""The tables of docs/benchmarks.md, made from the result files.

python benchmarks/tables.py           # write them
python benchmarks/tables.py --check   # exit 1 when the page is not what the result files say
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import HERE, RESULTS, read_results
from sets import TASKS

PAGE = HERE.parent / "docs" / "benchmarks.md"
Results = dict[str, Any]


def exact_lengths(results: Results) -> list[str]:
    rows = [
        [
            row["network"],
            row["way"],
            _spread(row["accuracy"], row["accuracy_spread"]),
            f"{row['labels_changed']:.1%}",
            f"{row['largest_difference']:.1e}" if row["largest_difference"] else "0",
        ]
        for row in results["rows"]
    ]
    head = ["network", "test series are", "accuracy", "labels changed", "largest difference of a logit"]
    note = f"{results['data']}; {len(results['seeds'])} seeds; {_where(results)}."
    return [*markdown(head, rows), "", note]


def engine_overhead(results: Results) -> list[str]:
    rows = [
        [
            row["network"],
            row["way"],
            f"{row['ratio']:.2f}",
            f"{row['ratio_of_quietest']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"{row['ratio_to_our_layers']:.2f}",
            f"<= {row['goal']:.2f}" if row["goal"] else "",
        ]
        for row in results["rows"]
    ]
    head = [
        "network",
        "way",
        "CPU time",
        "quietest round of each",
        "middle half of rounds",
        "against our layers in a bare loop",
        "goal",
    ]
    note = f"{results['settings']['rounds']} interleaved rounds, batch 32; {_where(results)}."
    return [*markdown(head, rows), "", note]


def classification(results: Results) -> list[str]:
    order = {task.name: i for i, task in enumerate(TASKS)}
    rows = [_set_row(name, found) for name, found in results["sets"].items() if found.get("runs")]
    rows.sort(key=lambda row: order.get(row[0], len(order)))
    head = ["set", "split", "runs", "score", "goal", "best floor", "published", "parameters", "CPU s a training"]
    return [*markdown(head, rows), "", f"Preset `{results['preset']}`; {_where(results)}."]


def early_decisions(results: Results) -> list[str]:
    """One column a set: every second part of the recordings, then the thresholds."""
    found = list(results["sets"].values())
    heard = []
    for i, share in list(enumerate(found[0]["shares"]))[1::2]:
        heard.append([f"{share:.0%} of it", *(f"{one['accuracy'][i]:.3f}" for one in found)])
    heard.append(["all of it, and that it has ended", *(f"{one['final']:.3f}" for one in found)])
    sure = []
    for i, row in enumerate(found[0]["thresholds"]):
        at = [one["thresholds"][i] for one in found]
        sure.append([f"{row['threshold']:g}", *(f"{one['accuracy']:.3f} at {one['mean_share']:.0%}" for one in at)])
    notes = [
        f"{name}: {one['data']}, {one['counts']['train']} / {one['counts']['test']} recordings of "
        f"{one['median_seconds']:.3g} s (median), 1 seed; the answer lags behind by {one['delay_seconds']:.2f} s, "
        "which counts as not heard."
        for name, one in results["sets"].items()
    ]
    return [
        *markdown(["heard", *(f"accuracy, {name}" for name in results["sets"])], heard),
        "",
        *markdown(
            ["decides at a probability of", *(f"accuracy and mean share, {name}" for name in results["sets"])], sure
        ),
        "",
        f"Preset `live`. {' '.join(notes)} {_where({**results, 'sets': {}})}.",
    ]


def streaming(results: Results) -> list[str]:
    rows = [
        [
            row["what"],
            row["against"],
            f"{row['ratio']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            row["goal"],
        ]
        for row in results["rows"]
    ]
    note = (
        f"Code and read-only data of the C file besides the weights, at -O2: {results['code_bytes']} bytes (goal: at "
        f"most 20,000). Largest error of an output of the 8-bit engine on 20 random sequences of 200 frames: "
        f"{results['int8_output_error']:.1e} (goal: at most 2e-3). Median CPU time over {results['rounds']} rounds; "
        f"{_where(results)}, ONNX Runtime {results['versions']['onnxruntime']}."
    )
    return [*markdown(["ours", "against", "CPU time", "middle half of rounds", "goal"], rows), "", note]


def embedded(results: Results) -> list[str]:
    rows = []
    for build in ("plain x86-64", "-march=native"):
        found = results[build]
        rows.append(
            [build, f"{found['share_of_a_core']:.4%}", "< 0.1%", f"{found['other_beats']} of {results['beats']:,}"]
        )
    flash, ram = results["flash_bytes"], results["ram_bytes"]
    note = (
        f"{results['data']}: {len(results['records'])} records; a model of seed {results['seed']} after "
        f"{results['steps'] or 'all'} steps of training. Flash {flash['weights']:,} bytes of weights and "
        f"{flash['code']:,} of code (goal: at most 256 kB), RAM {ram['a stream']:,} bytes a stream and "
        f"{ram['stack']:,} of stack. {_where(results)}."
    )
    return [*markdown(["C file", "of a core at 360 Hz", "goal", "beats other than predict's"], rows), "", note]


def training_kernels(results: Results) -> list[str]:
    rows = [
        [
            f"{'bidirectional ' * row['bidirectional']}{CELL_NAMES[row['cell']]}",
            f"{row['frames']:,}" if not row["ragged"] else f"{row['frames'] // 10:,} to {row['frames']:,}",
            str(row["batch"]),
            str(row["hidden"]),
            row["against"],
            f"{row['ratio']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            f"<= {row['goal']:.2f}" if row["goal"] else "",
        ]
        for row in results["rows"]
    ]
    head = ["ours", "frames", "batch", "units", "against", "CPU time", "middle half of rounds", "goal"]
    worst, settings = max(row["difference"] or 0 for row in results["rows"]), results["settings"]
    note = (
        f"Median CPU time of {settings['rounds']} rounds, {settings['channels']} channels, "
        f"{settings['instruction_set']}; largest difference of outputs and gradients from the same layer of PyTorch's: "
        f"{worst:.0e} of the largest value; {_where(results)}."
    )
    return [*markdown(head, rows), "", note]


CELL_NAMES = {
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn": "plain RNN",
    "mingru": "minGRU",
    "minlstm": "minLSTM",
    "qrnn": "QRNN",
    "lru": "LRU",
    "rg_lru": "RG-LRU",
}


def cells(results: Results) -> list[str]:
    """A row a cell, or a cell with a forget bias; scores with CPU seconds of training."""
    tasks = results["tasks"]
    rows = []
    for key in dict.fromkeys(key for task in tasks.values() for key in task):
        cell, _, bias = key.partition(", ")
        found = [tasks.get(name, {}).get(key) for name in CELL_TASKS]
        row = [
            f"{each['score']:{CELL_TASKS[name]}} ({each['cpu_seconds']:.0f} s)" if each else ""
            for name, each in zip(CELL_TASKS, found, strict=True)
        ]
        frame = tasks.get("stream", {}).get(key)
        row.append(f"{frame['microseconds']:.1f}{' (torch)' * (frame['by'] == 'torch')}" if frame else "")
        rows.append([CELL_NAMES[cell] + (f", {bias}" if bias else ""), *row])
    order = list(CELL_NAMES.values())
    rows.sort(key=lambda row: (order.index(row[0].partition(", ")[0]), row[0]))
    steps = {name: next(iter(tasks[name].values()))["steps"] for name in ("permuted", *ADDING) if name in tasks}
    head = ["cell", *CELL_HEADS, "a frame of a stream, microseconds"]
    note = (
        "Accuracy on JapaneseVowels and MNIST-1D with the `default` preset, in which only the cell is swapped, and on "
        "permuted MNIST-1D; mean squared error of the adding problem, where the mean has 0.167. In brackets: CPU time "
        f"of training. Memory tasks: {', '.join(f'{name} {count:,} steps' for name, count in steps.items())} of 32 "
        f"sequences, two layers of 64 units; one seed; {_where(results)}."
    )
    return [*markdown(head, rows), "", note]


ADDING = ("adding_1000", "adding_5000")
CELL_TASKS = {"JapaneseVowels": ".3f", "MNIST-1D": ".3f", "permuted": ".3f", **dict.fromkeys(ADDING, ".4f")}
"""Task -> how its score is written."""
CELL_HEADS = ("JapaneseVowels", "MNIST-1D", "MNIST-1D permuted", "adding, 1,000 frames", "adding, 5,000 frames")


def exact_streams(results: Results) -> list[str]:
    networks, day = results["random_networks"], results["long_stream"]
    rows = [
        [f"{networks['networks']} random networks, {engine} engine", f"{difference:.1e}"]
        for engine, difference in networks["largest_difference"].items()
    ]
    hours, memory = day["difference_of_hours"], day["peak_memory_mb_of_hours"]
    rows.append(["one stream of audio, after an hour", f"{hours[0]:.1e}"])
    rows.append([f"the same after {day['hours']:g} hours ({day['frames']:,} samples)", f"{hours[-1]:.1e}"])
    note = (
        f"Goal: at most 1e-5, as a share of the largest output (of 1 if that is more), and as many outputs: "
        f"{networks['without_outputs']} streams ended without. The long stream's state has {day['state_bytes']:,} "
        f"bytes; peak memory of the process after its first and its last hour: {memory[0]} and {memory[-1]} MB. "
        f"{_where(results)}."
    )
    return [*markdown(["stream against the whole", "largest difference"], rows), "", note]


def ragged_batches(results: Results) -> list[str]:
    """Padding; then what exact lengths cost; then whole trainings."""
    goals = results["goals"]
    waste = [
        [str(row["batch"]), *(f"{row[way]:.1%}" for way in ("at random", "by number", "by frames"))]
        for row in results["padding"]
    ]
    exact = [
        [row["data"], f"{row['padded_share']:.0%}", f"{row['ratio']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"]
        for row in results["masking"]
    ]
    whole = []
    for row in results.get("training", []):
        ratios = [f"{row[way]['seconds'] / row['plain_seconds']:.2f}" for way in ("by_number", "by_frames")]
        whole.append([str(row["seed"]), f"{row['loss']:.3f}", f"{row['plain_seconds']:.0f}", *ratios])
    return [
        *markdown(["sequences a batch, about", "padding at random", "by number", "by frames"], waste),
        "",
        f"Lognormal lengths, sigma {results['settings']['sigma']}, pools of {results['settings']['pool']} batches; "
        f"goal: at most {goals['padding']:.0%}.",
        "",
        *markdown(
            ["default network on", "padded", "CPU time of exact, of computing all", "middle half of rounds"], exact
        ),
        "",
        f"A training step on the batch in the middle by padding; goal: at most {goals['masking']:.2f}.",
        "",
        *markdown(["seed", "loss to reach", "plain script, CPU s", "ours by number", "ours by frames"], whole),
        "",
        f"CPU time to the lowest held-out loss of the plain script, as a share of its own; goal: at most "
        f"{goals['training']:.2f}. {results['data']}; {_where(results)}.",
    ]


def scaling(results: Results) -> list[str]:
    row = [f"{results['throughput']:.2f}", f"{results['largest_difference']:.1e}", f"{results['load']:.1f}"]
    head = ["sequences a second of two processes, of one", "largest difference of a loss", "load of the machine before"]
    note = f"Goal: at least {results['goal']:.1f}, and losses equal to 1e-5. {_where(results)}."
    return [*markdown(head, [row]), "", note]


def large_data(results: Results) -> list[str]:
    rows = [
        [
            f"{row['gigabytes']:g} GB",
            f"{row['files']:,}",
            f"{row['gigabytes_on_disk']:g} GB",
            f"{row['peak_gigabytes']:.2f} GB",
            f"{row['seconds']}",
        ]
        for row in results["rows"]
    ]
    head = ["audio", "files", "on the disk", "peak memory of the process", "seconds"]
    return [*markdown(head, rows), "", f"One epoch; goal: flat, below {results['goal']:g} GB. {_where(results)}."]


def rival_trainers(results: Results) -> list[str]:
    rows = [[f"{row['against']} {row['versions'][row['against']]}", f"{row['ratio']:.2f}"] for row in results["rows"]]
    settings = results["settings"]
    note = (
        f"{settings['series']} series of 40 to 400 frames, {settings['epochs']} epochs, batches of about "
        f"{settings['batch_size']}, {settings['hidden_size']} units; median of {settings['rounds']} rounds; "
        f"torch {results['rows'][0]['versions']['torch']} in their environment. {_where(results)}."
    )
    return [*markdown(["crnn against", "CPU time"], rows), "", note]


def _set_row(name: str, found: Results) -> list[str]:
    runs = list(found["runs"].values())
    scores = [run["score"] for run in runs]
    spread = statistics.stdev(scores) if len(scores) > 1 else None
    is_accuracy = found["metric"] == "accuracy"
    score = _spread(statistics.fmean(scores), spread) + ("" if is_accuracy else f" {found['metric'].upper()}")
    goal = "better than the floor" if not is_accuracy else "measured"
    if found["goal"] is not None:
        goal = f"{found['goal']:.3f}"
    sizes = sorted({run["parameters"] for run in runs})
    parameters = f"{sizes[-1] / 1000:.0f} k"
    seconds = f"{max(run['cpu_seconds'] for run in runs):.0f}"
    counts = _count(runs, found["folds"])
    return [name, found["split"], counts, score, goal, _floor(found), found["published"], parameters, seconds]


def _count(runs: list[Results], folds: int) -> str:
    """How many trainings, and of what; incomplete sets say so."""
    done, seeds = {run["fold"] for run in runs}, {run["seed"] for run in runs}
    words = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    if folds == 1:
        return words
    return f"{words}, {len(done)} folds" if len(done) == folds else f"{words}, {len(done)} of {folds} folds"


def transcribe(results: Results) -> list[str]:
    rows, notes = [], []
    for name, one in results["sets"].items():
        data, preset = name.split("/")
        runs = list(one["runs"].values())
        metric = one["metric"]
        scores = [run["scores"][metric] for run in runs]
        floor = statistics.fmean(run["floor"][metric] for run in runs)
        streamed = [run["streamed"] for run in runs if run["streamed"]]
        same = (
            f"{sum(s['alike'] for s in streamed)} of {sum(s['texts'] for s in streamed)}" if streamed else "no stream"
        )
        spread = f" ± {statistics.stdev(scores):.2%}" if len(scores) > 1 else ""
        rows.append(
            [
                data,
                preset,
                metric.upper(),
                f"{statistics.fmean(scores):.2%}{spread}",
                str(len(runs)),
                "" if one["goal"] is None else f"<= {one['goal']:.0%}",
                f"{floor:.1%}",
                same,
                f"{runs[0]['parameters']:,}",
                f"{statistics.fmean(run['cpu_seconds'] for run in runs):.0f}",
            ]
        )
        counts = " / ".join(str(n) for n in runs[0]["counts"].values())
        notes.append(f"{data}: {runs[0]['data']}, {counts} recordings")
    head = [
        *("data", "preset", "measure", "error rate", "runs", "goal", "floor"),
        *("streamed as whole", "parameters", "CPU seconds"),
    ]
    return [*markdown(head, rows), "", f"{'; '.join(dict.fromkeys(notes))}. {_where(results)}."]


def _floor(found: Results) -> str:
    """The best trivial method over the folds where it was measured, with ours on the same folds if they are not all."""
    measured = list(found.get("floors", {}).values())
    if not measured:
        return "not measured"
    methods = [{method["name"]: method["score"] for method in one["methods"]} for one in measured]
    means = {name: statistics.fmean(one[name] for one in methods) for name in methods[0]}
    better = max if found["metric"] == "accuracy" else min
    best = better(means, key=lambda name: means[name])
    text = f"{means[best]:.3f} ({best})"
    folds = {one["fold"] for one in measured}
    if len(folds) == found["folds"]:
        return text
    ours = statistics.fmean(run["score"] for run in found["runs"].values() if run["fold"] in folds)
    return f"{text} on {len(folds)} of {found['folds']} folds, ours there {ours:.3f}"


def tagging(results: Results) -> list[str]:
    """Heartbeats of unseen patients, and sounds in scenes."""
    lines: list[str] = []
    if "ecg" in results:
        lines += _heartbeats(results["ecg"])
    if "sounds" in results:
        runs = results["sounds"]["seeds"]
        rows = [
            [
                name,
                *(
                    _over_seeds([run[of][key] for run in runs])
                    for key in ("event_f1", "event_f1_overall", "segment_f1")
                ),
            ]
            for name, of in (("preset `sed`", "scores"), ("logistic regression of single log-mel frames", "floor"))
        ]
        scenes = runs[0]["scenes"]
        note = (
            f"Scenes of 30 s made of ESC-10: {scenes['train']} of folds 1-3 to train, {scenes['validation']} of fold 4 "
            f"for thresholds, {scenes['test']} of fold 5 to test; {len(runs)} seed{'s' if len(runs) > 1 else ''}; "
            f"{runs[0]['train_cpu_seconds']} s of CPU to train; {_where(results['sounds'])}."
        )
        lines += ["", *markdown(["sounds", "event F1, mean of classes", "overall", "F1 of seconds"], rows), "", note]
    return lines or ["Not measured yet: `python benchmarks/tagging.py`."]


def _heartbeats(results: Results) -> list[str]:
    runs, classes = results["seeds"], ("N", "S", "V", "F")
    keys = ("accuracy", "mean_sensitivity", "jk_index")
    rows = [["preset `beats`", *(_over_seeds([run["given"][key] for run in runs]) for key in keys)]]
    rows[0] += [_over_seeds([run["given"]["sensitivity"][name] for run in runs]) for name in classes]
    rows.append(["the same, F weighed as V in the decision"])
    rows[-1] += [_over_seeds([run["given_f_as_v"][key] for run in runs]) for key in keys]
    rows[-1] += [_over_seeds([run["given_f_as_v"]["sensitivity"][name] for run in runs]) for name in classes]
    for name, floor in results["floor"].items():
        rows.append([f"floor: {name}", *(f"{floor[key]:.3f}" for key in keys)])
        rows[-1] += [f"{floor['sensitivity'][of]:.3f}" for of in classes]
    for name, published in results["published"].items():
        rows.append([name, *(f"{published[key]:.3f}" for key in keys), "", "", "", ""])
    head = ["class at given positions", "accuracy", "mean sensitivity", "jk index", *(f"Se {name}" for name in classes)]
    note = (
        f"{results['split']}, {len(runs)} seed{'s' if len(runs) > 1 else ''}; {runs[0]['parameters']['beats']} weights;"
        f" {_where(results)}."
    )
    lines = [*markdown(head, rows), "", note]
    found = next((run for run in runs if "found" in run), None)
    if found is not None:
        rows = [
            ["`ecg-small` alone", f"{found['found']['detection_f1']:.4f}", f"{found['found']['mean_sensitivity']:.3f}"],
            ["found by it, named by `beats`", "", f"{found['both']['mean_sensitivity']:.3f}"],
        ]
        lines += ["", *markdown(["beats found within 150 ms", "detection F1", "mean sensitivity"], rows)]
    return lines


def _over_seeds(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return _spread(statistics.mean(values), spread)


def _spread(mean: float, spread: float | None) -> str:
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"


def _where(results: Results) -> str:
    found = results.get("versions") or next(
        run["versions"] for one in results["sets"].values() for run in one.get("runs", {}).values()
    )
    return f"{results['machine']}; crnn {found['crnn']}, torch {found['torch']}, Python {found['python']}"


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table as lines."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def text_lines(results: Results) -> list[str]:
    rows, notes = [], []
    for name, found in results["sets"].items():
        sides = list(dict.fromkeys(row["side"] for row in found["rows"]))
        for side in sides:
            here = [row for row in found["rows"] if row["side"] == side]
            for who in dict.fromkeys(row["who"] for row in here):
                runs = [row for row in here if row["who"] == who]
                goal = found["goal"] if who == "crnn" and side == "test" else None
                rows.append(
                    [
                        name if side == "test" else f"{name}, {side}",
                        who,
                        *(
                            f"{100 * statistics.mean(run[key] for run in runs):.2f}"
                            for key in ("cer", "cer_plain", "wer")
                        ),
                        f"{statistics.mean(run['lines_per_cpu_second'] for run in runs):.0f}",
                        f"<= {100 * goal:.1f}" if goal else "",
                    ]
                )
        counts = " / ".join(f"{count} {side}" for side, count in found["counts"].items())
        sentences = f"; sentences: {found['sentences']}" if "sentences" in found else ""
        published = f"; published: {found['published']}" if found["published"] else ""
        notes.append(
            f"{name}: {found['split']} ({counts}), preset {found['preset']}, {found['parameters']:,} parameters, "
            f"height {found['height']}, {found['epochs']} epochs in {found['train_cpu_seconds']:.0f} s of CPU time, "
            f"{len(found['seeds'])} seed{'s' if len(found['seeds']) > 1 else ''}{sentences}{published}."
        )
    head = ["lines", "reader", "CER %", "plain CER %", "WER %", "lines a CPU second", "goal"]
    tail = f"Tesseract: {results['tesseract']}, --psm 7, models as Debian ships them. {_where(results)}."
    return [*markdown(head, rows), "", " ".join([*notes, tail])]


def biosequences(results: Results) -> list[str]:
    rows = [
        [
            name,
            one["metric"].upper() if one["metric"] == "mcc" else one["metric"],
            _spread(one["mean"], one["deviation"]),
            f"{one['floor']:.3f}",
            one["measured_folds"],
            f">= {one['goal']}",
            f"{statistics.mean(fold['train_cpu_seconds'] for fold in one['folds'].values()):.0f}",
        ]
        for name, one in results["sets"].items()
    ]
    head = ["data", "measure", "ours", "floor", "folds", "goal", "CPU seconds"]
    return [*markdown(head, rows), "", f"{_where(results)}."]


TABLES: dict[str, Callable[[Results], list[str]]] = {
    "exact_lengths": exact_lengths,
    "engine_overhead": engine_overhead,
    "classification": classification,
    "streaming": streaming,
    "embedded": embedded,
    "exact_streams": exact_streams,
    "training_kernels": training_kernels,
    "cells": cells,
    "early_decisions": early_decisions,
    "transcribe": transcribe,
    "text_lines": text_lines,
    "biosequences": biosequences,
    "tagging": tagging,
    "ragged_batches": ragged_batches,
    "scaling": scaling,
    "large_data": large_data,
    "rival_trainers": rival_trainers,
}
"""By the name of the result file and of the markers in the page."""


def render(page: str, folder: Path) -> str:
    """The page with every table between its markers made anew."""
    for name, make in TABLES.items():
        results = read_results(folder / f"{name}.json")
        lines = make(results) if results else [f"Not measured yet: `python benchmarks/{name}.py`."]
        begin, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        body = "\n".join([begin, *lines, end])
        parts = re.split(f"{re.escape(begin)}.*?{re.escape(end)}", page, flags=re.DOTALL)
        if len(parts) != 2:
            raise SystemExit(f"the page has {len(parts) - 1} places for {name!r}, expected 1 ({begin} ... {end})")
        page = body.join(parts)
    return page


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is not current")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    page = options.page.read_text(encoding="utf-8")
    made = render(page, options.results)
    if not options.check:
        options.page.write_text(made, encoding="utf-8")
    elif made != page:
        raise SystemExit(f"{options.page.name} is not what the result files say; run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
