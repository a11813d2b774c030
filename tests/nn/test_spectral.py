"""Log-mel and MFCC against plain numpy and scipy, and the promises on audio."""

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch
from torch.testing import assert_close

from crnn.config import build_config
from crnn.errors import ConfigError, ShapeError
from crnn.nn.layers import build_layer
from crnn.nn.spectral import LogMel, LogMelConfig, Mfcc, MfccConfig, hz_to_mel, mel_filters, mel_to_hz
from crnn.sequences import Sequences, pad

SMALL = {"sample_rate": 800, "num_mels": 6, "window_seconds": 0.05, "hop_seconds": 0.02}  # 40 samples, step 16
NAN = float("nan")

MAKERS = {
    "log_mel": lambda: LogMel((1,), LogMelConfig(**SMALL)),
    "log_mel_preemphasis": lambda: LogMel((1,), LogMelConfig(**SMALL, preemphasis=0.97, power=1, mel="slaney")),
    "log_mel_two_channels": lambda: LogMel((2,), LogMelConfig(**SMALL)),
    "log_mel_no_overlap": lambda: LogMel((1,), LogMelConfig(**{**SMALL, "hop_seconds": 0.05}, preemphasis=0.5)),
    "log_mel_odd": lambda: LogMel((1,), LogMelConfig(**{**SMALL, "window_seconds": 0.04625}, n_fft=50)),
    "mfcc": lambda: Mfcc((1,), MfccConfig(**SMALL, num_coefficients=4)),
}


def numpy_filters(rate, n_fft, num_mels, fmin, fmax, scale):
    """One bin and one band at a time."""

    def to_mel(f):
        if scale == "htk":
            return 1127.010480 * np.log(1 + f / 700)  # 2595 / ln 10 = 1127.0105
        return f * 3 / 200 if f < 1000 else 15 + 27 * np.log(f / 1000) / np.log(6.4)

    def to_hz(m):
        if scale == "htk":
            return 700 * (np.exp(m / 1127.010480) - 1)
        return m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

    low, high = to_mel(fmin), to_mel(fmax)
    corners = [to_hz(low + (high - low) * i / (num_mels + 1)) for i in range(num_mels + 2)]
    return np.array(
        [
            [np.interp(k * rate / n_fft, corners[m : m + 3], [0, 1, 0]) for m in range(num_mels)]
            for k in range(n_fft // 2 + 1)
        ]
    )


def numpy_log_mel(samples, config):
    """One frame at a time, with the signal taken as zero outside."""
    window, hop = round(config.window_seconds * config.sample_rate), round(config.hop_seconds * config.sample_rate)
    n_fft = config.n_fft or 2 ** int(np.ceil(np.log2(window)))
    far = np.concatenate([np.zeros(1000), samples.astype("float64"), np.zeros(1000)])
    far[1:] -= config.preemphasis * far[:-1]
    bands = numpy_filters(
        config.sample_rate, n_fft, config.num_mels, config.fmin, config.fmax or config.sample_rate / 2, config.mel
    )
    rows = []
    for t in range(int(np.ceil(len(samples) / hop))):
        start = 1000 + t * hop - (window - hop) // 2
        frame = far[start : start + window] * scipy.signal.get_window("hann", window, fftbins=True)
        rows.append(np.log(np.maximum(np.abs(scipy.fft.rfft(frame, n_fft)) ** config.power @ bands, config.log_floor)))
    return np.array(rows)


@pytest.mark.parametrize(
    "config",
    [
        LogMelConfig(sample_rate=16000),
        LogMelConfig(sample_rate=16000, mel="slaney", fmin=50, fmax=7600, num_mels=40, preemphasis=0.97),
        LogMelConfig(sample_rate=8000, power=1, n_fft=400, num_mels=32, log_floor=1e-3),
        LogMelConfig(**SMALL),
    ],
)
def test_log_mel_equals_a_plain_numpy_computation(config):
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 1601).astype("float32")
    out = LogMel((1,), config)(pad([torch.from_numpy(samples)[:, None]])).data[0]
    np.testing.assert_allclose(out.numpy(), numpy_log_mel(samples, config), atol=2e-4)


