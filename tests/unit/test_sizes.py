import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookupvivit.models.registry import create_model
from lookupvivit.sizes import (
    MERGE,
    SELECTIONS,
    Keep,
    TokenSetting,
    as_keep,
    as_size,
    format_size,
    parse_size,
    parse_token_setting,
)


@given(st.tuples(*[st.integers(1, 10_000)] * 3))
def test_every_form_of_a_size_is_the_same_size(size):
    assert as_size(size) == as_size(list(size)) == as_size(format_size(size)) == parse_size(format_size(size)) == size


@pytest.mark.parametrize("size", ["4x5", "4,5,5", "0x5x5", "4x5x5x5", "4X5X5", "-1x2x3", [4, 5], (1, 2, 0), 3, None])
def test_anything_else_is_an_error_with_what_was_found(size):
    with pytest.raises(ValueError, match="expected three positive integers"):
        as_size(size)


def test_overrides_accept_the_command_line_form():
    model = create_model("lookupvivit_pico8x2_4x4x4", 2, compressed_size="2x3x3")
    assert model.compressed_size == (2, 3, 3)


KEEPS = st.builds(Keep, st.sampled_from([0.05, 0.3, 0.5, 1.0]), st.sampled_from([None, *SELECTIONS, MERGE]))
SETTINGS = st.builds(TokenSetting, st.none() | st.tuples(*[st.integers(1, 99)] * 3), st.none() | KEEPS)


@given(SETTINGS.filter(any))
def test_the_command_line_form_of_a_token_setting_is_read_back(setting):
    assert parse_token_setting(str(setting)) == setting
    assert setting.keep is None or as_keep(list(setting.keep)) == as_keep(str(setting.keep)) == setting.keep


@pytest.mark.parametrize("text", ["", "4x5", "4x5x5@", "@", "@2", "@-1", "@x", "4x5x5@0.5@0.5", "@moving:0.5", "@nan"])
def test_other_token_settings_are_errors(text):
    with pytest.raises(ValueError, match=r"^found "):
        parse_token_setting(text)
