"""Spectral front-ends: log-mel spectrogram and MFCC of audio, framed so that they stream and ignore padding."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crnn.config import config
from crnn.errors import ConfigError
from crnn.nn.layers import Features, WindowedLayer, register_layer


@config
class LogMelConfig:
    """Log-mel spectrogram: how audio is cut into frames and bands."""

    layer: ClassVar[str] = "log_mel"
    sample_rate: float
    """Samples per second of the input; the data's own rate."""
    num_mels: int = 64
    """Bands."""
    window_seconds: float = 0.025
    """Length of the (periodic Hann) window."""
    hop_seconds: float = 0.010
    """Step from one frame to the next."""
    n_fft: int | None = None
    """Length of the Fourier transform, in samples; by default the next power of two that holds the window."""
    fmin: float = 0.0
    """Lower edge of the lowest band, in Hz."""
    fmax: float | None = None
    """Upper edge of the highest band, in Hz; by default half the sample rate."""
    mel: Literal["htk", "slaney", "linear"] = "htk"
    """Formula of the mel scale; linear takes the bins of the Fourier transform as they are: n_fft / 2 + 1 bands."""
    power: Literal[1, 2] = 2
    """Bands sum magnitudes (1) or powers (2)."""
    preemphasis: float = 0.0
    """x[t] - preemphasis * x[t-1] before framing; 0.97 is usual for speech."""
    log_floor: float = 1e-6
    """Bands below this are raised to it before the logarithm; 1e-6 is 100 dB below a full-scale tone at 16 kHz."""

    @property
    def window_length(self) -> int:
        """The window in samples."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def hop_length(self) -> int:
        """The hop in samples."""
        return round(self.hop_seconds * self.sample_rate)

    @property
    def fft_length(self) -> int:
        """`n_fft`, or its default."""
        return self.n_fft or 1 << max(self.window_length - 1, 1).bit_length()

    @property
    def top(self) -> float:
        """`fmax`, or its default."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax

    def __post_init__(self) -> None:
        name = self.layer
        for key in ("sample_rate", "num_mels", "log_floor"):
            if not (0 < getattr(self, key) < math.inf):
                raise ConfigError(f"{name}.{key}={getattr(self, key)}; expected a number above 0")
        if not (0 < self.hop_seconds < math.inf) or self.hop_length < 1:
            raise ConfigError(f"{name}.hop_seconds={self.hop_seconds} is under one sample at {self.sample_rate:g} Hz")
        if not (0 < self.window_seconds < math.inf) or self.window_length < 2:
            raise ConfigError(
                f"{name}.window_seconds={self.window_seconds} is under two samples at {self.sample_rate:g} Hz"
            )
        if self.hop_length > self.window_length:
            raise ConfigError(
                f"{name}.hop_seconds={self.hop_seconds} is longer than window_seconds={self.window_seconds}, "
                "so samples would be skipped; lower the hop or widen the window"
            )
        if self.n_fft is not None and self.n_fft < self.window_length:
            raise ConfigError(f"{name}.n_fft={self.n_fft} does not hold the window of {self.window_length} samples")
        if not 0 <= self.fmin < self.top:
            raise ConfigError(f"{name}.fmin={self.fmin}; expected 0 <= fmin < fmax={self.top:g}")
        if self.top > self.sample_rate / 2:
            raise ConfigError(
                f"{name}.fmax={self.top:g} is above half the sample rate, {self.sample_rate / 2:g} Hz, where there is "
                "no signal; lower it, or leave it out"
            )
        if self.mel == "linear" and self.num_mels != self.fft_length // 2 + 1:
            raise ConfigError(
                f"{name}.num_mels={self.num_mels}: with mel=linear the bands are the bins of the transform; set it to "
                f"{self.fft_length // 2 + 1} (n_fft / 2 + 1), or choose another scale"
            )
        if not 0 <= self.preemphasis <= 1:
            raise ConfigError(f"{name}.preemphasis={self.preemphasis}; expected 0 (off) to 1")


