"""DNA and proteins: promoters, splice junctions, secondary structure; each beside its floor and published figures.

    python benchmarks/biosequences.py [--sets ecoli,bacillus,arabidopsis,splice,protein] [--folds 0,1] [--quick]

promoters: CNNProm's sets (Umarov & Solovyev 2017), 5 stratified folds, MCC; the paper has random 70/10/20 parts.
splice: UCI primate splice junctions, all 3,190, 10 stratified folds, accuracy. protein: FLIP's `sampled` split, Q3 over
the resolved residues of its test chains, from single sequences. The recipe is the preset `bio` as it is. It was chosen
on parts of one training side, four fifths of the splice junctions and of the E. coli promoters; test folds drawn here
hold examples of it, so those two numbers are a little flattered. Measured folds are written at once, and those that
are not asked for stay as they were. The floor of the windows is logistic regression on one-hot symbols by place, its
strength chosen by 3-fold cross-validation in the training side.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from record import MISSING, RESULTS, describe_machine, find_data, set_threads, update_results, versions
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold

from crnn.data.dataset import Dataset
from crnn.data.read import read
from crnn.run import fit_plan, make_plan
from crnn.tasks.classify import Classify
from crnn.tasks.tag_labels import TagLabels

RESULT = RESULTS / "biosequences.json"
UMAROV = "Umarov & Solovyev 2017, doi:10.1371/journal.pone.0171410 (random 70/10/20 parts)"
SINGLE = "SPOT-1D-Single .743 / .738, SPIDER3-Single .726 / .713 on TEST2018 / TEST2020 (other test sets)"


@dataclass(frozen=True)
class Set:
    """One row of the table."""

    load: Callable[[Path], Dataset]
    folds: int
    metric: str
    goal: float
    published: str


def promoters(name: str, positive: str, negative: str) -> Callable[[Path], Dataset]:
    """Two files as two classes."""
    return lambda root: read([root / "dna_promoters" / f"{name}_{part}.fa.gz" for part in (positive, negative)])


def protein(root: Path) -> Dataset:
    """Chains with the structure of each residue, unpacked beside the results; the split stands in the headers."""
    folder = RESULTS / "protein_ss.tmp"  # ignored by git
    if not (folder / "splits" / "mask.fasta").is_file():
        with ZipFile(root / "protein_ss" / "splits.zip") as archive:
            archive.extractall(folder)
    return read(folder / "splits" / "sequences.fasta", labels=folder / "splits" / "sampled.fasta")


SETS = {
    "ecoli": Set(promoters("Ecoli", "prom", "non_prom"), 5, "mcc", 0.85, f"0.84, {UMAROV}"),
    "bacillus": Set(promoters("Bacillus", "prom", "non_prom"), 5, "mcc", 0.87, f"0.86, {UMAROV}"),
    "arabidopsis": Set(promoters("Arabidopsis", "tata", "non_prom"), 5, "mcc", 0.92, f"0.91, {UMAROV}"),
    "splice": Set(lambda root: read(root / "dna_splice" / "splice.arff"), 10, "accuracy", 0.965, ""),
    "protein": Set(protein, 1, "accuracy", 0.74, SINGLE),
}


def parts(data: Dataset, folds: int, fold: int) -> tuple[Dataset, Dataset]:
    """Training and test side of a fold; the official one where there is one fold."""
    if folds == 1:
        test = [i for i, example in enumerate(data) if example.split == "test"]
        return data.subset(sorted(set(range(len(data))) - set(test))), data.subset(test)
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    train, held_out = list(split.split(np.zeros(len(data)), [str(target) for target in data.targets]))[fold]
    return data.subset(train), data.subset(held_out)


def measure(train: Dataset, test: Dataset, *, seed: int, quick: bool) -> dict[str, Any]:
    """Scores of the preset `bio` trained on one side, on the other."""
    per_step = not isinstance(train[0].target, str)
    sides = [*(replace(e, split=e.split or "train") for e in train), *(replace(e, split="test") for e in test)]
    settings: dict[str, Any] = {} if per_step else {"split.validation": 0.0}  # its length is fixed: nothing to stop on
    settings |= {"train.steps": 20} if quick else {}
    began = time.process_time()
    plan = make_plan(
        replace(train, examples=tuple(sides)),
        {"settings": settings},
        task="tag" if per_step else "classify",
        preset="bio",
        seed=seed,
    )
    model, _ = fit_plan(plan, quiet=True)
    seconds = time.process_time() - began
    outputs = model.outputs(test)
    if isinstance(model.task, TagLabels):
        import torch

        frames = model.network.frames(torch.from_numpy(test.lengths), None)
        metrics = model.task.scores_of(model.task.count(outputs, test.targets, frames).sum(0))
    else:
        assert isinstance(model.task, Classify)
        metrics = model.task.scores(outputs, model.task.encode(test.targets, [e.where for e in test])).metrics
    return {"metrics": metrics, "parameters": model.network.num_parameters, "train_cpu_seconds": seconds}


def one_hot(data: Dataset, length: int) -> NDArray[np.float32]:
    """(examples, length * symbols), cut or filled with zeros at the end."""
    rows = np.zeros((len(data), length, len(data.vocabulary)), np.float32)
    for row, example in zip(rows, data, strict=True):
        ids = example.load()[:length]
        row[np.arange(len(ids)), ids] = 1
    return rows.reshape(len(data), -1)


def measure_floor(train: Dataset, test: Dataset, metric: str) -> float:
    """Logistic regression on one-hot symbols; of residues, the likeliest structure of each kind."""
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    if not isinstance(train[0].target, str):
        table = np.zeros((len(train.vocabulary), 3))
        for example in train:
            known = example.target.codes >= 0  # type: ignore[union-attr]
            np.add.at(table, (example.load()[known], example.target.codes[known]), 1)  # type: ignore[union-attr]
        right = total = 0
        for example in test:
            codes = example.target.codes  # type: ignore[union-attr]
            right += int((table.argmax(1)[example.load()] == codes)[codes >= 0].sum())
            total += int((codes >= 0).sum())
        return right / total
    length = int(np.median(train.lengths))
    model = LogisticRegressionCV(
        Cs=[0.01, 0.03, 0.1, 0.3, 1.0],
        cv=3,
        max_iter=1000,
        l1_ratios=(0,),
        scoring="accuracy",
        use_legacy_attributes=False,
    )
    model.fit(one_hot(train, length), [str(t) for t in train.targets])
    predicted, true = model.predict(one_hot(test, length)), [str(t) for t in test.targets]
    return float((matthews_corrcoef if metric == "mcc" else accuracy_score)(true, predicted))


def main() -> None:
    """Measure the sets that are asked for and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--folds", default="", help="numbers of the folds to measure; all when left out")
    parser.add_argument("--quick", action="store_true", help="20 updates, one fold, nothing written")
    options = parser.parse_args()
    root = find_data()
    if root is None:
        print(MISSING)
        return
    set_threads(1)
    for name in options.sets.split(","):
        one = SETS[name]
        data = one.load(root)
        folds = [int(f) for f in options.folds.split(",") if f] or list(range(one.folds))
        for fold in folds[:1] if options.quick else folds:
            train, test = parts(data, one.folds, fold)
            row = measure(train, test, seed=fold, quick=options.quick)
            row["floor"] = measure_floor(train, test, one.metric)
            print(f"{name} fold {fold}: {one.metric} {row['metrics'][one.metric]:.4f}, floor {row['floor']:.4f}, "
                  f"{row['train_cpu_seconds']:.0f} s", flush=True)  # fmt: skip
            if not options.quick:
                update_results(RESULT, lambda results, n=name, f=fold, r=row: _keep(results, n, f, r))  # type: ignore[misc]


def _keep(results: dict[str, Any], name: str, fold: int, row: dict[str, Any]) -> None:
    """One fold more, and the means of those that there are."""
    one = SETS[name]
    results |= {"versions": versions(), "machine": describe_machine(1)}
    entry = results.setdefault("sets", {}).setdefault(name, {"folds": {}})
    entry["folds"][str(fold)] = row
    scores = [r["metrics"][one.metric] for r in entry["folds"].values()]
    floors = [r["floor"] for r in entry["folds"].values()]
    entry |= {
        "metric": one.metric,
        "goal": one.goal,
        "published": one.published,
        "measured_folds": f"{len(scores)} of {one.folds}",
        "mean": float(np.mean(scores)),
        "deviation": float(np.std(scores)),
        "floor": float(np.mean(floors)),
    }


if __name__ == "__main__":
    main()
