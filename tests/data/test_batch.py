"""Batches: what an epoch holds, in which order, and what happens when an example cannot be read."""

import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from crnn.data.batch import Batches, load_example
from crnn.data.dataset import Dataset, Example, array_example
from crnn.errors import ConfigError, DataError


def make(lengths, channels=2, kind="series"):
    rng = np.random.default_rng(0)
    examples = []
    for i, length in enumerate(lengths):
        if kind == "symbols":
            array = rng.integers(0, 5, length)
        else:
            array = rng.standard_normal((length, channels)).astype(np.float32)
        examples.append(array_example(f"e{i}", f"row {i}", array))
    names = () if kind == "symbols" else tuple(f"c{k}" for k in range(channels))
    return Dataset(tuple(examples), kind, names, None, "table.csv")


RAGGED = [int(n) for n in np.random.default_rng(1).integers(3, 40, 53)]
LONG = [int(n) for n in np.random.default_rng(2).integers(900, 1500, 21)]
WAYS = {
    "equal": (make([9] * 53), {}),
    "ragged": (make(RAGGED), {}),
    "long": (make(LONG, 1), {}),
    "symbols": (make(RAGGED, kind="symbols"), {}),
    "read": (make(RAGGED), {"cache_bytes": 0}),
    "read symbols": (make(RAGGED, kind="symbols"), {"cache_bytes": 0}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_holds_every_example_once_as_it_is(way, shuffle):
    data, options = WAYS[way]
    seen = []
    for x, indices in Batches(data, 8, shuffle=shuffle, seed=0, **options).epoch(3):
        seen += indices.tolist()
        assert x.data.shape[1] == int(x.lengths.max())
        assert torch.equal(x.data, x.zeroed().data)  # zero past the ends
        for row, i in zip(x.unpad(), indices.tolist(), strict=True):
            assert np.array_equal(row.numpy(), data[i].load())
    assert sorted(seen) == list(range(len(data)))


def test_memory_and_files_give_the_same_batches():
    data = make(RAGGED)
    kept = Batches(data, 8, shuffle=True, seed=5)
    read = Batches(data, 8, shuffle=True, seed=5, cache_bytes=0)
    assert kept.in_memory
    assert not read.in_memory
    for (x, i), (y, j) in zip(kept.epoch(2), read.epoch(2), strict=True):
        assert torch.equal(i, j)
        assert torch.equal(x.data, y.data)


def order(batches, n):
    return [indices.tolist() for _, indices in batches.epoch(n)]


def test_the_order_depends_on_seed_and_epoch_alone():
    data = make(RAGGED)
    fresh = Batches(data, 8, shuffle=True, seed=0)
    used = Batches(data, 8, shuffle=True, seed=0)
    before = order(used, 0)
    assert order(used, 7) == order(fresh, 7)
    assert order(used, 0) == before
    assert order(used, 1) != before
    assert order(Batches(data, 8, shuffle=True, seed=1), 0) != before


def test_an_epoch_can_be_entered_in_the_middle():
    batches = Batches(make(RAGGED), 8, shuffle=True, seed=0)
    assert [i.tolist() for _, i in batches.epoch(1, start=4)] == order(batches, 1)[4:]


def test_global_random_state_is_neither_used_nor_touched():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    order(Batches(make(RAGGED), 8, shuffle=True, seed=0), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_not_shuffled_is_by_length_and_always_the_same():
    batches = Batches(make([5, 2, 9, 2, 7]), 2, shuffle=False, seed=0)
    assert order(batches, 0) == order(batches, 4) == [[1, 3, 0], [4, 2]]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(50, 32, [25, 25]), (65, 32, [22, 22, 21]), (64, 32, [32, 32]), (5, 2, [3, 2]), (3, 1, [1, 1, 1]), (1, 8, [1])],
)
def test_the_remainder_is_spread(count, batch_size, sizes):
    batches = Batches(make([4] * count), batch_size, shuffle=False, seed=0)
    assert [len(i) for _, i in batches.epoch(0)] == sizes
    assert len(batches) == len(sizes)


@pytest.mark.parametrize(
    ("lengths", "batch_size", "max_values", "sizes"),
    [
        ([4] * 10, 5, 40, [5, 5]),  # 5 * 4 frames * 2 channels: fits
        ([4] * 10, 5, 39, [3, 2, 3, 2]),  # does not: halves
        ([1] * 4 + [50], 5, 30, [1, 1, 1, 1, 1]),  # one that is too long alone
        ([1, 1, 1, 1, 2, 2, 2, 2], 4, 8, [4, 2, 2]),  # only where it is needed
    ],
)
def test_large_batches_are_divided(lengths, batch_size, max_values, sizes):
    batches = Batches(make(lengths), batch_size, shuffle=False, seed=0, max_values=max_values)
    assert [len(i) for _, i in batches.epoch(0)] == sizes


def test_pools_waste_little_on_padding():
    lengths = [int(n) for n in np.random.default_rng(0).lognormal(4, 0.7, 2000)]
    data = make(lengths, 1)
    random = Batches(data, 32, shuffle=True, seed=0, pool=1)
    pooled = Batches(data, 32, shuffle=True, seed=0)
    padded = sum(x.data.shape[0] * x.data.shape[1] for x, _ in pooled.epoch(0))
    assert pooled.padding_waste() == pytest.approx(1 - sum(lengths) / padded)
    assert random.padding_waste() > 0.6  # long tail: one long sequence pads 31 others
    assert pooled.padding_waste() < 0.33
    assert Batches(make([7] * 9), 4, shuffle=True, seed=0).padding_waste() == 0


def test_pooling_still_mixes_examples():
    batches = Batches(make(RAGGED), 8, shuffle=True, seed=0, pool=2)
    partners = {frozenset(indices) for n in range(6) for indices in order(batches, n)}
    assert len(partners) == 6 * len(batches)


LOGNORMAL = [int(n) for n in np.random.default_rng(0).lognormal(4, 0.6, 2000)]


@pytest.mark.parametrize("frames", [500, 1000, 2000, 4000])
def test_a_budget_of_frames_is_kept_and_wastes_little(frames):
    batches = Batches(make(LOGNORMAL, 1), shuffle=True, seed=0, batch_frames=frames)
    waste = []
    for n in range(6):
        order = batches.order(n)
        assert len(order) == len(batches)
        assert sorted(i for indices in order for i in indices.tolist()) == list(range(2000))
        padded = [len(indices) * max(LOGNORMAL[i] for i in indices.tolist()) for indices in order]
        assert max(padded) <= 1.05 * frames
        waste.append(1 - sum(LOGNORMAL) / sum(padded))
    assert waste[0] == pytest.approx(batches.padding_waste())
    assert max(waste) <= 0.15
    assert Batches(make(LOGNORMAL, 1), 32, shuffle=True, seed=0).padding_waste() > 0.2  # by number, which is no better


def test_batches_by_frames_are_decided_by_seed_and_epoch():
    data = make(RAGGED)
    fresh, used = (Batches(data, shuffle=True, seed=0, batch_frames=120) for _ in range(2))
    before = order(used, 0)
    assert order(used, 7) == order(fresh, 7)
    assert order(used, 0) == before != order(used, 1)
    assert [i.tolist() for _, i in used.epoch(1, start=4)] == order(used, 1)[4:]
    assert order(Batches(data, shuffle=True, seed=1, batch_frames=120), 0) != before


@pytest.mark.parametrize("least", [1, 2, 3, 60])
@pytest.mark.parametrize("frames", [1, 90, 10**6])
def test_every_epoch_has_as_many_batches_and_each_enough_for_all_processes(least, frames):
    batches = Batches(make([*RAGGED, 900]), shuffle=True, seed=0, batch_frames=frames, least=least)
    for n in range(20):
        sizes = [len(indices) for indices in batches.order(n)]
        assert len(sizes) == len(batches)
        assert sum(sizes) == len(RAGGED) + 1
        assert min(sizes) >= min(least, len(RAGGED) + 1)


def test_one_sequence_that_is_longer_than_all_others_stands_alone():
    batches = Batches(make([10] * 200 + [10_000], 1), shuffle=True, seed=0, batch_frames=200)
    assert batches.padding_waste() == 0
    assert [200] in order(batches, 0)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
@pytest.mark.parametrize("kind", ["series", "symbols"])
def test_long_sequences_are_cut_to_windows_that_move_with_the_epoch(cache_bytes, kind):
    data = make([5, 30, 8, 31], kind=kind)
    batches = Batches(data, 2, shuffle=True, seed=0, max_frames=8, cache_bytes=cache_bytes)
    begins = set()
    for n in range(40):
        for x, indices in batches.epoch(n):
            for row, i in zip(x.unpad(), indices.tolist(), strict=True):
                whole = data[i].load()
                assert len(row) == min(8, len(whole))
                windows = [j for j in range(len(whole) - len(row) + 1) if np.array_equal(whole[j : j + 8], row.numpy())]
                assert windows
                begins |= {(i, windows[0])}
    assert {0, 22} <= {begin for i, begin in begins if i == 1}  # the first and the last that there is
    assert {begin for i, begin in begins if i in (0, 2)} == {0}
    again = Batches(data, 2, shuffle=True, seed=0, max_frames=8, cache_bytes=1 << 30 if cache_bytes == 0 else 0)
    for (x, i), (y, j) in zip(batches.epoch(3), again.epoch(3), strict=True):
        assert torch.equal(x.data, y.data)
        assert torch.equal(i, j)


def broken(error):
    def load():
        raise error

    return load


@pytest.mark.parametrize(
    "error",
    [OSError("truncated"), RuntimeError("Format not recognised"), zipfile.BadZipFile("no zip"), EOFError("end")],
)
@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_a_file_that_cannot_be_read_is_named(error, cache_bytes):
    data = make([4] * 40)
    examples = (*data.examples[:-1], Example("x", "digits/x.wav", 4, broken(error)))
    data = replace(data, examples=examples, in_memory=False)
    with pytest.raises(DataError, match=r"digits/x\.wav: cannot be read \(.*\); repair the file or leave it out"):
        list(Batches(data, 4, shuffle=True, seed=0, cache_bytes=cache_bytes).epoch(0))


def test_a_readers_own_error_is_passed_on():
    data = Dataset((Example("x", "x", 4, broken(DataError("a.wav: 0 bytes"))),), "series", ("c",), None, "s")
    with pytest.raises(DataError, match=r"^a\.wav: 0 bytes$"):
        Batches(data, 4, shuffle=False, seed=0)


def test_a_mistake_in_a_reader_is_not_hidden():
    data = Dataset((Example("x", "x", 4, broken(KeyError("oops"))),), "series", ("c",), None, "s")
    with pytest.raises(KeyError):
        Batches(data, 4, shuffle=False, seed=0)


@pytest.mark.parametrize("shape", [(5, 2), (4, 3), (4,)])
def test_other_frames_or_channels_than_announced_are_refused(shape):
    data = make([4, 4])
    odd = Example("x", "b.wav", 4, lambda: np.zeros(shape, np.float32))
    data = replace(data, examples=(*data.examples, odd))
    with pytest.raises(DataError, match=r"b\.wav: found data of shape \(.*\), expected \(4, 2\) \(frames, channels\)"):
        Batches(data, 4, shuffle=False, seed=0)


def test_read_only_and_double_data_is_made_usable():
    array = np.zeros((4, 2))
    array.flags.writeable = False
    data = Dataset((Example("x", "x", 4, lambda: array),), "series", ("a", "b"), None, "s")
    assert load_example(data[0], data).dtype == np.float32
    ((x, _),) = Batches(data, 1, shuffle=False, seed=0).epoch(0)
    assert x.data.dtype == torch.float32


def test_only_a_few_batches_are_read_ahead_and_stopping_ends_the_threads():
    loaded = []
    data = make([4] * 40)

    def lazy(i):
        def load():
            loaded.append(i)
            return data[i].load()

        return load

    lazies = tuple(replace(example, load=lazy(i)) for i, example in enumerate(data))
    epoch = Batches(replace(data, examples=lazies), 2, shuffle=False, seed=0, cache_bytes=0).epoch(0)
    next(epoch)
    epoch.close()
    assert len(loaded) <= 2 * 3
    assert not [t for t in threading.enumerate() if t.name.startswith("crnn-read")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"pool": 0}, "pool=0"),
        ({"seed": -1}, "seed=-1; expected at least 0"),
        ({"shuffle": False, "max_values": 0}, "max_values=0; expected at least 1"),
        ({"max_values": 9}, "max_values=9 needs shuffle=False"),
        ({"batch_frames": 9}, "batch_size=2 and batch_frames=9; expected one of them"),
        ({"batch_size": None}, "batch_size=None and batch_frames=None; expected one of them"),
        ({"batch_size": None, "batch_frames": 0}, "batch_frames=0; expected at least 1"),
        ({"batch_size": None, "batch_frames": 9, "shuffle": False}, "batch_frames=9 needs shuffle=True"),
        ({"max_frames": 9, "shuffle": False}, "max_frames=9 needs shuffle=True"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Batches(make([3]), **{"batch_size": 2, "shuffle": True, "seed": 0, **options})


def test_no_examples():
    with pytest.raises(DataError, match=r"table\.csv: found no examples"):
        Batches(make([]), 2, shuffle=True, seed=0)


def test_processes_share_every_batch_of_one():
    batches = Batches(make(RAGGED), 8, shuffle=True, seed=3)
    whole = list(batches.epoch(2, start=1))
    shares = [list(batches.epoch(2, start=1, rank=rank, num_ranks=3)) for rank in range(3)]
    assert {len(share) for share in shares} == {len(whole)}  # every process has as many steps
    for (_, indices), *parts in zip(whole, *shares, strict=True):
        assert sorted(indices.tolist()) == sorted(i for _, part in parts for i in part.tolist())
        assert max(len(part) for _, part in parts) - min(len(part) for _, part in parts) <= 1
