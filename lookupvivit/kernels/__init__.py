"""The two halves of the bidirectional cross-attention, behind one pair of functions."""

from lookupvivit.kernels.reference import gather, infuse

__all__ = ["gather", "infuse"]
