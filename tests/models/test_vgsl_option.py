"""A network in VGSL as an option of a run."""

import pytest

from crnn.errors import ConfigError
from crnn.run import asked_options

TEXT = "[1,32,0,1 Cr3,3,8 Mp2,2 S1(1x0)1,3 Lbx16 O1c9]"


@pytest.mark.parametrize(
    "asked", [({"model": {"vgsl": TEXT, "head": {"dropout": 0.1}}}, None), (None, {"model.vgsl": TEXT})]
)
def test_vgsl_stands_for_layers_and_brings_its_height(asked):
    options = asked_options(*asked, None)
    assert options["height"] == 32
    assert [layer["type"] for layer in options["model"]["layers"]] == [
        "conv2d",
        "activation",
        "pool2d",
        "flatten",
        "recurrent",
    ]
    assert options["model"]["summary"] is None
    assert options["settings"] == {}
    assert ("head" in options["model"]) == (asked[0] is not None)


def test_a_string_that_cannot_be_read_is_refused_before_any_data():
    with pytest.raises(ConfigError, match=r"model.vgsl: Lfys64: a recurrence over the height"):
        asked_options(None, {"model.vgsl": "[1,32,0,1 Lfys64]"}, None)