@register_layer("log_mel")
class LogMel(WindowedLayer):
    """Log-mel spectrogram; frame t is centred on its hop, and samples outside the recording count as zero.

    Frame t covers samples t*hop - (window - hop)//2 ... + window - 1; every hop that starts within the recording gives
    one frame. The same numbers as torch.stft(center=False) on a signal that is padded so, but the zeros that fill
    n_fft stand after the window, so a frame sees no sample outside its window (and no NaN either).

    Shape:
        x.data: (batch, time, 1), audio in -1..1; returns (batch, ceil(time / hop), num_mels).
        Several channels are transformed one by one: (batch, time, channels) -> (batch, frames, channels, num_mels).
    Raises:
        ConfigError: a band so narrow that no Fourier bin lies within it.
    """

    Config: ClassVar[type] = LogMelConfig
    window: Tensor
    filters: Tensor

    def __init__(self, features: Features, config: LogMelConfig) -> None:
        self._check_features(features, config.layer)
        window, hop = config.window_length, config.hop_length
        before = 1 if config.preemphasis else 0  # the sample that pre-emphasis looks back at
        super().__init__(
            features,
            self._frame(features, config.num_mels),
            extent=window + before,
            stride=hop,
            pad_left=(window - hop) // 2 + before,
            tail="ceil",
        )
        self.config = config
        # not saved: the config says it all
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filters(config).float(), persistent=False)

    def windows(self, data: Tensor) -> Tensor:
        with torch.autocast(data.device.type, enabled=False):  # powers span more than half precision holds
            mels = self._log_mels(data.to(self.window.dtype).transpose(1, 2))  # (batch, channels, frames, mels)
        return mels.squeeze(1) if mels.shape[1] == 1 else mels.transpose(1, 2)

    def _log_mels(self, samples: Tensor) -> Tensor:
        """(batch, channels, n) -> (batch, channels, frames, num_mels)."""
        if self.config.preemphasis:
            samples = samples[..., 1:] - self.config.preemphasis * samples[..., :-1]
        frames = samples.unfold(-1, self.config.window_length, self.config.hop_length)
        spectrum = torch.fft.rfft(frames * self.window, n=self.config.fft_length)
        energy: Tensor = spectrum.real.square() + spectrum.imag.square()
        if self.config.power == 1:
            energy = energy.sqrt()
        return (energy @ self.filters).clamp(min=self.config.log_floor).log()

    @staticmethod
    def _check_features(features: Features, name: str) -> None:
        if len(features) != 1:
            raise ConfigError(f"{name} needs audio of shape (time, channels), got frames of shape {features}")

    @staticmethod
    def _frame(features: Features, size: int) -> Features:
        return (size,) if features == (1,) else (*features, size)

    def macs_per_frame(self) -> float:
        n = self.config.fft_length
        transform = 1.25 * n * math.log2(n)  # a real split-radix transform; half its operations are additions
        return self.in_features[0] * (self.extent + transform + n + self.filters.numel()) / self.stride


def mel_filters(config: LogMelConfig) -> Tensor:
    """Triangular bands with corners equally spaced in mel, height 1, float64.

    Shape:
        returns (n_fft // 2 + 1, num_mels); energies @ filters gives the bands.
    Raises:
        ConfigError: a band without any Fourier bin; names the number of bands that fits.
    Source: mel scale "htk" O'Shaughnessy 1987, Speech Communication, 2595 log10(1 + f/700); "slaney" Slaney 1998,
    Auditory Toolbox: linear below 1 kHz, logarithmic above (his bands have area 1, ours height 1: after the logarithm
    a constant per band).
    """
    if config.mel == "linear":
        return torch.eye(config.num_mels, dtype=torch.float64)
    filters = _triangles(config, config.num_mels)
    empty = (filters.sum(0) == 0).nonzero()
    if len(empty):
        fits = config.num_mels - 1
        while fits and (_triangles(config, fits).sum(0) == 0).any():
            fits -= 1
        raise ConfigError(
            f"{config.layer}.num_mels={config.num_mels}: band {int(empty[0])} is narrower than the "
            f"{config.sample_rate / config.fft_length:.4g} Hz between Fourier bins, so it would always be empty; "
            f"use num_mels <= {fits}, a longer window or a larger n_fft (now {config.fft_length})"
        )
    return filters


