import numpy as np
import pytest

from crnn.data.annotation import Event, Events
from crnn.data.beats import RHYTHM, beats, describe_beats, running_median
from crnn.data.dataset import Dataset, array_example
from crnn.data.synthetic import heartbeats
from crnn.errors import DataError


def recordings(seconds=60, seed=0, leads=1):
    made = heartbeats(seconds, seed=seed)
    signal = np.concatenate([made.signal * (1 - 1.5 * i) for i in range(leads)], axis=1)
    example = array_example("r", "r.hea", signal, target=made.beats, group="p")
    return Dataset((example,), "series", ("MLII", "V1")[:leads], 360.0, "made"), made


def test_a_frame_is_a_beat():
    data, made = recordings()
    (example,) = found = beats(data)
    assert example.length == len(made.beats.items)
    assert example.group == "p"
    assert [example.target.names[code] for code in example.target.codes] == [e.label for e in made.beats.items]
    assert example.load().shape[1] == len(found.channel_names)


def test_what_tells_the_classes_apart_is_told():
    """Early beats come after less than the usual time; ventricular ones are unlike the usual beat."""
    data, made = recordings(seconds=300)
    found = beats(data)
    frames, labels = found[0].load(), np.array([e.label for e in made.beats.items])
    before = frames[:, found.channel_names.index("interval_before")]
    far = frames[:, found.channel_names.index("far_0")]
    late = np.arange(len(labels)) > 20
    assert before[late & (labels == "S")].max() < before[late & (labels == "N")].min()
    assert far[late & (labels == "V")].min() > far[late & (labels == "S")].max()


def test_size_and_drift_of_a_lead_say_nothing():
    data, made = recordings(leads=2)
    places = np.array([e.start for e in made.beats.items])
    signal = data[0].load().astype(float)
    plain = describe_beats(signal, places, 360.0, points=True)
    drift = 0.3 * np.sin(np.arange(len(signal)) / 360 * 2 * np.pi * 0.05)[:, None]
    np.testing.assert_allclose(describe_beats(2 * signal + drift, places, 360.0, points=True), plain, atol=0.3)


def test_turned_leads_are_sequences_of_their_own():
    data, _ = recordings(leads=2)
    found = beats(data, turns=(0, 30))
    assert [example.id for example in found] == ["r", "r turned 30"]
    rhythm = len(RHYTHM)
    np.testing.assert_array_equal(found[0].load()[:, :rhythm], found[1].load()[:, :rhythm])
    assert not np.allclose(found[0].load(), found[1].load())


def test_shapes_point_by_point_on_request():
    data, _ = recordings(leads=2)
    plain, full = beats(data), beats(data, points=True)
    few = len(plain.channel_names)
    assert few == len(RHYTHM) + 2 * 3
    assert full[0].load().shape[1] == len(full.channel_names) == few + 2 * 2 * 42
    np.testing.assert_array_equal(full[0].load()[:, :few], plain[0].load())
    first = full[0].load()[:, full.channel_names.index("shape_0_0") :][:, :42]
    assert np.abs(first).max(1)[30:].mean() == pytest.approx(1, abs=0.3)  # in units of the usual height


def test_other_classes_are_unlabelled():
    data, made = recordings()
    odd = Events(tuple(Event(e.start, e.end, "Q" if i == 3 else e.label) for i, e in enumerate(made.beats.items)))
    examples = (array_example("r", "r.hea", data[0].load(), target=odd),)
    found = beats(Dataset(examples, "series", ("MLII",), 360.0, "made"))
    assert found[0].target.codes[3] == -1


def test_running_median_by_its_definition():
    rows = np.random.default_rng(0).normal(size=(90, 3))
    by_hand = [np.median(rows[max(0, i - 40) : i + 1], axis=0) for i in range(90)]
    np.testing.assert_allclose(running_median(rows, 41), by_hand)


def test_what_has_no_beats_is_named():
    data, _ = recordings()
    with pytest.raises(DataError, match="found no recording with two beats or more"):
        beats(Dataset((array_example("r", "r", data[0].load()),), "series", ("MLII",), 360.0, "made"))
    with pytest.raises(DataError, match="found no sample rate"):
        beats(Dataset(data.examples, "series", ("MLII",), None, "made"))
