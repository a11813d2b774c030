"""Lines of text: character error rates beside Tesseract's on the same lines, and lines per second of CPU time.

    python benchmarks/text_lines.py [--sets uw3,early-1476,early-1495,rendered] [--seeds 1] [--preset NAME] [--quick]

Each network is trained on the training side alone, with the preset as it is; the test side is read once, at the end.
Tesseract, which is trained already, reads the test lines one image a line (--psm 7), in one thread. Error rates are
given as the characters stand, and "plain": quotes and dashes as in ASCII, ligatures and long s as letters.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lines import FORTUNES, write_sets
from record import HERE, MISSING, RESULTS, describe_machine, find_data, set_threads, update_results, versions

from crnn.data.dataset import Dataset, Example
from crnn.data.read import read
from crnn.metrics.edits import distance
from crnn.metrics.text import plain
from crnn.model import Model
from crnn.run import asked_options, fit_plan, make_plan


@dataclass(frozen=True)
class LineSet:
    """One row of the table: lines marked as train, validation or test, and other lines to test on."""

    name: str
    load: Callable[[Path, int], tuple[Dataset, dict[str, Dataset]]]
    """(a folder of its own, seed) -> the data, and further test sides by name."""
    split: str
    goal: float | None
    """Character error rate to reach; None where Tesseract's is the goal."""
    languages: tuple[str, ...] = ("eng",)
    """Models of Tesseract that read the test lines."""
    published: str = ""


def load_uw3(folder: Path, seed: int) -> tuple[Dataset, dict[str, Dataset]]:
    """500 printed English lines, by sorted page folder: 400 to train, 50 for validation, 50 to test."""
    with tarfile.open(_data() / "ocr_uw3_500" / "uw3-500.tgz") as archive:
        archive.extractall(folder, filter="data")
    data = read(folder, on_bad="skip")  # one line runs downwards
    order = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    sides = dict(zip(order, ["train"] * 400 + ["validation"] * 50 + ["test"] * 50, strict=True))
    return _marked(data, lambda example: sides[example.id]), {}


def load_early(book: str) -> Callable[[Path, int], tuple[Dataset, dict[str, Dataset]]]:
    """Lines of one early printed book, in the order of its pages: 100 to train, the other 50 to test."""

    def load(folder: Path, seed: int) -> tuple[Dataset, dict[str, Dataset]]:
        data = read(_data() / "ocr_early_printed" / book)
        training = {example.id for example in sorted(data, key=lambda example: example.id)[:100]}
        return _marked(data, lambda example: "train" if example.id in training else "test"), {}

    return load


def load_rendered(folder: Path, seed: int) -> tuple[Dataset, dict[str, Dataset]]:
    """Rendered and degraded English lines; 'unseen' has font families that training has not."""
    names = write_sets(folder, train=2000, test=300)
    sides = {name: read(folder / name) for name in names}
    parts = {"train": _marked(sides["train"], lambda _: "train"), "test": _marked(sides["test"], lambda _: "test")}
    examples = [replace(e, id=f"{name}/{e.id}") for name, part in parts.items() for e in part]
    unseen = {"unseen fonts": sides["unseen"]} if "unseen" in sides else {}
    return replace(sides["train"], examples=tuple(examples), source="rendered lines"), unseen


def load_bundled(folder: Path, seed: int) -> tuple[Dataset, dict[str, Dataset]]:
    """The few clean lines that come with the sources."""
    return read(HERE.parent / "examples" / "lines"), {}


BUNDLED = LineSet("bundled", load_bundled, "folders train and test", None)
SETS = (
    LineSet("uw3", load_uw3, "400/50/50 by sorted page folder", 0.015, published="0.11 % on the full set (Calamari)"),
    *(
        LineSet(f"early-{book}", load_early(book), "first 100 lines / last 50", 0.05, ("eng", "lat"))
        for book in ("1476", "1495")
    ),
    LineSet("rendered", load_rendered, "2,000 lines / 300 lines of other sentences, the same fonts", None),
)


def _data() -> Path:
    root = find_data()
    if root is None:
        raise SystemExit(f"skipped: {MISSING}")
    return root


def _marked(data: Dataset, side_of: Callable[[Example], str]) -> Dataset:
    examples: list[Any] = [replace(example, split=side_of(example)) for example in data]
    return replace(data, examples=tuple(examples))


