"""What `make gpu-report` measured on a GPU: the fastest tiles of each Triton kernel and the fastest implementations.

`tuned.json` holds one entry per GPU, by torch's name for it:

    "tiles"       kernel -> class of shapes -> [rows, columns, warps, stages, descriptors]
    "fastest"     direction -> class of shapes -> implementation, see `measured`
    "fused_from"  number of elements of A from which not materialising it is faster
    "software"    versions that the measurement used

Shapes are in one class if dtype and head width are equal and the numbers of tokens have the same next power of two.
Where an entry is missing, the defaults of `tiles` and `dispatch` apply, and the Triton kernels serve every direction.
The environment variable LOOKUPVIVIT_TUNED names another table.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lookupvivit.kernels.tiles import Tiles

Table = dict[str, dict[str, Any]]

FILE = Path(__file__).with_name("tuned.json")
VARIABLE = "LOOKUPVIVIT_TUNED"
FEW_PAIRS = 24  # up to this number of (sample, head) pairs, a grid may not fill the GPU: a class of its own
CPU = "cpu"  # the name of the device of Triton's interpreter

_table: Table = json.loads(Path(os.environ.get(VARIABLE) or FILE).read_text(encoding="utf-8"))
_forced: tuple[str | None, Tiles] | None = None  # (kernel or all, tiles)


@contextmanager
def use_table(table: Table) -> Iterator[None]:
    """Replace the table in all threads of this process within a ``with`` block."""
    global _table
    before, _table = _table, table
    _find_tiles.cache_clear()
    try:
        yield
    finally:
        _table = before
        _find_tiles.cache_clear()


@contextmanager
def force_tiles(tiles: Tiles, kernel: str | None = None) -> Iterator[None]:
    """Use the same tiles in every launch of one kernel, or of all, within a ``with`` block of this process."""
    global _forced
    before, _forced = _forced, (kernel, tiles)
    try:
        yield
    finally:
        _forced = before


def device_name(device: torch.device) -> str:
    """The key of a device in the table."""
    return torch.cuda.get_device_properties(device).name if device.type == "cuda" else CPU


def shape_class(rows: Tensor, columns: Tensor) -> str:
    """The class of shapes of rows (B, H, n, d) and columns (B, H, m, d)."""
    b, h, n, d = rows.shape
    return _shape_class(b * h, n, columns.shape[2], d, rows.dtype)


def tiles_for(kernel: str, rows: Tensor, columns: Tensor) -> Tiles | None:
    """The measured tiles of a kernel; None if there are none.

    Args:
        kernel: a name of `lookupvivit.kernels.triton.KERNELS`.
        rows, columns: (B, H, tokens, d).
    """
    if _forced is not None and _forced[0] in (None, kernel):
        return _forced[1]
    b, h, n, d = rows.shape
    return _find_tiles(kernel, rows.device, b * h, n, columns.shape[2], d, rows.dtype)


@lru_cache(maxsize=1024)
def _find_tiles(
    kernel: str, device: torch.device, pairs: int, rows: int, columns: int, d: int, dtype: torch.dtype
) -> Tiles | None:
    tiles = _table.get(device_name(device), {}).get("tiles", {})
    found = tiles.get(kernel, {}).get(_shape_class(pairs, rows, columns, d, dtype))
    return None if found is None else Tiles.of(found)


def fastest(direction: str, q: Tensor, k: Tensor) -> str:
    """The measured implementation of a direction; "triton" if there is none.

    Args:
        direction: a function of `lookupvivit.kernels.measured`.
        q, k: (B, H, M, d), (B, H, N, d).
    """
    winners = _table.get(device_name(q.device), {}).get("fastest", {})
    return winners.get(direction, {}).get(shape_class(q, k), "triton")


def fused_from(name: str, default: int) -> int:
    """Number of elements of A from which `auto` does not materialise it on the GPU of this name."""
    return _table.get(name, {}).get("fused_from", default)


def _shape_class(pairs: int, rows: int, columns: int, d: int, dtype: torch.dtype) -> str:
    kind = str(dtype).removeprefix("torch.")
    amount = "few" if pairs <= FEW_PAIRS else "many"
    return f"{kind} d{d} {_next_power(rows)}x{_next_power(columns)} {amount}"


def _next_power(count: int) -> int:
    return 1 << (count - 1).bit_length()


def current_entry(device: torch.device) -> dict[str, Any]:
    """What the table has for a device; empty without an entry."""
    return _table.get(device_name(device), {})
