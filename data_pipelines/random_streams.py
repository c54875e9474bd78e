"""Identifiers of independent random streams.

Random numbers are keyed on tuples such as (seed, epoch, index, STREAM), so that they are the same in any worker, on
any rank and after a resume. Streams that share the other keys must differ in the last one.
"""

CAPTION = 2**30  # (seed, epoch, index, CAPTION): which of an image's captions is learned
SUBSTITUTE = 2**31  # (seed, epoch, index, SUBSTITUTE, attempt): the sample that replaces an unreadable video
COMPRESSED_SIZE = 2**31  # (seed, step, COMPRESSED_SIZE): the size of a step; other keys of this form end in a rank
