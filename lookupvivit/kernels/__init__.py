"""The two directions of the bidirectional cross-attention (MHBC), each one function with several implementations.

`dispatch` chooses the implementation, `reference` defines the result, and `fused` with `cpu` and `triton` computes it
without materialising the attention matrix.
"""

from lookupvivit.kernels.dispatch import (
    NAMES,
    FoldedWeights,
    KernelsError,
    PlainWeights,
    Weights,
    chosen,
    fold,
    gather,
    infuse,
    should_fold,
    use,
)

__all__ = [
    "NAMES",
    "FoldedWeights",
    "KernelsError",
    "PlainWeights",
    "Weights",
    "chosen",
    "fold",
    "gather",
    "infuse",
    "should_fold",
    "use",
]
