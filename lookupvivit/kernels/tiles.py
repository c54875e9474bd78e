"""Tile sizes of the Triton kernels; does not import Triton, which is not installed everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import torch

DESCRIPTORS_SINCE = 90  # compute capability times ten, of Hopper


@dataclass(frozen=True)
class Tiles:
    """How a kernel divides its work.

    Attributes:
        rows, columns: tokens of a tile, powers of two of at least 16.
        warps: of a program.
        stages: number of tiles of columns that are loaded ahead of the one that is computed, plus one.
        descriptors: whether tiles of columns are loaded through tensor descriptors. GPUs since Hopper have a unit that
            does so (TMA), which saves registers. Tensors that are not aligned to 16 bytes are loaded without.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    descriptors: bool = False

    def __str__(self) -> str:
        loaded = ", descriptors" if self.descriptors else ""
        return f"{self.rows}x{self.columns}, {self.warps} warps, {self.stages} stages{loaded}"

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Tiles:
        """Tiles from the numbers of `to_list`; earlier tables lack the last one."""
        rows, columns, warps, stages, *descriptors = numbers
        return cls(rows, columns, warps, stages, any(descriptors))

    def to_list(self) -> list[int]:
        """The five numbers, as tables store them."""
        return [int(number) for number in astuple(self)]


def padded_width(d: int) -> int:
    """The number of features that a kernel computes for heads of width ``d``: a power of two of at least 16."""
    return max(16, 1 << (d - 1).bit_length())


def default_tiles(kernel: str, d: int, dtype: torch.dtype) -> Tiles:
    """Tiles for shapes and GPUs that were not measured.

    Chosen by compiling for compute capabilities 8.0 and 9.0: registers do not spill, and no kernel needs more than
    99 KiB of shared memory, which every GPU since Ampere has.
    """
    width, transposed_gradient = padded_width(d), kernel == "gradient_transposed"
    if dtype.itemsize == 4:  # products in float32 ("ieee") take the most registers
        if width <= 64:
            return Tiles(32 if transposed_gradient else 64, 32, 8, 2)
        return Tiles(32, 16, 8, 2)
    if width <= 64:
        return Tiles(64, 32 if transposed_gradient else 64, 4, 2)
    return Tiles(64, 32, 8, 2)


def candidates(capability: int) -> list[Tiles]:
    """What is compiled and, where no register spills, timed for heads of width 64 in half precision.

    Args:
        capability: compute capability times ten.
    """
    sizes = [(rows, columns) for rows in (64, 128) for columns in (32, 64, 128)]
    found = [
        Tiles(rows, columns, rows // 16, stages)
        for rows, columns in sizes
        for stages in ((2, 3) if columns == 128 else (2, 3, 4))
    ]
    found += [Tiles(64, 64, 8, 2), Tiles(64, 64, 8, 3), Tiles(128, 32, 4, 3), Tiles(128, 64, 4, 3)]
    if capability >= DESCRIPTORS_SINCE:
        found += [replace(tiles, descriptors=True) for tiles in found if tiles.columns >= 64 and tiles.stages >= 3]
    return found
