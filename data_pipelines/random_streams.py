"""Identifiers of independent streams of random numbers.

Random generators are seeded with tuples such as (seed, epoch, index, STREAM), so that a draw is the same in any worker,
on any rank and after a resume. Streams whose other keys are equal must have different identifiers.
"""

CAPTION = 2**30  # (seed, epoch, index, CAPTION): which of an image's captions is learned
SUBSTITUTE = 2**31  # (seed, epoch, index, SUBSTITUTE, attempt): the sample that replaces an unreadable video
COMPRESSED_SIZE = 2**31  # (seed, step, COMPRESSED_SIZE): the compressed size of a step; other such tuples end in a rank