def test_log_mel_equals_torch_stft_where_no_zeros_fill_the_transform():
    layer = LogMel((1,), LogMelConfig(sample_rate=800, num_mels=8, window_seconds=0.08, hop_seconds=0.02, n_fft=64))
    samples = torch.randn(160)
    padded = torch.nn.functional.pad(samples, (24, 24))  # (64 - 16) / 2 on each side
    spectrum = torch.stft(padded, 64, 16, window=torch.hann_window(64), center=False, return_complex=True)
    expected = (spectrum.abs().square().T @ layer.filters).clamp(min=1e-6).log()
    assert_close(layer(pad([samples[:, None]])).data[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mel", ["htk", "slaney"])
@pytest.mark.parametrize(("fmin", "fmax"), [(0, None), (100, 3000)])
def test_filters_equal_the_formula_bin_by_bin(mel, fmin, fmax):
    config = LogMelConfig(sample_rate=8000, num_mels=20, mel=mel, fmin=fmin, fmax=fmax)
    np.testing.assert_allclose(mel_filters(config), numpy_filters(8000, 256, 20, fmin, fmax or 4000, mel), atol=1e-6)


def test_mel_scales_at_published_points():
    hz = torch.tensor([0.0, 1000.0, 6400.0], dtype=torch.float64)
    assert_close(hz_to_mel(hz, "slaney"), torch.tensor([0.0, 15.0, 42.0], dtype=torch.float64))  # 27 steps to 6.4 kHz
    assert float(hz_to_mel(hz[1], "htk")) == pytest.approx(1000, abs=0.02)  # by design of the scale
    for mel in ("htk", "slaney"):
        assert_close(mel_to_hz(hz_to_mel(hz, mel), mel), hz)


def test_mfcc_is_scipys_cosine_transform_of_log_mel():
    layer = MAKERS["mfcc"]()
    samples = np.random.default_rng(1).normal(0, 0.1, 300).astype("float32")
    expected = scipy.fft.dct(numpy_log_mel(samples, layer.config), type=2, norm="ortho")[:, :4]
    np.testing.assert_allclose(layer(pad([torch.from_numpy(samples)[:, None]])).data[0], expected, atol=2e-4)


def test_a_tone_stands_in_its_band():
    time = torch.arange(16000) / 16000
    layer = LogMel((1,), LogMelConfig(sample_rate=16000))
    out = layer(pad([torch.sin(2 * torch.pi * 1000 * time)[:, None]])).data[0, 50]
    corners = np.linspace(0, float(hz_to_mel(torch.tensor(8000.0), "htk")), 66)
    assert int(out.argmax()) == int(np.abs(corners[1:-1] - 1000).argmin())
    assert float(out.exp().max()) > 1e4  # (sum of the window / 2)^2: the 100 dB over the floor that the option states


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_audio_is_the_same_alone_batched_and_padded(make):
    torch.manual_seed(0)
    layer = make()
    (channels,) = layer.in_features
    rows = [0.3 * torch.randn(length, channels) for length in (1, 15, 16, 17, 40, 41, 100, 333)]
    rows.append(torch.sin(torch.arange(200.0) * 0.3)[:, None].expand(-1, channels))  # bands near the floor
    batch = layer(pad(rows, length=500, value=NAN))
    for i, row in enumerate(rows):
        alone = layer(pad([row]))
        count = int(alone.lengths)
        assert count == -(-len(row) // layer.stride) == int(batch.lengths[i])
        assert alone.data.shape == (1, count, *layer.out_features)
        assert_close(batch.data[i, :count], alone.data[0], atol=1e-5, rtol=1e-5)
        assert not batch.data[i, count:].any()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_streamed_audio_equals_the_whole(make):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    layer = make()
    (channels,) = layer.in_features
    for length in (*range(1, 20), *range(28, 60, 3), 97, 160):
        data = 0.3 * torch.randn(2, length, channels)
        expected = layer(Sequences(data, torch.tensor([length, length]))).data
        cuts = [[], list(range(1, length)), *(sorted(rng.integers(0, length + 1, 4).tolist()) for _ in range(2))]
        for cut in cuts:
            state, out = layer.start(2), []
            for chunk in torch.tensor_split(data, cut, 1):
                ready, state = layer.push(chunk, state)
                out.append(ready)
            streamed = torch.cat([*out, layer.finish(state)], 1)
            assert streamed.shape == expected.shape
            assert_close(streamed, expected, atol=1e-5, rtol=1e-5)


def test_a_stream_holds_no_more_than_the_samples_it_still_needs():
    layer = MAKERS["log_mel"]()
    state = layer.start(1)
    for _ in range(50):
        _, state = layer.push(torch.randn(1, 7, 1), state)
        assert state[0].shape[1] < 40


def test_a_missing_sample_spoils_only_the_frames_that_cover_it():
    layer = MAKERS["log_mel"]()
    data = torch.randn(1, 160, 1)
    data[0, 80] = NAN  # frames cover t*16 - 12 ... t*16 + 27, so t = 4 and 5 (52 ... 91, 68 ... 107)
    spoilt = layer(Sequences(data, torch.tensor([160]))).data[0].isnan().any(1)
    assert spoilt.nonzero().flatten().tolist() == [4, 5]


def test_digital_silence_is_the_floor():
    out = MAKERS["log_mel"]()(pad([torch.zeros(50, 1)])).data
    assert_close(out, torch.full_like(out, float(np.log(1e-6))))


def test_nothing_of_a_front_end_is_saved_and_it_follows_the_models_precision():
    layer = MAKERS["mfcc"]()
    assert not layer.state_dict()
    assert not list(layer.parameters())
    samples = torch.randn(1, 100, 1)
    double = MAKERS["mfcc"]().double()(Sequences(samples.double(), torch.tensor([100]))).data
    assert_close(double, layer(Sequences(samples, torch.tensor([100]))).data.double(), atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(layer(Sequences(samples, torch.tensor([100]))).data.double(), double, atol=1e-4, rtol=1e-4)


def test_cost_counts_transform_and_bands():
    layer = LogMel((1,), LogMelConfig(sample_rate=16000))
    # per frame: 400 window + 1.25 * 512 * 9 transform + 512 squares + 257 * 64 bands; per sample: / 160
    assert layer.macs_per_frame() == pytest.approx((400 + 5760 + 512 + 257 * 64) / 160)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fmax": 500.0}, r"log_mel.fmax=500 is above half the sample rate, 400 Hz"),
        ({"fmin": 300.0, "fmax": 200.0}, r"log_mel.fmin=300.0; expected 0 <= fmin < fmax=200"),
        ({"hop_seconds": 0.1}, r"log_mel.hop_seconds=0.1 is longer than window_seconds=0.05.*lower the hop"),
        ({"hop_seconds": 0.0001}, r"log_mel.hop_seconds=0.0001 is under one sample at 800 Hz"),
        ({"window_seconds": 0.001}, r"log_mel.window_seconds=0.001 is under two samples"),
        ({"n_fft": 32}, r"log_mel.n_fft=32 does not hold the window of 40 samples"),
        ({"preemphasis": 1.5}, r"log_mel.preemphasis=1.5; expected 0 \(off\) to 1"),
        ({"num_mels": 0}, r"log_mel.num_mels=0; expected a number above 0"),
        ({"sample_rate": NAN}, r"log_mel.sample_rate=nan; expected a number above 0"),
        ({"log_floor": 0.0}, r"log_mel.log_floor=0.0; expected a number above 0"),
        ({"power": 3}, r"m: front.power: input should be 1 or 2, found 3"),
        ({"num_mel": 3}, r"m: front.num_mel: unknown option; did you mean 'num_mels'\?"),
    ],
)
def test_an_impossible_config_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_config(LogMelConfig, {**SMALL, **options}, "m: front")


def test_more_bands_than_the_transform_resolves_are_refused_with_the_number_that_fits():
    with pytest.raises(
        ConfigError, match=r"log_mel.num_mels=90: band \d+ is narrower than the 12.5 Hz .* num_mels <= "
    ) as e:
        LogMel((1,), LogMelConfig(**{**SMALL, "num_mels": 90}))
    fits = int(str(e.value).split("num_mels <= ")[1].split(",")[0])
    LogMel((1,), LogMelConfig(**{**SMALL, "num_mels": fits}))


def test_mfcc_names_itself_and_frames_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"mfcc.num_coefficients=7; expected 1 to num_mels=6"):
        build_config(MfccConfig, {**SMALL, "num_coefficients": 7}, "m")
    with pytest.raises(ConfigError, match=r"mfcc.fmax=500 is above"):
        build_config(MfccConfig, {**SMALL, "fmax": 500}, "m")
    with pytest.raises(ConfigError, match=r"log_mel needs audio of shape \(time, channels\), got frames of shape \(\)"):
        LogMel((), LogMelConfig(**SMALL))
    layer = build_layer("log_mel", (1,), LogMelConfig(**SMALL))
    with pytest.raises(ShapeError, match=r"LogMel: sequence 1 has 0 frames, needs at least 1"):
        layer(Sequences(torch.zeros(2, 50, 1), torch.tensor([50, 0])))
