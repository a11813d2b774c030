"""A run: from data to a trained model in a folder, and the short Python API (train, load, check, Run)."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from crnn.config import build_config, nearest, to_plain
from crnn.data.check import Check
from crnn.data.check import check as check_data
from crnn.data.dataset import PART, Dataset, Problem
from crnn.data.read import OnBad, read
from crnn.data.split import SplitConfig, Splits, record, split
from crnn.errors import ConfigError, DataError, ModelError, SplitError
from crnn.metrics.calibration import fit_temperature
from crnn.model import FORMAT, Inputs, Model, check_summary
from crnn.models.network import Network
from crnn.models.spec import NetworkSpec, merge, read_yaml, set_path, spec_from_plain, to_yaml
from crnn.models.vgsl import read_vgsl
from crnn.presets.recipe import DataSummary
from crnn.presets.registry import find_preset
from crnn.report.evaluation import Evaluation, RunFacts, class_counts, versions
from crnn.report.evaluation import evaluate as evaluate_model
from crnn.streaming.steps import EngineName
from crnn.streaming.stream import Stream
from crnn.tasks.infer import find_task, infer_task
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Task
from crnn.tasks.transcribe import Transcribe
from crnn.training.checkpoint import write_file
from crnn.training.config import TrainConfig
from crnn.training.estimate import check_memory, largest_batch, trained_frames
from crnn.training.history import History
from crnn.training.loop import fit
from crnn.training.progress import Report, open_progress
from crnn.training.ranks import this_place, wait_for_all, was_restarted

SECTIONS = ("model", "train", "split", "task")
"""What --config files and --set paths begin with."""
SPLIT_OF_TASK: dict[str, dict[str, Any]] = {
    "regress": {"validation": 0.25, "min_validation": 8},
    "transcribe": {"validation": 0.1, "min_validation": 16},
}
"""Where a task needs another split than the default: how long a regression can be trained before it follows the noise
depends on how much noise there is, so even a small set keeps a part to stop on. A text has many letters, so that a few
texts are enough to calibrate their confidence by and to tune a language model."""
RIVALS = (("epochs", "steps"), ("batch_size", "batch_frames"))
"""Options of training of which one is given: how long it is, and what fills a batch."""
LOOK = 1000
"""Training examples, evenly spaced, whose values are looked at for the preset when the data is not in memory."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run besides its data."""

    preset: str
    seed: int
    task: str
    task_options: dict[str, Any]
    model: NetworkSpec
    train: TrainConfig
    split: SplitConfig


def train(
    data: Any,
    *,
    out: str | Path | None = None,
    test: Any = None,
    task: str | None = None,
    preset: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    config: str | Path | dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    labels: str | None = None,
    target: str | None = None,
    group: str | None = None,
    pattern: str | None = None,
    id: str | None = None,
    time: str | None = None,
    format: str | None = None,
    sample_rate: int | None = None,
    height: int | None = None,
    channels: Sequence[str] | None = None,
    alphabet: str | None = None,
    cache: str | Path | None = None,
    on_bad: OnBad = "fail",
    overwrite: bool = False,
    quiet: bool = True,
) -> Run:
    """Train a network and say honestly how good it is.

    Under torchrun the processes train it together and the first one writes `out`, which all of them have to see; when
    torchrun starts them again after one died, training goes on from the last checkpoint.

    Args:
        data: a Dataset, or what crnn.read takes; with parts named train and test these are used, else it is split.
        out: run folder to write; None keeps the run in memory.
        test: test data, when it lies elsewhere.
        labels, target, group, pattern, id, time, format, sample_rate, height, channels, alphabet, cache, on_bad: as
            crnn.read takes them; a network in VGSL brings its height.
        task: "classify", "multilabel" or "regress"; inferred from the targets when None.
        preset: which rule makes network and training out of what the data looks like; the task's own when None.
        config: YAML file, or nested options, on top of the preset.
        settings: single options on top of everything, such as {"train.learning_rate": 1e-3}.
        overwrite: replace what is in `out`.
    Raises:
        DataError: what is wrong with the data, and where.
        ConfigError: an unknown or impossible option; or `out` already holds a run.
    """
    asked = asked_options(config, settings, epochs)  # a misspelt option is found before any data is read
    height = asked["height"] if height is None else height
    kept = None if cache is None else str(cache)
    options = Reading(
        labels, target, group, pattern, id, time, format, sample_rate, on_bad, height, channels, alphabet, kept
    )
    source = None
    if isinstance(data, (str, Path)) and (test is None or isinstance(test, (str, Path))):
        source = {"path": str(data), "test": None if test is None else str(test), "options": options._asdict()}
    if out is not None and was_restarted() and (Path(out) / "run.json").is_file():
        finished = (Path(out) / "metrics.json").is_file()
        if finished and not overwrite:
            return Run(out)
        if not finished and (Path(out) / "checkpoints" / "last.safetensors").is_file():
            return resume(out, data=data if isinstance(data, Dataset) else None, quiet=quiet)
        overwrite = True  # it died before the first checkpoint
    first = this_place().rank == 0
    folder = free_folder(out, overwrite) if first else None if out is None else Path(out)
    data = _read_all(data, test, options)
    plan = make_plan(data, asked, task=task, preset=preset, seed=seed, source=source)
    if on_bad == "skip":
        plan = plan.without_bad()
    if not quiet:
        print(plan)
    if folder is not None and first:
        if folder.is_dir():
            shutil.rmtree(
                folder
            )  # empty, or a run that --overwrite gives up; nothing is touched before the data is good
        plan.save(folder)
    return carry_out(plan, folder, resuming=False, quiet=quiet)


