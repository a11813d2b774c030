"""Text to labels and back."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn.data.codec import Codec, CodecConfig, graphemes, looks_mistaken_for_latin1, rare_symbols
from crnn.errors import ConfigError, DataError


def test_blank_is_zero_and_symbols_count_from_one():
    codec = Codec.of(["ba", "ab c"])
    assert codec.symbols == (" ", "a", "b", "c")
    assert codec.encode("cab", "here") == [4, 2, 3]
    assert codec.decode([0, 4, 0, 2, 3]) == "cab"
    assert codec.num_outputs == 5


@given(st.text(max_size=12), st.sampled_from(["characters", "graphemes"]), st.sampled_from(["NFC", "NFD", "none"]))
def test_what_is_encoded_comes_back_normalised(text, units, form):
    codec = Codec.of([text], CodecConfig(units=units, form=form))
    assert codec.decode(codec.encode(text, "x")) == codec.normalise(text)


@given(st.text(alphabet="אבג ab12.,-", max_size=12))
def test_right_to_left_text_comes_back_in_reading_order(text):
    codec = Codec.of([text], CodecConfig(direction="right-to-left"))
    assert codec.decode(codec.encode(text, "x")) == codec.normalise(text)


def test_numbers_keep_their_direction_in_a_line_that_runs_right_to_left():
    codec = Codec.of(["שנת 1948 ב"], CodecConfig(direction="right-to-left"))
    assert "".join(codec.symbols[n - 1] for n in codec.encode("שנת 1948 ב", "x")) == "ב 1948 תנש"


def test_text_is_composed_and_its_whitespace_collapsed():
    codec = Codec.of(["é x"])
    assert codec.normalise("  e\u0301\t \n x ") == "\u00e9 x"
    assert Codec.of(["a b"], CodecConfig(whitespace="remove")).normalise("a b") == "ab"
    assert Codec.of(["a b"], CodecConfig(whitespace="keep")).normalise(" a  b") == " a  b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e\u0301a", ["e\u0301", "a"]),
        ("👩‍👩‍👧x", ["👩‍👩‍👧", "x"]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"]),
        ("👍🏽!", ["👍🏽", "!"]),
        ("\u1112\u1161\u11ab", ["\u1112\u1161\u11ab"]),
        ("a\r\nb", ["a", "\r\n", "b"]),
        ("कि", ["कि"]),
    ],
)
def test_graphemes(text, expected):
    assert graphemes(text) == expected


@given(st.text(alphabet="ae\u0301\u0308🇩🇪👍🏽 각ᄒ\u1161\u11ab\r\n", max_size=10))
def test_graphemes_are_those_of_the_regex_package(text):
    regex = pytest.importorskip("regex")
    assert graphemes(text) == regex.findall(r"\X", text)


def test_unknown_letters_are_named():
    codec = Codec.of(["abc"])
    with pytest.raises(DataError, match=r"row 3: found 'z' \(U\+007A\), not among the 3 letters.*--resize add"):
        codec.encode("az", "row 3")
    with pytest.raises(DataError, match="known in another case: 'a'"):
        codec.encode("A", "row 3")


def test_utf8_read_as_latin1_is_told():
    text = "Käse".encode().decode("latin-1")
    assert looks_mistaken_for_latin1(text)
    assert not looks_mistaken_for_latin1("Käse")
    assert not looks_mistaken_for_latin1("plain")
    with pytest.raises(DataError, match="UTF-8 read as Latin-1"):
        Codec.of(["Kse"]).encode(text, "row 1")


def test_added_letters_keep_the_old_rows():
    change = Codec.of(["abc"]).resize(["bd", "é"], "add")
    assert change.codec.symbols == ("a", "b", "c", "d", "é")
    assert change.rows == [0, 1, 2, 3, None, None]
    assert "2 new: 'd'" in change.describe()
    change = Codec.of(["abc"]).resize(["bd"], "new")
    assert change.codec.symbols == ("b", "d")
    assert change.rows == [0, 2, None]
    assert change.removed == ["a", "c"]
    with pytest.raises(DataError, match="2 new letters"):
        Codec.of(["abc"]).resize(["de"], "fail", "more.csv")
    assert Codec.of(["abc"]).resize(["ab"], "fail").describe() == "letters as before: 3"


def test_a_codec_is_saved_as_plain_values():
    codec = Codec.of(["ab é"], CodecConfig(units="graphemes", form="NFD"))
    again = Codec.from_state(codec.state())
    assert again.symbols == codec.symbols
    assert again.config == codec.config


def test_symbols_must_be_single_units():
    with pytest.raises(ConfigError, match="is not one of the characters"):
        Codec(["ab"])
    with pytest.raises(ConfigError, match="more than once"):
        Codec(["a", "a"])
    assert Codec([unicodedata.normalize("NFD", "é")], CodecConfig(units="graphemes", form="NFD")).num_outputs == 2


def test_rare_symbols_are_counted():
    codec = Codec.of(["aaab"])
    assert rare_symbols(codec, ["aaab", "aa"]) == {"b": 1}
