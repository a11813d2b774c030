"""A cache of decoded data: the same numbers, decoded once, and never those of something else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crnn
from crnn.data import cache as cache_module
from crnn.data.cache import cached
from crnn.data.dataset import Dataset, Example
from crnn.data.readers import npy
from crnn.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path):
    """Six files of two classes, 4 to 9 frames of 3 channels."""
    rng = np.random.default_rng(0)
    for i in range(6):
        place = tmp_path / "data" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{i}.npy", rng.standard_normal((4 + i, 3)).astype(np.float32))
    return tmp_path / "data"


@pytest.fixture
def loads(monkeypatch):
    """Names of files that were decoded."""
    names, load = [], npy.load_npy
    monkeypatch.setattr(npy, "load_npy", lambda path, shape: (names.append(path.name), load(path, shape))[1])
    return names


def read(folder, **options):
    return crnn.read(folder, cache=folder.parent / "cache", **options)


def assert_same(found, expected):
    assert [e.id for e in found] == [e.id for e in expected]
    assert found.targets == expected.targets
    assert found.fingerprint() == expected.fingerprint()
    for one, other in zip(found, expected, strict=True):
        assert one.load().dtype == np.float32
        assert np.array_equal(one.load(), other.load())


def test_a_cache_is_decoded_once_and_holds_the_same_numbers(folder, loads):
    first = read(folder)
    assert len(loads) == 6
    assert first.source.endswith("cache: 6 decoded")
    second = read(folder)
    assert len(loads) == 6
    assert second.source.endswith("cache: all 6 found")
    assert not second.in_memory
    assert_same(first, crnn.read(folder))
    assert_same(second, crnn.read(folder))


def test_frames_are_mapped_not_read(folder):
    frames = read(folder)[0].load()
    assert not frames.flags.writeable
    assert isinstance(frames.base, np.memmap)


def test_only_what_changed_is_decoded_again(folder, loads):
    read(folder)
    np.save(folder / "a" / "0.npy", np.ones((4, 3), np.float32))
    os.utime(folder / "a" / "0.npy", ns=(1, 1))  # same size, another time
    np.save(folder / "a" / "8.npy", np.zeros((5, 3), np.float32))
    (folder / "b" / "5.npy").unlink()
    loads.clear()
    found = read(folder)
    assert sorted(loads) == ["0.npy", "8.npy"]
    assert "2 of 6 new or changed, decoded again" in found.source
    assert (found[0].load() == 1).all()
    assert_same(found, crnn.read(folder))


def test_a_cache_of_mostly_what_is_gone_is_made_anew(folder, loads):
    read(folder)
    before = next((folder.parent / "cache").glob("*.frames"))
    size = before.stat().st_size
    for path in folder.rglob("*.npy"):
        if path.name > "1.npy":
            path.unlink()
    found = read(folder)
    (after,) = (folder.parent / "cache").glob("*.frames")
    assert after != before
    assert after.stat().st_size < size
    assert_same(found, crnn.read(folder))


def test_other_settings_have_another_cache(folder, loads):
    first, other = read(folder), read(folder, sample_rate=50)
    assert "6 decoded" in other.source
    assert len(list((folder.parent / "cache").glob("*.frames"))) == 2
    assert_same(first, crnn.read(folder))


def test_the_same_names_elsewhere_are_other_data(folder, loads):
    read(folder)
    (folder.parent / "moved").mkdir()
    folder.rename(folder.parent / "moved" / "data")
    assert "6 decoded" in crnn.read(folder.parent / "moved" / "data", cache=folder.parent / "cache").source


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text('{"entries": 3}'),
        lambda path: next(path.parent.glob("*.frames")).write_bytes(b"1234"),
        lambda path: next(path.parent.glob("*.frames")).unlink(),
    ],
)
def test_a_damaged_cache_is_made_anew_and_said(folder, loads, damage):
    read(folder)
    damage(next((folder.parent / "cache").glob("*.json")))
    found = read(folder)
    assert "damaged, all 6 decoded again" in found.source
    assert_same(found, crnn.read(folder))


def test_what_an_interruption_left_is_used(folder, loads, monkeypatch):
    monkeypatch.setattr(cache_module, "SAVE_SECONDS", -1)
    load = npy.load_npy

    def interrupted(path, shape):
        if path.name == "3.npy":
            raise KeyboardInterrupt
        return load(path, shape)

    monkeypatch.setattr(npy, "load_npy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(folder)
    done = len(loads)
    assert done > 0
    monkeypatch.setattr(npy, "load_npy", load)
    assert_same(read(folder), crnn.read(folder))
    assert len(loads) == 6 + 6  # each once for the cache, and once by assert_same


def test_a_file_that_cannot_be_decoded_is_named(folder):
    bad = folder / "b" / "1.npy"

    def load():
        raise OSError("no such sector")

    data = crnn.read(folder)
    examples = [
        Example(e.id, e.where, e.length, load, e.target, files=e.files) if e.id == "b/1.npy" else e for e in data
    ]
    found = cached(Dataset(tuple(examples), "series", data.channel_names, None, "s", False), folder.parent / "c", {})
    assert len(found) == 5
    assert [problem.where for problem in found.problems] == [str(bad)]
    assert "no such sector" in found.problems[0].what


def test_what_is_in_memory_needs_no_cache(tmp_path):
    (tmp_path / "a.csv").write_text("label,0,1\nx,1,2\ny,3,4\n")
    with pytest.raises(ConfigError, match=r"a\.csv.* is held in memory as it is read"):
        crnn.read(tmp_path / "a.csv", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="cache: only for files; the source is list"):
        crnn.read([np.zeros(3)], cache=tmp_path / "cache")


def test_a_reader_that_names_no_files_is_refused(tmp_path):
    data = Dataset((Example("x", "x.dat", 4, lambda: np.zeros((4, 1))),), "series", ("c",), None, "s", in_memory=False)
    with pytest.raises(ConfigError, match=r"the reader of x\.dat does not say which files it reads"):
        cached(data, tmp_path, {})


def test_a_cache_that_cannot_be_written_says_what_it_needs(folder):
    (folder.parent / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cache: the cache cannot be written \(.*\); all of the data needs"):
        read(folder)


def test_a_cache_that_has_gone_is_named(folder):
    data = read(folder)
    next((folder.parent / "cache").glob("*.frames")).unlink()
    with pytest.raises(DataError, match=r"frames: the cache has gone or is cut off"):
        data[0].load()


def test_two_processes_make_one_cache(folder):
    code = "import sys, crnn; print(crnn.read(sys.argv[1], cache=sys.argv[2]).source)"
    environment = {**os.environ, "PYTHONPATH": str(Path(crnn.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(folder), str(folder.parent / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    found = sorted(process.communicate(timeout=60)[0].strip().rpartition(": ")[2] for process in both)
    assert found == ["6 decoded", "all 6 found"]
    index = json.loads(next((folder.parent / "cache").glob("*.json")).read_text())
    assert index["frames"] == sum(range(4, 10))
