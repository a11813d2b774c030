"""The benchmarks run, resume, and stand in the docs as their result files say."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from crnn.data.dataset import Dataset, array_example

ROOT = Path(__file__).resolve().parents[1]
MEASURING = (
    *("exact_lengths", "engine_overhead", "classification"),
    *("streaming", "exact_streams", "early_decisions", "training_kernels", "cells", "transcribe", "text_lines"),
    "tagging",
    *("ragged_batches", "scaling", "large_data", "rival_trainers", "biosequences"),
    "embedded",
)
SCRIPTS = ("record", "sets", "lines", "tables", *MEASURING)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """name -> the module of that script, imported as when it is started, and forgotten afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in SCRIPTS:  # tests/streaming is a module of that name, too
        monkeypatch.delitem(sys.modules, name, raising=False)
    before, threads = set(sys.modules), torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in set(SCRIPTS) & (set(sys.modules) - before):
        del sys.modules[name]


def test_exact_lengths_runs_and_ours_never_changes(script, tmp_path):
    script("exact_lengths").main(["--quick", "--out", str(tmp_path / "results.json")])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["network"] for row in rows} == {"by hand", "crnn seed"}
    assert all(row["largest_difference"] <= 1e-5 for row in rows if row["network"] == "crnn seed")
    assert any(row["largest_difference"] > 1e-3 for row in rows if row["network"] == "by hand")


def test_the_two_spellings_of_each_network_are_the_same(script):
    engine, exact = script("engine_overhead"), script("exact_lengths")
    _, x, _ = engine.make_data(4)
    for case in engine.make_cases(quick=True):
        by_hand, ours = case.by_hand().eval(), case.ours().eval()
        exact.copy_weights(by_hand, ours)
        with torch.no_grad():
            given = engine.Sequences(x, torch.full((4,), x.shape[1]))
            torch.testing.assert_close(ours(given), by_hand(x))


def test_engine_overhead_runs(script, tmp_path):
    script("engine_overhead").main(["--quick", "--out", str(tmp_path / "results.json")])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["network"] for row in rows if row["way"] == "crnn"] == ["small CRNN", "one layer"]
    assert all(row["ratio"] > 0 for row in rows)


