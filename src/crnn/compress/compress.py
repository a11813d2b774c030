"""From a run folder to a smaller one: which data serves what, the steps in their order, the new folder."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crnn.compress.compare import Comparison, compare
from crnn.compress.distil import distil
from crnn.compress.int8 import quantise
from crnn.compress.prune import check_share, prune
from crnn.compress.units import prune_units
from crnn.config import build_config, to_plain
from crnn.data.dataset import Dataset
from crnn.data.read import OnBad
from crnn.data.split import SplitConfig, record, split
from crnn.errors import ConfigError, DataError, ModelError, SplitError
from crnn.model import Model
from crnn.models.rounding import in_8_bits
from crnn.models.spec import spec_from_plain, to_yaml
from crnn.presets.registry import find_preset
from crnn.report.cost import embedded_of, measure_cost
from crnn.report.evaluation import Evaluation, RunFacts
from crnn.report.evaluation import evaluate as evaluate_model
from crnn.report.exactness import measure_exactness
from crnn.run import Reading, Run, RunPlan, free_folder, summarise
from crnn.training.checkpoint import write_file
from crnn.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is to be done, in this order."""

    distil: str | None = None
    """Preset of the student."""
    prune_units: float | None = None
    """Share of the channels and hidden units to take out."""
    prune: float | None = None
    """Share of the weights to set to zero."""
    int8: bool = False

    def __post_init__(self) -> None:
        if not self.words:
            raise ConfigError(
                "nothing to do: give --int8, --prune SHARE, --prune-units SHARE or --distil PRESET, or several of them"
            )
        if self.distil is not None:
            find_preset(self.distil, "--distil")
        for option, share in (("prune-units", self.prune_units), ("prune", self.prune)):
            if share is not None:
                check_share(share, f"--{option}")

    @property
    def words(self) -> tuple[str, ...]:
        """Each step as it is asked for."""
        asked = {"distil": self.distil, "prune-units": self.prune_units, "prune": self.prune}
        found = [f"{name} {value}" for name, value in asked.items() if value is not None]
        return (*found, *(["int8"] if self.int8 else []))

    @property
    def train(self) -> bool:
        """Whether a step needs labelled data to train on."""
        return self.words != ("int8",)


@dataclass(frozen=True)
class Material:
    """The data of a compression."""

    train: Dataset | None
    """To fine-tune on, or to teach with; None where no step trains."""
    validation: Dataset | None
    calibration: Dataset
    """For the peaks of 8 bits."""
    scored: Dataset
    side: str
    """Which part of what is scored: "test", "validation", "train" or "given data"."""
    recorded: dict[str, Any] | None
    """Ids and content hashes of all that the model has learned from."""
    source: dict[str, Any] | None
    """As in run.json: where the data is read from."""
    fingerprint: str | None


def compress(
    run: str | Path,
    out: str | Path,
    steps: Steps,
    *,
    data: Any = None,
    labels: str | None = None,
    target: str | None = None,
    group: str | None = None,
    pattern: str | None = None,
    epochs: int | None = None,
    on_bad: OnBad = "fail",
    overwrite: bool = False,
    quiet: bool = True,
) -> Comparison:
    """Compress a trained run into a new run folder, and measure what it cost.

    Args:
        out: the folder to write: a run folder like any other.
        data: labelled data instead of the run's own: a step that trains uses the training side of it, calibration all
            of it. The run's own, read again, when None.
        labels, target, group, pattern: as crnn.read takes them; by default as in training.
        epochs: passes over the training data, in each step that trains; else a share of the recipe's, or the student's
            own recipe.
        overwrite: replace a run in `out`.
    Raises:
        ConfigError: nothing asked for, an impossible option, a run that is in 8 bits already, a layer that cannot be
            narrowed, a student for a task that answers for every frame, or `out` holds something.
        DataError: the run's data cannot be read again and no other is given; or other channels than the model takes.
        ModelError: no trained model in `run`.
    """
    folder = free_folder(out, overwrite)
    assert folder is not None, "out is given"
    trained = Run(run)
    if trained.model.peaks:
        raise ConfigError(
            f"{run}: is in 8 bits already; compress the run that it was made from, with all steps at once"
        )
    if steps.distil is not None and trained.model.task.per_step:
        raise ConfigError(
            f"{run}: --distil is for one answer a sequence; task {trained.model.task.name} gives one a frame; use "
            "--prune-units, --prune or --int8"
        )
    options = {"labels": labels, "target": target, "group": group, "pattern": pattern}
    material = _material(trained, data, options, steps.train, on_bad)
    model, facts = _carry_out(trained, steps, material, epochs=epochs, quiet=quiet)
    made_by = {"from": str(run), "steps": list(steps.words)}
    model = replace(model, origin={**model.origin, "compressed": [*model.origin.get("compressed", []), made_by]})
    found = compare(
        trained.model,
        model,
        material.scored,
        steps=steps.words,
        scored=f"{material.side} of {material.scored.source}",
        seed=model.origin.get("seed", 0),
    )
    if folder.is_dir():
        shutil.rmtree(folder)  # empty, or a run that is given up; nothing is touched before all has gone well
    _save(folder, model, trained, material, facts, found)
    return found