def resume(folder: str | Path, *, data: Dataset | None = None, quiet: bool = True) -> Run:
    """Continue an interrupted run; the weights come out bit for bit as if it had not been interrupted.

    Args:
        data: what the run was started on, when that was not a path.
    Raises:
        ModelError: no run in this folder, or a finished one.
        DataError: the data has changed since.
    """
    folder = Path(folder)
    if (folder / "metrics.json").is_file():
        raise ModelError(
            f"{folder}: this run is finished, so there is nothing to resume; see its scores with crnn eval {folder}, "
            "or start a longer one with --epochs and another --out"
        )
    return carry_out(RunPlan.load(folder, data), folder, resuming=True, quiet=quiet)


def load(folder: str | Path) -> Model:
    """The trained model of a run folder.

    Raises:
        ModelError: missing, truncated, foreign, or of a newer version.
    """
    return Model.load(folder)


def stream(folder: str | Path, snapshot: bytes | None = None, *, engine: EngineName = "auto") -> Stream:
    """A live stream through the trained model of a run folder; as Model.stream."""
    return load(folder).stream(snapshot, engine=engine)


def check(
    data: Any,
    *,
    task: str | None = None,
    preset: str | None = None,
    labels: str | None = None,
    target: str | None = None,
    group: str | None = None,
    pattern: str | None = None,
    id: str | None = None,
    time: str | None = None,
    format: str | None = None,
    sample_rate: int | None = None,
    height: int | None = None,
    channels: Sequence[str] | None = None,
    alphabet: str | None = None,
) -> Check:
    """Everything that training on this data would trip over, and the configuration that it would use."""
    options = Reading(labels, target, group, pattern, id, time, format, sample_rate, "skip", height, channels, alphabet)
    data = data if isinstance(data, Dataset) else options.read(data)
    try:
        plan = make_plan(data, {}, task=task, preset=preset, seed=0, source=None)
        network = plan.make_network()
    except (DataError, SplitError) as error:
        texts = task == Transcribe.name
        found = check_data(data, classes=not texts, texts=texts)
        known = any(problem.level == "error" for problem in found.problems)
        extra = () if known else (Problem(data.source, str(error).removeprefix(f"{data.source}: ")),)
        return replace(found, problems=(*extra, *found.problems))
    count = len(plan.parts.train)
    batch_size = plan.config.train.batch_size_for(count)
    problems = [*plan.problems(network), *_memory_problems(plan.config.train, network, data)]
    if isinstance(plan.task, StepTask):
        problems += [Problem(data.source, what, "warning") for what in plan.task.warnings()]
    found = check_data(
        data,
        classes=not plan.task.per_step,
        out_lengths=network.body.out_lengths,
        macs_per_frame=network.body.macs_per_frame(),
        trained_frames=trained_frames(plan.parts.train, plan.config.train),
        batch_size=batch_size,
        texts=isinstance(plan.task, Transcribe),
    )
    return replace(
        found,
        problems=tuple(sorted((*problems, *found.problems), key=lambda problem: problem.level != "error")),
        summary={**found.summary, "plan": plan.describe()},
    )