def test_padding_is_what_batches_by_frames_are_for(script, tmp_path):
    script("ragged_batches").main(["--quick", "--out", str(tmp_path / "results.json")])
    results = json.loads((tmp_path / "results.json").read_text())
    assert all(row["by frames"] < row["by number"] < row["at random"] for row in results["padding"])
    assert len(script("tables").ragged_batches(results)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scaling", "large_data"])
def test_what_starts_processes_runs(script, name, tmp_path):
    script(name).main(["--quick", "--out", str(tmp_path / "results.json")])
    assert script("tables").TABLES[name](json.loads((tmp_path / "results.json").read_text()))


def test_kernels_are_timed_after_they_agree(script, tmp_path):
    from crnn.native.recurrence import kernels

    if kernels() is None:
        pytest.skip("no compiled kernels, which are timed")
    script("training_kernels").main(["--quick", "--out", str(tmp_path / "results.json")])
    found = json.loads((tmp_path / "results.json").read_text())
    assert [row["cell"] for row in found["rows"]] == ["lstm", "gru", "mingru", "lstm"]
    assert max(row["difference"] or 0 for row in found["rows"]) <= 1e-5
    assert all(row["ratio"] > 0 for row in found["rows"])
    assert any("bidirectional LSTM" in line for line in script("tables").training_kernels(found))


def test_every_cell_is_scored_and_goes_on_where_it_was(script, tmp_path, capsys):
    out = tmp_path / "results.json"
    script("cells").main(["--quick", "--cells", "mingru,lru", "--out", str(out)])
    found = json.loads(out.read_text())["tasks"]
    assert set(found) == {"set", "adding", "stream"}
    assert set(found["adding"]) == {"mingru", "mingru, forget bias 5", "lru"}
    assert found["stream"]["mingru"]["by"] == "engine"
    capsys.readouterr()
    script("cells").main(["--quick", "--cells", "mingru,lru", "--out", str(out)])
    assert capsys.readouterr().out == ""
    assert any("minGRU, forget bias 5" in line for line in script("tables").cells(json.loads(out.read_text())))


def test_classification_goes_on_where_it_was(script, tmp_path, capsys):
    run = script("classification").main
    out = tmp_path / "results.json"
    options = ["--quick", "--preset", "seed", "--out", str(out)]
    run(options)
    first = json.loads(out.read_text())["sets"]["Generated ramps"]
    assert set(first["runs"]) == {"fold 0 seed 0"}
    assert {one["name"] for one in first["floors"]["fold 0"]["methods"]} >= {"majority", "nearest neighbour"}
    capsys.readouterr()
    run([*options, "--seeds", "0,1"])
    assert "fold 0 seed 0: known" in capsys.readouterr().out
    again = json.loads(out.read_text())["sets"]["Generated ramps"]
    assert set(again["runs"]) == {"fold 0 seed 0", "fold 0 seed 1"}
    assert again["runs"]["fold 0 seed 0"] == first["runs"]["fold 0 seed 0"]


def test_streams_are_timed_after_they_agree(script, tmp_path):
    pytest.importorskip("onnxruntime")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler, whose build is timed")
    script("streaming").main(["--quick", "--out", str(tmp_path / "results.json")])
    found = json.loads((tmp_path / "results.json").read_text())
    assert len(found["rows"]) == 12
    assert all(row["ratio"] > 0 for row in found["rows"])
    assert found["code_bytes"] <= 20_000
    assert script("tables").streaming(found)


@pytest.mark.slow
def test_the_c_file_finds_the_beats_that_predict_finds(script, tmp_path):
    if script("record").find_data() is None or shutil.which("cc") is None:
        pytest.skip(f"{script('record').MISSING}; or no C compiler")
    script("embedded").main(["--quick", "--out", str(tmp_path / "results.json")])
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["plain x86-64"]["other_beats"] == 0
    assert found["flash_bytes"]["weights"] + found["flash_bytes"]["code"] < 256_000
    assert script("tables").embedded(found)


def test_exact_streams_are_exact(script, tmp_path):
    script("exact_streams").main(["--quick", "--out", str(tmp_path / "results.json")])
    found = json.loads((tmp_path / "results.json").read_text())
    assert max(found["random_networks"]["largest_difference"].values()) <= 1e-5
    assert found["random_networks"]["without_outputs"] == 0
    assert max(found["long_stream"]["difference_of_hours"]) <= 1e-5
    assert script("tables").exact_streams(found)


def test_transcribe_runs(script, tmp_path):
    if script("record").find_data() is None:
        pytest.skip(script("record").MISSING)
    out = tmp_path / "results.json"
    script("transcribe").main(
        ["--sets", "yesno", "--presets", "speech-small", "--seeds", "1", "--quick", "--out", str(out)]
    )
    results = json.loads(out.read_text())
    run = results["sets"]["yesno/speech-small"]["runs"]["0"]
    assert run["streamed"] == {"texts": 20, "alike": 20}
    assert script("tables").transcribe(results)


def test_text_lines_run(script, tmp_path):
    script("text_lines").main(["--quick", "--out", str(tmp_path / "results.json")])
    found = json.loads((tmp_path / "results.json").read_text())["sets"]["bundled"]
    ours = next(row for row in found["rows"] if row["who"] == "crnn")
    assert ours["cer"] > 0.5  # ten updates teach nothing
    assert ours["lines_per_cpu_second"] > 0
    assert found["counts"] == {"train": 48, "test": 12}


def test_error_rates_of_lines_by_hand(script):
    rates = script("text_lines").error_rates(["ab cd", "“x”"], ["ab  c", '"x"'])
    assert rates["cer"] == (1 + 2) / 8
    assert rates["cer_plain"] == 1 / 8
    assert rates["wer"] == 2 / 3
    assert rates["lines_right"] == 0


def test_rendered_lines_are_the_same_for_the_same_seed(script, tmp_path):
    lines = script("lines")
    fonts = lines.find_fonts(unseen=False)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        lines.write_lines(tmp_path / name, ["So it goes."], fonts, seed)
    a, b, c = ((tmp_path / name / "00000.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_early_decisions_run(script, tmp_path, monkeypatch):
    early = script("early_decisions")
    data, name = early.load("digits", quick=True)
    few = [example for example in data if example.split == "train"][::8] + [e for e in data if e.split == "test"][::12]
    monkeypatch.setattr(early, "load", lambda which, quick: (replace(data, examples=tuple(few)), name))
    early.main(["--quick", "--sets", "digits", "--out", str(tmp_path / "results.json")])
    results = json.loads((tmp_path / "results.json").read_text())
    found = results["sets"]["digits"]
    assert script("tables").early_decisions(results)
    assert found["shares"] == [round((i + 1) / 20, 2) for i in range(20)]
    assert len(found["accuracy"]) == 20
    assert 0 <= found["final"] <= 1


def test_an_early_decision_is_the_first_answer_that_is_sure_enough(script):
    decide = script("early_decisions").decide
    answers = [("", 0.0)] + [("a", 0.5)] * 9 + [("b", 0.9)] * 10 + [("c", 0.95)]
    assert decide(answers, 0.9) == ("b", 11 / 20)
    assert decide(answers, 0.99) == ("c", 1.0)
    assert decide(answers, 0.5) == ("a", 2 / 20)


def test_another_recipe_is_computed_anew(script, tmp_path, capsys):
    out = tmp_path / "results.json"
    script("classification").main(["--quick", "--preset", "seed", "--out", str(out)])
    script("classification").main(["--quick", "--preset", "lstm-fcn", "--out", str(out)])
    assert "known" not in capsys.readouterr().out


def test_an_unknown_set_is_refused(script):
    with pytest.raises(SystemExit, match="--sets PLAYD: no such set; did you mean 'PLAID'"):
        script("classification").main(["--sets", "PLAYD"])


def test_without_data_a_benchmark_is_skipped_with_a_reason(script, monkeypatch, tmp_path):
    monkeypatch.setenv("CRNN_DATA", str(tmp_path / "nothing"))
    for name in ("classification", "exact_lengths"):
        with pytest.raises(SystemExit, match="skipped: development data is not here; set CRNN_DATA"):
            script(name).main(["--out", str(tmp_path / "results.json")])


def test_folds_of_subjects_cover_everyone_once(script, data_folder):
    sets, root = script("sets"), data_folder("har_watch_spar").parent
    tested = []
    for fold in range(5):
        data = sets.load_watch(root, fold)
        test = {example.group for example in data if example.split == "test"}
        assert not test & {example.group for example in data if example.split == "train"}
        tested += sorted(test, key=int)
    assert sorted(tested, key=int) == [str(subject) for subject in range(1, 11)]


def test_windows_do_not_cross_recordings(script, data_folder):
    data = script("sets").load_watch_windows(data_folder("har_watch_spar").parent, 0)
    assert set(data.lengths.tolist()) == {200}  # 4 s at 50 Hz


def test_scenes_are_made_of_clips_where_they_are_said_to_be(script):
    tagging = script("tagging")
    random = np.random.default_rng(0)
    clips = []
    for fold in "12":
        for label in "abcdefgh":
            sound = random.normal(0, 0.3, (8000, 1)).astype(np.float32)
            clips.append(array_example(f"{label}/{fold}-1.wav", "clip", sound, target=label))
    made = tagging.scenes(Dataset(tuple(clips), "audio", ("audio",), 16000.0, "clips"), "1", 3, 7)
    again = tagging.scenes(Dataset(tuple(clips), "audio", ("audio",), 16000.0, "clips"), "1", 3, 7)
    assert [example.target for example in made] == [example.target for example in again]
    for example in made:
        sound = example.load()[:, 0]
        assert 4 <= len(example.target.items) <= 8
        for start, end, _ in example.target.items:
            assert np.abs(sound[start:end]).mean() > 2 * np.abs(sound[-100:]).mean() or end > len(sound) - 100


def test_beats_are_scored_as_in_the_literature(script):
    confusion = np.array([[90, 5, 3, 2], [2, 8, 0, 0], [1, 0, 9, 0], [0, 0, 5, 5]])
    found = script("tagging").beat_scores(confusion)
    assert found["accuracy"] == pytest.approx(112 / 130)
    assert found["mean_sensitivity"] == pytest.approx((0.9 + 0.8 + 0.9 + 0.5) / 4)


def test_the_tables_are_current(script):
    script("tables").main(["--check"])


def test_a_page_that_is_not_current_is_named(script, tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("".join(f"<!-- table {name} -->\nold\n<!-- end {name} -->\n" for name in MEASURING))
    with pytest.raises(SystemExit, match=r"benchmarks.md is not what the result files say; run python"):
        script("tables").main(["--check", "--page", str(page), "--results", str(tmp_path)])
    script("tables").main(["--page", str(page), "--results", str(tmp_path)])
    assert "Not measured yet: `python benchmarks/classification.py`." in page.read_text()


def test_floors_of_some_folds_are_shown_beside_ours_there(script):
    runs = {f"fold {fold} seed 0": {"fold": fold, "score": score} for fold, score in enumerate((0.8, 0.6))}
    floors = {"fold 0": {"fold": 0, "methods": [{"name": "majority", "score": 0.5}, {"name": "ridge", "score": 0.7}]}}
    found = {"metric": "accuracy", "folds": 2, "runs": runs, "floors": floors}
    assert script("tables")._floor(found) == "0.700 (ridge) on 1 of 2 folds, ours there 0.800"