def error_rates(references: list[str], texts: list[str]) -> dict[str, float]:
    """Characters changed by characters of the truth, as they stand and plain; words; the share of lines all right."""

    def rate(pairs: list[tuple[Any, Any]]) -> float:
        return sum(distance(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)

    pairs = [(" ".join(a.split()), " ".join(b.split())) for a, b in zip(references, texts, strict=True)]
    return {
        "cer": rate(pairs),
        "cer_plain": rate([(plain(a), plain(b)) for a, b in pairs]),
        "wer": rate([(a.split(), b.split()) for a, b in pairs]),
        "lines_right": sum(a == b for a, b in pairs) / len(pairs),
    }


def read_by_model(model: Model, data: Dataset) -> tuple[dict[str, float], float]:
    """Error rates, and lines per second of CPU time: images decoded, scaled, and read greedily."""
    start = time.process_time()
    texts = [str(prediction["text"]) for prediction in model.predict(data)]
    seconds = time.process_time() - start
    return error_rates([str(target) for target in data.targets], texts), len(data) / seconds


def read_by_tesseract(data: Dataset, language: str) -> tuple[dict[str, float], float] | None:
    """The same for Tesseract; None where it, or the language, is not installed."""
    if shutil.which("tesseract") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "names.txt"
        names.write_text("\n".join(example.where for example in data) + "\n")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            ["tesseract", str(names), "stdout", "-l", language, "--psm", "7", "-c", "page_separator=\f"],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    texts = done.stdout.split("\f")[: len(data)]
    if done.returncode or len(texts) < len(data):
        return None
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return error_rates([str(target) for target in data.targets], texts), len(data) / seconds


def tesseract_version() -> str:
    if shutil.which("tesseract") is None:
        return "not installed"
    done = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0]


def run_set(line_set: LineSet, options: argparse.Namespace) -> None:
    """Train with each seed, read the test sides, and put what was found beside the other sets'."""
    seeds = list(range(options.seed, options.seed + options.seeds))
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            data, others = line_set.load(Path(folder), seed)
            config = {"train": {"steps": 10}} if options.quick else {}
            plan = make_plan(data, asked_options(config, None, None), task=None, preset=options.preset, seed=seed)
            start = time.process_time()
            model, history = fit_plan(plan)
            seconds = time.process_time() - start
            test = plan.parts.test
            assert test is not None, "every set has a test side"
            rows += [
                row
                for name, side in {"test": test, **others}.items()
                for row in _rows(model, side, name, seed, line_set.languages if seed == seeds[0] else ())
            ]
    found = {
        "split": line_set.split,
        "goal": line_set.goal,
        "published": line_set.published,
        "preset": plan.config.preset,
        "height": data.height,
        "parameters": model.network.num_parameters,
        "counts": {side: len(part) for side, part in plan.parts.sides.items()},
        "epochs": len(history.to_plain()["records"]),
        "train_cpu_seconds": round(seconds, 1),
        "seeds": seeds,
        "rows": rows,
    }
    if line_set.name == "rendered":
        found["sentences"] = "Debian package fortunes" if FORTUNES.is_dir() else "put together from a few words"

    def change(results: dict[str, Any]) -> None:
        facts = {"machine": describe_machine(options.threads), "versions": versions()}
        results.update(benchmark="text_lines", tesseract=tesseract_version(), **facts)
        results.setdefault("sets", {})[line_set.name] = found

    update_results(options.out, change)
    for row in rows:
        print(line_set.name, row, flush=True)


def _rows(model: Model, side: Dataset, name: str, seed: int, languages: tuple[str, ...]) -> list[dict[str, Any]]:
    rates, speed = read_by_model(model, side)
    rows = [{"side": name, "who": "crnn", "seed": seed, **_rounded(rates), "lines_per_cpu_second": round(speed, 1)}]
    for language in languages:
        read_ = read_by_tesseract(side, language)
        if read_ is not None:
            who = {"side": name, "who": f"Tesseract ({language})", "seed": None}
            rows.append({**who, **_rounded(read_[0]), "lines_per_cpu_second": round(read_[1], 1)})
    return rows


def _rounded(rates: dict[str, float]) -> dict[str, float]:
    return {name: float(np.round(rate, 5)) for name, rate in rates.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", default=",".join(s.name for s in SETS), help="names, separated by commas")
    parser.add_argument("--preset", default=None, help="another than the task's own")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="ten updates on the bundled lines: does it run?")
    parser.add_argument("--out", type=Path, default=RESULTS / "text_lines.json")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    known = {s.name: s for s in (*SETS, BUNDLED)}
    for name in [BUNDLED.name] if options.quick else options.sets.split(","):
        if name not in known:
            raise SystemExit(f"--sets {name}: no such set; expected some of {', '.join(known)}")
        run_set(known[name], options)


if __name__ == "__main__":
    main()
