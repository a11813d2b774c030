"""Train, validation and test: official first, else stratified; a group never stands on two sides."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn.config import config
from crnn.data.dataset import Dataset, Target, content_hash
from crnn.errors import ConfigError, ModelError, SplitError

Positions = NDArray[np.int64]
"""Places in a data set."""

SIDES = ("train", "validation", "test")
MAX_VALIDATION_SHARE = 0.4
"""A validation group larger than this part of the training data costs more than it tells."""
TRIALS = 8
"""Orders in which groups are tried; the best balanced result is kept."""


@config
class SplitConfig:
    """How examples are divided into train, validation and test."""

    test: float = 0.2
    """Share of all examples that is held out for the final score; 0 for none. Ignored where the files name a test."""
    validation: float = 0.15
    """Share of what is left for training that is held out to stop on; 0 for none. Ignored where the files name it."""
    official: bool = True
    """Use the split that the files name. False draws a new one over all examples."""
    min_validation: int = 64
    """Fewer validation examples than this would teach more than they tell, so they stay in train."""
    bins: int = 5
    """Quantile bins by which numeric targets are stratified."""

    def __post_init__(self) -> None:
        for name in ("test", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"split.{name}={getattr(self, name)}; expected a share, 0 <= {name} < 1")
        for name in ("min_validation", "bins"):
            if getattr(self, name) < 1:
                raise ConfigError(f"split.{name}={getattr(self, name)}; expected at least 1")


@dataclass(frozen=True)
class Splits:
    """The sides of a split; each keeps the order of the data it came from."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None
    how: str
    """One sentence a side, for the report: where it comes from and how large it is."""

    @property
    def sides(self) -> dict[str, Dataset]:
        """The sides that exist, by name."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: side for name, side in sides.items() if side is not None}


def split(data: Dataset, config: SplitConfig, *, seed: int, stratify: bool = True) -> Splits:
    """Divide a data set; the result depends on the seed and the examples' ids, not on their order.

    What the files name is used as it is. A test or validation side that they do not name is cut from train: stratified
    by class (or quantile of a numeric target), every class keeping at least one example in train, groups kept whole.

    Args:
        stratify: False draws regardless of the targets.
    Raises:
        SplitError: no examples, none to train on, an official split that covers only a part of the examples or has a
            group on two sides, or a test side that cannot be cut.
    """
    if len(data) == 0:
        raise SplitError(f"{data.source}: found no examples, so there is nothing to split")
    places = _official_places(data) if config.official else {}
    train = places.get("train", np.arange(len(data)))
    how = []
    for side, share in (("test", config.test), ("validation", config.validation)):
        if side in places:
            how.append(f"{side}: {len(places[side])} examples as the files say")
            continue
        held = _cut(data.subset(train), side, share, config, f"{seed} {side}", stratify)
        how.append(_describe(side, share, len(held), len(train), data, stratify, seed))
        if len(held):
            places[side] = train[held]
            train = np.delete(train, held)
    how.append(f"train: the other {len(train)}" if len(places) else f"train: all {len(train)}")
    sides = {side: data.subset(places[side]) for side in ("validation", "test") if side in places}
    return Splits(data.subset(train), sides.get("validation"), sides.get("test"), "; ".join(how))


def groups_on_two_sides(sides: Mapping[str, Dataset]) -> dict[str, list[str]]:
    """The groups that stand on more than one side, with the names of those sides."""
    seen: defaultdict[str, list[str]] = defaultdict(list)
    for side, data in sides.items():
        for group in sorted({example.group for example in data if example.group is not None}):
            seen[group].append(side)
    return {group: names for group, names in sorted(seen.items()) if len(names) > 1}


def why_not_by_group(shared: Mapping[str, Sequence[str]]) -> str:
    """What to say about an official split with these groups on these sides."""
    first = ", ".join(f"{group!r} ({', '.join(names)})" for group, names in list(shared.items())[:5])
    more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
    return (
        f"the official split has groups on two sides: {first}{more}; set split.official=false for a split by group, "
        "or leave the group out to use the official split as it is"
    )


def official_sides(data: Dataset) -> dict[str, Dataset]:
    """The sides that the files name, without any check; empty when they name none."""
    found = {side: [i for i, example in enumerate(data) if example.split == side] for side in SIDES}
    return {side: data.subset(indices) for side, indices in found.items() if indices}


def _official_places(data: Dataset) -> dict[str, Positions]:
    sides = official_sides(data)
    if not sides:
        return {}
    unnamed = [example for example in data if example.split is None]
    if unnamed:
        raise SplitError(
            f"{unnamed[0].where}: {len(unnamed)} of {len(data)} examples do not say on which side of the official "
            "split they stand; name a side for each, or set split.official=false to draw a new split"
        )
    if "train" not in sides:
        raise SplitError(
            f"{data.source}: found only {' and '.join(sides)} examples, none to train on; give the training files "
            "as well, or set split.official=false to draw a new split"
        )
    shared = groups_on_two_sides(sides)
    if shared:
        raise SplitError(f"{data.source}: {why_not_by_group(shared)}")
    return {side: np.array([i for i, e in enumerate(data) if e.split == side], dtype=np.int64) for side in sides}


def _cut(data: Dataset, side: str, share: float, config: SplitConfig, key: str, stratify: bool) -> Positions:
    """Positions to hold out; none when a validation side would say too little.

    Raises:
        SplitError: a test side was asked for and none can be cut.
    """
    if share == 0:
        return np.empty(0, dtype=np.int64)
    strata: list[tuple[str, ...]] = [("",)] * len(data)
    if stratify:
        strata = _strata(data.targets, config.bins)
    grouped = any(example.group is not None for example in data)
    if grouped or any(len(labels) != 1 for labels in strata):
        most = 1.0 if side == "test" else MAX_VALIDATION_SHARE
        held = _hold_out_units(data, strata, share, key, most)
    else:
        held = _hold_out_examples(data, [labels[0] for labels in strata], share, key)
    if side == "test" and len(held) == 0:
        raise SplitError(_why_no_test(data, grouped))
    if side == "validation" and len(held) < config.min_validation:
        return np.empty(0, dtype=np.int64)
    return np.sort(held)


def _why_no_test(data: Dataset, grouped: bool) -> str:
    if grouped:
        groups = {example.group for example in data}
        return (
            f"{data.source}: no group can be held out as test: each of the {len(groups)} groups holds all examples of "
            "some class, or there is one group only; leave the group out, give a test set, or set split.test=0"
        )
    return (
        f"{data.source}: no example can be held out as test: with {len(data)} examples in {len(set(data.targets))} "
        "classes, none has one to spare; give more examples, a test set, or set split.test=0"
    )


def _describe(side: str, share: float, held: int, of: int, data: Dataset, stratify: bool, seed: int) -> str:
    if share == 0:
        return f"{side}: none, as asked"
    if held == 0:
        whole = " in whole groups" if any(example.group is not None for example in data) else ""
        return f"{side}: none, because {share:.0%} of {of} training examples{whole} would be too few to stop on"
    ways = []
    if stratify and any(target is not None for target in data.targets):
        ways.append("by quantile of the target" if _is_numeric(data.targets) else "by class")
    ways = ["stratified " + ways[0]] if ways else ["at random"]
    groups = {example.group for example in data}
    if groups != {None}:
        ways.append("groups kept whole" + (", examples without a group taken singly" if None in groups else ""))
    return f"{side}: {held} of {of} ({held / of:.0%}), {', '.join(ways)}, seed {seed}"


def _is_numeric(targets: Sequence[Target]) -> bool:
    return all(isinstance(target, (int, float)) for target in targets)


def _strata(targets: Sequence[Target], bins: int) -> list[tuple[str, ...]]:
    """The classes of each example; for numbers, the quantile bin."""
    if _is_numeric(targets):
        values = np.array(targets, dtype=np.float64)
        finite = values[np.isfinite(values)]
        bins = min(bins, max(1, len(finite) // 10))  # so that each bin can spare an example
        edges = np.unique(np.quantile(finite, np.arange(1, bins) / bins)) if len(finite) else finite
        return [(str(k),) for k in np.searchsorted(edges, values, side="right")]
    return [target if isinstance(target, tuple) else (str(target),) for target in targets]


def _digest(key: str, name: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{name}".encode(), digest_size=16).digest()


def _hold_out_examples(data: Dataset, strata: list[str], share: float, key: str) -> Positions:
    """The first few of each class, in an order drawn from the ids."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    digests = [_digest(key, example.id) for example in data]
    for i in sorted(range(len(data)), key=digests.__getitem__):
        members[strata[i]].append(i)  # so the classes too come in drawn order, which breaks ties below
    sizes = np.array([len(indices) for indices in members.values()])
    quotas = _quotas(sizes, share)
    held = [indices[:quota] for indices, quota in zip(members.values(), quotas.tolist(), strict=True)]
    return np.array([i for indices in held for i in indices], dtype=np.int64)


