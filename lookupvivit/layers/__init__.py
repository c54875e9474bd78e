"""Building blocks of the models: torch and einops only.

Shape legend used in every comment of this package
    B batch    N lookup tokens    M compressed tokens    D width    H heads    d = D / H
    t h w      sizes of a token grid, always in that order (an image has t = 1)
"""
