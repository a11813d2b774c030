"""Pipes and files as blocks: WAV as recorders write it, raw samples, lines of a table."""

from __future__ import annotations

import io
import struct
import threading
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crnn.errors import ConfigError, DataError
from crnn.streaming.source import Source
from crnn.streaming.tail import Tail

AUDIO = {"kind": "audio", "channel_names": ("audio",), "sample_rate": 8000.0}
SERIES = {"kind": "series", "channel_names": ("x", "y"), "sample_rate": None}
RAMP = np.array([0, 8192, -16384, 32767, -32768], np.int16)


def wav_bytes(samples: np.ndarray, rate: int = 8000, channels: int = 1) -> bytes:
    """As the standard library writes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def blocks_of(data: bytes, size: int = 2, name: str = "x", **options: Any) -> list[list[list[float]]]:
    source = Source(Tail(io.BytesIO(data), name), **{**AUDIO, **options})
    return [block.tolist() for block in source.blocks(size)]


def test_a_wav_file_ends_where_its_samples_end() -> None:
    whole = blocks_of(wav_bytes(RAMP) + b"LIST\4\0\0\0junk")
    assert whole == [[[0], [0.25]], [[-0.5], [32767 / 32768]], [[-1]]]


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_pipe_whose_length_is_unknown_is_read_to_its_end(size: int) -> None:
    data = bytearray(wav_bytes(RAMP))
    data[40:44] = struct.pack("<I", size)
    assert blocks_of(bytes(data), 5) == [[[0], [0.25], [-0.5], [32767 / 32768], [-1]]]


def header(tag: int, bits: int, channels: int = 1, extra: bytes = b"") -> bytes:
    body = struct.pack("<HHIIHH", tag, channels, 8000, 8000 * channels * bits // 8, channels * bits // 8, bits) + extra
    return b"RIFF\0\0\0\0WAVE" + b"LIST\3\0\0\0abc\0" + b"fmt " + struct.pack("<I", len(body)) + body + b"data\0\0\0\0"


@pytest.mark.parametrize(
    ("head", "samples"),
    [
        (header(1, 8), bytes([128, 192, 0])),
        (header(1, 24), b"\0\0\0" + b"\0\0\x40" + b"\0\0\x80"),
        (header(1, 32), struct.pack("<3i", 0, 2**30, -(2**31))),
        (header(3, 32), struct.pack("<3f", 0, 0.5, -1)),
        (header(3, 64), struct.pack("<3d", 0, 0.5, -1)),
        (header(0xFFFE, 16, extra=b"\x16\0\x10\0\4\0\0\0\1\0" + b"\0" * 14), struct.pack("<3h", 0, 2**14, -(2**15))),
    ],
)
def test_every_plain_wav_encoding(head: bytes, samples: bytes) -> None:
    assert blocks_of(head + samples, 3) == [[[0], [0.5], [-1]]]


def test_sound_of_several_channels_is_averaged_and_a_series_keeps_them() -> None:
    data = wav_bytes(np.array([[0, 16384], [-16384, -16384]]), channels=2)
    assert blocks_of(data) == [[[0.25], [-0.5]]]
    assert blocks_of(data, **{**SERIES, "sample_rate": 8000}) == [[[0, 0.5], [-0.5, -0.5]]]


def test_raw_samples() -> None:
    assert blocks_of(RAMP.tobytes())[0] == [[0], [0.25]]
    assert blocks_of(struct.pack("<4f", 1, 2, 3, 4), 5, format="f32le", **SERIES) == [[[1, 2], [3, 4]]]
    assert blocks_of(struct.pack("<4h", 0, 2**14, 2**14, 2**14), 5, channels=2) == [[[0.25], [0.5]]]


def test_a_table_gives_the_models_columns_by_name_or_by_place() -> None:
    rows = b"time;y;label;x\n0;1;a;2\n1;;b;4\n\n2;5;c;6"
    found = blocks_of(rows, 2, **SERIES)
    assert found[0][0] == [2, 1]
    assert found[0][1][0] == 4
    assert np.isnan(found[0][1][1])
    assert found[1] == [[6, 5]]
    assert blocks_of(b"1,2\n3,4\n", 1, **SERIES) == [[[1, 2]], [[3, 4]]]
    unnamed = {**SERIES, "channel_names": ("c0", "c1")}
    assert blocks_of(b"u\tv\n1\t2\n", 1, **unnamed) == [[[1, 2]]]
    with pytest.raises(DataError, match="no column 'x', which the model takes"):
        blocks_of(b"u\tv\n1\t2\n", 1, **SERIES)
    assert blocks_of(b"", 1, **SERIES) == []


@pytest.mark.parametrize(
    ("data", "options", "error", "said"),
    [
        (wav_bytes(RAMP, 44100), {}, DataError, "x: found 44100 Hz, but the model takes 8000 Hz; record at that rate"),
        (RAMP.tobytes(), {"rate": 16000.0}, DataError, "found 16000 Hz, but the model takes 8000 Hz"),
        (wav_bytes(RAMP), {"rate": 8000.0}, ConfigError, "--rate, --channels: are for raw samples, but x is wav"),
        (b"abc", {"format": "wav"}, DataError, "x: found no WAV header; for raw samples say --format s16le"),
        (header(7, 8), {}, DataError, "x: WAV format 7 with 8 bits and 1 channels cannot be read live"),
        (wav_bytes(RAMP)[:30], {}, DataError, "ends before its samples; the file is truncated"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", {}, DataError, "says nothing about its samples"),
        (RAMP.tobytes()[:-1], {}, DataError, "x: ends 1 bytes into a frame of 2; check --format"),
        (
            RAMP.tobytes(),
            {"format": "mp3"},
            ConfigError,
            "--format mp3: unknown; expected one of s16le, f32le, wav, csv",
        ),
        (b"fLaC\0\0\0\x22", {}, DataError, "x: found FLAC, expected WAV or raw samples; decode it on the way"),
        (b"\xff\xfb\x90", {"name": "a.MP3"}, DataError, "a.MP3: found MP3, expected WAV or raw samples"),
        (b"", {"kind": "symbols"}, ConfigError, "the model takes symbols; stream their ids from Python"),
        (
            wav_bytes(RAMP),
            {**SERIES, "sample_rate": 8000},
            DataError,
            r"found 1 channels, but the model takes 2 \(x, y\)",
        ),
        (b"x,z,u\n1,2,3\n", SERIES, DataError, "x: no column 'y', which the model takes"),
        (b"x,y\n1,2\n3,b\n", SERIES, DataError, "x row 3: found 'b', expected a number, or an empty cell"),
        (b"1,2\n3\n", SERIES, DataError, "x row 2: found 1 cells, expected 2; write every row whole"),
    ],
)
def test_what_cannot_be_used_is_named(data: bytes, options: dict[str, Any], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        blocks_of(data, **options)


def test_what_a_truncated_wav_holds_is_given_before_it_is_refused() -> None:
    source = Source(Tail(io.BytesIO(wav_bytes(RAMP)[:-4]), "x"), **AUDIO)
    blocks = source.blocks(2)
    assert [next(blocks).tolist(), next(blocks).tolist()] == [[[0], [0.25]], [[-0.5]]]
    with pytest.raises(
        DataError, match="x: truncated: its header says 10 bytes of samples, found 6; get the file again"
    ):
        next(blocks)


def test_what_looks_like_another_format_is_raw_where_that_is_said() -> None:
    assert len(blocks_of(b"fLaC", 9, format="s16le")[0]) == 2


@pytest.mark.parametrize(("table", "expected"), [("y,x\n1,2\n", [[2, 1]]), ("x\n2\n", [[2, np.nan]])])
def test_a_channel_that_may_be_missing_is_found_or_left_open(table: str, expected: list[list[float]]) -> None:
    source = Source(Tail(io.BytesIO(table.encode()), "t.csv"), **{**SERIES, "channel_names": ("x", "y?")})
    np.testing.assert_equal(np.concatenate(list(source.blocks(9))), expected)


def test_a_growing_file_is_waited_for(tmp_path: Path) -> None:
    path, found = tmp_path / "grows.csv", []
    path.write_bytes(b"1,2\n3")

    def write() -> None:
        time.sleep(0.1)
        with path.open("ab") as file:
            file.write(b",4\n")

    writer = threading.Thread(target=write)
    with path.open("rb") as file:
        source = Source(Tail(file, str(path), follow=True), **SERIES)
        writer.start()
        for block in source.blocks(1):
            found += block.tolist()
            if len(found) == 2:
                break
    writer.join()
    assert found == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b"1,2\n3,4\n5,6\n7,", {}, [[[1, 2], [3, 4]], [[5, 6]]]),
        (np.arange(7, dtype="<f4").tobytes(), {"format": "f32le"}, [[[0, 1], [2, 3]], [[4, 5]]]),
    ],
)
def test_ctrl_c_ends_the_waiting_with_what_is_there(tmp_path, monkeypatch, data, options, expected) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    path = tmp_path / ("grows.csv" if not options else "grows.raw")
    path.write_bytes(data)
    monkeypatch.setattr(time, "sleep", stop)
    with path.open("rb") as file:
        tail = Tail(file, str(path), follow=True)
        assert [block.tolist() for block in Source(tail, **{**SERIES, **options}).blocks(2)] == expected
    assert tail.interrupted


class Dribble(io.RawIOBase):
    """A pipe that gives one byte at a time."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def read(self, count: int = -1) -> bytes:
        found, self._data = self._data[:1], self._data[1:]
        return found


def test_a_pipe_that_gives_less_than_was_asked_for_is_read_on() -> None:
    tail = Tail(Dribble(b"RIFFabcd"), "pipe")  # type: ignore[arg-type]
    assert tail.peek(4) == b"RIFF"
    assert tail.read(6) == b"RIFFab"
    assert tail.read(9) == b"cd"
    assert tail.read(9) == b""
