"""The two directions of the bidirectional cross-attention (MHBC), each one function with several implementations.

`dispatch` chooses the implementation, and `reference` defines the result. `fused` computes it without keeping the
attention matrix for the backward pass: with `chunked` or `cpu_flash` on the CPU, with `triton` on a GPU.
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
