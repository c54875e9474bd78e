"""Display matrices: how the stored pixels of a video are turned and mirrored before they are shown."""

from __future__ import annotations

import math
import struct
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import av

TOLERANCE = 0.01  # of a sine or cosine


class Orientation(NamedTuple):
    """One of the eight ways to turn and mirror an image by multiples of 90 degrees.

    Attributes:
        transpose: exchange rows and columns first.
        rows, columns: -1 reverses their order afterwards.
    """

    transpose: bool = False
    rows: int = 1
    columns: int = 1

    @property
    def is_mirrored(self) -> bool:
        """Whether the image is mirrored, rather than only turned."""
        return (self.rows * self.columns < 0) != self.transpose

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height of an upright image whose stored size is ``width`` x ``height``."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return a view of an image (H, W, ...) that is upright."""
        upright = image.swapaxes(0, 1) if self.transpose else image
        return upright[:: self.rows, :: self.columns]


UPRIGHT = Orientation()


def orientation_of(frame: av.VideoFrame, path: str) -> Orientation:
    """Return how a frame must be turned. A matrix that is none of the eight orientations is ignored with a warning.

    Args:
        path: start of the warning.
    """
    side_data: Any = frame.side_data
    try:
        content = bytes(side_data["DISPLAYMATRIX"])
    except KeyError:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", content)
    # A pixel (x, y) is shown at (a x + c y, b x + d y). Scales state the aspect ratio of pixels, which is not applied.
    x_scale, y_scale = math.hypot(a, b), math.hypot(c, d)
    if x_scale and y_scale:
        exact = a / x_scale, b / x_scale, c / y_scale, d / y_scale
        rounded = [round(value) for value in exact]
        if all(abs(value - near) < TOLERANCE for value, near in zip(exact, rounded, strict=True)):
            match rounded:
                case [columns, 0, 0, rows]:
                    return Orientation(False, rows, columns)
                case [0, rows, columns, 0]:
                    return Orientation(True, rows, columns)
    angle = math.degrees(math.atan2(b, a))
    warnings.warn(
        f"{path}: found a display matrix that turns the video by {angle:.0f} degrees or distorts it, expected a "
        "multiple of 90 degrees, mirrored or not; its frames are read as stored",
        stacklevel=2,
    )
    return UPRIGHT