class Reading(NamedTuple):
    """How data is read from a path, as crnn.read takes it; kept in a run, so that it can be read again."""

    labels: str | None = None
    target: str | None = None
    group: str | None = None
    pattern: str | None = None
    id: str | None = None
    time: str | None = None
    format: str | None = None
    sample_rate: int | None = None
    on_bad: OnBad = "fail"
    height: int | None = None
    channels: Sequence[str] | None = None
    alphabet: str | None = None
    cache: str | None = None

    def read(self, source: Any) -> Dataset:
        """The data at a path, or arrays and tables in memory."""
        return read(source, **self._asdict())


@dataclass
class RunPlan:
    """A run before it is carried out: options, parts of the data, and the task fitted on the training part."""

    config: RunConfig
    parts: Splits
    task: Task
    why_task: str
    fingerprint: str
    source: dict[str, Any] | None
    """How the data was read, when it came from a path; else a resume has to be given it."""
    skipped: tuple[str, ...] = ()
    """Ids of examples that the task cannot use with this network, left out as the user chose."""

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """Ids and content hashes of every side, for splits.json; reads all data once."""
        return record(self.parts)

    def make_network(self) -> Network:
        """The network before training, the same for the same seed."""
        torch.manual_seed(self.config.seed)
        return Network(self.config.model, features=self.parts.train.features, outputs=self.task.num_outputs)

    def problems(self, network: Network) -> list[Problem]:
        """Examples of any side that its task cannot use with the frames of this network."""
        if not isinstance(self.task, StepTask):
            return []
        found: list[Problem] = []
        for side in self.parts.sides.values():
            frames = network.frames_of(side)
            found += self.task.find_problems(side.targets, [example.where for example in side], frames)
        return found

    def without_bad(self) -> RunPlan:
        """The same without the examples that its task cannot use; they stand in the problems of the training part."""
        bad = {p.where: p for p in self.problems(self.make_network()) if p.level == "error"}
        ids = tuple(e.id for side in self.parts.sides.values() for e in side if e.where in bad)
        return replace(self, parts=_leave_out(self.parts, ids, list(bad.values())), skipped=ids) if ids else self

    def describe(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "task": f"{self.task.name} ({self.why_task})",
            "split": self.parts.how,
            "preset": self.config.preset,
            "model": to_plain(self.config.model),
            "train": to_plain(self.config.train),
        }

    def __str__(self) -> str:
        sides = ", ".join(f"{len(side)} {name}" for name, side in self.parts.sides.items())
        data = self.parts.train
        lines = [
            f"data     {data.source}: {sides}",
            f"split    {self.parts.how}",
            f"task     {self.task.name} ({self.why_task})",
            f"preset   {self.config.preset}; change anything with --set, see it all in run.json",
        ]
        return "\n".join(lines + [f"skipped  {problem}" for problem in data.problems if problem.level == "error"])

    def save(self, folder: Path) -> None:
        """Write run.json and splits.json, so that the run can be resumed and checked against leaks."""
        plain = {
            "format": FORMAT,
            "config": to_plain(self.config),
            "why_task": self.why_task,
            "fingerprint": self.fingerprint,
            "source": self.source,
            "task_state": self.task.state(),
            **({"skipped": list(self.skipped)} if self.skipped else {}),
        }
        _write_json(folder / "run.json", plain)
        _write_json(folder / "splits.json", self.recorded)

    @classmethod
    def load(cls, folder: Path, data: Dataset | None) -> RunPlan:
        """The plan of an interrupted run, on the same data.

        Raises:
            ModelError: no run here, or it needs data to be passed. DataError: the data has changed.
        """
        plain = _read_json(folder / "run.json", "a run folder as written by crnn train")
        lacking = {"config", "why_task", "fingerprint", "source", "task_state"} - set(plain)
        if lacking or plain.get("format") != FORMAT:
            found = f"found no {', '.join(sorted(lacking))}" if lacking else f"found format {plain.get('format')!r}"
            raise ModelError(f"{folder / 'run.json'}: {found}, expected format {FORMAT}; damaged, or from another crnn")
        if data is None:
            if plain["source"] is None:
                raise ModelError(
                    f"{folder}: this run was started on data in memory; pass it: resume(folder, data=data)"
                )
            options = Reading(**plain["source"]["options"])
            data = _read_all(plain["source"]["path"], plain["source"]["test"], options)
        if data.fingerprint() != plain["fingerprint"]:
            raise DataError(
                f"{data.source}: its files, lengths or targets have changed since {folder} was started; "
                "start a new run, or bring the old data back"
            )
        config = read_config(plain["config"])
        cls_of_task = find_task(config.task)
        parts = split(data, config.split, seed=config.seed, stratify=cls_of_task.stratify)
        task = cls_of_task.from_state(plain["task_state"])
        skipped = tuple(plain.get("skipped", ()))
        if skipped:
            parts = _leave_out(parts, skipped, [Problem(id, "left out when this run was started") for id in skipped])
        return cls(config, parts, task, plain["why_task"], plain["fingerprint"], plain["source"], skipped)


