"""Tar shards: files of one name belong together, and each is reached by itself."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import soundfile

import crnn
from crnn.errors import DataError

RNG = np.random.default_rng(0)


def wav(samples, rate=8000, format="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype="FLOAT" if format == "WAV" else None)
    return file.getvalue()


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def shard(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_audio_with_classes_over_several_shards(tmp_path):
    clips = {i: RNG.uniform(-0.5, 0.5, 100 + i).astype(np.float32) for i in range(6)}
    for part in range(2):
        members = {}
        for i in range(3 * part, 3 * part + 3):
            members[f"{i:04d}.wav"] = wav(clips[i])
            members[f"{i:04d}.cls"] = str(i % 2).encode()
        shard(tmp_path / f"{['train', 'test'][part]}-00000{part}.tar", members)
    data = crnn.read(tmp_path)
    assert data.kind == "audio"
    assert data.sample_rate == 8000
    assert not data.in_memory
    assert [e.id for e in data][:2] == ["test-000001.tar/0003", "test-000001.tar/0004"]
    assert data.targets == ["1", "0", "1", "0", "1", "0"]
    assert [e.split for e in data] == ["test"] * 3 + ["train"] * 3
    assert data.lengths.tolist() == [103, 104, 105, 100, 101, 102]
    for example in data:
        assert np.array_equal(example.load()[:, 0], clips[int(example.id[-4:])])
        assert np.array_equal(pickle.loads(pickle.dumps(example)).load(), example.load())  # as workers get it


def test_arrays_with_fields_of_json(tmp_path):
    arrays = [RNG.standard_normal((n, 2)).astype(np.float64) for n in (4, 7)]
    members = {}
    for i, array in enumerate(arrays):
        facts = {"label": "xy"[i], "speaker": f"s{i}", "split": ["train", "dev"][i], "note": {"a": 1}}
        members |= {f"deep/{i}.npy": npy(array), f"deep/{i}.json": json.dumps(facts).encode(), "deep/.hidden": b"?"}
    data = crnn.read(shard(tmp_path / "a.tar", members), group="speaker", sample_rate=50)
    assert data.kind == "series"
    assert data.features == (2,)
    assert data.targets == ["x", "y"]
    assert [e.group for e in data] == ["s0", "s1"]
    assert [e.split for e in data] == ["train", "validation"]
    assert data.sample_rate == 50
    assert all(np.array_equal(e.load(), a.astype(np.float32)) for e, a in zip(data, arrays, strict=True))


def test_texts_are_targets(tmp_path):
    clip = wav(np.zeros(9, np.float32))
    members = {"a.wav": clip, "a.txt": "grüß dich\n".encode(), "b.wav": clip, "b.txt": b"17"}
    assert crnn.read(shard(tmp_path / "a.tar", members), target="text").targets == ["grüß dich", "17"]


def test_rates_are_made_one(tmp_path):
    members = {"a.wav": wav(np.zeros(800, np.float32), 8000), "b.flac": wav(np.zeros(1600), 16000, "FLAC")}
    data = crnn.read(shard(tmp_path / "a.tar", members), sample_rate=4000)
    assert [len(example.load()) for example in data] == data.lengths.tolist() == [400, 400]


def test_shards_can_be_cached(tmp_path):
    path = shard(tmp_path / "a.tar", {f"{i}.npy": npy(np.full(3, i)) for i in range(4)})
    for how in ("4 decoded", "all 4 found"):
        data = crnn.read(path, cache=tmp_path / "cache")
        assert how in data.source
        assert [example.load()[0, 0] for example in data] == [0, 1, 2, 3]


def test_bad_places_are_named(tmp_path):
    good = wav(np.zeros(9, np.float32))
    members = {
        "a.wav": good,
        "a.cls": b"1",
        "b.wav": b"RIFF no audio",
        "b.cls": b"1",
        "c.wav": good,
        "c.json": b"{",
        "d.wav": good,
        "d.flac": good,
        "e.wav": good,
        "e.json": b"[1]",
    }
    data = crnn.read(shard(tmp_path / "s.tar", members), on_bad="skip")
    assert [example.id for example in data] == ["s.tar/a"]
    found = {problem.where.rpartition(" ")[2]: problem.what for problem in data.problems}
    assert found["b"].startswith("unreadable (")
    assert found["c"].startswith(".json cannot be read (")
    assert found["d"].startswith("found data twice (.wav, .flac)")
    assert found["e"].startswith(".json holds a list")
    with pytest.raises(DataError, match="4 of 5 places cannot be used"):
        crnn.read(tmp_path / "s.tar")


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (npy(np.array([{}]), allow_pickle=True), "it holds Python objects"),
        (npy(np.zeros((2, 2, 2))), r"has shape \(2, 2, 2\)"),
        (npy(np.zeros((0, 2))), r"has shape \(0, 2\)"),
        (b"no array", "cannot be read"),
    ],
)
def test_arrays_that_are_none_are_named(tmp_path, array, what):
    with pytest.raises(DataError, match=what):
        crnn.read(shard(tmp_path / "s.tar", {"a.npy": npy(np.zeros(3)), "b.npy": array}))


def test_a_file_that_is_no_tar_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DataError, match=r"a\.tar: found no data in its shards.*cannot be read as tar"):
        crnn.read(tmp_path / "a.tar")


def test_a_shard_that_is_cut_off_is_named(tmp_path):
    path = shard(tmp_path / "a.tar", {f"{i}.wav": wav(np.zeros(2000, np.float32)) for i in range(3)})
    path.write_bytes(path.read_bytes()[:12_000])
    with pytest.raises(DataError, match=r"a\.tar"):
        crnn.read(path)


def test_audio_and_arrays_do_not_mix(tmp_path):
    with pytest.raises(DataError, match=r"both audio and \.npy data"):
        crnn.read(shard(tmp_path / "a.tar", {"a.npy": npy(np.zeros(3)), "b.wav": wav(np.zeros(3))}))


def test_shards_without_data(tmp_path):
    with pytest.raises(DataError, match=r"found no data in its shards; expected files such as 0001\.wav"):
        crnn.read(shard(tmp_path / "a.tar", {"readme.md": b"hello"}))
