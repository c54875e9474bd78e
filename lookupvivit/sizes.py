"""Sizes of token grids: three positive integers (t, h, w), in this order; an image has t = 1.

Command lines and messages write them TxHxW.
"""

from __future__ import annotations

Size = tuple[int, int, int]  # (t, h, w)


def as_size(size: object) -> Size:
    """Convert a list, a tuple or text in the form TxHxW to (t, h, w).

    Raises:
        ValueError: it does not consist of three positive integers.
    """
    if isinstance(size, str):
        return parse_size(size)
    if not isinstance(size, list | tuple) or len(size) != 3 or any(int(n) != n or n < 1 for n in size):
        raise ValueError(f"size: found {size!r}, expected three positive integers (t, h, w)")
    t, h, w = (int(n) for n in size)
    return t, h, w


def parse_size(text: str) -> Size:
    """Parse the command-line form TxHxW, such as "4x5x5".

    Raises:
        ValueError: another form, or a number below 1.
    """
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"found {text!r}, expected three positive integers TxHxW, such as 4x5x5")
    return as_size([int(part) for part in parts])


def format_size(size: Size) -> str:
    """Write a size in the form TxHxW, such as "4x5x5"."""
    return "x".join(map(str, size))
