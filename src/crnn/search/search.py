"""Trials of other options on the training part of the data, by Optuna; any number of workers share one storage."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import statistics
import sys
import time as clock
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crnn.config import to_plain
from crnn.data.dataset import Dataset
from crnn.data.read import OnBad
from crnn.data.split import SplitConfig, split
from crnn.errors import ConfigError, DataError, MissingExtraError, ShapeError, SplitError, TrainingError
from crnn.models.spec import to_yaml
from crnn.run import Reading, RunPlan, asked_options, fit_plan, make_plan
from crnn.search.space import Options, Range, Space, check_space, default_space, read_space, values_of, with_values
from crnn.tasks.infer import find_task
from crnn.training.checkpoint import write_file
from crnn.training.history import History
from crnn.training.progress import Update

if TYPE_CHECKING:
    import optuna

ROUNDS = 3
"""Held-out parts on which a trial is measured where the data is too small to have a validation part of its own: on one
small part the best of many trials is mostly the luckiest."""
HELD_OUT = 0.25
"""Share of the training part that each of them takes."""
MARKS = 10
"""Points of a training run at which trials are compared: not its epochs, of which each batch size has other ones."""
FIRST_MARK = 3
"""Before this one nothing is ended: the learning rate still rises, and averaged weights are mostly of the start."""
STARTING_TRIALS = 5
"""Trials that are carried out whole before any other is ended early."""
SHOWN = 10
"""Trials in the printed table; trials.csv has all."""


@dataclass(frozen=True)
class Trial:
    """One choice of values, and what came of it."""

    number: int
    state: str
    """complete, pruned (ended early, as worse than the median), failed, or running (elsewhere, or killed)."""
    value: float | None
    """The metric on validation, mean over the held-out parts; of a pruned trial as far as it went."""
    loss: float | None
    """The validation loss likewise, which decides between equal values; None where it was not completed."""
    seconds: float | None
    values: dict[str, Any]
    """What was varied."""
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True)
class SearchResult:
    """All trials, and the best as options of a run."""

    metric: str
    higher_is_better: bool
    held_out: str
    """On what trials were measured, in one sentence."""
    trials: tuple[Trial, ...]
    """By number, those of other workers included."""
    config: Options
    """The best trial's options, whole: what `crnn train --config` takes."""

    @property
    def ranked(self) -> list[Trial]:
        """Completed trials, the best first."""
        return rank(self.trials, self.higher_is_better)

    @property
    def best(self) -> Trial:
        """The best completed trial."""
        return self.ranked[0]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        trials = [asdict(trial) for trial in self.trials]
        best = self.best.number
        return {"metric": self.metric, "held_out": self.held_out, "best": best, "trials": trials, "config": self.config}

    def to_csv(self) -> str:
        """A row a trial, a column for each name that was varied."""
        text = io.StringIO()
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.values))
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["trial", "state", self.metric, "loss", "seconds", *names, "reason"])
        for t in self.trials:
            values = [t.values.get(name) for name in names]
            rows.writerow([t.number, t.state, t.value, t.loss, t.seconds, *values, t.reason])
        return text.getvalue()

    def save(self, folder: Path) -> None:
        """Write best.yaml and trials.csv."""
        score = f"{self.metric} {self.best.value:.4g}, measured {self.held_out}"
        head = f"# trial {self.best.number} of {len(self.trials)}: {score}\n"
        write_file(folder / "best.yaml", (head + to_yaml(self.config)).encode())
        write_file(folder / "trials.csv", self.to_csv().encode())

    def __str__(self) -> str:
        counts = [f"{sum(t.state == s for t in self.trials)} {s}" for s in ("complete", "pruned", "failed", "running")]
        shown = [f"trial {t.number:>3}  {self.metric} {t.value:.4f}  {_spell(t.values)}" for t in self.ranked[:SHOWN]]
        lines = [
            f"{len(self.trials)} trials: {', '.join(count for count in counts if not count.startswith('0 '))}",
            f"measured {self.held_out}",
            *shown,
            "The best of many is better than it will prove; the honest score is that of crnn train, on its test side.",
        ]
        return "\n".join(lines)


def rank(trials: tuple[Trial, ...], higher_is_better: bool) -> list[Trial]:
    """Completed trials by value, then by loss, then the earlier one first."""
    sign = -1 if higher_is_better else 1
    done = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return sorted(done, key=lambda t: (sign * (t.value or 0.0), t.loss if t.loss is not None else math.inf, t.number))


