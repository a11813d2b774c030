"""What a pipe or file holds, as blocks of the frames that a model takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from crnn.data.dataset import Kind
from crnn.errors import ConfigError, DataError
from crnn.streaming.rows import read_rows
from crnn.streaming.samples import Block, Samples, read_samples, read_wav_header
from crnn.streaming.tail import Tail

Format = Literal["s16le", "f32le", "wav", "csv"]
ENCODED = {b"fLaC": "FLAC", b"OggS": "Ogg", b"ID3": "MP3", b"FORM": "AIFF", b"caff": "CAF", b"RF64": "RF64"}
"""First bytes of files whose samples are not plain, or not as in a WAV: as raw samples they would be noise."""


class Source:
    """Blocks of frames from a pipe or file; what they are is found from its name, its first bytes and the model.

    Args:
        kind, channel_names, sample_rate: what the model takes.
        format: how it is written; found when None.
        rate, channels: of raw samples, where they are not the model's; a WAV says so itself.
    Raises:
        DataError: another sample rate or number of channels than the model takes, a damaged header, or an encoded
            recording.
        ConfigError: an option that the format has no use for, or symbols, which no format here holds.
    """

    def __init__(
        self,
        tail: Tail,
        *,
        kind: Kind,
        channel_names: tuple[str, ...],
        sample_rate: float | None,
        format: Format | None = None,
        rate: float | None = None,
        channels: int | None = None,
    ) -> None:
        self._tail = tail
        self._kind = kind
        self._channel_names = channel_names
        self._total: int | None = None
        if kind == "symbols":
            raise ConfigError(f"{tail.name}: the model takes symbols; stream their ids from Python, by model.stream()")
        if format is not None and format not in get_args(Format):
            raise ConfigError(f"--format {format}: unknown; expected one of {', '.join(get_args(Format))}")
        self.format: Format = format or _guess(tail, kind)
        """How it is written."""
        if self.format in ("wav", "csv") and (rate is not None or channels is not None):
            raise ConfigError(
                f"--rate, --channels: are for raw samples, but {tail.name} is {self.format}; leave them out"
            )
        self._samples = None if self.format == "csv" else self._find_samples(sample_rate, rate, channels)

    def _find_samples(self, sample_rate: float | None, rate: float | None, channels: int | None) -> Samples:
        expected = len(self._channel_names)
        if self.format == "wav":
            samples, self._total = read_wav_header(self._tail)
        else:
            encoding = {"s16le": "s16", "f32le": "f32"}[self.format]
            samples = Samples(
                encoding, expected if channels is None else channels, sample_rate if rate is None else rate
            )
        if sample_rate and samples.rate != sample_rate:
            raise DataError(
                f"{self._tail.name}: found {samples.rate:g} Hz, but the model takes {sample_rate:g} Hz; "
                f"record at that rate (arecord -r {sample_rate:g}), or put sox -r {sample_rate:g} or ffmpeg between"
            )
        mixes = self._kind == "audio" and samples.channels > 1
        if samples.channels != expected and not mixes:
            raise DataError(
                f"{self._tail.name}: found {samples.channels} channels, but the model takes {expected} "
                f"({', '.join(self._channel_names)})"
            )
        return samples

    def blocks(self, size: int) -> Iterator[Block]:
        """(size, channels) at a time, of which the last may be shorter; audio of several channels is averaged.

        Raises:
            DataError: a row or frame that cannot be used: which.
        """
        if self._samples is None:
            yield from read_rows(self._tail, self._channel_names, size)
            return
        for block in read_samples(self._tail, self._samples, size, self._total):
            yield block.mean(1, keepdims=True) if self._kind == "audio" and block.shape[1] > 1 else block


def _guess(tail: Tail, kind: Kind) -> Format:
    """By the end of the name, by the first bytes, or what data of this kind mostly is."""
    if tail.name.lower().endswith((".csv", ".tsv", ".txt")):
        return "csv"
    first = tail.peek(4)[:4]
    if first == b"RIFF":
        return "wav"
    encoded = next((name for start, name in ENCODED.items() if first.startswith(start)), None)
    if encoded is None and tail.name.lower().endswith(".mp3"):  # not every one begins with a tag
        encoded = "MP3"
    if encoded is not None and kind == "audio":
        raise DataError(
            f"{tail.name}: found {encoded}, expected WAV or raw samples; decode it on the way "
            "(sox FILE -t wav - | crnn stream RUN), or let crnn predict read it"
        )
    return "s16le" if kind == "audio" else "csv"