class Run:
    """A trained run: the model, how it was trained, and its scores. A model folder without the rest will do to predict.

    Args:
        folder: what `crnn train --out` wrote.
    Raises:
        ModelError: no model there, or a damaged one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder: Path | None = Path(folder)
        self.model = Model.load(folder)

    @classmethod
    def in_memory(cls, model: Model, plan: RunPlan, evaluation: Evaluation) -> Run:
        """A run that was given no folder."""
        run = cls.__new__(cls)
        run.folder, run.model = None, model
        run.__dict__["evaluation"] = evaluation  # where cached_property looks first
        run.__dict__["plan_facts"] = {"source": plan.source, "config": to_plain(plan.config)}
        run.__dict__["splits"] = plan.recorded
        return run

    @cached_property
    def evaluation(self) -> Evaluation:
        """The scores on the run's own held-out part.

        Raises:
            ModelError: the run was not finished, or its metrics.json is missing or damaged.
        """
        assert self.folder is not None, "a run in memory is given its scores"
        path = self.folder / "metrics.json"
        plain = _read_json(path, "the scores of a finished run; score the model on labelled data: crnn eval RUN DATA")
        try:
            return Evaluation.from_dict(plain)
        except DataError as error:
            raise ModelError(f"{path}: {error}; the file is damaged") from None

    @cached_property
    def plan_facts(self) -> dict[str, Any] | None:
        """run.json; None where only the model was copied."""
        return self._read_if_there("run.json")

    @cached_property
    def splits(self) -> dict[str, Any] | None:
        """splits.json, ids and content hashes of each side; None where only the model was copied."""
        return self._read_if_there("splits.json")

    def _read_if_there(self, name: str) -> dict[str, Any] | None:
        path = None if self.folder is None else self.folder / name
        return _read_json(path, "part of a run folder") if path is not None and path.is_file() else None

    def read(
        self,
        source: Any,
        *,
        targets: bool = False,
        labels: str | None = None,
        target: str | None = None,
        group: str | None = None,
        pattern: str | None = None,
        id: str | None = None,
        time: str | None = None,
        format: str | None = None,
        on_bad: OnBad = "fail",
    ) -> Dataset:
        """Data as this model takes it, read as in training where nothing else is said.

        Args:
            targets: True to score or to train; for prediction they are left out, and with them labels, target, group
                and pattern.
        """
        asked = {"id": id, "time": time, "format": format}
        if targets:
            asked |= {"labels": labels, "target": target, "group": group, "pattern": pattern}
        if not isinstance(source, Dataset):
            asked = self._as_in_training(asked)
        return self.model.read(source, targets=targets, on_bad=on_bad, **asked)

    def predict(self, source: Any, *, batch_size: int = 64) -> list[dict[str, Any]]:
        """As Model.predict, the data read as in training."""
        return self.model.predict(self.read(source), batch_size=batch_size)

    def evaluate(
        self,
        data: Any = None,
        *,
        labels: str | None = None,
        target: str | None = None,
        group: str | None = None,
        pattern: str | None = None,
        id: str | None = None,
        time: str | None = None,
        format: str | None = None,
        on_bad: OnBad = "fail",
    ) -> Evaluation:
        """Score the model on labelled data; the scores of the run's own held-out part when data is None.

        Examples that were in training are named in the result.
        Args:
            labels, target, group, pattern, id, time, format: as crnn.read takes them; by default as in training.
        Raises:
            DataError: other channels, a class that training never saw, a missing target: where, and which.
        """
        if data is None:
            return self.evaluation
        asked = {"labels": labels, "target": target, "group": group, "pattern": pattern}
        data = self.read(data, targets=True, id=id, time=time, format=format, on_bad=on_bad, **asked)
        return evaluate_model(
            self.model.network,
            self.model.task,
            data,
            train=self._training_data(),
            recorded=self.splits,
            temperature=self.model.temperature,
            seed=self.model.origin.get("seed", 0),
            facts=RunFacts(split="given data", spec=to_yaml(self.model.network.spec)),
        )

    def _as_in_training(self, asked: dict[str, str | None]) -> dict[str, str | None]:
        """What was not said, as it was in training; a labels table names columns for its own recordings only."""
        before = ((self.plan_facts or {}).get("source") or {}).get("options", {})
        if "labels" in asked and before.get("labels") is not None and asked["labels"] is None:
            return asked
        usual = {name: before.get(name) for name in asked if name != "labels"}
        return {name: usual.get(name) if value is None else value for name, value in asked.items()}

    def validation_data(self) -> Dataset | None:
        """The validation part read again; None where there is none, or the data is gone or has changed."""
        parts = self._parts_again()
        return None if parts is None else parts.validation

    def _training_data(self) -> Dataset | None:
        """What the floors are fitted on: the training part read again; None when it is gone or has changed."""
        parts = self._parts_again()
        return None if parts is None else parts.train

    def _parts_again(self) -> Splits | None:
        if self.folder is None or self.plan_facts is None or self.plan_facts["source"] is None:
            return None
        try:
            return RunPlan.load(self.folder, None).parts
        except (DataError, SplitError, ModelError):
            return None

    def summary(self) -> dict[str, Any]:
        """Scores and places, as plain values."""
        return {
            "run": str(self.folder) if self.folder else None,
            "task": self.model.task.name,
            "evaluation": self.evaluation.to_dict(),
        }

    def __str__(self) -> str:
        warnings = [f"warning  {text}" for level, text in self.evaluation.warnings() if level == "bad"]
        lines = [str(self.evaluation), *warnings]
        if self.folder is not None:
            lines += [
                f"report   {self.folder / 'report.html'}",
                "next     crnn eval " + f"{self.folder} DATA --report report.html",
                "         crnn predict " + f"{self.folder} FILES -o predictions.jsonl",
                "         crnn info " + f"{self.folder}",
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.evaluation._repr_html_()


def _read_all(data: Any, test: Any, options: Reading) -> Dataset:
    """The data, with separate test data marked as such."""
    whole: Dataset = data if isinstance(data, Dataset) else options.read(data)
    if test is None:
        return whole
    test = test if isinstance(test, Dataset) else options.read(test)
    data = whole
    Inputs.of(data).check(test)
    known = {example.id for example in data}
    kept = [replace(e, split="validation" if e.split == "validation" else "train") for e in data]
    added = [replace(e, split="test", id=f"test/{e.id}" if e.id in known else e.id) for e in test]
    return replace(
        whole,
        examples=(*kept, *added),
        source=f"{data.source}; test: {test.source}",
        in_memory=data.in_memory and test.in_memory,
        problems=(*data.problems, *test.problems),
    )


def asked_options(
    config: str | Path | dict[str, Any] | None, settings: dict[str, Any] | None, epochs: int | None
) -> dict[str, Any]:
    """What the user asked for, unknown sections refused: {"model", "train", "split", "task", "settings", "height"}.

    A network in VGSL (model.vgsl) is spelt out as layers; it also says the height of line images, else None.
    """
    asked = dict(config) if isinstance(config, dict) else read_yaml(config) if config is not None else {}
    where = "config" if isinstance(config, dict) or config is None else str(config)
    for section, values in asked.items():
        if section not in SECTIONS:
            raise ConfigError(f"{where}: {section}: unknown section{nearest(str(section), list(SECTIONS))}")
        if not isinstance(values, dict | None):
            raise ConfigError(f"{where}: {section}: found {values!r}, expected a mapping of options")
    asked = {section: values for section, values in asked.items() if values}
    for path in settings or {}:
        section = path.partition(".")[0]
        if section not in SECTIONS or "." not in path:
            raise ConfigError(
                f"--set {path}: expected SECTION.OPTION, SECTION one of {', '.join(SECTIONS)}"
                f"{nearest(section, list(SECTIONS)) if section not in SECTIONS else ''}"
            )
        _check_top_key(path)
    if epochs is not None:
        asked["train"] = {**asked.get("train", {}), "epochs": epochs}
    singles = dict(settings or {})
    model = dict(asked.get("model", {}))
    text = singles.pop("model.vgsl", model.pop("vgsl", None))
    height = None
    if text is not None:
        network = read_vgsl(str(text), "model.vgsl")
        asked["model"], height = {**model, **network.model}, network.height
    return {**asked, "settings": singles, "height": height}


def _check_top_key(path: str) -> None:
    section, key = path.split(".")[:2]
    known = {"model": NetworkSpec, "train": TrainConfig, "split": SplitConfig}.get(section)
    if path == "model.vgsl":
        return
    if known is not None and key not in (names := [f.name for f in fields(known)]):  # type: ignore[arg-type]
        raise ConfigError(f"--set {path}: {section}.{key}: unknown option{nearest(key, names)}")


def make_plan(
    data: Dataset,
    asked: dict[str, Any],
    *,
    task: str | None,
    preset: str | None,
    seed: int,
    source: dict[str, Any] | None = None,
) -> RunPlan:
    """What a run will do: preset, then config, then single settings; the task fitted on the training part.

    Args:
        asked: sections of options ("model", "train", "split", "task"), "settings" and "height", as asked_options gives
            them.
    Raises:
        ConfigError: an unknown preset, task or option; a network for images of another height.
        DataError, SplitError: what the data does not allow.
    """
    if preset is not None:
        find_preset(preset)  # a misspelt one is found before anything is read
    if asked.get("height") not in (None, data.height):
        raise ConfigError(
            f"model.vgsl: the network takes images {asked['height']} pixels high, found "
            f"{'no images' if data.height is None else f'{data.height}'} in {data.source}; read it with that height"
        )
    settings = asked.get("settings", {})
    name, why = (task, "as asked") if task is not None else _infer_task(data)
    cls = find_task(name)
    preset = cls.default_preset(data.kind) if preset is None else preset
    make_recipe = find_preset(preset)
    split_options = {**SPLIT_OF_TASK.get(name, {}), **asked.get("split", {})}
    split_options = _with_settings({"split": split_options}, settings)["split"]
    parts = split(data, build_config(SplitConfig, split_options, "split"), seed=seed, stratify=cls.stratify)
    task_options = _with_settings({"task": asked.get("task", {})}, settings)["task"]
    try:
        fitted = cls.from_targets(parts.train.targets, build_config(cls.Config, task_options, "task"))
    except DataError as error:
        raise DataError(f"{data.source}: {error}") from None
    recipe = make_recipe(summarise(parts.train, fitted))
    if recipe.get("task", {}).keys() - task_options.keys():  # the preset's own options, where nothing is asked
        task_options = {**recipe["task"], **task_options}
        fitted = cls.from_targets(parts.train.targets, build_config(cls.Config, task_options, "task"))
    plain = {"model": recipe["model"], "train": recipe["train"]}
    plain = merge(plain, {key: asked[key] for key in plain if key in asked})
    plain = _with_settings(plain, {path: v for path, v in settings.items() if path.partition(".")[0] in plain})
    plain["train"] = {**_without_rivals(plain["train"], asked, settings), "seed": seed}
    config = read_config(
        {"preset": preset, "seed": seed, "task": name, "task_options": task_options, "split": split_options, **plain}
    )
    check_summary(fitted, config.model)
    _check_alphabet(config.model, parts.train)
    return RunPlan(config, parts, fitted, why, data.fingerprint(), source)


def _check_alphabet(spec: NetworkSpec, train: Dataset) -> None:
    """Raises ConfigError for a network of another alphabet than the data's."""
    asked = next((layer["alphabet"] for layer in spec.layers if layer["type"] == "iupac"), None)
    found = Inputs.of(train).alphabet
    if asked is not None and asked != found:
        raise ConfigError(
            f"model: iupac.alphabet={asked}, but {train.source} holds {found or train.kind}; read it with "
            f"alphabet={asked!r}, or change the layer"
        )


