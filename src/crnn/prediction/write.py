"""Predictions for a data set of any size into one file: in parts, resumed where it was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from crnn.data.dataset import Dataset, Problem
from crnn.data.read import OnBad
from crnn.errors import DataError
from crnn.model import Model
from crnn.prediction.journal import Journal
from crnn.prediction.parts import Done, LoadModel, Worker, divide
from crnn.prediction.ray import predict_by_ray

Cluster = Literal["ray"] | None


class Written(NamedTuple):
    """What a call has done."""

    predictions: int
    """In the file."""
    found: int
    """Of those, how many an interrupted call had left."""
    problems: list[Problem]


def write_predictions(
    load: LoadModel,
    data: Dataset,
    out: Path,
    *,
    batch_size: int = 64,
    cluster: Cluster = None,
    workers: int | None = None,
    on_bad: OnBad = "fail",
    report: Callable[[int, int], None] | None = None,
) -> Written:
    """Predict a data set part by part, and write Parquet (.parquet) or JSON lines, in the order of the data.

    What is done is on the disk after each part, in OUT.part; called again after an interruption, it is not done again.

    Args:
        load: gives the model; called once here, and once by each worker of a cluster.
        cluster: "ray" for the workers of a Ray cluster; None for this process.
        on_bad: "fail" raises when a file cannot be predicted, after its part; "skip" leaves it out.
        report: called after each part with (examples done, examples in all).
    Raises:
        DataError: a file that cannot be read or predicted, with on_bad="fail"; what is done is kept.
        ConfigError: OUT.part is of another model or other data.
    """
    journal = Journal(out, _fingerprint(load(), data))
    found = len(journal.places)
    parts = list(divide(data, [i for i, example in enumerate(data) if example.id not in journal.places]))
    problems: list[Problem] = []
    try:
        for done in _predict(load, data, parts, cluster, batch_size, workers):
            journal.add(done.rows)
            problems += done.problems
            if problems and on_bad == "fail":
                raise DataError(
                    f"{problems[0]} ({len(journal.places)} of {len(data)} are done and kept in {journal.path}: repair "
                    "the file and run the same again, or on_bad='skip' leaves it out)"
                )
            if report is not None:
                report(len(journal.places), len(data))
    except BaseException:
        journal.close()
        raise
    return Written(journal.finish(example.id for example in data), found, problems)


def _predict(
    load: LoadModel, data: Dataset, parts: list[list[int]], cluster: Cluster, batch_size: int, workers: int | None
) -> Iterator[Done]:
    if not parts:
        return iter(())
    if cluster == "ray":
        return predict_by_ray(load, data, parts, batch_size=batch_size, workers=workers)
    return map(Worker(load, data, batch_size).predict, parts)


def _fingerprint(model: Model, data: Dataset) -> str:
    """Names a model, with what its task decodes by, and the data."""
    digest = hashlib.blake2b(model.weights_file(), digest_size=16)
    state = [model.task.name, model.task.state(), model.temperature, data.kind, data.channel_names, data.sample_rate]
    digest.update(json.dumps(state, sort_keys=True, default=str).encode())
    return digest.hexdigest()
