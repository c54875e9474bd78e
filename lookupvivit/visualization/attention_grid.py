"""Attention over the frames it belongs to, drawn as in Fig. 1a, 6 and 7: uint8 pictures (H, W, 3) (needs matplotlib).

A `clip_sheet` has a clip's frames side by side and the maps below them; a `still` has one frame and its maps beside it,
which is an image's sheet and one frame of a film.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

from lookupvivit.visualization.attention_maps import AttentionMaps, shown_range
from lookupvivit.visualization.canvas import _axes, _figure, _rendered, _resized, _text, _tile_size

# Perceptually even from black over red to pale yellow: what is not attended to goes dark, as outside a
# spotlight, and no step is lost on the colour-blind.
COLOUR_MAP = "inferno"
MARK = (0, 255, 255)  # of a token's own cell: a hue that the colour map does not have
TILE_MIN, STILL_MIN = 176, 256  # pixels: shorter side of a frame on a sheet, in a still
GAP, MARGIN, LABEL_WIDTH, BAR_WIDTH = 4, 14, 170, 70
LINE, TITLE_LINE = 15, 21  # pixels from one line to the next


class Row(NamedTuple):
    """One line of a grid: what stands before it, its tiles (all of one size, None: empty), its colour bar's ends."""

    label: str
    tiles: list[np.ndarray | None]
    scale: tuple[float, float] | None = None


def clip_sheet(
    looks: Sequence[AttentionMaps],
    title: str = "",
    frame_labels: Sequence[str] | None = None,
    size_labels: Sequence[str] | None = None,
    columns_max: int = 8,
) -> np.ndarray:
    """A clip's frames, and below them a row for every map, coloured by its own scale (Fig. 7).

    Args:
        looks: maps of the same clip, one for each compressed size; a row's scale is the same for all sizes.
        title: above; long lines are wrapped.
        frame_labels: of every frame of the clip, "frame 0" and so on by default.
        size_labels: of every one of ``looks``, its size by default.
        columns_max: most frames to show; of a longer clip, evenly spaced ones from the first to the last, and those
            that a marked cell lies in.
    """
    frames = looks[0].frames
    height, width = _tile_size(*frames.shape[1:3], TILE_MIN)
    names = frame_labels or [f"frame {index}" for index in range(len(frames))]
    sizes = size_labels or [size_text(look.compressed_size) for look in looks]
    cells = [look.cell(row) for look in looks for row in range(len(look.rows))]
    shown = _shown_frames(len(frames), columns_max, [cell[0] for cell in cells if cell])
    rows = [Row("", [_resized(frames[index], height, width) for index in shown])]
    maps = [look.pixels(height, width) for look in looks]
    for number in range(len(looks[0].rows)):
        scale = _scale(looks, number)
        for look, size, pixels in zip(looks, sizes, maps, strict=True):
            label = _row_label([look], number, [pixels[number]])
            label += f"\n{size}" if len(looks) > 1 else ""
            tiles = [_tile(look, number, index, pixels[number], scale) for index in shown]
            rows.append(Row(label, tiles, scale))
    if len(cells) == 1 and cells[0]:
        rows[0] = Row("", [_marked(tile, looks[0], 0, index) for tile, index in zip(rows[0].tiles, shown, strict=True)])
    return grid(title, [names[index] for index in shown], rows)


def still(
    looks: Sequence[AttentionMaps],
    frame: int = 0,
    title: str = "",
    frame_label: str = "",
    size_labels: Sequence[str] | None = None,
    height_max: int = 1200,
) -> np.ndarray:
    """One frame, and beside it its map for every compressed size; a row for every block or token (Fig. 6).

    Args:
        looks, title, size_labels: as for `clip_sheet`.
        frame, frame_label: which one of the clip.
        height_max: of all tiles, one below the other, pixels; by default what a film may have.
    """
    look, count = looks[0], len(looks[0].rows)
    height, width = _tile_size(*look.frames.shape[1:3], STILL_MIN)
    shrink = min(1.0, (height_max - GAP * count) / (height * count))
    height, width = round(height * shrink), round(width * shrink)
    picture = _resized(look.frames[frame], height, width)
    maps = [one.pixels(height, width) for one in looks]
    own = ["attention"] if len(looks) == 1 else [size_text(one.compressed_size) for one in looks]
    sizes = size_labels or own
    rows = []
    for number in range(count):
        scale = _scale(looks, number)
        label = _row_label(looks, number, [pixels[number] for pixels in maps])
        tiles = [_tile(one, number, frame, pixels[number], scale) for one, pixels in zip(looks, maps, strict=True)]
        rows.append(Row(label, [_marked(picture, look, number, frame) if len(looks) == 1 else picture, *tiles], scale))
    return grid(title, [frame_label, *sizes], rows)


