"""From a folder of ECG records to beats in a WFDB file, on the command line."""

import json

import pytest

from crnn.cli.main import main
from crnn.data.read import read
from crnn.data.readers.wfdb import write_annotations, write_record
from crnn.data.synthetic import heartbeats

pytest.importorskip("wfdb")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six records of half a minute."""
    folder = tmp_path_factory.mktemp("ecg")
    for i in range(6):
        made = heartbeats(30, rate=120.0, seed=i)
        write_record(folder / f"r{i}", made.signal, leads=["MLII"], rate=120.0)
        write_annotations(folder / f"r{i}.atr", made.beats, 120.0)
    return folder


def call(capsys, *arguments):
    """Run crnn; its exit code and what it printed."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0, capsys.readouterr()


def test_records_in_beats_out(folder, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--task", "tag", "--group", "record", "--channels", "MLII", "--preset", "ecg-small"]
    code, printed = call(capsys, "check", folder, *options)
    assert code == 0, printed.out
    code, _ = call(capsys, "train", folder, *options, "--out", run, "--set", "train.steps=3", "--set",
                   "train.window=1200", "--set", "task.threshold=0.05", "--quiet")  # fmt: skip
    assert code == 0
    code, _ = call(capsys, "eval", run, folder, "--group", "record", "--report", tmp_path / "beats.html")
    assert code == 0
    assert "Class at the given positions" in (tmp_path / "beats.html").read_text()
    code, printed = call(capsys, "predict", run, folder / "r0.hea", "-o", folder / "r0.crnn.atr")
    assert code == 0, printed.err
    code, printed = call(capsys, "predict", run, folder / "r0.hea")
    events = json.loads(printed.out)["events"]
    (folder / "r0.crnn.atr").rename(folder / "r0.crnn")
    written = read(folder / "r0.hea", target="crnn")[0].target
    assert [(e.start, e.label) for e in written.items] == [(e["start"], e["label"]) for e in events]
    code, printed = call(capsys, "predict", run, folder, "-o", tmp_path / "x.atr")
    assert code == 1
    assert "holds the annotations of one record, found 6" in printed.err