def search(
    data: Any,
    *,
    out: str | Path | None = None,
    trials: int = 50,
    storage: str | None = None,
    space: str | Path | dict[str, Any] | None = None,
    rounds: int | None = None,
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
    alphabet: str | None = None,
    on_bad: OnBad = "fail",
    quiet: bool = True,
) -> SearchResult:
    """Try other options than the preset's, measured inside of the training part; no test data is ever looked at.

    Promise: a trial depends on data, options, space, seed, and the trials before it alone; trial 0 is the preset as it
    is, where the space allows for it. Only searches on the same data, options and space share trials.

    Args:
        out: folder for best.yaml, trials.csv and, without a storage, the journal; None writes nothing.
        trials: of all workers together; each ends the trial it is at, so there may be a few more.
        storage: a database URL (sqlite:///x.db, postgresql://...) or a journal file, shared by all workers.
        space: YAML file or mapping, path of an option -> {low, high, log} or a list of values; "width" scales the net.
        rounds: held-out parts on which a trial is measured; None takes the run's own validation part, or 3 small ones.
        task, preset, seed, epochs, config, settings: as crnn.train takes them; what a trial starts from.
        labels, target, group, pattern, id, time, format, sample_rate, alphabet, on_bad: as crnn.read takes them.
    Raises:
        MissingExtraError: optuna is not installed.
        ConfigError: an impossible space or option, or a storage that cannot be opened.
        DataError, SplitError: what the data does not allow.
        TrainingError: no trial could be completed; or the storage is gone.
        KeyboardInterrupt: Ctrl-C; finished trials are in the storage.
    """
    _need_optuna()
    for name, value in (("trials", trials), ("rounds", rounds)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}; expected at least 1")
    asked = asked_options(config, settings, epochs)
    read = None if space is None else read_space(space)
    options = Reading(labels, target, group, pattern, id, time, format, sample_rate, on_bad, alphabet=alphabet)
    data = data if isinstance(data, Dataset) else options.read(data)
    plan = make_plan(data, asked, task=task, preset=preset, seed=seed)
    base = _options_of(plan)
    chosen = read if read is not None else default_space(base)
    where = str(space) if isinstance(space, (str, Path)) else "space"
    check_space(chosen, base, find_task(plan.config.task).Config, where)
    sets, held_out = _rounds(plan, rounds)
    if storage is None and out is not None:
        storage = str(Path(out) / "trials.log")
    searcher = _Searcher(plan, base, chosen, sets, quiet)
    with _reaching(storage):
        searcher.open(storage)
        while searcher.finished() < trials and not searcher.is_hopeless():
            searcher.carry_out_next(trials)
        result = searcher.result(held_out)
    if out is not None:
        result.save(Path(out))
    return result


def _need_optuna() -> None:
    try:
        import optuna
    except ModuleNotFoundError:
        message = "crnn search needs optuna, which is not installed; pip install 'crnn[search]'"
        raise MissingExtraError(message) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _options_of(plan: RunPlan) -> Options:
    """What trials start from, whole, so that every part of the data is trained alike."""
    train = to_plain(plan.config.train)
    del train["seed"]  # that of the run
    if plan.config.train.batch_frames is None:
        train["batch_size"] = plan.config.train.batch_size_for(len(plan.parts.train))
    return {"model": to_plain(plan.config.model), "train": train, "task": dict(plan.config.task_options)}


def _rounds(plan: RunPlan, rounds: int | None) -> tuple[list[Dataset], str]:
    """The training part of a run, marked as train and validation, once for each held-out part; and how, in words."""
    parts = plan.parts
    if rounds is None and parts.validation is not None:
        held = len(parts.validation)
        return [_marked(parts.train, parts.validation)], f"on the run's own validation part of {held} examples"
    known = parts.train.examples + (parts.validation.examples if parts.validation is not None else ())
    whole = replace(parts.train, examples=known)
    config = SplitConfig(test=0, validation=HELD_OUT, min_validation=1, official=False)
    sets, sizes = [], []
    for i in range(rounds or ROUNDS):
        cut = split(whole, config, seed=plan.config.seed + i)
        if cut.validation is None:
            raise SplitError(
                f"{whole.source}: {cut.how}; a search needs a part of the training data to measure trials on: give "
                "more examples, or groups of which one can be left out"
            )
        sets.append(_marked(cut.train, cut.validation))
        sizes.append(len(cut.validation))
    each = f"of {min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"of {sizes[0]}"
    return sets, f"on {len(sets)} held-out part{'s' * (len(sets) > 1)} {each} of {len(whole)} training examples"


