"""The estimators: scikit-learn's own checks, every kind of X, and the places of scikit-learn that they are used in."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter

from crnn.data.read import from_arrays, read
from crnn.errors import ConfigError, DataError, ModelError
from crnn.run import load
from crnn.sklearn import CRNNClassifier, CRNNRegressor

QUICK = {"preset": "seed", "steps": 15, "validation": 0.0, "learning_rate": 0.02}
"""A small network for data of ten rows and two columns, as scikit-learn's checks bring; the defaults train longer."""


@pytest.fixture(scope="module", autouse=True)  # as wide as `fitted`: other threads give other last bits
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([CRNNClassifier(**QUICK), CRNNRegressor(**{**QUICK, "steps": 40})])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([CRNNClassifier(steps=30, learning_rate=0.01), CRNNRegressor(steps=30, learning_rate=0.01)])
def test_scikit_learns_own_checks_of_the_default_network(estimator, check):
    check(estimator)


def ragged(count: int = 24, channels: int = 2):
    """Sequences of 8 to 15 frames whose first channel rises or falls, with the classes 'down' and 'up'."""
    random = np.random.default_rng(0)
    sequences, labels = [], []
    for i in range(count):
        length = 8 + i % 8
        x = 0.1 * random.normal(size=(length, channels))
        x[:, 0] += np.linspace(-1, 1, length) * (1 if i % 2 else -1)
        sequences.append(x)
        labels.append("up" if i % 2 else "down")
    return sequences, np.array(labels)


def padded(sequences, junk=np.nan):
    """(n, 15, channels) with junk past each end."""
    array = np.full((len(sequences), 15, sequences[0].shape[1]), junk)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence
    return array


def long_table(sequences, labels=None):
    rows = [
        {"id": f"s{i:02}", "time": t, "a": frame[0], "b": frame[1], **({} if labels is None else {"kind": labels[i]})}
        for i, sequence in enumerate(sequences)
        for t, frame in enumerate(sequence)
    ]
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def fitted():
    sequences, labels = ragged()
    return CRNNClassifier(**QUICK, random_state=0).fit(sequences, labels)


def test_the_kinds_of_x_give_the_same_fit_and_the_same_predictions(fitted):
    sequences, labels = ragged()
    lengths = [len(x) for x in sequences]
    expected = fitted.predict_proba(sequences)
    assert fitted.score(sequences, labels) == 1.0
    assert fitted.n_features_in_ == 2
    by_nan = clone(fitted).fit(padded(sequences), labels)
    np.testing.assert_array_equal(by_nan.predict_proba(padded(sequences)), expected)
    by_lengths = clone(fitted).fit(padded(sequences, 7.0), labels, lengths=lengths)
    np.testing.assert_array_equal(by_lengths.predict_proba(padded(sequences, -3.0), lengths=lengths), expected)
    assert by_lengths.score(padded(sequences, 7.0), labels, lengths=pd.Series(lengths)) == 1.0
    first = clone(fitted).set_params(channels_first=True).fit(padded(sequences).transpose(0, 2, 1), labels)
    np.testing.assert_array_equal(first.predict_proba([x.T for x in sequences]), expected)
    data = from_arrays(sequences, labels.tolist())
    np.testing.assert_array_equal(clone(fitted).fit(data).predict_proba(data), expected)


@pytest.mark.parametrize(
    "convert", [lambda f: f, lambda f: pd.DataFrame(f.to_dict(as_series=False)), pl.DataFrame.to_arrow]
)
def test_a_long_table_holds_its_target(fitted, convert):
    sequences, labels = ragged()
    estimator = clone(fitted).set_params(target="kind").fit(convert(long_table(sequences, labels)))
    expected = fitted.predict_proba(sequences)
    np.testing.assert_array_equal(estimator.predict_proba(convert(long_table(sequences))), expected)
    assert estimator.score(convert(long_table(sequences, labels))) == 1.0


