"""Bootstrap intervals: how far a score on this test set may be from the score on all the data like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Interval(NamedTuple):
    """A percentile interval; both ends NaN when the metric was undefined on every resample."""

    low: float
    high: float


def bootstrap_interval(
    metric: Callable[[Tensor, Tensor], float],
    outputs: Tensor,
    targets: Tensor,
    *,
    groups: Sequence[str | None] | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of any metric of a whole set.

    A metric that is perfect on the set is perfect on every resample: then the interval says nothing about luck.

    Args:
        metric: takes (outputs, targets) of a resample; NaN (undefined there) is left out.
        groups: speaker or patient of each example; whole groups are drawn, since their examples are not independent.
            Examples whose group is None are drawn alone.
        level: share of the resamples inside the interval.
    Source: Efron & Tibshirani 1993, chapter 13 (percentile interval).
    """
    members = _members(groups, len(targets))
    random = np.random.default_rng(seed)
    values = np.empty(num_resamples)
    for i in range(num_resamples):
        index = _draw(members, len(targets), random)
        values[i] = metric(outputs[index], targets[index])
    return percentile_interval(values, level)


def bootstrap_mean(
    values: Tensor,
    *,
    groups: Sequence[str | None] | None = None,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The same for a mean over examples, such as accuracy from `correct` (n,), as one matrix product a thousand draws.

    Args as in bootstrap_interval.
    """
    per_example = values.double().cpu().numpy()
    members = _members(groups, len(per_example))
    if members is None:
        sums, counts = per_example, np.ones(len(per_example))
    else:
        sums = np.array([per_example[index].sum() for index in members])
        counts = np.array([float(len(index)) for index in members])
    random = np.random.default_rng(seed)
    units = len(sums)
    means = np.empty(num_resamples)
    block = max(1, 4_000_000 // units)  # resamples at a time, so that memory stays bounded
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        times_drawn = random.multinomial(units, np.full(units, 1 / units), size=size)
        means[start : start + size] = (times_drawn @ sums) / (times_drawn @ counts)
    return percentile_interval(means, level)


def _members(groups: Sequence[str | None] | None, count: int) -> list[NDArray[np.int64]] | None:
    """Positions of each group; None where examples are drawn alone."""
    if groups is None or all(group is None for group in groups):
        return None
    positions: dict[object, list[int]] = {}
    for i in range(count):
        group = groups[i]
        positions.setdefault((i,) if group is None else group, []).append(i)
    return [np.array(index) for index in positions.values()]


def _draw(members: list[NDArray[np.int64]] | None, count: int, random: np.random.Generator) -> Tensor:
    if members is None:
        return torch.from_numpy(random.integers(count, size=count))
    return torch.from_numpy(np.concatenate([members[i] for i in random.integers(len(members), size=len(members))]))


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> Interval:
    """The interval of a metric from its value on every resample; NaN, undefined there, is left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
