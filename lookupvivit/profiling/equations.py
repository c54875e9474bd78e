"""The paper's own cost model: multiply-adds of one block, smaller terms neglected (section 3.5)."""

from __future__ import annotations


def block_macs_vit(n: int, d: int) -> int:
    """Eq. 5: multiply-adds of a ViT block on n tokens of width d."""
    return 2 * n**2 * d + 12 * n * d**2


def block_macs_lookupvit(n: int, m: int, d: int) -> int:
    """Eq. 6: multiply-adds of a LookupViT block with n lookup and m compressed tokens of width d.

    Holds for MLP factors p = 4 and q = 2 and for an output projection in both directions of the exchange.
    """
    return (3 * n * m + 2 * m**2) * d + (4 * n + 15 * m) * d**2
