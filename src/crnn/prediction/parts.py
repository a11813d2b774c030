"""Data in parts, and the predictions for one of them: the same work here and on any machine of a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from crnn.config import without_nan
from crnn.data.dataset import Dataset, Example, Problem
from crnn.errors import DataError
from crnn.model import Model

PART_EXAMPLES = 256
"""Examples in a part, at most: what is lost when a worker dies."""
PART_VALUES = 1 << 24
"""Numbers in a part, at most, where it has more than one example."""

LoadModel = Callable[[], Model]
"""Loads the model wherever it is needed."""


class Done(NamedTuple):
    """What came of a part."""

    rows: list[dict[str, Any]]
    """A prediction each, with the id of its example; plain values for JSON."""
    problems: list[Problem]
    """Examples that cannot be read or predicted."""

    def to_json(self) -> str:
        """As one line of text, as workers send it."""
        problems = [[problem.where, problem.what] for problem in self.problems]
        return json.dumps({"rows": self.rows, "problems": problems}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Done:
        """Back from what to_json gave."""
        plain = json.loads(text)
        return cls(plain["rows"], [Problem(where, what) for where, what in plain["problems"]])


class Worker:
    """A model that predicts parts of one data set.

    Args:
        batch_size: sequences at a time; changes speed only.
    """

    def __init__(self, load: LoadModel, data: Dataset, batch_size: int) -> None:
        self.model, self.data, self.batch_size = load(), data, batch_size

    def predict(self, indices: list[int]) -> Done:
        """The predictions for some examples, and which of them cannot be predicted: one bad file spoils no other."""
        part = self.data.subset(indices)
        try:
            return Done(self._rows(part), [])
        except DataError:
            pass
        rows, problems = [], []
        for i, example in enumerate(part):
            try:
                rows += self._rows(part[i : i + 1])
            except DataError as error:
                problems.append(Problem(example.where, str(error).removeprefix(f"{example.where}: ")))
        return Done(rows, problems)

    def _rows(self, part: Dataset) -> list[dict[str, Any]]:
        found = self.model.predict(part, batch_size=self.batch_size)
        return [without_nan({"id": example.id, **row}) for example, row in zip(part, found, strict=True)]


def divide(data: Dataset, indices: list[int]) -> Iterator[list[int]]:
    """The examples at these places in parts of at most PART_EXAMPLES and PART_VALUES."""
    part: list[int] = []
    values = 0
    for i in indices:
        own = _values(data, data[i])
        if part and (len(part) == PART_EXAMPLES or values + own > PART_VALUES):
            yield part
            part, values = [], 0
        part.append(i)
        values += own
    if part:
        yield part


def _values(data: Dataset, example: Example) -> int:
    return example.length * data.frame_values
