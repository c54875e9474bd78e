"""Identifiers of streams of random numbers.

Random generators are seeded with tuples such as (seed, epoch, index, STREAM), so that a draw is the same in any worker
and after a resume. NumPy appends zeros to shorter tuples: (1, 2) and (1, 2, 0) seed the same stream. An identifier must
therefore differ from whatever other tuples have in its place: indices, ranks and zeros.

Three streams have no identifier: (seed, epoch) shuffles an epoch, (seed, epoch, index) samples and augments a video,
and (seed, step, rank) mixes clips and drops paths. They coincide where the numbers do, such as epoch 3 and step 3 at
index 0 and rank 0. What they draw is unrelated, and earlier results depend on them, so they stay as they are.
"""

CAPTION = 2**30  # (seed, epoch, index, CAPTION): which of an image's captions is learned
SUBSTITUTE = 2**31  # (seed, epoch, index, SUBSTITUTE, attempt): the sample that replaces an unreadable video
COMPRESSED_SIZE = 2**31  # (seed, step, COMPRESSED_SIZE): the compressed size of a step
KEEP = 2**31 + 1  # (seed, step, KEEP): the share of lookup tokens that a step keeps
