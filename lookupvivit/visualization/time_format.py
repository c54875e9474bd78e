"""Times as text; needs no matplotlib."""

from __future__ import annotations


def format_time(seconds: float, tenths: bool = False) -> str:
    """Format a time as m:ss or h:mm:ss, optionally with tenths of a second."""
    whole, tenth = divmod(round(seconds * 10), 10) if tenths else (round(seconds), 0)
    minutes, second = divmod(whole, 60)
    text = f"{minutes}:{second:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
    return f"{text}.{tenth}" if tenths else text
