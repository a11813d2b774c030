import io

from rich.console import Console

from crnn.training.history import EpochRecord
from crnn.training.progress import BarProgress, LineProgress, NoProgress, Update, open_progress


def update(epoch, *, best=False, seconds=1.0, left=125.0):
    record = EpochRecord(epoch, 0.5, 0.25, {"accuracy": 0.875, "x": 1.0}, 1e-3, 1.0, 0.1, seconds, is_best=best)
    return Update(epoch, 20, epoch * 3, 60, 0.5, left, record)


def test_a_line_says_where_the_run_is():
    out = io.StringIO()
    with LineProgress(out) as progress:
        progress(update(1, best=True))
    assert out.getvalue() == "epoch  1/20  loss 0.5000  validation loss 0.2500  accuracy 0.8750 *  2:05 left\n"


def test_lines_come_at_a_pace_and_the_last_always():
    out = io.StringIO()
    with LineProgress(out, seconds=5) as progress:
        for epoch in range(1, 13):
            progress(update(epoch))
            progress(Update(epoch, 20, 1, 60, 0.5, None))
    assert [line.split("/")[0].split()[-1] for line in out.getvalue().splitlines()] == ["1", "6", "11", "12"]


def test_a_bar_remembers_the_best():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160)
    with BarProgress(console) as progress:
        progress(update(3, best=True))
        progress(Update(4, 20, 11, 60, 0.5, 3700.0))
    assert "loss 0.5000  1:01:40 left  best accuracy 0.8750 (epoch 3)" in out.getvalue()


def test_what_is_opened_suits_the_stream():
    assert isinstance(open_progress(quiet=True), NoProgress)
    assert isinstance(open_progress(stream=io.StringIO()), LineProgress)
