"""Attention over the frames that it belongs to, drawn as in Figures 1a, 6 and 7 of the paper: uint8 (H, W, 3).

`clip_grid` draws the frames of a clip side by side, with the maps below them. `frame_grid` draws one frame with its
maps to the right: the figure of an image, or one frame of a video. Needs matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np

from lookupvivit.sizes import format_size
from lookupvivit.visualization.attention_maps import AttentionMaps, display_range
from lookupvivit.visualization.canvas import resize_image, tile_size
from lookupvivit.visualization.labelled_grid import GAP, GridRow, draw_grid

# Perceptually uniform from black over red to pale yellow: unattended regions are dark, and colour-blind readers see
# every step.
COLORMAP = "inferno"
COLORBAR_LABEL = "\u00d7 uniform"  # multiples of uniform attention
MARK, MARK_OUTLINE = (0, 255, 255), (0, 0, 0)  # cyan does not occur in the colour map; black keeps it visible on white
MIN_TILE = 24  # pixels, of rows in `frame_grid`
CLIP_TILE, FRAME_TILE = 176, 256  # pixels: shorter side of a frame in `clip_grid` and in `frame_grid`


def clip_grid(
    maps_per_size: Sequence[AttentionMaps],
    title: str = "",
    frame_labels: Sequence[str] | None = None,
    size_labels: Sequence[str] | None = None,
    max_columns: int = 8,
) -> np.ndarray:
    """Draw the frames of a clip and, below them, one row per map (Fig. 7).

    Each row has its own colour scale, which is the same for all compressed sizes.

    Args:
        maps_per_size: maps of the same clip, one entry per compressed size.
        title: text above the grid; long lines are wrapped.
        frame_labels: one per frame of the clip; default: "frame 0", "frame 1", ...
        size_labels: one per entry of ``maps_per_size``; default: the compressed size.
        max_columns: the number of frames to draw. From a longer clip, evenly spaced frames are drawn, and at least one
            frame that each selected compressed token covers.
    """
    first = maps_per_size[0]
    height, width = tile_size(first.frames[0], CLIP_TILE)
    frame_labels = frame_labels or [f"frame {index}" for index in range(len(first.frames))]
    size_labels = size_labels or [size_text(maps) for maps in maps_per_size]
    cells = [maps.cell(row) for maps in maps_per_size for row in range(len(maps.rows))]
    columns = _displayed_frames(len(first.frames), max_columns, [cell[0] for cell in cells if cell])

    frames = [resize_image(first.frames[index], height, width) for index in columns]
    if len(cells) == 1:
        frames = [_mark_cell(tile, first, 0, index) for tile, index in zip(frames, columns, strict=True)]
    rows = [GridRow("", frames)]
    pixels_per_size = [maps.pixels(height, width) for maps in maps_per_size]
    for row in range(len(first.rows)):
        scale = _scale(maps_per_size, row)
        for maps, size_label, pixels in zip(maps_per_size, size_labels, pixels_per_size, strict=True):
            label = _row_label([maps], row, [pixels[row]])
            label += f"\n{size_label}" if len(maps_per_size) > 1 else ""
            tiles = [_overlay_tile(maps, row, index, pixels[row], scale) for index in columns]
            rows.append(GridRow(label, tiles, scale))
    return draw_grid(title, [frame_labels[index] for index in columns], rows, COLORMAP, COLORBAR_LABEL)


def frame_grid(
    maps_per_size: Sequence[AttentionMaps],
    frame: int = 0,
    title: str = "",
    frame_label: str = "",
    size_labels: Sequence[str] | None = None,
    max_height: int = 1200,
) -> np.ndarray:
    """Draw one frame and, to its right, its map at each size; one row per block or token (Fig. 6).

    Args:
        maps_per_size, title, size_labels: as for `clip_grid`. The entries may also differ in the size of their frames.
        frame: index of the frame in the clip.
        frame_label: text above the frame.
        max_height: pixels, of all rows together, unless a row would be lower than `MIN_TILE`. The default suits videos.
    """
    first, num_rows, single = maps_per_size[0], len(maps_per_size[0].rows), len(maps_per_size) == 1
    height, width = tile_size(first.frames[0], FRAME_TILE)
    shrink = min(1.0, max(MIN_TILE / height, (max_height - GAP * num_rows) / (height * num_rows)))
    height, width = round(height * shrink), round(width * shrink)
    size_labels = size_labels or (["attention"] if single else [size_text(maps) for maps in maps_per_size])

    image = resize_image(first.frames[frame], height, width)
    pixels_per_size = [maps.pixels(height, width) for maps in maps_per_size]
    rows = []
    for row in range(num_rows):
        scale = _scale(maps_per_size, row)
        overlays = [
            _overlay_tile(maps, row, frame, pixels[row], scale)
            for maps, pixels in zip(maps_per_size, pixels_per_size, strict=True)
        ]
        label = _row_label(maps_per_size, row, [pixels[row] for pixels in pixels_per_size])
        rows.append(GridRow(label, [_mark_cell(image, first, row, frame) if single else image, *overlays], scale))
    return draw_grid(title, [frame_label, *size_labels], rows, COLORMAP, COLORBAR_LABEL)


def overlay(frames: np.ndarray, maps: np.ndarray, alpha: float = 0.65) -> np.ndarray:
    """Blend maps as colour over frames, uint8 (T, H, W, 3).

    Args:
        frames: uint8 (T, H, W, 3). They are converted to grey, so that all hues in the result come from the map.
        maps: (T, H, W) in [0, 1].
        alpha: weight of the map's colour, from 0 to 1.

    Raises:
        ValueError: wrong dtypes or shapes.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames: found {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3)")
    if maps.shape != frames.shape[:3]:
        raise ValueError(f"maps: found shape {maps.shape}, expected that of the frames, {frames.shape[:3]}")
    grey = frames @ np.array([0.299, 0.587, 0.114])  # (T, H, W), luma of BT.601
    colour = matplotlib.colormaps[COLORMAP](maps)[..., :3] * 255  # (T, H, W, 3)
    return ((1 - alpha) * grey[..., None] + alpha * colour).round().astype(np.uint8)


