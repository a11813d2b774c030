"""Go on training a model on other data: the same network, with more letters where a transcriber needs them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from crnn.compress.tune import shorter
from crnn.config import build_config, to_plain
from crnn.data.codec import Resize
from crnn.data.read import OnBad
from crnn.data.split import split
from crnn.errors import ConfigError, DataError
from crnn.models.network import Network
from crnn.models.resize import with_outputs
from crnn.run import Reading, Run, RunPlan, carry_out, free_folder, read_config
from crnn.tasks.infer import find_task
from crnn.tasks.task import Task
from crnn.tasks.transcribe import Transcribe
from crnn.training.config import TrainConfig


def finetune(
    run: str | Path | Run,
    data: Any,
    *,
    out: str | Path | None = None,
    resize: Resize = "add",
    epochs: int | None = None,
    settings: dict[str, Any] | None = None,
    labels: str | None = None,
    target: str | None = None,
    group: str | None = None,
    pattern: str | None = None,
    id: str | None = None,
    time: str | None = None,
    format: str | None = None,
    seed: int = 0,
    on_bad: OnBad = "fail",
    overwrite: bool = False,
    quiet: bool = True,
) -> Run:
    """Train the model of a run further, on new data, into a new run; the old one stays as it is.

    Front-ends keep the statistics of the first training. The recipe is that of the run, at half its learning rate and
    half its length.

    Args:
        run: a run, or its folder.
        data: what the new training reads, as the run was read where nothing else is said; split as in training.
        out: run folder to write; None keeps the run in memory.
        resize: what becomes of letters that a transcriber does not have: "add" (or "union") takes them in, "new" also
            drops those that the new text lacks, "fail" refuses them. Other tasks keep their outputs.
        epochs: passes over the new data, instead of half the recipe's updates.
        settings: single options of the training, such as {"train.learning_rate": 1e-4}.
        labels, target, group, pattern, id, time, format, on_bad: as crnn.read takes them.
    Raises:
        DataError: data of another kind, rate or channels; a class that the model does not have.
        ConfigError: an option that is unknown or not of the training; or `out` already holds a run.
    """
    old = run if isinstance(run, Run) else Run(run)
    if old.plan_facts is None:
        raise ConfigError(f"{old.folder}: holds no run.json, so the recipe of its training is not known; copy it, too")
    first = read_config(old.plan_facts["config"])
    folder = free_folder(out, overwrite)
    asked = {"labels": labels, "target": target, "group": group, "pattern": pattern}
    read = old.read(data, targets=True, id=id, time=time, format=format, on_bad=on_bad, **asked)
    task_class = find_task(first.task)
    parts = split(read, first.split, seed=seed, stratify=task_class.stratify)
    task, network, what = _resized(old, read.targets if resize == "new" else parts.train.targets, resize)
    validation = 0 if parts.validation is None else len(parts.validation)
    training = _recipe(first.train, settings or {}, len(parts.train), validation, epochs)
    config = replace(first, seed=seed, train=replace(training, seed=seed))
    source = None
    if isinstance(data, (str, Path)):
        options = Reading(labels, target, group, pattern, id, time, format, on_bad=on_bad)
        source = {"path": str(data), "test": None, "options": options._asdict()}
    why = f"further training of {old.folder or 'a run in memory'}"
    plan = RunPlan(config, parts, task, why, read.fingerprint(), source)
    if on_bad == "skip":
        plan = plan.without_bad()
    if not quiet:
        print(f"{plan}\nletters  {what}" if what else plan)
    if folder is not None:
        if folder.is_dir():
            shutil.rmtree(folder)
        plan.save(folder)
    return carry_out(plan, folder, resuming=False, quiet=quiet, start=network)


def _resized(old: Run, targets: Any, resize: Resize) -> tuple[Task, Network, str]:
    """The task for new targets, the network with its outputs, and the difference in words."""
    task, network = old.model.task, old.model.network
    if not isinstance(task, Transcribe):
        return type(task).from_state(task.state()), network, ""
    try:
        change = task.codec.resize([str(target) for target in targets], resize)
    except DataError as error:
        raise DataError(f"{old.folder}: {error}") from None
    return task.with_codec(change.codec), with_outputs(network, change.rows), change.describe()


def _recipe(
    first: TrainConfig, settings: dict[str, Any], num_train: int, num_validation: int, epochs: int | None
) -> TrainConfig:
    """The first training's, shorter and gentler, with what the user asks for."""
    plain = to_plain(shorter(first, num_train, num_validation, epochs=epochs))
    for path, value in settings.items():
        section, _, name = path.partition(".")
        if section != "train" or "." in name:
            raise ConfigError(f"--set {path}: only options of the training can change, such as train.learning_rate")
        plain[name] = value
    return build_config(TrainConfig, plain, "train")