def _quotas(sizes: Positions, share: float) -> Positions:
    """How many to hold out of each class: by largest remainder, never all of a class."""
    ideal = sizes * share
    quotas: Positions = np.minimum(np.floor(ideal + 1e-9).astype(np.int64), sizes - 1)
    missing = max(1, round(float(ideal.sum()))) - int(quotas.sum())
    for i in np.argsort(quotas - ideal, kind="stable"):
        if missing > 0 and quotas[i] < sizes[i] - 1:
            quotas[i] += 1
            missing -= 1
    return quotas


def _hold_out_units(data: Dataset, strata: list[tuple[str, ...]], share: float, key: str, most: float) -> Positions:
    """Whole groups (or single examples with several labels), so that every class comes near its share.

    Args:
        most: largest share that one group may take when none fits.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(data):
        members[f"example {example.id}" if example.group is None else f"group {example.group}"].append(i)
    names = sorted(members)
    counts = _count_labels([members[name] for name in names], strata)
    best: tuple[float, list[int]] = (math.inf, [])
    for trial in range(TRIALS if len(names) <= 2000 else 1):
        order = sorted(range(len(names)), key=[_digest(f"{key} {trial}", name) for name in names].__getitem__)
        cost, taken = _take_units(counts, order, share)
        if taken and cost < best[0]:
            best = (cost, taken)
    taken = best[1] or _take_one(counts, share, most, [_digest(key, name) for name in names])
    return np.array([i for unit in taken for i in members[names[unit]]], dtype=np.int64)


def _count_labels(members: list[list[int]], strata: list[tuple[str, ...]]) -> NDArray[np.float64]:
    """(units, 1 + labels): how many examples a unit has, and how many of each label."""
    column = {label: 1 + k for k, label in enumerate(sorted({label for labels in strata for label in labels}))}
    counts = np.zeros((len(members), 1 + len(column)))
    for unit, indices in enumerate(members):
        counts[unit, 0] = len(indices)
        for i in indices:
            for label in strata[i]:
                counts[unit, column[label]] += 1
    return counts


def _cost(held: NDArray[np.float64], total: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Squared distance of each label from its share; the number of examples weighs as much as all labels together."""
    off = (held / total - share) ** 2
    return np.asarray(off[..., 0] * max(1, off.shape[-1] - 1) + off[..., 1:].sum(-1))