def _marked(train: Dataset, validation: Dataset) -> Dataset:
    marked = [replace(example, split="train") for example in train]
    held = [replace(example, split="validation") for example in validation]
    return replace(train, examples=(*marked, *held))


class _Searcher:
    """A study and the trials that this worker adds to it."""

    def __init__(self, plan: RunPlan, base: Options, space: Space, sets: list[Dataset], quiet: bool) -> None:
        self.plan, self.base, self.space, self.sets, self.quiet = plan, base, space, sets, quiet
        self.metric, self.higher = plan.task.primary, plan.task.higher_is_better
        self.study: optuna.Study

    def open(self, storage: str | None) -> None:
        """Join the study of this search, or start it with the preset itself as its first trial."""
        import optuna

        options: dict[str, Any] = {
            "storage": _open_storage(storage),
            "study_name": self._name(),
            "direction": "maximize" if self.higher else "minimize",
            "pruner": optuna.pruners.MedianPruner(n_startup_trials=STARTING_TRIALS, n_warmup_steps=FIRST_MARK),
        }
        try:
            self.study = optuna.create_study(**options)
        except optuna.exceptions.DuplicatedStudyError:
            self.study = optuna.create_study(**options, load_if_exists=True)
            return
        first = values_of(self.base, self.space)
        if first is not None:
            self.study.enqueue_trial(first)

    def _name(self) -> str:
        """The same for all that may share trials."""
        config = self.plan.config
        what = {
            "data": [part.fingerprint() for part in self.sets],
            "sides": [[example.split for example in part] for part in self.sets],
            "options": self.base,
            "space": to_plain(self.space),
            "task": config.task,
            "seed": config.seed,
        }
        return "crnn-" + hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def finished(self) -> int:
        """Trials that have ended, whichever way and wherever."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def is_hopeless(self) -> bool:
        """So many trials failed, and none was completed, that the fault is not with what was drawn."""
        states = [trial.state for trial in self._trials()]
        return "complete" not in states and states.count("failed") >= STARTING_TRIALS

    def carry_out_next(self, total: int) -> None:
        """One more trial, to its end; one that cannot be trained is recorded with its reason, and others go on."""
        import optuna

        trial = self.study.ask()
        # by its number: a search that was stopped goes on as if it had not been, and no two workers draw the same
        self.study.sampler = optuna.samplers.TPESampler(seed=1000 * self.plan.config.seed + trial.number)
        started = clock.monotonic()
        try:
            value = self._measure(trial)
        except optuna.TrialPruned:
            self._tell(trial, optuna.trial.TrialState.PRUNED, started)
        except (TrainingError, ConfigError, DataError, ShapeError) as error:
            trial.set_user_attr("reason", str(error))
            self._tell(trial, optuna.trial.TrialState.FAIL, started)
        except BaseException:
            trial.set_user_attr("reason", "stopped before its end")
            self._tell(trial, optuna.trial.TrialState.FAIL, started)
            raise
        else:
            self._tell(trial, optuna.trial.TrialState.COMPLETE, started, value)
        if not self.quiet:
            self._say(trial.number, total)

    def _tell(
        self, trial: optuna.Trial, state: optuna.trial.TrialState, started: float, value: float | None = None
    ) -> None:
        trial.set_user_attr("seconds", round(clock.monotonic() - started, 3))
        self.study.tell(trial, value, state=state)

    def _measure(self, trial: optuna.Trial) -> float:
        """The mean metric over the held-out parts."""
        options = with_values(self.base, {name: _draw(trial, name, entry) for name, entry in self.space.items()})
        config, values, losses = self.plan.config, list[float](), list[float]()
        for part in self.sets:
            asked = {**options, "split": {"test": 0}}
            plan = make_plan(part, asked, task=config.task, preset=config.preset, seed=config.seed)
            watch = _Watch(trial, self.metric, tuple(values))
            _, history = fit_plan(plan, watch=watch)
            value, loss = self._end(history, plan.config.train.keep)
            values.append(value)
            losses.append(loss)
        trial.set_user_attr("loss", statistics.fmean(losses))
        return statistics.fmean(values)

    def _end(self, history: History, keep: str) -> tuple[float, float]:
        """Metric and loss of the weights that a run keeps."""
        record = history.records[-1] if keep == "last" or history.best is None else history.best
        value, loss = record.metrics[self.metric], record.validation_loss
        if loss is None or not math.isfinite(value):
            raise TrainingError(f"the validation {self.metric} is {value}, which cannot be compared")
        return value, loss

    def _say(self, number: int, total: int) -> None:
        trials = self._trials()
        this, best = trials[number], rank(trials, self.higher)
        score = this.state if this.value is None else f"{self.metric} {this.value:.4f} {this.state}"
        so_far = f"best {best[0].value:.4f} (trial {best[0].number})" if best else "none complete yet"
        done = f"{self.finished()}/{total}"
        print(f"{done}  trial {number}  {score}  {_spell(this.values)}  {so_far}", file=sys.stderr, flush=True)

    def _trials(self) -> tuple[Trial, ...]:
        return tuple(_plain_trial(trial) for trial in self.study.get_trials(deepcopy=False))

    def result(self, held_out: str) -> SearchResult:
        """All trials, and the best as options.

        Raises:
            TrainingError: none was completed.
        """
        trials = self._trials()
        ranked = rank(trials, self.higher)
        if not ranked:
            reason = next((trial.reason for trial in trials if trial.reason), "all of them are still running")
            raise TrainingError(f"none of {len(trials)} trials could be completed; the first: {reason}")
        best = with_values(self.base, ranked[0].values)
        config = {**best, "split": to_plain(self.plan.config.split)}
        return SearchResult(self.metric, self.higher, held_out, trials, {k: v for k, v in config.items() if v})


class _Watch:
    """Tells a trial how its training is doing, at each tenth of it, and ends it where the pruner says so."""

    def __init__(self, trial: optuna.Trial, metric: str, before: tuple[float, ...]) -> None:
        self.trial, self.metric, self.before = trial, metric, before
        self.mark = len(before) * MARKS
        self.first = self.mark

    def __call__(self, update: Update) -> None:
        record = update.record
        if record is None or not record.metrics:
            return
        reached = self.first + MARKS * update.step // update.num_steps
        if reached == self.mark:
            return
        value = statistics.fmean([*self.before, record.metrics[self.metric]])
        while self.mark < reached:  # long epochs pass several marks at once
            self.mark += 1
            self.trial.report(value, self.mark)
        if self.trial.should_prune():
            import optuna

            raise optuna.TrialPruned


def _draw(trial: optuna.Trial, name: str, entry: Range | list[Any]) -> Any:
    if isinstance(entry, list):
        return trial.suggest_categorical(name, entry)
    if isinstance(entry.low, int) and isinstance(entry.high, int):
        return trial.suggest_int(name, entry.low, entry.high, log=entry.log)
    return trial.suggest_float(name, entry.low, entry.high, log=entry.log)


def _plain_trial(trial: optuna.trial.FrozenTrial) -> Trial:
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "running")
    value = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step or 0)
    kept = trial.user_attrs
    return Trial(
        trial.number, state, value, kept.get("loss"), kept.get("seconds"), dict(trial.params), kept.get("reason", "")
    )


def _spell(values: dict[str, Any]) -> str:
    """Names without their section, numbers short."""
    short = {name.rpartition(".")[2]: f"{v:.3g}" if isinstance(v, float) else v for name, v in values.items()}
    return " ".join(f"{name}={value}" for name, value in short.items())


def _open_storage(storage: str | None) -> Any:
    """What create_study takes: nothing for memory, a database for a URL, a journal file otherwise.

    Raises:
        ConfigError: no such kind of database, its driver is not installed, or the file is a folder.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import ArgumentError

    if storage is None:
        return None
    expected = "expected a journal file, or a URL such as sqlite:///trials.db"
    if "://" in storage:
        try:
            return RDBStorage(storage)
        except (ArgumentError, ImportError) as error:
            raise ConfigError(f"--storage {storage}: cannot be opened ({error}); {expected}") from None
    path = Path(storage)
    if path.is_dir():
        raise ConfigError(f"--storage {storage}: is a folder; {expected}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


@contextmanager
def _reaching(storage: str | None) -> Iterator[None]:
    """A storage that is gone or refuses, as our error."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise TrainingError(
            f"--storage {storage}: cannot be read or written ({reason}); bring it back and give the same command "
            "again: finished trials are kept"
        ) from error
