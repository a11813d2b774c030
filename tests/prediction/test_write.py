"""Predictions for many files: those of predict, in parts, resumed, bad files named; by Ray the same."""

import functools
import json

import numpy as np
import polars as pl
import pytest

import crnn
from crnn.cli.main import run_app
from crnn.data.dataset import Dataset
from crnn.data.read import from_arrays
from crnn.errors import ConfigError, DataError
from crnn.prediction import parts
from crnn.prediction.parts import Done, Worker, divide
from crnn.prediction.write import write_predictions


def series(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0.5 * (-1) ** i, 1, (8 + i % 5, 2)).astype(np.float32) for i in range(count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    data = from_arrays(series(40), ["ab"[i % 2] for i in range(40)])
    crnn.train(data, preset="seed", out=folder, settings={"train.steps": 5})
    return folder


@pytest.fixture
def files(tmp_path):
    for i, array in enumerate(series(23, 1)):
        (tmp_path / "new").mkdir(exist_ok=True)
        np.save(tmp_path / "new" / f"{i:02d}.npy", array)
    return tmp_path / "new"


@pytest.fixture
def model(run):
    return crnn.load(run)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART_EXAMPLES", 5)


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_file_holds_what_predict_gives_in_the_order_of_the_data(model, files, tmp_path):
    data = model.read(files)
    expected = [{"id": e.id, **p} for e, p in zip(data, model.predict(data), strict=True)]
    done = []
    written = write_predictions(lambda: model, data, tmp_path / "out.jsonl", report=lambda *now: done.append(now))
    assert (written.predictions, written.found, written.problems) == (23, 0, [])
    assert done == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    found = rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    for row, true in zip(found, expected, strict=True):
        assert row["label"] == true["label"]
        assert row["probability"] == pytest.approx(true["probability"], abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out.jsonl"]


def test_parquet_holds_the_same(model, files, tmp_path):
    data = model.read(files)
    write_predictions(lambda: model, data, tmp_path / "out.jsonl")
    write_predictions(lambda: model, data, tmp_path / "out.parquet")
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame.columns == list(rows(tmp_path / "out.jsonl")[0])
    assert frame.to_dicts() == rows(tmp_path / "out.jsonl")


class Interrupted:
    """A model that stops after some parts."""

    def __init__(self, model, after):
        self.model, self.left, self.parts = model, after, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def predict(self, part, **options):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.parts += 1
        return self.model.predict(part, **options)


def test_what_an_interruption_left_is_not_done_again(model, files, tmp_path):
    data, out = model.read(files), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(lambda: Interrupted(model, 3), data, out)
    journal = tmp_path / "out.jsonl.part"
    assert len(rows(journal)) == 1 + 15
    with journal.open("ab") as file:
        file.write(b'{"id": "22.n')  # power went out
    again = Interrupted(model, 99)
    written = write_predictions(lambda: again, data, out)
    assert (written.predictions, written.found) == (23, 15)
    assert again.parts == 2
    whole = tmp_path / "whole.jsonl"
    write_predictions(lambda: model, data, whole)
    assert rows(out) == rows(whole)


def test_predictions_of_another_model_are_not_mixed_in(model, files, tmp_path):
    data, out = model.read(files), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(lambda: Interrupted(model, 2), data, out)
    model.temperature += 1
    with pytest.raises(ConfigError, match=r"out\.jsonl\.part: holds predictions of another model"):
        write_predictions(lambda: model, data, out)


def test_a_bad_file_is_named_and_fails_or_is_left_out(model, files, tmp_path):
    data, out = model.read(files), tmp_path / "out.jsonl"
    np.save(files / "07.npy", np.zeros((3, 2), np.float32))  # after it was listed
    with pytest.raises(DataError, match=r"07\.npy: its shape has changed.*\(9 of 23 are done and kept in .*\.part"):
        write_predictions(lambda: model, data, out)
    written = write_predictions(lambda: model, data, out, on_bad="skip")
    assert (written.predictions, written.found) == (22, 9)
    assert [problem.where for problem in written.problems] == [str(files / "07.npy")]
    assert "07.npy" not in out.read_text()


def test_parts_are_bounded_in_examples_and_numbers(monkeypatch):
    data = from_arrays([np.zeros((n, 2), np.float32) for n in (1, 1, 1, 1, 1, 1, 50, 1, 1)])
    monkeypatch.setattr(parts, "PART_VALUES", 20)
    assert list(divide(data, list(range(9)))) == [[0, 1, 2, 3, 4], [5], [6], [7, 8]]


def test_what_workers_send_comes_back(model):
    done = Worker(lambda: model, model.read(series(3)), 64).predict([0, 2])
    assert Done.from_json(done.to_json()) == done


def test_the_command_line_resumes_and_says_so(run, files, tmp_path, capsys):
    out = tmp_path / "p.parquet"
    assert run_app(["predict", str(run), str(files), "-o", str(out)], debug=False) == 0
    assert capsys.readouterr().out == f"23 predictions: {out}\n"
    assert pl.read_parquet(out).height == 23
    model = crnn.load(run)
    with pytest.raises(KeyboardInterrupt):
        write_predictions(lambda: Interrupted(model, 2), crnn.Run(run).read([files]), out)
    assert run_app(["predict", str(run), str(files), "-o", str(out)], debug=False) == 0
    assert "(10 of them were done before an interruption)" in capsys.readouterr().out
    assert run_app(["predict", str(run), str(files), "--cluster", "slurm", "-o", str(out)], debug=False) == 1
    assert "--cluster slurm: expected ray" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_ray_gives_the_same(run, files, tmp_path):
    ray = pytest.importorskip("ray")
    model = crnn.load(run)
    data: Dataset = model.read(files)
    write_predictions(lambda: model, data, tmp_path / "here.jsonl")
    load = functools.partial(crnn.load, run)
    try:
        written = write_predictions(load, data, tmp_path / "ray.jsonl", cluster="ray", workers=2)
    finally:
        ray.shutdown()
    assert written.predictions == 23
    assert rows(tmp_path / "ray.jsonl") == rows(tmp_path / "here.jsonl")