def _take_units(counts: NDArray[np.float64], order: list[int], share: float) -> tuple[float, list[int]]:
    """Take each unit that brings the held-out part nearer to its share and leaves every label some in train."""
    total, held = counts.sum(0), np.zeros(counts.shape[1])
    cost, taken = float(_cost(held, total, share)), []
    for unit in order:
        more = held + counts[unit]
        new = float(_cost(more, total, share))
        if new < cost and bool((more < total).all()):
            held, cost = more, new
            taken.append(unit)
    return cost, taken


def _take_one(counts: NDArray[np.float64], share: float, most: float, digests: list[bytes]) -> list[int]:
    """Where every unit is larger than the share: the one that overshoots least, if there is a permitted one."""
    total = counts.sum(0)
    permitted = (counts < total).all(1) & (counts[:, 0] <= most * total[0])
    costs = np.where(permitted, _cost(counts, total, share).round(9), np.inf)
    units = [int(unit) for unit in np.flatnonzero(permitted)]
    return [min(units, key=lambda unit: (costs[unit], digests[unit]))] if units else []


Hashes = Mapping[str, Sequence[str]]
"""Content hashes of the examples of each side, in order."""


def hash_sides(sides: Mapping[str, Dataset]) -> dict[str, list[str]]:
    """Content hashes of every example, by side: one pass over the data, to share between `record` and duplicates."""
    return {side: [content_hash(example) for example in data] for side, data in sides.items()}