def _material(run: Run, data: Any, options: dict[str, str | None], trains: bool, on_bad: OnBad) -> Material:
    """Which examples train, calibrate and score."""
    own = _own_parts(run)
    if data is None:
        if isinstance(own, str):
            raise DataError(f"{run.folder}: its own data is not at hand ({own}); give labelled data with --data")
        parts = own.parts
        side = next(name for name in ("test", "validation", "train") if name in parts.sides)
        calibration = parts.validation or parts.train
        train = parts.train if trains else None
        return Material(
            train, parts.validation, calibration, parts.sides[side], side, run.splits, own.source, own.fingerprint
        )
    given = run.read(data, targets=True, on_bad=on_bad, **options)
    if not trains:
        if isinstance(own, str) or own.parts.test is None:
            return Material(None, None, given, given, "given data", run.splits, None, None)
        return Material(None, None, given, own.parts.test, "test", run.splits, own.source, own.fingerprint)
    config = (run.plan_facts or {}).get("config", {})
    asked = build_config(SplitConfig, config.get("split", {}), "split")
    parts = split(given, asked, seed=config.get("seed", 0), stratify=run.model.task.stratify)
    if parts.test is None:
        raise DataError(f"{given.source}: no example is left to score on; give more data, or a folder named test in it")
    used = record(parts)
    source = {"path": str(data), "test": None, "options": {**Reading()._asdict(), **options, "on_bad": on_bad}}
    return Material(
        parts.train,
        parts.validation,
        parts.validation or parts.train,
        parts.test,
        "test",
        _all_seen(run.splits, used),
        source if isinstance(data, (str, Path)) else None,
        given.fingerprint(),
    )


def _own_parts(run: Run) -> RunPlan | str:
    """The run's own data, read and split again; why not, where it is gone or has changed."""
    if run.folder is None or run.plan_facts is None:
        return "no run.json beside the model"
    if run.plan_facts.get("source") is None:
        return "the run was started on data in memory"
    try:
        return RunPlan.load(run.folder, None)
    except (DataError, SplitError, ModelError) as error:
        return str(error)