def overlay(frames: np.ndarray, maps: np.ndarray, alpha: float = 0.65) -> np.ndarray:
    """Maps as colour over frames, uint8 (T, H, W, 3).

    Args:
        frames: uint8 (T, H, W, 3). Shown in grey, so that every hue in the result is the map's.
        maps: (T, H, W) in [0, 1].
        alpha: share of the map's colour, 0 to 1.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 (T, H, W, 3), found {frames.dtype} {frames.shape}")
    if maps.shape != frames.shape[:3]:
        raise ValueError(f"maps must have the frames' shape {frames.shape[:3]}, found {maps.shape}")
    grey = frames @ np.array([0.299, 0.587, 0.114])  # (T, H, W), luma of BT.601
    colour = matplotlib.colormaps[COLOUR_MAP](maps)[..., :3] * 255  # (T, H, W, 3)
    return ((1 - alpha) * grey[..., None] + alpha * colour).round().astype(np.uint8)


def grid(title: str, headers: Sequence[str], rows: Sequence[Row]) -> np.ndarray:
    """Tiles in rows and columns with their labels and colour bars, uint8 (height, width, 3)."""
    tile_h, tile_w = next(tile for row in rows for tile in row.tiles if tile is not None).shape[:2]
    heads = [_wrapped(text, tile_w, 7) for text in headers]
    left = MARGIN + LABEL_WIDTH
    sheet_w = max(left + len(headers) * (tile_w + GAP) + BAR_WIDTH + MARGIN, 560)
    lines = _wrapped(title, sheet_w - 2 * MARGIN, 9)
    head_h = LINE * max(text.count("\n") + 1 for text in heads) + 4
    top = MARGIN + (TITLE_LINE * (lines.count("\n") + 1) + 4 if lines else 0) + head_h
    sheet_h = top + len(rows) * (tile_h + GAP) - GAP + MARGIN
    figure = _figure(sheet_w, sheet_h)
    _text(figure, MARGIN, MARGIN, lines, fontsize=12)
    for column, text in enumerate(heads):
        centre = left + column * (tile_w + GAP) + tile_w / 2
        _text(figure, centre, top - 5, text, ha="center", va="bottom", fontsize=9)
    bars = left + len(headers) * (tile_w + GAP)
    _text(figure, bars + 6, top - 5, "x uniform", va="bottom", fontsize=8)
    for number, row in enumerate(rows):
        y = top + number * (tile_h + GAP)
        first, _, rest = row.label.partition("\n")
        room = max(1, tile_h // LINE - 1)  # lines of a small tile
        rest = "\n".join(_wrapped(rest, LABEL_WIDTH, 6).splitlines()[: room - 1])
        _text(figure, MARGIN, y + 2, first, fontsize=10, weight="bold")
        _text(figure, MARGIN, y + 5 + LINE, rest, fontsize=8, linespacing=1.35)
        if row.scale:
            _colour_bar(_axes(figure, bars + 6, y + 6, 12, tile_h - 12), *row.scale)
    sheet = _rendered(figure)
    for number, row in enumerate(rows):
        for column, tile in enumerate(row.tiles):
            y, x = top + number * (tile_h + GAP), left + column * (tile_w + GAP)
            if tile is not None:
                sheet[y : y + tile_h, x : x + tile_w] = tile
    return sheet


def _scale(looks: Sequence[AttentionMaps], row: int) -> tuple[float, float]:
    return shown_range(np.concatenate([look.multiples[row].reshape(-1) for look in looks]))


def _tile(look: AttentionMaps, row: int, frame: int, pixels: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """One frame under its map, with the token's cell where there is one; pixels (T, height, width)."""
    low, high = scale
    shade = ((pixels[frame] - low) / max(high - low, 1e-6 * max(1.0, abs(high)))).clip(0, 1)
    picture = _resized(look.frames[frame], *shade.shape)
    return _marked(overlay(picture[None], shade[None])[0], look, row, frame)


