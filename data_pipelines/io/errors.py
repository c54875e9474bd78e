"""What can be wrong with data. A message is one line: which file or key, what was found, what is right."""


class DataError(ValueError):
    """A mistake in the data or in what was asked of it."""


class VideoDecodeError(DataError):
    """A video file that no decoder can read."""


class MissingDataError(DataError):
    """A file or folder that is not where it was looked for."""