@pytest.mark.parametrize("values", [(3, 10), (False, True), ("b", "a")])
def test_classes_of_a_table_keep_their_type(values):
    sequences, labels = ragged()
    kinds = [values[label == "up"] for label in labels]
    estimator = CRNNClassifier(**QUICK, random_state=0, target="kind").fit(long_table(sequences, kinds))
    assert estimator.classes_.tolist() == sorted(values)
    assert type(estimator.classes_.tolist()[0]) is type(values[0])
    assert estimator.predict(sequences).tolist() == kinds


@pytest.mark.parametrize("values", [(9, 10), (False, True), (1.0, 2.0), ("10", "9")])
def test_classes_keep_their_type_and_order_the_columns(values):
    sequences, labels = ragged()
    y = np.array([values[int(label == "up")] for label in labels])
    estimator = CRNNClassifier(**QUICK, random_state=0).fit(sequences, y)
    assert estimator.classes_.dtype == y.dtype
    np.testing.assert_array_equal(estimator.classes_, np.unique(y))
    predicted = estimator.predict(sequences)
    assert predicted.dtype == y.dtype
    np.testing.assert_array_equal(predicted, y)
    probabilities = estimator.predict_proba(sequences)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(estimator.classes_[probabilities.argmax(1)], y)


def test_rows_of_a_wide_table_are_sequences_with_named_steps():
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 5)), columns=list("abcde"))
    estimator = CRNNRegressor(**QUICK, random_state=0).fit(x, x["a"])
    assert estimator.feature_names_in_.tolist() == list("abcde")
    assert estimator.n_features_in_ == 5
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(x[list("edcba")])


def test_a_row_alone_or_shorter_is_predicted_as_in_the_batch():
    x = np.random.default_rng(1).normal(size=(12, 9))
    x[3, 6:] = np.nan
    estimator = CRNNRegressor(**QUICK, random_state=0).fit(x, x[:, 0])
    together = estimator.predict(x)
    alone = [estimator.predict(row[None])[0] for row in x]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-12)
    np.testing.assert_allclose(estimator.predict([x[3, :6]]), together[3], rtol=0, atol=1e-12)
    np.testing.assert_allclose(estimator.predict(x[3:4, :7]), together[3], rtol=0, atol=1e-12)


def test_cross_validation_over_ragged_lists_with_groups():
    sequences, labels = ragged()
    speakers = [i // 4 for i in range(len(labels))]
    scores = cross_val_score(CRNNClassifier(**QUICK), sequences, labels, groups=speakers, cv=GroupKFold(3))
    assert scores.shape == (3,)
    assert scores.mean() > 0.9
    estimator = CRNNClassifier(**{**QUICK, "validation": 0.3}).fit(
        sequences * 2, [*labels, *labels], groups=speakers * 2
    )
    assert "group" in estimator.model_.origin["split"]


def test_pipeline_and_grid_search(tmp_path):
    x = np.array([row[:8, 0] for row in ragged()[0]])
    y = ragged()[1]
    pipeline = make_pipeline(StandardScaler(), CRNNClassifier(**QUICK, random_state=0))
    search = GridSearchCV(pipeline, {"crnnclassifier__steps": np.array([2, 15])}, cv=2).fit(x, y)
    assert search.best_score_ > 0.9
    search.best_estimator_[-1].save(tmp_path)  # its steps are numpy's, which JSON does not know
    assert CRNNClassifier.load(tmp_path).steps == search.best_params_["crnnclassifier__steps"]


def test_the_same_seed_gives_the_same_numbers_and_leaves_torch_alone():
    sequences, labels = ragged()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = CRNNClassifier(**QUICK, random_state=np.int64(3)).fit(sequences, labels)
    assert torch.equal(torch.get_rng_state(), before)
    again = CRNNClassifier(**QUICK, random_state=3).fit(sequences, labels)
    np.testing.assert_array_equal(first.predict_proba(sequences), again.predict_proba(sequences))


def test_saved_equals_loaded(fitted, tmp_path):
    sequences, labels = ragged()
    fitted.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = CRNNClassifier.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(sequences), fitted.predict_proba(sequences))
    assert loaded.get_params() == fitted.get_params()
    assert loaded.predict(sequences).tolist() == labels.tolist()
    assert load(tmp_path).predict(sequences[:1])[0]["label"] == "down"
    with pytest.raises(ModelError, match="expected a CRNNRegressor, found a CRNNClassifier"):
        CRNNRegressor.load(tmp_path)