def _infer_task(data: Dataset) -> tuple[str, str]:
    try:
        return infer_task(data.targets)
    except DataError as error:
        raise DataError(f"{data.source}: {error}") from None


def _without_rivals(options: dict[str, Any], asked: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Training options in which an asked one replaces the preset's that says the same in another way."""
    kept = dict(options)
    for rivals in RIVALS:
        given = {key for key in rivals if asked.get("train", {}).get(key) or settings.get(f"train.{key}")}
        kept = {key: value for key, value in kept.items() if key not in rivals or not given or key in given}
    return kept


def _with_settings(values: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    values = copy.deepcopy(values)
    for path, value in settings.items():
        if path.partition(".")[0] in values:
            set_path(values, path, value)
    return values


def read_config(plain: dict[str, Any]) -> RunConfig:
    """The typed options of a run from plain values."""
    return RunConfig(
        preset=plain["preset"],
        seed=plain["seed"],
        task=plain["task"],
        task_options=plain["task_options"],
        model=spec_from_plain(plain["model"]),
        train=build_config(TrainConfig, plain["train"], "train"),
        split=build_config(SplitConfig, plain["split"], "split"),
    )


def summarise(train: Dataset, task: Task) -> DataSummary:
    """What a preset may look at, from the training part alone."""
    lengths = train.lengths
    missing, varied = _look_at_values(train) if train.kind == "series" else (False, False)
    return DataSummary(
        kind=train.kind,
        num_channels=len(train.channel_names),
        sample_rate=train.sample_rate,
        num_examples=len(train),
        mean_length=round(float(lengths.mean())),
        median_length=int(np.median(lengths)),
        min_length=int(lengths.min()),
        max_length=int(lengths.max()),
        task=task.name,
        num_outputs=task.num_outputs,
        has_missing=missing,
        varied_scale=varied,
        vocabulary_size=len(train.vocabulary),
        alphabet=Inputs.of(train).alphabet,
        height=train.height,
        frames_per_label=task.frames_per_label(train.targets, lengths) if isinstance(task, StepTask) else math.inf,
    )


def _look_at_values(train: Dataset) -> tuple[bool, bool]:
    """Whether values are missing, and whether series differ in scale by orders of magnitude."""
    missing, deviations = False, []
    for example in train if train.in_memory else _evenly_spaced(train, LOOK):
        data = example.read_part(0, min(example.length, PART)).astype(np.float64)
        if np.isnan(data).any():
            missing = True
            data = np.nan_to_num(data - np.where(np.isnan(data).all(0), 0.0, _nan_mean(data)))
        deviations.append(data.std(0))
    typical = np.stack(deviations)
    floor = 1e-6 * np.sqrt((typical**2).mean(0)) + 1e-12
    return missing, bool(np.median(np.log(typical + floor).std(0)) > 1)


def _nan_mean(data: NDArray[np.float64]) -> NDArray[np.float64]:
    present = ~np.isnan(data)
    return np.nan_to_num(data).sum(0) / np.maximum(present.sum(0), 1)  # type: ignore[no-any-return]


def _evenly_spaced(data: Dataset, count: int) -> Dataset:
    if len(data) <= count:
        return data
    return data.subset(np.linspace(0, len(data) - 1, count).round().astype(int))


def carry_out(plan: RunPlan, folder: Path | None, *, resuming: bool, quiet: bool, start: Network | None = None) -> Run:
    """Train, save, score, report.

    Args:
        start: as fit_plan takes it.
    """
    model, history = fit_plan(plan, folder=folder, resuming=resuming, quiet=quiet, start=start)
    if folder is None:
        return Run.in_memory(model, plan, _score_own_part(model, plan, history, None))
    if this_place().rank == 0:
        model.save(folder)
        evaluation = _score_own_part(model, plan, history, folder)
        evaluation.save(folder / "report.html")
        _write_json(folder / "metrics.json", evaluation.to_dict())  # last: it marks the run as finished
    wait_for_all()
    return Run(folder)


def fit_plan(
    plan: RunPlan,
    *,
    folder: Path | None = None,
    resuming: bool = False,
    quiet: bool = True,
    watch: Report | None = None,
    start: Network | None = None,
) -> tuple[Model, History]:
    """Train what a plan says, choose the temperature on validation; nothing is scored, saved or reported.

    Args:
        folder: where checkpoints go; None writes none.
        start: a trained network to go on from, in place of a new one; its front-ends keep their statistics.
        watch: told of the progress in place of the terminal; what it raises ends the training.
    """
    parts = plan.parts
    network = plan.make_network() if start is None else copy.deepcopy(start)
    _check_lengths(network, parts)
    _check_targets(plan, network)
    large = check_memory(network, parts.train, plan.config.train, shortest=network.min_length)
    if large is not None and not quiet:
        print(f"memory   {large}")
    with open_progress(quiet=quiet) as progress:
        history = fit(
            network,
            plan.task,
            parts.train,
            parts.validation,
            plan.config.train,
            out=folder,
            resume=resuming,
            progress=watch or progress,
            keep_statistics=start is not None,
        )
    model = Model(network, plan.task, Inputs.of(parts.train), origin=_origin(plan))
    if parts.validation is not None and isinstance(plan.task, StepTask):
        frames = network.frames_of(parts.validation)
        plan.task.tune(model.outputs(parts.validation), parts.validation.targets, frames)
    elif parts.validation is not None and plan.task.name in ("classify", "multilabel"):
        targets = plan.task.encode(parts.validation.targets, [e.where for e in parts.validation])
        model.temperature = fit_temperature(model.outputs(parts.validation), targets)
    return model, history


def _score_own_part(model: Model, plan: RunPlan, history: History, folder: Path | None) -> Evaluation:
    """The score on the run's own test part; without one on validation, without that on training, and said so."""
    sides = plan.parts.sides
    side = next(name for name in ("test", "validation", "train") if name in sides)
    facts = RunFacts(
        split=side,
        split_how=plan.parts.how,
        counts={name: len(data) for name, data in sides.items()},
        class_counts=class_counts(sides),
        spec=to_yaml(plan.config.model),
        settings={"preset": plan.config.preset, "task": plan.config.task_options, **to_plain(plan.config.train)},
        history=history.to_plain()["records"],
        stopped=history.stopped,
        seed=plan.config.seed,
        train_seconds=history.seconds,
        train_fingerprint=plan.parts.train.fingerprint(),
        model_bytes=None if folder is None else (folder / "model.safetensors").stat().st_size,
        problems=[str(problem) for problem in plan.parts.train.problems],
        selection=side != "test",
    )
    data = sides[side]
    return evaluate_model(
        model.network,
        model.task,
        data,
        train=plan.parts.train,
        recorded=plan.recorded if side == "test" else None,
        temperature=model.temperature,
        seed=plan.config.seed,
        facts=facts,
    )


def _check_lengths(network: Network, parts: Splits) -> None:
    """Refuse, before training, sequences of which strides and pooling would leave nothing."""
    for side in parts.sides.values():
        short = np.flatnonzero(side.lengths < network.min_length)
        if len(short):
            first = side[int(short[0])]
            raise DataError(
                f"{first.where}: {first.length} frames, but this network needs at least {network.min_length} "
                f"({len(short)} of {len(side)} sequences are too short); use less pooling (--set model...), "
                "or leave them out"
            )


def _leave_out(parts: Splits, ids: Sequence[str], problems: list[Problem]) -> Splits:
    """The sides without these examples, what was wrong with them added to the problems of the training part.

    Raises:
        DataError: nothing is left to train on.
    """
    gone = set(ids)

    def kept(side: Dataset | None) -> Dataset | None:
        left = () if side is None else tuple(example for example in side if example.id not in gone)
        return None if side is None or not left else replace(side, examples=left)

    train = kept(parts.train)
    if train is None:
        raise DataError(f"{parts.train.source}: none of {len(parts.train)} examples can be used; first {problems[0]}")
    train = replace(train, problems=(*train.problems, *problems))
    return Splits(train, kept(parts.validation), kept(parts.test), parts.how)


def _check_targets(plan: RunPlan, network: Network) -> None:
    """Refuse, before training, targets that do not fit the network's frames."""
    bad = [problem for problem in plan.problems(network) if problem.level == "error"]
    if bad:
        more = "".join(f"\n{problem}" for problem in bad[1:10])
        rest = f"\nand {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(f"{bad[0]}{more}{rest} (on_bad='skip' leaves {'it' if len(bad) == 1 else 'them'} out)")


def _memory_problems(config: TrainConfig, network: Network, data: Dataset) -> list[Problem]:
    """What there is to say about the memory of the largest batch, whatever side of a split has the longest sequence."""
    largest = largest_batch(network, data, config, shortest=network.min_length)
    if largest.fits and not largest.is_notable:
        return []
    return [Problem(largest.where, str(largest), "warning" if largest.fits else "error")]


def _origin(plan: RunPlan) -> dict[str, Any]:
    return {
        "versions": versions(),
        "preset": plan.config.preset,
        "seed": plan.config.seed,
        "data": plan.parts.train.source,
        "data_fingerprint": plan.fingerprint,
        "split": plan.parts.how,
    }


def free_folder(out: str | Path | None, overwrite: bool) -> Path | None:
    """The run folder to write, refused where it holds anything that may not be replaced; nothing is written yet."""
    if out is None:
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder}: is a file; expected a folder that can be created")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "run.json").is_file():
            raise ConfigError(f"--out {folder}: this folder holds other files; name a new or empty one")
        if not overwrite:
            finished = (folder / "metrics.json").is_file()
            how = "" if finished else f"continue it with --resume {folder}, or "
            raise ConfigError(
                f"--out {folder}: already holds {'a run' if finished else 'an interrupted run'}; "
                f"{how}replace it with --overwrite, or name another folder"
            )
    return folder


def _write_json(path: Path, value: Any) -> None:
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False).encode())


def _read_json(path: Path, expected: str) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected {expected}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); the file is damaged") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: found a {type(value).__name__}, expected {expected}")
    return value
