"""Building blocks of the models; need only torch and einops.

Shape legend of every comment in layers/ and models/
    B batch    N lookup tokens    M compressed tokens    D width    H attention heads    d = D / H    K classes
    t h w      sizes of a token grid, always in this order (an image has t = 1)
"""
