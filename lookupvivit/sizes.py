"""Numbers of tokens: the size of a token grid, and the share of the lookup tokens that are kept.

A size is three positive integers (t, h, w), in this order; an image has t = 1. Command lines and messages write sizes
TxHxW, and both together TxHxW@KEEP (`TokenSetting`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


SELECTIONS = ("random", "uniform", "motion", "attention")  # strategies of `lookupvivit.layers.token_selection`
MERGE = "merge"  # of `lookupvivit.layers.token_merging`


class Keep(NamedTuple):
    """Which lookup tokens a model processes, see `lookupvivit.layers.token_selection`.

    Attributes:
        share: kept tokens divided by all tokens, in (0, 1].
        strategy: one of `SELECTIONS`, or `MERGE`; None: random in training mode, uniform in evaluation mode.
    """

    share: float
    strategy: str | None = None

    def __str__(self) -> str:
        return f"{self.strategy}:{self.share:g}" if self.strategy else f"{self.share:g}"


def as_keep(keep: object) -> Keep:
    """Convert a share, a `Keep` or text in the form [STRATEGY:]SHARE, such as "0.5" or "motion:0.5".

    Raises:
        ValueError: a share outside (0, 1], or an unknown strategy.
    """
    strategy, share = None, keep
    if isinstance(keep, str):
        *prefix, share = keep.split(":", 1)
        strategy = prefix[0] if prefix else None
    elif isinstance(keep, tuple | list) and len(keep) == 2:
        share, strategy = keep
    try:
        number = float(share)  # type: ignore[arg-type]  # whatever it is
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number <= 1 or isinstance(share, bool) or strategy not in (None, *SELECTIONS, MERGE):
        raise ValueError(
            f"found {keep!r}, expected a share in (0, 1], optionally after one of "
            f"{', '.join((*SELECTIONS, MERGE))} and a colon, such as 0.5 or motion:0.5"
        )
    return Keep(number, strategy)


class TokenSetting(NamedTuple):
    """The numbers of tokens of a call: what can change from call to call, and with it the cost.

    Attributes:
        compressed_size: (t, h, w); None: the model's own, or a model without compressed tokens.
        keep: None: all tokens.
    """

    compressed_size: Size | None = None
    keep: Keep | None = None

    @classmethod
    def of(cls, compressed_size: object = None, keep: object = None) -> TokenSetting:
        """Convert both as `as_size` and `as_keep` do."""
        return cls(
            None if compressed_size is None else as_size(compressed_size), None if keep is None else as_keep(keep)
        )

    @property
    def call(self) -> dict[str, Any]:
        """Keyword arguments of the model's call."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @property
    def file_suffix(self) -> str:
        """What the names of result files say, such as "_compressed_4x5x5_keep_motion_0.5"."""
        size = f"_compressed_{format_size(self.compressed_size)}" if self.compressed_size else ""
        return size + (f"_keep_{self.keep}".replace(":", "_") if self.keep else "")

    def __str__(self) -> str:
        size = format_size(self.compressed_size) if self.compressed_size else ""
        return f"{size}@{self.keep}" if self.keep else size


def parse_token_setting(text: str) -> TokenSetting:
    """Parse the command-line form TxHxW, @KEEP or TxHxW@KEEP, such as "4x5x5@0.5".

    Raises:
        ValueError: another form.
    """
    size, separator, keep = text.partition("@")
    return TokenSetting(
        parse_size(size) if size or not separator else None,
        as_keep(keep) if separator else None,
    )
