"""scikit-learn estimators over the same rooms: CRNNClassifier and CRNNRegressor."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import Tensor

from crnn.data.batch import Batches
from crnn.data.dataset import Dataset, Target
from crnn.data.read import as_frame, from_arrays, read
from crnn.data.readers.columns import ID_NAMES, TIME_NAMES, pick_column, pick_targets
from crnn.errors import ConfigError, DataError, ModelError
from crnn.model import Model
from crnn.run import asked_options, fit_plan, make_plan
from crnn.sequences import Sequences

E = TypeVar("E", bound="SequenceEstimator")

OWN_OPTIONS = ("split.test", "split.validation", "split.official")
"""What the estimators decide themselves, so that config and settings cannot: fit trains on all that it is given."""
BATCH_SIZE = 64
"""Sequences predicted at a time; predictions do not depend on it."""


class SequenceEstimator(BaseEstimator):
    """What both estimators share: how X is read, trained on, predicted and saved.

    X is one of
        - an array (n, time): a row a univariate sequence;
        - an array (n, time, channels), (n, channels, time) with channels_first=True;
        - either of them padded, with `lengths`, or with NaN in every channel past each end;
        - a list of arrays (time,) or (time, channels), of any lengths;
        - a long table (polars, pandas, pyarrow) with an id, a time and channel columns, and for fit a target column;
        - a Dataset, as crnn.read gives it.
    A table without id and time columns is an array (n, time) with names. NaN inside of a sequence is a missing value.
    """

    _task: ClassVar[str]
    model_: Model
    n_features_in_: int

    def __init__(
        self,
        *,
        preset: str,
        epochs: int | None,
        steps: int | None,
        batch_size: int | None,
        learning_rate: float | None,
        validation: float,
        random_state: Any,
        config: dict[str, Any] | str | Path | None,
        settings: dict[str, Any] | None,
        channels_first: bool,
        id: str | None,
        time: str | None,
        target: str | None,
        quiet: bool,
    ) -> None:
        self.preset = preset
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.random_state = random_state
        self.config = config
        self.settings = settings
        self.channels_first = channels_first
        self.id = id
        self.time = time
        self.target = target
        self.quiet = quiet

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator as model.safetensors and config.json, which crnn.load reads too; without history_.

        Raises:
            ConfigError: classes or parameters that JSON cannot hold.
        """
        check_is_fitted(self, "model_")
        origin = {**self.model_.origin, "estimator": {"type": type(self).__name__, **self._facts()}}
        replace(self.model_, origin=origin).save(folder)

    @classmethod
    def load(cls: type[E], folder: str | Path) -> E:
        """The estimator that `save` wrote; runs no code from the folder.

        Raises:
            ModelError: missing, truncated or foreign files, or another kind of estimator.
        """
        model = Model.load(folder)
        facts = model.origin.get("estimator")
        if facts is None or facts["type"] != cls.__name__:
            found = "a model that no estimator saved; use crnn.load" if facts is None else f"a {facts['type']}"
            raise ModelError(f"{folder}: expected a {cls.__name__}, found {found}")
        estimator = cls(**facts["params"])
        estimator._restore(facts)
        estimator.model_ = replace(model, origin={k: v for k, v in model.origin.items() if k != "estimator"})
        return estimator

    def _facts(self) -> dict[str, Any]:
        """Parameters and what was fitted besides the model, as plain values."""
        params = {name: _plain(value) for name, value in self.get_params(deep=False).items()}
        if not isinstance(params["random_state"], (int, type(None))):
            params["random_state"] = None  # a generator has moved on, and JSON has none
        names = getattr(self, "feature_names_in_", None)
        return {
            "params": params,
            "n_features_in": self.n_features_in_,
            "feature_names_in": None if names is None else names.tolist(),
            "fixed_width": self._fixed_width,
        }

    def _restore(self, facts: dict[str, Any]) -> None:
        """Take over what _facts gave besides the parameters."""
        self.n_features_in_ = facts["n_features_in"]
        self._fixed_width: bool = facts["fixed_width"]
        if facts["feature_names_in"] is not None:
            self.feature_names_in_ = np.array(facts["feature_names_in"], dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        """Plain values, and the model as the two files that `save` writes: nothing in them can run."""
        state: dict[str, Any] = super().__getstate__()
        if "model_" not in state:
            return state
        with tempfile.TemporaryDirectory() as folder:
            self.model_.save(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return {**state, "model_": files}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "model_" in state:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in state["model_"].items():
                    (Path(folder) / name).write_bytes(content)
                state = {**state, "model_": Model.load(folder)}
        super().__setstate__(state)

    def _fit(self, data: Dataset, targets: Sequence[Target], groups: Any, task_options: dict[str, Any]) -> None:
        """Train on these sequences and targets; torch's global random state is left as it was."""
        names = [example.group for example in data]
        if groups is not None:
            check_consistent_length(data, groups)
            names = [str(group) for group in np.asarray(groups).tolist()]
        examples = tuple(
            replace(example, target=target, group=group, split=None)
            for example, target, group in zip(data, targets, names, strict=True)
        )
        seed = _plain(self.random_state)
        if not isinstance(seed, int):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        asked = self._options(task_options)
        with torch.random.fork_rng(devices=[]):
            plan = make_plan(
                replace(data, examples=examples), asked, task=self._task, preset=self.preset, seed=seed, source=None
            )
            least = plan.make_network().min_length
            if self._fixed_width and self.n_features_in_ < least:
                raise DataError(
                    f"X: n_features={self.n_features_in_} time steps a row, but this network needs at least {least}; "
                    "give longer sequences, or use less pooling (settings)"
                )
            self.model_, self.history_ = fit_plan(plan, quiet=self.quiet)

    def _options(self, task_options: dict[str, Any]) -> dict[str, Any]:
        """config, then the parameters, then settings."""
        asked = asked_options(self.config, _plain(self.settings), None)
        for path in OWN_OPTIONS:
            section, _, option = path.partition(".")
            if path in asked["settings"] or option in asked.get(section, {}):
                raise ConfigError(
                    f"{path}: fit trains on all that it is given; expected validation= for the share to stop on, "
                    "and other data for a test"
                )
        own: dict[str, Any] = {"split.test": 0.0, "split.validation": _plain(self.validation), "split.official": False}
        for name in ("epochs", "steps", "batch_size", "learning_rate"):
            if getattr(self, name) is not None:
                own[f"train.{name}"] = _plain(getattr(self, name))
        own |= {f"task.{name}": value for name, value in task_options.items() if value is not None}
        return {**asked, "settings": own | asked["settings"]}

    def _read(self, X: Any, lengths: Any, *, reset: bool) -> Dataset:  # noqa: N803
        """X as a data set.

        Args:
            reset: True in fit, which sets what later calls are held to.
        Raises:
            ValueError: what is wrong with X, in scikit-learn's words for arrays. TypeError: a sparse matrix.
        """
        frame = as_frame(X)
        if frame is not None and not self._is_long(frame.columns):
            frame = None
        is_list = _is_list_of_arrays(X)
        if lengths is not None and (frame is not None or is_list or isinstance(X, Dataset)):
            raise ConfigError(f"lengths: a {type(X).__name__} knows its lengths; expected one padded array")
        matrix = False
        if isinstance(X, Dataset):
            data = X
        elif frame is not None:
            target = self.target if reset or self.target in frame.columns else None
            data = read(frame, id=self.id, time=self.time, target=target)
        elif is_list:
            data = from_arrays([self._time_first(np.asarray(x)) for x in X], source="X")
        else:
            array, matrix = self._check_array(X, lengths, reset=reset)
            data = from_arrays(array, lengths=lengths, source="X")
        if reset:
            self._fixed_width = matrix
            if not matrix:
                self.n_features_in_ = len(data.channel_names)
                if hasattr(self, "feature_names_in_"):
                    del self.feature_names_in_
        else:
            self.model_.inputs.check(data)
        _refuse_infinite(data)
        return data

    def _is_long(self, columns: Sequence[str]) -> bool:
        """Columns were named, or there are both an id and a time column with usual names."""
        if (self.id, self.time, self.target) != (None, None, None):
            return True
        usual = [pick_column(columns, None, names, "X", "") for names in (ID_NAMES, TIME_NAMES)]
        return None not in usual

    def _time_first(self, x: NDArray[Any]) -> NDArray[Any]:
        return x.T if self.channels_first and x.ndim == 2 else x

    def _check_array(self, X: Any, lengths: Any, *, reset: bool) -> tuple[NDArray[Any], bool]:  # noqa: N803
        """X as (n, time) or (n, time, channels) float32; and whether its width is to be the same in every call.

        It is for (n, time) where all rows are full, as for any scikit-learn estimator.
        """
        array: NDArray[Any] = check_array(
            X,
            dtype=np.float32,
            allow_nd=True,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if reset else 1,
            estimator=self,
            input_name="X",
        )
        if array.ndim > 3:
            raise DataError(f"X: has shape {array.shape}, expected (n, time) or (n, time, channels)")
        if lengths is not None:
            check_consistent_length(array, lengths)
        if array.ndim == 3:
            return (array.transpose(0, 2, 1) if self.channels_first else array), False
        full = lengths is None and not np.isnan(array[:, -1]).any()
        if full and (reset or self._fixed_width):
            validate_data(self, X, reset=reset, skip_check_array=True)
        return array, full

    def _read_new(self, X: Any, lengths: Any) -> Dataset:  # noqa: N803
        """X as a data set that the fitted model takes."""
        check_is_fitted(self, "model_")
        return self._read(X, lengths, reset=False)

    def _outputs(self, data: Dataset) -> Tensor:
        """(n, outputs) as the network gives them, logits divided by the temperature.

        In float64, so that alone and in a batch agree to the seven digits that scikit-learn compares; in float32 the
        default network differed by 4e-7.
        """
        least = self.model_.network.min_length
        short = np.flatnonzero(data.lengths < least)
        if len(short):
            raise DataError(
                f"{data[int(short[0])].where}: found {data.lengths[short[0]]} frames, expected at least {least} "
                f"({len(short)} of {len(data)} sequences are too short); leave them out"
            )
        network = copy.deepcopy(self.model_.network).double().eval()
        device = next(network.parameters()).device
        outputs = torch.empty(len(data), network.outputs, dtype=torch.float64)
        with torch.no_grad():
            for x, indices in Batches(data, BATCH_SIZE, shuffle=False, seed=0).epoch(0):
                frames = x.data.double() if x.data.is_floating_point() else x.data
                outputs[indices] = network(Sequences(frames, x.lengths).to(device)).cpu()
        bad = (~outputs.isfinite().all(1)).nonzero()[:, 0].tolist()
        if bad:
            raise DataError(
                f"{data[bad[0]].where}: no finite prediction ({len(bad)} of {len(data)} sequences); it may hold NaN, "
                "which this network does not handle: put a missing layer in front, or fill it"
            )
        return outputs / self.model_.temperature

    def _require_y(self, y: Any, data: Dataset) -> Any:
        """y, or the targets that a table or data set brings along.

        Raises:
            ValueError: there are none, or not one a sequence.
        """
        if y is not None:
            check_consistent_length(data, y)
            return y
        missing = [example.where for example in data if example.target is None]
        if len(missing) == len(data):
            raise DataError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None; "
                "in a long table, name its column with target="
            )
        if missing:
            raise DataError(f"{missing[0]}: has no target, as {len(missing)} of {len(data)} sequences; leave them out")
        if any(isinstance(example.target, tuple) for example in data):
            raise DataError(f"{data.source}: has sets of labels; expected one target a sequence, or use crnn.train")
        return None


class CRNNClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """Classify sequences with a convolutional-recurrent network.

    Promise: a sequence is classified the same alone, in any batch and with any padding.

    Args:
        preset: which rule makes network and training out of what the data looks like.
        epochs, steps: length of training, one of them; None leaves it to the preset.
        batch_size, learning_rate: None leaves them to the preset.
        validation: share of the training data that is held out to choose the best weights on; 0 for none. A small data
            set is trained on as a whole.
        random_state: an int gives the same network every time; None another one every time.
        config: YAML file or nested options {"model": ..., "train": ..., "task": ...}, below the parameters.
        settings: single options by path, above everything: {"train.weight_decay": 0.1}.
        class_weight: "balanced", or a weight for each class, 1 where none is given. There is no sample_weight.
        channels_first: 3-D arrays are (n, channels, time), and arrays in a list (channels, time).
        id, time, target: columns of a long table; usual names are found when None.
        quiet: False shows progress.
    Attributes:
        classes_: as they came in y, sorted; the columns of predict_proba.
        model_: the crnn Model; history_: its training, epoch by epoch.
        n_features_in_: time steps of (n, time) arrays with full rows, else channels.
    Example:
        CRNNClassifier(steps=200).fit(X, y).predict(X)
    """

    _task = "classify"
    classes_: NDArray[Any]

    def __init__(
        self,
        *,
        preset: str = "default",
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation: float = 0.15,
        random_state: Any = None,
        config: dict[str, Any] | str | Path | None = None,
        settings: dict[str, Any] | None = None,
        class_weight: Literal["balanced"] | dict[Any, float] | None = None,
        channels_first: bool = False,
        id: str | None = None,
        time: str | None = None,
        target: str | None = None,
        quiet: bool = True,
    ) -> None:
        super().__init__(
            preset=preset,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation=validation,
            random_state=random_state,
            config=config,
            settings=settings,
            channels_first=channels_first,
            id=id,
            time=time,
            target=target,
            quiet=quiet,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any = None, *, lengths: Any = None, groups: Any = None) -> CRNNClassifier:  # noqa: N803
        """Train on labelled sequences.

        Args:
            y: (n,) classes: text, whole numbers or booleans; None where X is a table or Dataset that holds them.
            lengths: (n,) frames of each sequence of a padded array.
            groups: (n,) such as speakers; one group never stands both in training and in validation.
        Raises:
            ValueError: what is wrong with X or y; an unknown option. TypeError: X is sparse.
        """
        data = self._read(X, lengths, reset=True)
        y = self._labels(self._require_y(y, data), data, X)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        names = self._class_names()
        self._fit(data, [names[code] for code in codes], groups, {"class_weights": self._class_weights(names)})
        return self

    def predict_proba(self, X: Any, *, lengths: Any = None) -> NDArray[np.float64]:  # noqa: N803
        """(n, classes) probabilities in the order of `classes_`; rows sum to 1."""
        probabilities = self._outputs(self._read_new(X, lengths)).softmax(1).numpy()
        places = [self.model_.task.labels.index(name) for name in self._class_names()]
        ordered: NDArray[np.float64] = probabilities[:, places]
        return ordered

    def predict(self, X: Any, *, lengths: Any = None) -> NDArray[Any]:  # noqa: N803
        """(n,) the most probable classes."""
        best: NDArray[np.int64] = self.predict_proba(X, lengths=lengths).argmax(1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, lengths: Any = None) -> float:  # noqa: N803
        """Share of the sequences whose class is right."""
        data = self._read_new(X, lengths)
        truth = self._labels(self._require_y(y, data), data, X)
        return float(accuracy_score(truth, self.predict(data), sample_weight=sample_weight))

    def _labels(self, y: Any, data: Dataset, X: Any) -> NDArray[Any]:  # noqa: N803
        """(n,) classes in their own type, those of a table included."""
        if y is None:
            y = _typed_targets(data, as_frame(X), self.target)
        labels: NDArray[Any] = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        return labels

    def _class_names(self) -> list[str]:
        return [str(value) for value in self.classes_.tolist()]

    def _class_weights(self, names: list[str]) -> str | dict[str, float] | None:
        """The task's spelling of class_weight."""
        if not isinstance(self.class_weight, dict):
            return self.class_weight
        known = dict(zip(self.classes_.tolist(), names, strict=True))
        for label in self.class_weight:
            if label not in known:
                raise ConfigError(f"class_weight: {label!r} is no class of y; expected some of {', '.join(names)}")
        return {known[label]: float(weight) for label, weight in self.class_weight.items()}

    def _facts(self) -> dict[str, Any]:
        facts = super()._facts()
        if any(not isinstance(value, (bool, int, float, str)) for value in self.classes_.tolist()):
            raise ConfigError(f"classes_: found {self.classes_.dtype}; only text, numbers and booleans can be saved")
        if isinstance(self.class_weight, dict):  # JSON would make text of its keys
            facts["params"]["class_weight"] = [list(pair) for pair in self.class_weight.items()]
        return {**facts, "classes": self.classes_.tolist(), "dtype": self.classes_.dtype.str}

    def _restore(self, facts: dict[str, Any]) -> None:
        super()._restore(facts)
        if isinstance(self.class_weight, list):
            self.class_weight = dict(self.class_weight)
        self.classes_ = np.array(facts["classes"], dtype=facts["dtype"])


class CRNNRegressor(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """Predict one number per sequence with a convolutional-recurrent network.

    Promise: a sequence gets the same number alone, in any batch and with any padding.

    Args:
        preset: which rule makes network and training out of what the data looks like.
        epochs, steps: length of training, one of them; None leaves it to the preset.
        batch_size, learning_rate: None leaves them to the preset.
        validation: share of the training data that is held out to choose the best weights on; 0 for none. A small data
            set is trained on as a whole.
        random_state: an int gives the same network every time; None another one every time.
        config: YAML file or nested options {"model": ..., "train": ..., "task": ...}, below the parameters.
        settings: single options by path, above everything: {"train.weight_decay": 0.1}.
        loss: "mse", "mae", "huber" or "quantile" (predicts the median); None leaves it to the preset. There is no
            sample_weight.
        channels_first: 3-D arrays are (n, channels, time), and arrays in a list (channels, time).
        id, time, target: columns of a long table; usual names are found when None.
        quiet: False shows progress.
    Attributes:
        model_: the crnn Model; history_: its training, epoch by epoch.
        n_features_in_: time steps of (n, time) arrays with full rows, else channels.
    Example:
        CRNNRegressor(steps=200).fit(X, y).predict(X)
    """

    _task = "regress"

    def __init__(
        self,
        *,
        preset: str = "default",
        epochs: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation: float = 0.15,
        random_state: Any = None,
        config: dict[str, Any] | str | Path | None = None,
        settings: dict[str, Any] | None = None,
        loss: Literal["mse", "mae", "huber", "quantile"] | None = None,
        channels_first: bool = False,
        id: str | None = None,
        time: str | None = None,
        target: str | None = None,
        quiet: bool = True,
    ) -> None:
        super().__init__(
            preset=preset,
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation=validation,
            random_state=random_state,
            config=config,
            settings=settings,
            channels_first=channels_first,
            id=id,
            time=time,
            target=target,
            quiet=quiet,
        )
        self.loss = loss

    def fit(self, X: Any, y: Any = None, *, lengths: Any = None, groups: Any = None) -> CRNNRegressor:  # noqa: N803
        """Train on sequences with a number each.

        Args:
            y: (n,) finite numbers; None where X is a table or Dataset that holds them.
            lengths: (n,) frames of each sequence of a padded array.
            groups: (n,) such as patients; one group never stands both in training and in validation.
        Raises:
            ValueError: what is wrong with X or y; an unknown option. TypeError: X is sparse.
        """
        data = self._read(X, lengths, reset=True)
        y = self._numbers(self._require_y(y, data), data)
        self._fit(data, y.tolist(), groups, {"loss": self.loss})
        return self

    def predict(self, X: Any, *, lengths: Any = None) -> NDArray[np.float64]:  # noqa: N803
        """(n,) numbers in the units of y."""
        outputs = self._outputs(self._read_new(X, lengths))
        predictions = self.model_.task.predictions(outputs)
        return np.array([prediction["value"] for prediction in predictions])

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, *, lengths: Any = None) -> float:  # noqa: N803
        """The coefficient of determination, R squared."""
        data = self._read_new(X, lengths)
        truth = self._numbers(self._require_y(y, data), data)
        return float(r2_score(truth, self.predict(data), sample_weight=sample_weight))

    def _numbers(self, y: Any, data: Dataset) -> NDArray[np.float64]:
        """(n,) finite numbers, those of a table included."""
        y = data.targets if y is None else y
        numbers: NDArray[np.float64] = column_or_1d(y, warn=True).astype(np.float64)
        assert_all_finite(numbers, input_name="y")
        return numbers


def _plain(value: Any) -> Any:
    """The same in Python's own types, where numpy's or a path were given (a grid made by np.arange, say)."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _is_list_of_arrays(x: Any) -> bool:
    """A list of sequences, of any lengths; a list of equally long rows of plain numbers is an array."""
    if not isinstance(x, (list, tuple)) or not x:
        return False
    if any(getattr(item, "ndim", 0) >= 1 for item in x):
        return True
    return all(isinstance(item, (list, tuple)) for item in x) and len({len(item) for item in x}) > 1


def _refuse_infinite(data: Dataset) -> None:
    """Raises DataError for a sequence with infinity in it; data that is not in memory is looked at in training."""
    if not data.in_memory or data.kind == "symbols":
        return
    for example in data:
        if np.isinf(example.load()).any():
            raise DataError(f"{example.where}: found infinity, expected numbers, or NaN where one is missing")


def _typed_targets(data: Dataset, frame: pl.DataFrame | None, target: str | None) -> list[Any]:
    """The targets that a table or data set brings along; whole numbers and booleans of a table as such, not as text."""
    if frame is None:
        return data.targets
    (name,) = pick_targets(frame.columns, None if target is None else (target,), data.source)
    cells = frame[name].unique().drop_nulls().to_list()
    known: dict[Any, Any] = {str(cell): cell for cell in cells} | {
        float(cell): cell for cell in cells if isinstance(cell, int)
    }
    return [known.get(found, found) for found in data.targets]
