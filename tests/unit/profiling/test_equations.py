import pytest

from lookupvivit.profiling.equations import block_macs_lookupvit, block_macs_vit


@pytest.mark.parametrize(("m", "table_4"), [(8 * 9 * 9, 226.5), (16 * 8 * 8, 311.2), (16 * 9 * 9, 375.8)])
def test_table_4_lookupvivit(m, table_4):
    n, d = 16 * 14 * 14, 768  # 32 frames of 224 x 224 in tubelets of 2 x 16 x 16
    embedding = n * (3 * 2 * 16 * 16) * d
    # The paper's figures hold half of the element-wise operations besides: up to 0.7 %.
    assert (12 * block_macs_lookupvit(n, m, d) + embedding) / 1e9 == pytest.approx(table_4, rel=0.007)


def test_table_4_vivit():
    n, d = 16 * 14 * 14, 768
    embedding = n * (3 * 2 * 16 * 16) * d
    assert (12 * block_macs_vit(n, d) + embedding) / 1e9 == pytest.approx(455.1, rel=0.01)


def test_reduction_at_384_pixels():
    assert block_macs_vit(576, 768) / block_macs_lookupvit(576, 25, 768) == pytest.approx(2.84, abs=0.005)
    assert block_macs_vit(576, 768) / block_macs_lookupvit(576, 9, 768) == pytest.approx(3.16, abs=0.005)
