import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookupvivit.models.registry import create_model
from lookupvivit.sizes import as_size, format_size, parse_size


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