def _triangles(config: LogMelConfig, count: int) -> Tensor:
    assert config.mel != "linear", "which has no bands to lay out"
    low, high = (hz_to_mel(torch.tensor(f, dtype=torch.float64), config.mel) for f in (config.fmin, config.top))
    corners = mel_to_hz(torch.linspace(float(low), float(high), count + 2, dtype=torch.float64), config.mel)
    bins = torch.arange(config.fft_length // 2 + 1, dtype=torch.float64) * config.sample_rate / config.fft_length
    rising = (bins[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins[:, None]) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


_SLANEY_BREAK_HZ, _SLANEY_HZ_PER_MEL, _SLANEY_LOG_STEP = 1000.0, 200 / 3, math.log(6.4) / 27


def hz_to_mel(hz: Tensor, mel: Literal["htk", "slaney"]) -> Tensor:
    """Frequency in Hz -> mel; see `mel_filters` for the sources."""
    if mel == "htk":
        return 2595 * torch.log10(1 + hz / 700)
    knee = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
    above = knee + torch.log(hz.clamp(min=_SLANEY_BREAK_HZ) / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP
    return torch.where(hz < _SLANEY_BREAK_HZ, hz / _SLANEY_HZ_PER_MEL, above)


def mel_to_hz(mels: Tensor, mel: Literal["htk", "slaney"]) -> Tensor:
    """The inverse of `hz_to_mel`."""
    if mel == "htk":
        return 700 * (torch.exp(mels * (math.log(10) / 2595)) - 1)
    knee = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
    above = torch.exp((mels - knee) * _SLANEY_LOG_STEP) * _SLANEY_BREAK_HZ
    return torch.where(mels < knee, mels * _SLANEY_HZ_PER_MEL, above)


@config
class MfccConfig(LogMelConfig):
    """Mel-frequency cepstral coefficients: the options of log_mel and the number of coefficients kept."""

    layer: ClassVar[str] = "mfcc"
    num_coefficients: int = 20
    """The first ones of the cosine transform, the zeroth (loudness) included."""

    def __post_init__(self) -> None:
        LogMelConfig.__post_init__(self)
        if not 1 <= self.num_coefficients <= self.num_mels:
            raise ConfigError(f"mfcc.num_coefficients={self.num_coefficients}; expected 1 to num_mels={self.num_mels}")


@register_layer("mfcc")
class Mfcc(LogMel):
    """Orthonormal DCT-II of the log-mel bands; follow it by `difference` for deltas.

    Shape:
        as LogMel, with num_coefficients in place of num_mels.
    Source: Davis & Mermelstein 1980, IEEE TASSP 28(4); natural logarithm of mel powers, no liftering.
    """

    Config: ClassVar[type] = MfccConfig
    config: MfccConfig
    cosines: Tensor

    def __init__(self, features: Features, config: MfccConfig) -> None:
        super().__init__(features, config)
        self.out_features = self._frame(features, config.num_coefficients)
        self.register_buffer("cosines", _cosines(config.num_mels, config.num_coefficients), persistent=False)

    def _log_mels(self, samples: Tensor) -> Tensor:
        return super()._log_mels(samples) @ self.cosines

    def macs_per_frame(self) -> float:
        return super().macs_per_frame() + self.in_features[0] * self.cosines.numel() / self.stride


def _cosines(size: int, count: int) -> Tensor:
    """(size, count): the first `count` columns of the orthonormal DCT-II."""
    place = torch.arange(size, dtype=torch.float64)[:, None] + 0.5
    waves = torch.cos(math.pi / size * place * torch.arange(count, dtype=torch.float64)) * math.sqrt(2 / size)
    waves[:, 0] /= math.sqrt(2)
    return waves.float()
