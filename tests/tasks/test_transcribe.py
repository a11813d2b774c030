"""Transcription by CTC: what it learns, says, refuses and keeps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from letters import MODEL, TRAIN, letters_data

import crnn
from crnn.data.codec import Codec
from crnn.decode.ngram import train_ngrams
from crnn.errors import ConfigError, DataError
from crnn.nn.frames import Frames
from crnn.nn.layers import Timing
from crnn.run import RunPlan, check
from crnn.sequences import Ragged, Sequences
from crnn.tasks.decoding import Decoding
from crnn.tasks.infer import infer_task
from crnn.tasks.transcribe import Transcribe, TranscribeConfig


def train(data=None, *, out=None, epochs=20, **config):
    data = letters_data() if data is None else data
    return crnn.train(
        data, task="transcribe", config={"model": MODEL, "train": TRAIN, **config}, epochs=epochs, out=out
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(letters_data(80), out=tmp_path_factory.mktemp("runs") / "letters", epochs=25)


def frames_of(lengths, stride=1):
    lengths = torch.tensor(lengths)
    return Frames(Timing(stride, 0, 0), lengths, lengths // stride, 100.0)


def task_of(*texts, **options):
    return Transcribe.from_targets(texts, TranscribeConfig(**options))


def outputs_for(task, *paths):
    """Outputs that are sure of one label in each frame."""
    return Ragged.of([8.0 * torch.eye(task.num_outputs)[list(path)] for path in paths])


def test_it_learns_and_its_report_says_what_went_wrong(run):
    found = run.evaluation
    assert found.metrics["cer"].point < 0.1
    assert list(found.metrics)[:3] == ["cer", "wer", "exact"]
    assert found.floors[0].metrics["cer"] > 0.4
    assert [table.title for table in found.tables][:1] == ["Errors by profile"]
    assert found.exactness.changed == 0


def test_predictions_have_times_and_confidence(run):
    data = letters_data(6, seed=3)
    for example, answer in zip(data, run.model.predict(data), strict=True):
        assert answer["unit"] == "seconds"
        assert " ".join(word["text"] for word in answer["words"]) == answer["text"]
        assert "".join(piece["text"] for piece in answer["characters"]) == answer["text"]
        times = [t for piece in answer["characters"] for t in (piece["start"], piece["end"])]
        assert times == sorted(times)
        assert times[-1] <= example.length / 100
        assert all(0 < piece["confidence"] <= 1 for piece in answer["characters"])


def test_saved_equals_loaded_and_order_does_not_matter(run):
    data = letters_data(6, seed=3)
    model = crnn.load(run.folder)
    assert model.predict(data) == run.model.predict(data)
    assert [p["text"] for p in model.predict(data.subset(range(5, -1, -1)), batch_size=1)] == [
        p["text"] for p in model.predict(data)
    ][::-1]


def test_loss_is_the_mean_over_labels():
    task = task_of("ab")
    outputs = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    targets = Sequences(torch.tensor([[1, 2, 1], [2, 0, 0]]), torch.tensor([3, 1]))
    whole = task.loss(Sequences(outputs, torch.tensor([6, 4])), targets)
    each = [
        float(
            task.loss(Sequences(outputs[i : i + 1, :n], torch.tensor([n])), Sequences(t[None], torch.tensor([len(t)])))
        )
        for i, (n, t) in enumerate(((6, torch.tensor([1, 2, 1])), (4, torch.tensor([2]))))
    ]
    assert float(whole) == pytest.approx((3 * each[0] + 1 * each[1]) / 4, rel=1e-5)
    assert float(task.weight(targets)) == 4


def test_scores_are_those_of_the_definition():
    task = task_of("ab ba", "b")
    outputs = outputs_for(task, [2, 0, 3, 1, 1, 3], [0, 0])  # "ab b" for "ab ba", "" for "b"; labels: space, a, b
    counts = task.count(outputs, ["ab ba", "b"], frames_of([6, 2]))
    scores = task.scores_of(counts.sum(0))
    assert scores["cer"] == pytest.approx(2 / 6)
    assert scores["deletions"] == pytest.approx(2 / 6)
    assert scores["wer"] == pytest.approx(2 / 3)
    assert scores["exact"] == 0
    assert scores["blank_share"] == pytest.approx(3 / 8)
    assert task.errors(counts).tolist() == [1, 1]


def test_texts_that_do_not_fit_are_named_before_training():
    task = task_of("aab", "ab")
    found = task.find_problems(["aab", "ab", " ", "abx"], ["w", "x", "y", "z"], frames_of([8, 8, 8, 8], stride=3))
    assert [(p.where, p.level) for p in found] == [("w", "error"), ("y", "error"), ("z", "warning")]
    assert (
        "found 3 letters ('aab'), which need 4 output frames (one each and 1 more between letters that repeat)"
        in str(found[0])
    )
    assert "0.08 s give 2" in str(found[0])
    assert "empty transcript" in str(found[1])


def test_training_on_a_text_that_does_not_fit_is_refused():
    data = letters_data(20)
    long = replace(data.examples[0], target="abc" * 40)
    data = replace(data, examples=(long, *data.examples[1:]))
    with pytest.raises(DataError, match=r"row 0: found 120 letters"):
        train(data, epochs=1)
    assert any("120 letters" in str(problem) for problem in check(data, task="transcribe").problems)


def test_what_does_not_fit_is_left_out_where_the_user_asks(tmp_path):
    data = letters_data(20)
    long = replace(data.examples[0], target="abc" * 40)
    data = replace(data, examples=(long, *data.examples[1:]))
    run = crnn.train(
        data, task="transcribe", config={"model": MODEL, "train": TRAIN}, epochs=1, on_bad="skip", out=tmp_path / "run"
    )
    assert any("120 letters" in problem for problem in run.evaluation.problems)
    assert "0-0" not in [id for side in run.splits["sides"].values() for id in side["ids"]]
    assert RunPlan.load(tmp_path / "run", data).skipped == ("0-0",)


def test_all_blank_is_called_a_phase_and_later_a_fault():
    task = task_of("ab" * 20)
    blank = Sequences(torch.tensor([[[9.0, 0, 0]] * 8]), torch.tensor([8]))
    assert task.remark(0.0) == ""
    task.loss(blank, Sequences(torch.tensor([[1, 2]]), torch.tensor([2])))
    assert "the phase that CTC begins with" in task.remark(0.1)
    assert "which is a fault: 0.25 letters a frame" in task.remark(0.5)
    task.loss(Sequences(-blank.data, blank.lengths), Sequences(torch.tensor([[1, 2]]), torch.tensor([2])))
    assert task.remark(0.5) == ""


def test_rare_letters_are_said_by_check():
    data = letters_data(20)
    odd = replace(data.examples[1], target=f"{data.examples[1].target}ß")
    found = check(replace(data, examples=(data.examples[0], odd, *data.examples[2:])), task="transcribe")
    warnings = [str(problem) for problem in found.problems if problem.level == "warning"]
    assert any("'ß' (U+00DF) 1 times" in text or "found 'ß' (U+00DF), not among" in text for text in warnings)


def test_training_texts_in_a_wrong_encoding_are_said_by_check():
    task = task_of("Käse".encode().decode("latin-1"), "Brot" * 5)
    assert (
        "1 texts look like UTF-8 that was read as Latin-1, the first 'KÃ¤se', which would be 'Käse'"
        in task.warnings()[0]
    )


def test_the_worst_examples_show_what_was_read_where(run, tmp_path):
    data = letters_data(4, seed=5)
    found = run.evaluate(replace(data, examples=tuple(replace(e, target=f"{e.target}c") for e in data)))
    marks = found.worst[0].marks
    assert marks
    assert all(0 <= start < end <= 1 for start, end, _ in marks)
    found.save(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "What was read" in page
    assert f">{marks[0][2]}</text>" in page


def test_letters_that_training_never_saw_count_as_errors(run):
    data = letters_data(4, seed=5)
    data = replace(data, examples=tuple(replace(e, target=f"{e.target}ö") for e in data))
    found = run.evaluate(data)
    assert found.metrics["cer"].point > 4 / sum(len(t) for t in data.targets) - 1e-9
    assert "Letters that training never saw" in [table.title for table in found.tables]


def test_a_language_model_is_tuned_on_validation_and_kept(tmp_path):
    train_ngrams([str(text).split() for text in letters_data(200, seed=9).targets], 2).save(tmp_path / "words.arpa")
    settings = {"decoding": {"lm": str(tmp_path / "words.arpa")}}
    run = train(letters_data(100), out=tmp_path / "run", epochs=4, task=settings, split={"min_validation": 4})
    task = crnn.load(tmp_path / "run").task
    assert task.lm_weight == run.model.task.lm_weight is not None


def test_decoding_can_be_chosen_after_training(run, tmp_path):
    data = letters_data(8, seed=11)
    model = crnn.load(run.folder)
    greedy = [p["text"] for p in model.predict(data)]
    model.task.decoding = Decoding(beam=8)
    assert sum(a != b for a, b in zip(greedy, [p["text"] for p in model.predict(data)], strict=True)) <= 2
    (tmp_path / "words.txt").write_text("ab\ncc\n")
    model.task.decoding = Decoding(lexicon=str(tmp_path / "words.txt"))
    assert {word for p in model.predict(data) for word in p["text"].split()} <= {"ab", "cc"}
    with pytest.raises(ConfigError, match="lexicon=lm takes the words of a language model"):
        Decoding(lexicon="lm")
    model.task.decoding = Decoding(lexicon=str(tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"none.txt: cannot be read"):
        model.predict(data)


def test_the_task_is_inferred_from_texts_that_hardly_repeat():
    assert infer_task([f"text number {i}" for i in range(20)])[0] == "transcribe"
    assert infer_task(["yes", "no"] * 10)[0] == "classify"
    assert infer_task(["first class", "second class", "third one"])[0] == "classify"


def test_targets_that_are_no_texts_are_refused():
    with pytest.raises(DataError, match=r"example 1: found the number 3.0, expected text"):
        task_of("a", 3.0)
    with pytest.raises(DataError, match="found no text in 1 examples"):
        task_of(" ")
    with pytest.raises(DataError, match="found no transcript"):
        task_of(None)


def test_graphemes_are_one_letter_each():
    task = task_of("a\u0301 e", codec={"units": "graphemes", "form": "NFD"})
    assert task.labels == ["<blank>", " ", "a\u0301", "e"]


def test_right_to_left_text_is_read_in_its_order_with_times_from_the_left():
    task = task_of("אב", codec={"direction": "right-to-left"})
    alef, bet = (task.codec.symbols.index(c) + 1 for c in "אב")
    answer = task.predictions(outputs_for(task, [0, bet, 0, alef]), frames_of([4]))[0]
    assert answer["text"] == "אב"
    assert [piece["start"] for piece in answer["characters"]] == [0.03, 0.01]
    assert (answer["words"][0]["start"], answer["words"][0]["end"]) == (0.01, 0.04)


def test_confidence_is_calibrated_on_validation():
    task = task_of("ab")
    random = np.random.default_rng(0)
    rows, texts = [], []
    for _ in range(400):  # a network that is always 95 % sure and right 7 times in 10
        label = int(random.integers(1, 3))
        probabilities = np.full(3, 0.025)
        probabilities[label] = 0.95
        rows.append(torch.tensor(np.log(probabilities[None])).float())
        texts.append("ab"[label - 1] if random.random() < 0.7 else "ab"[2 - label])
    task.tune(Ragged.of(rows), texts, frames_of([1] * 400))
    assert task.of_character.of(0.95) == pytest.approx(0.7, abs=0.05)
    assert not math.isnan(task.of_word.of(0.5))


def test_the_state_is_plain_and_whole():
    task = task_of("ab", "ab", "b")
    again = Transcribe.from_state(task.state())
    assert again.state() == task.state()
    assert again.most_frequent == "ab"
    assert isinstance(again.codec, Codec)