def record(splits: Splits, hashes: Hashes | None = None) -> dict[str, Any]:
    """What a run keeps in splits.json: how the split was made; ids, content hashes and groups of each side."""
    hashes = hash_sides(splits.sides) if hashes is None else hashes
    sides = {
        side: {
            "ids": [example.id for example in data],
            "hashes": list(hashes[side]),
            "groups": sorted({example.group for example in data if example.group is not None}),
        }
        for side, data in splits.sides.items()
    }
    return {"how": splits.how, "sides": sides}


@dataclass(frozen=True)
class Duplicate:
    """Examples with the same data."""

    sides: tuple[str, ...]
    """Side of each, such as 'train'."""
    ids: tuple[str, ...]
    where: tuple[str, ...]
    targets: tuple[Target, ...]

    @property
    def is_across(self) -> bool:
        """The same data stands on two sides, so the test is not unseen."""
        return len(set(self.sides)) > 1

    @property
    def is_conflicting(self) -> bool:
        """The same data has different targets, so one of them is wrong."""
        return len(set(map(repr, self.targets))) > 1

    @property
    def telling_pair(self) -> tuple[int, int]:
        """Places of the first two that disagree in target, else in side, else of the first two."""
        for names in (list(map(repr, self.targets)), list(self.sides)):
            other = next((i for i, name in enumerate(names) if name != names[0]), None)
            if other is not None:
                return 0, other
        return 0, 1

    def __str__(self) -> str:
        shown = [
            f"{place} ({side}, {target!r})" if self.is_conflicting else f"{place} ({side})"
            for place, side, target in zip(self.where, self.sides, self.targets, strict=True)
        ]
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        return f"same data{' with different targets' if self.is_conflicting else ''}: {', '.join(shown[:4])}{more}"


def find_duplicates(sides: Mapping[str, Dataset], hashes: Hashes | None = None) -> list[Duplicate]:
    """Examples with equal content, within a side and across sides, in order of first appearance."""
    hashes = hash_sides(sides) if hashes is None else hashes
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for side in sides:
        for i, digest in enumerate(hashes[side]):
            found[digest].append((side, i))
    duplicates = []
    for places in found.values():
        if len(places) > 1:
            examples = [sides[side][i] for side, i in places]
            duplicates.append(
                Duplicate(
                    tuple(side for side, _ in places),
                    tuple(example.id for example in examples),
                    tuple(example.where for example in examples),
                    tuple(example.target for example in examples),
                )
            )
    return duplicates


@dataclass(frozen=True)
class Seen:
    """An example whose data a run already knows."""

    index: int
    """Its place in the data set that was asked about."""
    where: str
    side: str
    """Where the run had it: 'train', 'validation' or 'test'."""
    id: str
    """Its id there."""


def find_seen(
    recorded: Mapping[str, Any],
    data: Dataset,
    *,
    sides: Sequence[str] = ("train", "validation"),
    hashes: Sequence[str] | None = None,
) -> list[Seen]:
    """The examples of `data` that a run learned or stopped on, by content: a score on them is not a test.

    Args:
        recorded: what `record` returned, read back from splits.json.
        sides: sides of the run to look in.
    Raises:
        ModelError: `recorded` is not what `record` writes.
    """
    known: dict[str, tuple[str, str]] = {}
    for side in sides:
        try:
            kept = recorded["sides"].get(side, {"ids": [], "hashes": []})
            for id, digest in zip(kept["ids"], kept["hashes"], strict=True):
                known.setdefault(digest, (side, id))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ModelError(
                f"splits.json: side {side!r} is not a list of ids and hashes as training writes it ({error!r}); "
                "copy the file from the original run"
            ) from error
    hashes = [content_hash(example) for example in data] if hashes is None else hashes
    return [
        Seen(i, example.where, *known[digest])
        for i, (example, digest) in enumerate(zip(data, hashes, strict=True))
        if digest in known
    ]
