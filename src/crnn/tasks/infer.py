"""Which tasks there are, and which one the targets ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from crnn.config import nearest
from crnn.data.annotation import Annotation
from crnn.data.dataset import Target
from crnn.errors import ConfigError, DataError
from crnn.plugins import plugins
from crnn.tasks.classify import Classify
from crnn.tasks.multilabel import MultiLabel
from crnn.tasks.regress import Regress
from crnn.tasks.tag import Tag
from crnn.tasks.task import Task
from crnn.tasks.transcribe import Transcribe

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classify, MultiLabel, Regress, Tag, Transcribe)}
"""Every task of ours by name; other packages add theirs by the entry point group crnn.tasks."""
FREE_TEXT_LENGTH = 4
"""Mean length, in characters, from which texts that hardly repeat are transcripts."""
FREE_TEXT_EXAMPLES = 10
"""Fewer, and that they do not repeat means nothing."""


def find_task(name: str) -> type[Task]:
    """The task of this name.

    Raises:
        ConfigError: unknown, with the nearest known name.
    """
    known: dict[str, type[Task]] = {**plugins("tasks"), **TASKS}
    if name not in known:
        raise ConfigError(f"--task {name}: unknown task{nearest(name, list(known))}")
    return known[name]


def infer_task(targets: Sequence[Target]) -> tuple[str, str]:
    """The name of the task for these targets, and the reason in words for the user.

    Text is classified, or transcribed where it hardly repeats; numbers are regressed, sets of labels are a multi-label
    problem. Whole numbers that repeat often (0, 1, 2 in a CSV column) are class numbers.

    Raises:
        DataError: no targets at all, or a mixture of kinds.
    """
    known = [target for target in targets if target is not None]
    if not known:
        raise DataError(
            f"found no targets in {len(targets)} examples; give --labels FILE, a --target column or class sub-folders"
        )
    annotated = [target for target in known if isinstance(target, Annotation)]
    if len(annotated) == len(known):
        labels = set().union(*(target.labels for target in annotated))
        return "tag", f"every example has annotations, {len(labels)} different labels in all"
    if all(isinstance(target, tuple) for target in known):
        names = {label for target in known if isinstance(target, tuple) for label in target}
        return "multilabel", f"every example has a set of labels, {len(names)} different ones in all"
    texts = [target for target in known if isinstance(target, str)]
    if len(texts) == len(known):
        return _task_of_texts(texts)
    numbers = [float(target) for target in known if isinstance(target, (int, float))]
    if len(numbers) == len(known):
        return _task_of_numbers(numbers)
    kinds = sorted({"a set of labels" if isinstance(t, tuple) else type(t).__name__ for t in known})
    raise DataError(
        f"targets are of mixed kinds ({', '.join(kinds)}); expected all text, all numbers or all label sets"
    )


def _task_of_texts(texts: list[str]) -> tuple[str, str]:
    different = len(set(texts))
    is_free = different > len(texts) / 2 and sum(map(len, texts)) >= FREE_TEXT_LENGTH * len(texts)
    if is_free and len(texts) >= FREE_TEXT_EXAMPLES:
        return (
            "transcribe",
            f"targets are texts that hardly repeat, {different} of {len(texts)}; --task classify makes classes of them",
        )
    return "classify", f"targets are text, {different} different ones"


def _task_of_numbers(numbers: list[float]) -> tuple[str, str]:
    different = set(numbers)
    whole = all(math.isfinite(number) and number == int(number) for number in different)
    if whole and len(different) <= 20 and len(numbers) >= 5 * len(different):
        return (
            "classify",
            f"targets are {len(different)} whole numbers that repeat; --task regress treats them as values",
        )
    return "regress", f"targets are numbers, {len(different)} different ones"