def test_saved_class_weights_and_classes_keep_their_type(tmp_path):
    sequences, labels = ragged()
    y = (labels == "up").astype(int)
    estimator = CRNNClassifier(**QUICK, random_state=0, class_weight={1: 2.0}).fit(sequences, y)
    estimator.save(tmp_path)
    loaded = CRNNClassifier.load(tmp_path)
    assert loaded.class_weight == {1: 2.0}
    assert loaded.classes_.dtype == y.dtype
    assert clone(loaded).fit(sequences, y).predict(sequences).tolist() == y.tolist()


def test_a_run_of_the_command_line_is_no_estimator(fitted, tmp_path):
    fitted.model_.save(tmp_path)
    with pytest.raises(ModelError, match=r"a model that no estimator saved; use crnn\.load"):
        CRNNClassifier.load(tmp_path)


def test_a_pickle_holds_the_two_files_and_no_network(fitted):
    sequences, _ = ragged()
    blob = pickle.dumps(fitted)
    assert b"torch" not in blob.replace(b'"torch":', b"")  # its version is in config.json
    again = pickle.load(io.BytesIO(blob))
    np.testing.assert_array_equal(again.predict_proba(sequences), fitted.predict_proba(sequences))


def test_a_rare_class_weighs_more_when_balanced():
    _, labels = ragged()
    keep = [i for i, label in enumerate(labels) if label == "down" or i < 5]
    x, y = [np.zeros((8, 2))] * len(keep), labels[keep]  # nothing to tell the classes apart by
    settings = {**QUICK, "steps": 60, "batch_size": len(keep), "random_state": 0}
    plain = CRNNClassifier(**settings).fit(x, y).predict_proba(x)[:, 1].mean()
    balanced = CRNNClassifier(**settings, class_weight="balanced").fit(x, y).predict_proba(x)[:, 1].mean()
    assert plain == pytest.approx(2 / len(keep), abs=0.1)
    assert balanced == pytest.approx(0.5, abs=0.1)


def test_the_options_reach_the_training(fitted):
    sequences, _ = ragged()
    y = np.arange(24) / 24
    estimator = CRNNRegressor(
        preset="seed",
        epochs=1,
        batch_size=6,
        validation=0.0,
        loss="quantile",
        config={"train": {"weight_decay": 0.5}},
        settings={"train.optimizer": "sgd"},
    ).fit(sequences, y)
    assert estimator.history_.steps == 4
    assert estimator.model_.task.config.loss == "quantile"
    assert estimator.predict(sequences).shape == (24,)
    assert len(fitted.history_.records) == fitted.history_.records[-1].epoch


def test_missing_values_inside_are_values():
    sequences, labels = ragged()
    sequences[0][3, 1] = np.nan
    estimator = CRNNClassifier(**QUICK, random_state=0).fit(sequences, labels)
    assert np.isfinite(estimator.predict_proba(sequences)).all()


def test_there_is_no_sample_weight():
    assert not has_fit_parameter(CRNNClassifier(), "sample_weight")
    assert not has_fit_parameter(CRNNRegressor(), "sample_weight")