def _marked(tile: np.ndarray, look: AttentionMaps, row: int, frame: int) -> np.ndarray:
    """The tile with a box around the row's token, in the frames that the token stems from; else with its corners."""
    cell = look.cell(row)
    if cell is None:
        return tile
    marked = tile.copy()
    scales = (size / own for size, own in zip(tile.shape[:2], look.frames.shape[1:3], strict=True))
    (top, bottom), (left, right) = (
        (round(side.start * s), round(side.stop * s) - 1) for side, s in zip(cell[1:], scales, strict=True)
    )
    inside = cell[0].start <= frame < cell[0].stop
    for ink, thick in (((0, 0, 0), 3), (MARK, 2)):  # a dark rim, to be seen on bright ground
        box = np.zeros(tile.shape[:2], bool)
        box[top : bottom + 1, left : right + 1] = True
        box[top + thick : bottom + 1 - thick, left + thick : right + 1 - thick] = False
        if not inside:
            arm_h, arm_w = max(thick, (bottom - top) // 5), max(thick, (right - left) // 5)
            box[top + arm_h : bottom + 1 - arm_h] = False
            box[:, left + arm_w : right + 1 - arm_w] = False
        marked[box] = ink
    return marked


def _row_label(looks: Sequence[AttentionMaps], row: int, maps: Sequence[np.ndarray]) -> str:
    look = looks[0]
    block, token = look.rows[row]
    chosen, count = look.heads
    of = f"mean of {math.prod(look.compressed_size) if len(looks) == 1 else 'all'} tokens"
    if token is not None:
        of = f"token {','.join(map(str, token))} of {size_text(look.compressed_size)}"
    numbers = ", ".join(map(str, chosen))
    some = f"head {numbers} of {count}" if len(chosen) == 1 else f"mean of heads {numbers} of {count}"
    heads = f"mean of {count} heads" if len(chosen) == count else some
    low, high = min(one.min() for one in maps), max(one.max() for one in maps)
    return f"block {block}\n{of}\n{heads}\n{low:.3g} to {high:.3g} x uniform"


def size_text(size: Sequence[int]) -> str:
    """4 x 9 x 9 (t, h, w), or 5 x 5 of an image."""
    return " x ".join(map(str, size[1:] if size[0] == 1 else size))


def _shown_frames(count: int, most: int, cells: Sequence[slice]) -> list[int]:
    """Evenly spaced frames; where none lies in a cell, the nearest one gives way to the cell's middle."""
    shown = np.linspace(0, count - 1, min(count, max(1, most))).round().astype(int).tolist()
    for cell in cells:
        if not any(cell.start <= index < cell.stop for index in shown):
            middle = (cell.start + cell.stop) // 2
            shown[min(range(len(shown)), key=lambda i: abs(shown[i] - middle))] = middle
    return sorted(set(shown))


def _wrapped(text: str, width: int, letter: int) -> str:
    """Text broken to fit, at so many pixels a letter."""
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, max(8, width // letter)))


def _colour_bar(axes: matplotlib.axes.Axes, low: float, high: float) -> None:
    axes.imshow(np.linspace(1, 0, 256)[:, None], cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    digits = max(1, 1 - math.floor(math.log10(max(high - low, 1e-6))))  # enough to tell the numbers apart
    numbers = [f"{value:.{min(digits, 6)}f}" for value in (high, (low + high) / 2, low)]
    numbers[0] = f"\u2265 {numbers[0]}"  # the scale may end below the largest value
    axes.set_yticks([0, 127.5, 255], numbers, fontsize=8)
