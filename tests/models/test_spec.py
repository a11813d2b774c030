"""Options on top of options."""

from crnn.models.spec import merge


def test_mappings_are_merged_and_lists_replaced():
    base = {"head": {"dropout": 0.3, "hidden": [8]}, "layers": [{"type": "conv"}]}
    over = {"head": {"dropout": 0.0}, "layers": [{"type": "norm"}]}
    assert merge(base, over) == {"head": {"dropout": 0.0, "hidden": [8]}, "layers": [{"type": "norm"}]}


def test_a_mapping_of_another_type_takes_the_place_of_the_old_one():
    base = {"summary": {"type": "concat", "summaries": [{"type": "mean"}]}}
    assert merge(base, {"summary": {"type": "last"}}) == {"summary": {"type": "last"}}
    assert merge(base, {"summary": {"type": "concat"}}) == base
    assert merge(base, {"summary": {"summaries": []}}) == {"summary": {"type": "concat", "summaries": []}}