def size_text(maps: AttentionMaps) -> str:
    """The compressed size as TxHxW, or HxW of an image."""
    text = format_size(maps.compressed_size)
    return text.removeprefix("1x") if len(maps.frames) == 1 else text


def _displayed_frames(count: int, max_columns: int, cells: Sequence[slice]) -> list[int]:
    """Evenly spaced frames. A cell without one gets its middle frame, in place of the nearest that can be spared."""
    frames = np.linspace(0, count - 1, min(count, max(1, max_columns))).round().astype(int).tolist()
    for cell in cells:
        if not any(cell.start <= index < cell.stop for index in frames):
            middle = (cell.start + cell.stop) // 2
            shown = [[index for index in frames if other.start <= index < other.stop] for other in cells]
            spare = set(frames) - {inside[0] for inside in shown if len(inside) == 1}
            if spare:
                frames.remove(min(spare, key=lambda index: abs(index - middle)))
            frames.append(middle)
    return sorted(set(frames))


def _scale(maps_per_size: Sequence[AttentionMaps], row: int) -> tuple[float, float]:
    return display_range(np.concatenate([maps.multiples[row].reshape(-1) for maps in maps_per_size]))


def _row_label(maps_per_size: Sequence[AttentionMaps], row: int, pixels: Sequence[np.ndarray]) -> str:
    """Block, token, heads and range of a row's maps, one per line."""
    maps = maps_per_size[0]
    block, token = maps.rows[row]
    if token is not None:
        token_line = f"token {','.join(map(str, token))} of {format_size(maps.compressed_size)}"
    elif len(maps_per_size) == 1:
        token_line = f"mean of {math.prod(maps.compressed_size)} tokens"
    else:
        token_line = "mean of all tokens"
    numbers = ", ".join(map(str, maps.heads))
    if len(maps.heads) == maps.num_heads:
        head_line = f"mean of {maps.num_heads} heads"
    elif len(maps.heads) == 1:
        head_line = f"head {numbers} of {maps.num_heads}"
    else:
        head_line = f"mean of heads {numbers} of {maps.num_heads}"
    low, high = min(values.min() for values in pixels), max(values.max() for values in pixels)
    return f"block {block}\n{token_line}\n{head_line}\nmin {low:.2g}, max {high:.3g}"


def _overlay_tile(
    maps: AttentionMaps, row: int, frame: int, pixels: np.ndarray, scale: tuple[float, float]
) -> np.ndarray:
    """One frame under its map, with the token's cell marked if the row belongs to one token.

    Args:
        maps, row, frame: which map and frame.
        pixels: the row's `AttentionMaps.pixels`, (T, height, width), at the size of the tile.
        scale: values of the first and last colour.
    """
    low, high = scale
    # Where all values are equal, rounding errors must not be stretched over the whole colour map.
    contrast = max(high - low, 1e-6 * max(1.0, abs(high)))
    shades = ((pixels[frame] - low) / contrast).clip(0, 1)
    image = resize_image(maps.frames[frame], *shades.shape)
    return _mark_cell(overlay(image[None], shades[None])[0], maps, row, frame)


def _mark_cell(tile: np.ndarray, maps: AttentionMaps, row: int, frame: int) -> np.ndarray:
    """The tile with the cell of the row's token marked: a box in the frames that it covers, corners in the others."""
    cell = maps.cell(row)
    if cell is None:
        return tile
    factors = [shown / original for shown, original in zip(tile.shape[:2], maps.frames.shape[1:3], strict=True)]
    box = [
        (round(side.start * factor), round(side.stop * factor) - 1)
        for side, factor in zip(cell[1:], factors, strict=True)
    ]
    covered = cell[0].start <= frame < cell[0].stop
    marked = tile.copy()
    for color, thickness in ((MARK_OUTLINE, 3), (MARK, 2)):
        marked[_box_mask(tile.shape[:2], box, thickness, corners_only=not covered)] = color
    return marked


def _box_mask(shape: tuple[int, ...], box: Sequence[tuple[int, int]], thickness: int, corners_only: bool) -> np.ndarray:
    """Pixels of a box's outline, bool (H, W); ``box`` is ((top, bottom), (left, right)), inclusive."""
    (top, bottom), (left, right) = box
    mask = np.zeros(shape, bool)
    mask[top : bottom + 1, left : right + 1] = True
    mask[top + thickness : bottom + 1 - thickness, left + thickness : right + 1 - thickness] = False
    if corners_only:
        arm_height, arm_width = max(thickness, (bottom - top) // 5), max(thickness, (right - left) // 5)
        mask[top + arm_height : bottom + 1 - arm_height] = False
        mask[:, left + arm_width : right + 1 - arm_width] = False
    return mask
