"""Prefix beam search: the most probable transcript, all its paths added up, weighed by what is known of the language.

Source: Graves & Jaitly 2014, algorithm 1; Hannun et al. 2014, arXiv:1408.2873. Each prefix also carries its best single
path, which gives the times.
"""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple, Protocol

from crnn.config import config
from crnn.decode.ctc import BLANK, Frames, Span
from crnn.errors import ConfigError

COMMIT_EVERY = 32
"""Frames between looks at what all hypotheses share: it is final, and its memory is given back."""
NEVER = -math.inf


@config
class BeamConfig:
    """How wide to search."""

    width: int = 16
    """Prefixes that are kept after each frame."""
    horizon: int = 256
    """Frames after which a label of the best hypothesis is believed: hypotheses without it are given up."""
    min_log_prob: float = -8.0
    """Labels less probable than this (natural logarithm) in a frame are not tried there, but for the best one."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"beam.width={self.width}; expected at least 1")
        if self.horizon < 1:
            raise ConfigError(f"beam.horizon={self.horizon}; expected at least 1 frame")
        if not self.min_log_prob < 0:
            raise ConfigError(f"beam.min_log_prob={self.min_log_prob}; expected a logarithm below 0")


class Scorer(Protocol):
    """What is known of the language: a score (natural logarithm) for each label, given the labels before it."""

    def start(self) -> Any:
        """State before the first label."""

    def extend(self, state: Any, label: int) -> tuple[Any, float] | None:
        """State and score after one more label; None where it cannot stand there."""

    def end(self, state: Any) -> float | None:
        """Score of ending here; None where a text cannot end."""

    def recent(self, labels: list[int]) -> list[int]:
        """The last labels, as many as it takes to have the same state again from `start`."""


class NoScorer:
    """Knows nothing: every text is as good as any other."""

    def start(self) -> None:
        """No state."""

    def extend(self, state: None, label: int) -> tuple[None, float]:
        """Nothing to add."""
        return None, 0.0

    def end(self, state: None) -> float:
        """Nothing to add."""
        return 0.0

    def recent(self, labels: list[int]) -> list[int]:
        """None are needed."""
        return []


class Hypothesis(NamedTuple):
    """A transcript that may be it."""

    labels: list[int]
    """After the final ones."""
    score: float
    """Log probability, with what the scorer adds."""


class _Prefix:
    """A text so far: a node of the tree of all that were tried."""

    __slots__ = ("children", "depth", "label", "parent", "score", "state")

    def __init__(self, parent: _Prefix | None, label: int, state: Any, score: float) -> None:
        self.parent, self.label, self.state, self.score = parent, label, state, score
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.children: dict[int, _Prefix | None] = {}


Times = tuple[Any, int, int, float] | None
"""A linked list of labels in time, the last first: (the ones before, start, end, highest log probability)."""


class _Paths:
    """The paths of one prefix: summed and best, those that end in a blank apart from those that end in its label."""

    __slots__ = ("best_blank", "best_label", "blank", "label", "times_blank", "times_label")

    def __init__(self) -> None:
        self.blank = self.label = self.best_blank = self.best_label = NEVER
        self.times_blank: Times = None
        self.times_label: Times = None

    @property
    def total(self) -> float:
        return _add(self.blank, self.label)

    @property
    def times(self) -> Times:
        return self.times_blank if self.best_blank > self.best_label else self.times_label

    def add_blank(self, score: float, best: float, times: Times) -> None:
        self.blank = _add(self.blank, score)
        if best > self.best_blank:
            self.best_blank, self.times_blank = best, times

    def add_label(self, score: float, best: float, times: Times) -> None:
        self.label = _add(self.label, score)
        if best > self.best_label:
            self.best_label, self.times_label = best, times


class BeamSearch:
    """Prefix beam search over one sequence, whole or in parts.

    Promise: the same labels and times for any chunking. What all hypotheses share becomes final, and what the best one
    has held for `horizon` frames is shared by all, so memory stays bounded on a stream of any length.
    """

    def __init__(self, config: BeamConfig | None = None, scorer: Scorer | None = None) -> None:
        self.config = config or BeamConfig()
        self.scorer: Scorer = scorer or NoScorer()
        self._begin()

    def _begin(self) -> None:
        self._frame = 0
        self._final: list[int] = []  # as many of the final labels as the scorer needs to start again
        self._root = _Prefix(None, BLANK, self.scorer.start(), 0.0)
        first = _Paths()
        first.blank = first.best_blank = 0.0
        self._beam: dict[_Prefix, _Paths] = {self._root: first}

    def push(self, log_probs: Frames) -> list[Span]:
        """Take the next frames (n, labels); returns the labels that are final now."""
        done: list[Span] = []
        for row in log_probs.tolist():
            self._step(row)
            self._frame += 1
            if self._frame % COMMIT_EVERY == 0:
                done += self._commit()
        return done

    def pending(self) -> list[Span]:
        """Labels after the final ones in the best hypothesis."""
        prefix = max(self._beam, key=lambda p: self._beam[p].total + p.score)
        return self._spans(prefix, prefix)

    def finish(self) -> list[Span]:
        """The last labels, of the best hypothesis that may end here (any, where none may)."""
        best, where = NEVER, None
        for prefix, paths in self._beam.items():
            end = self.scorer.end(prefix.state)
            score = NEVER if end is None else paths.total + prefix.score + end
            if score > best:
                best, where = score, prefix
        last = self.pending() if where is None else self._spans(where, where)
        self._begin()
        return last

    def hypotheses(self) -> list[Hypothesis]:
        """All that are kept, the best first, without what the scorer says of their end."""
        found = [
            Hypothesis([p.label for p in self._path(prefix)], paths.total + prefix.score)
            for prefix, paths in self._beam.items()
        ]
        return sorted(found, key=lambda h: -h.score)

    def _step(self, row: list[float]) -> None:
        """One frame."""
        threshold = min(self.config.min_log_prob, max(row))
        labels = [label for label, score in enumerate(row) if score >= threshold and label != BLANK]
        t = self._frame
        grown: dict[_Prefix, _Paths] = {}
        for prefix, paths in self._beam.items():
            here = grown.get(prefix)
            if here is None:
                here = grown[prefix] = _Paths()
            total = paths.total
            best, times = max(paths.best_blank, paths.best_label), paths.times
            here.add_blank(total + row[BLANK], best + row[BLANK], times)
            last = prefix.label
            if last != BLANK and paths.label > NEVER:
                score = row[last]
                before, start, _, peak = paths.times_label  # type: ignore[misc]
                longer = (before, start, t + 1, max(peak, score))
                here.add_label(paths.label + score, paths.best_label + score, longer)
            for label in labels:
                if label == last and paths.blank == NEVER:  # the same label again needs a blank in between
                    continue
                child = self._child(prefix, label)
                if child is None:
                    continue
                score = row[label]
                there = grown.get(child)
                if there is None:
                    there = grown[child] = _Paths()
                if label == last:
                    there.add_label(paths.blank + score, paths.best_blank + score, (paths.times_blank, t, t + 1, score))
                else:
                    there.add_label(total + score, best + score, (times, t, t + 1, score))
        if len(grown) > self.config.width:
            ranked = ((paths.total + prefix.score, -i, prefix) for i, (prefix, paths) in enumerate(grown.items()))
            kept = heapq.nlargest(self.config.width, ranked)
            grown = {prefix: grown[prefix] for _, _, prefix in kept}
        self._beam = grown

    def _child(self, prefix: _Prefix, label: int) -> _Prefix | None:
        """The prefix with one more label; None where the scorer does not allow it."""
        if label in prefix.children:
            return prefix.children[label]
        extended = self.scorer.extend(prefix.state, label)
        child = None
        if extended is not None:
            state, score = extended
            child = _Prefix(prefix, label, state, prefix.score + score)
        prefix.children[label] = child
        return child

    def _commit(self) -> list[Span]:
        """Make final what all hypotheses share, but for its last label, whose end may still move."""
        self._believe()
        shared: _Prefix | None = None
        for prefix in self._beam:
            shared = prefix if shared is None else _common(shared, prefix)
        assert shared is not None, "a beam is never empty"
        root = shared if shared is self._root else shared.parent
        assert root is not None, "below the root every prefix has a parent"
        best = max(self._beam, key=lambda p: self._beam[p].total + p.score)
        done = self._spans(best, root)
        self._final = self.scorer.recent(self._final + [span.label for span in done])
        self._root, root.parent = root, None
        alive = {root}
        for prefix, paths in self._beam.items():
            alive.update(self._path(prefix))
            keep = prefix.depth - root.depth
            paths.times_blank = _last(paths.times_blank, keep)
            paths.times_label = _last(paths.times_label, keep)
        for prefix in alive:
            prefix.children = {label: child for label, child in prefix.children.items() if child in alive}
        return done

    def _believe(self) -> None:
        """Give up hypotheses that lack what the best one has held for long."""
        best = max(self._beam, key=lambda p: self._beam[p].total + p.score)
        held: _Prefix | None = best
        times = self._beam[best].times
        while held is not self._root and times is not None and times[2] > self._frame - self.config.horizon:
            assert held is not None, "the root is an ancestor of every prefix"
            held, times = held.parent, times[0]
        if held is None or held is self._root:
            return
        kept = held
        self._beam = {prefix: paths for prefix, paths in self._beam.items() if _ancestor(prefix, kept.depth) is kept}

    def _path(self, prefix: _Prefix) -> list[_Prefix]:
        """Prefixes after the root up to this one."""
        path = []
        while prefix is not self._root:
            path.append(prefix)
            assert prefix.parent is not None, "the root is an ancestor of every prefix"
            prefix = prefix.parent
        return path[::-1]

    def _spans(self, prefix: _Prefix, until: _Prefix) -> list[Span]:
        """Labels after the root up to `until`, an ancestor of `prefix`, in the times of that one's best path."""
        spans: list[Span] = []
        times = self._beam[prefix].times
        while prefix is not self._root:
            assert times is not None, "a path has as many times as labels"
            assert prefix.parent is not None, "the root is an ancestor of every prefix"
            before, start, end, peak = times
            if prefix.depth <= until.depth:
                spans.append(Span(prefix.label, start, end, math.exp(peak)))
            prefix, times = prefix.parent, before
        return spans[::-1]

    def state(self) -> dict[str, Any]:
        """Plain values to go on from."""
        order: dict[_Prefix, int] = {self._root: 0}
        for prefix in self._beam:
            for node in self._path(prefix):
                order.setdefault(node, len(order))
        nodes = [[order[n.parent], n.label] for n in order if n.parent is not None and n is not self._root]
        beam = [
            [
                order[prefix],
                [p.blank, p.label, p.best_blank, p.best_label],
                _plain(p.times_blank),
                _plain(p.times_label),
            ]
            for prefix, p in self._beam.items()
        ]
        return {"frame": self._frame, "final": self._final, "score": self._root.score, "nodes": nodes, "beam": beam}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, in a search with the same config and scorer."""
        self._frame, self._final = state["frame"], list(state["final"])
        before = self.scorer.start()
        for label in self._final:
            extended = self.scorer.extend(before, label)
            assert extended is not None, "it was allowed before"
            before = extended[0]
        last = self._final[-1] if self._final else BLANK
        self._root = _Prefix(None, last, before, state["score"])
        nodes = [self._root]
        for parent, label in state["nodes"]:
            child = self._child(nodes[parent], label)
            assert child is not None, "it was allowed before"
            nodes.append(child)
        self._beam = {}
        for node, scores, times_blank, times_label in state["beam"]:
            paths = self._beam[nodes[node]] = _Paths()
            paths.blank, paths.label, paths.best_blank, paths.best_label = scores
            paths.times_blank, paths.times_label = _linked(times_blank), _linked(times_label)


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))


def _common(a: _Prefix, b: _Prefix) -> _Prefix:
    """The longest prefix of both."""
    while a is not b:
        if a.depth < b.depth:
            a, b = b, a
        assert a.parent is not None, "both stand below one root"
        a = a.parent
    return a


def _ancestor(prefix: _Prefix, depth: int) -> _Prefix:
    """The prefix of this many labels, or itself where it is shorter."""
    while prefix.depth > depth:
        assert prefix.parent is not None, "the root is an ancestor of every prefix"
        prefix = prefix.parent
    return prefix


def _last(times: Times, count: int) -> Times:
    """The last `count` labels of a linked list."""
    return _linked(_plain(times, count))


def _plain(times: Times, count: int = -1) -> list[list[Any]]:
    """A linked list as a plain one, first label first; at most the last `count`."""
    found: list[list[Any]] = []
    while times is not None and len(found) != count:
        times, start, end, peak = times
        found.append([start, end, peak])
    return found[::-1]


def _linked(times: list[list[Any]]) -> Times:
    linked: Times = None
    for start, end, peak in times:
        linked = (linked, start, end, peak)
    return linked