def _all_seen(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """splits.json of a model that learned from other data first."""
    merged = copy.deepcopy(now)
    for side in ("train", "validation"):
        for key, values in ((before or {}).get("sides", {}).get(side, {})).items():
            merged["sides"].setdefault(side, {"ids": [], "hashes": [], "groups": []})[key] += values
    return merged


def _carry_out(
    run: Run, steps: Steps, material: Material, *, epochs: int | None, quiet: bool
) -> tuple[Model, dict[str, Any] | None]:
    """The compressed model, and run.json with what has changed in it."""
    model, facts = run.model, copy.deepcopy(run.plan_facts)
    train, validation = material.train, material.validation
    if train is not None:
        config = _recipe(run, train)
        if steps.distil is not None:
            recipe = find_preset(steps.distil)(summarise(train, model.task))
            config = build_config(TrainConfig, {**recipe["train"], "seed": config.seed}, "train")
            if epochs is not None:
                config = replace(config, epochs=epochs, steps=None)
            spec = spec_from_plain(recipe["model"])
            model = distil(model, spec, train, config=config, validation=validation, quiet=quiet)
            model = replace(model, origin={**model.origin, "preset": steps.distil})
            if facts is not None:
                facts["config"].update(preset=steps.distil, train=to_plain(config))
        tuning: dict[str, Any] = {"config": config, "validation": validation, "epochs": epochs, "quiet": quiet}
        if steps.prune_units is not None:
            model = prune_units(model, train, share=steps.prune_units, **tuning)
        if steps.prune is not None:
            model = prune(model, train, share=steps.prune, **tuning)
    if steps.int8:
        model = quantise(model, material.calibration)
    if facts is not None:
        facts["config"]["model"] = to_plain(model.network.spec)
        if material.source is not None or train is not None:
            facts.update(source=material.source, fingerprint=material.fingerprint)
    return model, facts


def _recipe(run: Run, train: Dataset) -> TrainConfig:
    """What the run was trained with; where only the model was copied, what its preset would take."""
    if run.plan_facts is not None:
        return build_config(TrainConfig, run.plan_facts["config"]["train"], f"{run.folder}/run.json: train")
    recipe = find_preset(run.model.origin.get("preset", "default"))(summarise(train, run.model.task))
    return build_config(TrainConfig, recipe["train"], "train")


def _save(
    folder: Path, model: Model, run: Run, material: Material, facts: dict[str, Any] | None, found: Comparison
) -> None:
    """A run folder as training writes it, and compress.json with both sides of the comparison."""
    model.save(folder)
    for name, plain in (("run.json", facts), ("splits.json", material.recorded), ("compress.json", found.to_dict())):
        if plain is not None:
            _write(folder / name, plain)
    evaluation = _evaluate(model, run, material, found, (folder / "model.safetensors").stat().st_size)
    evaluation.save(folder / "report.html")
    _write(folder / "metrics.json", evaluation.to_dict())  # last: it marks the run as finished


def _evaluate(model: Model, run: Run, material: Material, found: Comparison, num_bytes: int) -> Evaluation:
    """The whole report; floors are the run's own where they were measured on the same examples."""
    data = material.scored
    before = run.evaluation if run.folder is not None and (run.folder / "metrics.json").is_file() else None
    known = before is not None and before.fingerprint == data.fingerprint()
    own = None if known else _own_parts(run)
    train = material.train or (own.parts.train if isinstance(own, RunPlan) else None)
    facts = RunFacts(
        split=material.side,
        spec=to_yaml(model.network.spec),
        settings={"compressed": ", ".join(found.steps), "before": str(run.folder)},
        seed=model.origin.get("seed"),
        model_bytes=num_bytes,
        selection=material.side in ("train", "validation"),
    )
    options: dict[str, Any] = {"temperature": model.temperature, "seed": facts.seed or 0, "facts": facts}
    options |= {"train": None if known else train, "recorded": material.recorded}
    if not model.peaks:
        evaluation = evaluate_model(model.network, model.task, data, **options)
    else:
        with in_8_bits(model.network, model.peaks):
            evaluation = evaluate_model(model.network, model.task, data, **options)
        cost = measure_cost(model.network, data, task=model.task, model_bytes=num_bytes)
        evaluation = replace(  # of the network itself: rounding here is slow, and turns an ulp into a step
            evaluation,
            exactness=measure_exactness(model.network, model.task, data),
            cost=replace(cost, embedded=embedded_of(model.program()) if cost.embedded else None),
        )
    return replace(evaluation, floors=before.floors) if known and before is not None else evaluation


def _write(path: Path, plain: dict[str, Any]) -> None:
    write_file(path, json.dumps(plain, indent=2, ensure_ascii=False).encode())
