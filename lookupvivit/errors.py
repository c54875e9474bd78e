"""The base class of errors that a user can correct."""

from __future__ import annotations


class UserError(ValueError):
    """One line: key, file or tensor, what was found, and what is expected. Tools print it without a traceback."""