@pytest.mark.parametrize(
    ("x", "problem"),
    [
        (csr_array(np.eye(4)), (TypeError, "[Ss]parse")),
        (np.ones(4), (ValueError, "Expected 2D array, got 1D array instead")),
        (np.ones((4, 3, 2, 2)), (DataError, r"X: has shape \(4, 3, 2, 2\), expected \(n, time\)")),
        ([np.ones((5, 2))] * 3 + [np.ones((5, 3))], (DataError, "X sequence 3: .*3 channels")),
        ([np.ones(5)] * 3 + [np.array([1, np.inf, 2])], (DataError, "X sequence 3: found infinity")),
        ([np.ones(5)] * 3 + [np.ones(0)], (DataError, "X sequence 3: found a sequence of length 0")),
        (np.ones((4, 1)), (DataError, "X: n_features=1 time steps a row, but this network needs at least 2")),
        (np.ones((3, 6)), (ValueError, r"inconsistent numbers of samples: \[3, 4\]")),
    ],
)
def test_what_is_wrong_with_x(x, problem):
    kind, message = problem
    with pytest.raises(kind, match=message):
        CRNNClassifier(**QUICK).fit(x, [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "seeed"}, "did you mean 'seed'"),
        ({"steps": 0}, "train.steps=0"),
        ({"settings": {"train.stps": 3}}, "did you mean 'steps'"),
        ({"settings": {"split.test": 0.1}}, r"split\.test: fit trains on all that it is given"),
        ({"config": {"split": {"validation": 0.1}}}, "expected validation= for the share to stop on"),
        ({"class_weight": {"left": 2.0}}, "class_weight: 'left' is no class of y; expected some of down, up"),
        ({"class_weight": "balancd"}, "class_weights"),
    ],
)
def test_what_is_wrong_with_an_option(options, message):
    sequences, labels = ragged(8)
    with pytest.raises(ConfigError, match=message):
        CRNNClassifier(**{**QUICK, **options}).fit(sequences, labels)


def test_what_is_wrong_with_y():
    sequences, _ = ragged(8)
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        CRNNClassifier(**QUICK).fit(sequences)
    with pytest.raises(DataError, match="found only the class 'up'"):
        CRNNClassifier(**QUICK).fit(sequences, ["up"] * 8)
    with pytest.raises(DataError, match="all 8 are 1; expected at least 2 different numbers"):
        CRNNRegressor(**QUICK).fit(sequences, np.ones(8))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        CRNNClassifier(**QUICK).fit(sequences, np.linspace(0, 1, 8))
    with pytest.raises(DataError, match="has sets of labels"):
        CRNNClassifier(**QUICK).fit(from_arrays(sequences, [("a", "b")] * 8))
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        CRNNRegressor(**QUICK).fit(sequences, np.arange(8.0)[:, None])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        CRNNRegressor(**QUICK).fit(sequences, np.ones((8, 2)))


def test_what_is_wrong_with_a_prediction(fitted):
    sequences, _ = ragged()
    with pytest.raises(NotFittedError):
        CRNNRegressor().predict(sequences)
    with pytest.raises(DataError, match="found 3 channels"):
        fitted.predict(np.ones((2, 9, 3)))
    with pytest.raises(ConfigError, match="lengths: a list knows its lengths"):
        fitted.predict(sequences, lengths=[3] * 24)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.predict(padded(sequences), lengths=[3])
    with pytest.raises(DataError, match=r"X sequence 1: found 1 frames, expected at least 2 \(1 of 2 sequences"):
        fitted.predict([sequences[0], sequences[1][:1]])
    gap = sequences[0].copy()
    gap[2] = np.nan  # a value that the front-end handles, though training had none
    assert np.isfinite(fitted.predict_proba([sequences[0], gap])).all()
    gap[2] = np.inf
    with pytest.raises(DataError, match=r"X sequence 1: found infinity, expected numbers, or NaN where one is missing"):
        fitted.predict([sequences[0], gap])


def test_a_network_without_missing_refuses_gaps_that_training_did_not_have(fitted):
    sequences, labels = ragged()
    config = {"model": {"layers": [{"type": "recurrent", "hidden_size": 4}], "summary": {"type": "last"}}}
    plain = clone(fitted).set_params(config=config).fit(sequences, labels)
    gap = sequences[0].copy()
    gap[2] = np.nan
    with pytest.raises(
        DataError, match=r"X sequence 1: no finite prediction \(1 of 2 sequences\).*put a missing layer"
    ):
        plain.predict([sequences[0], gap])


def test_a_table_for_cross_validation_becomes_a_list():
    sequences, labels = ragged()
    data = read(long_table(sequences, labels), target="kind")
    assert [len(example.load()) for example in data] == [len(x) for x in sequences]
    assert data.targets == labels.tolist()
