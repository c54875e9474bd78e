"""Write the attention maps of a video or image to files: a figure, a video, and the same for TensorBoard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.io.text import one_line, output_name, printable
from lookupvivit.visualization.attention_grid import clip_grid, frame_grid, size_text
from lookupvivit.visualization.attention_maps import AttentionMaps
from lookupvivit.visualization.canvas import save_png
from lookupvivit.visualization.video_writer import save_gif, save_mp4

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

VIDEO_SECONDS = 4  # duration of a written video; at their own speed, most clips are too short to follow
MAX_FPS = 25
IMAGE_FIGURE_HEIGHT = 3200  # pixels


@dataclass(frozen=True)
class AttentionWriter:
    """Writes figures and videos of attention maps.

    Attributes:
        class_names: K names; None: classes are called by their number.
        max_columns: the number of frames in a figure.
        fps: frames per second of the videos; None: each video lasts `VIDEO_SECONDS`.
        gif: also write each video as GIF.
        board: a TensorBoard writer that receives the same images; None: no TensorBoard.
    """

    class_names: Sequence[str] | None = None
    max_columns: int = 8
    fps: float | None = None
    gif: bool = False
    board: SummaryWriter | None = None

    def write(
        self, maps_per_size: Sequence[AttentionMaps], name: str, target: Path, seconds: Sequence[float] | np.ndarray
    ) -> list[Path]:
        """Write ``<target>_attention.png`` and, for clips of several frames, ``<target>_attention.mp4``.

        Args:
            maps_per_size: maps of one clip, one entry per compressed size and frame size.
            name: of the video, for titles.
            target: path of the files without ending.
            seconds: (T,) time of each frame.

        Returns:
            The files.
        """
        title = name
        size_labels = None
        if len(maps_per_size) == 1:
            title += f"\npredicted: {predicted_class(maps_per_size[0], self.class_names)}"
        else:
            size_labels = self._size_labels(maps_per_size)
        frame_labels = [f"{second:.2f} s" for second in seconds]
        # "_attention" keeps the file apart from the video itself, which may be in the same folder.
        file = target.with_name(f"{target.name}_attention.png")
        if len(seconds) == 1:
            figure = frame_grid(maps_per_size, 0, title, "", size_labels, max_height=IMAGE_FIGURE_HEIGHT)
        else:
            figure = clip_grid(maps_per_size, title, frame_labels, size_labels, self.max_columns)
        save_png(file, figure)
        if self.board:
            self.board.add_image(f"attention/{printable(name)}", figure, dataformats="HWC")
        if len(seconds) == 1:
            return [file]
        images = [
            frame_grid(maps_per_size, index, title, frame_label, size_labels)
            for index, frame_label in enumerate(frame_labels)
        ]
        return [file, *self._write_video(images, name, target)]

    def _write_video(self, images: Sequence[np.ndarray], name: str, target: Path) -> list[Path]:
        fps = self.fps or min(MAX_FPS, max(1, len(images) / VIDEO_SECONDS))
        files = [target.with_name(f"{target.name}_attention.mp4")]
        save_mp4(files[0], images, fps)
        if self.gif:
            files.append(target.with_name(f"{target.name}_attention.gif"))
            save_gif(files[1], images, fps)
        if self.board:
            for index, image in enumerate(images):  # one step per frame: TensorBoard has a slider over the steps
                self.board.add_image(f"attention_video/{printable(name)}", image, index, dataformats="HWC")
        return files

    def _size_labels(self, maps_per_size: Sequence[AttentionMaps]) -> list[str]:
        """Frame size where there are several, compressed size, and predicted class of each entry."""
        sides = [maps.frames.shape[1] for maps in maps_per_size]
        prefixes = [f"{side} px, " if len(set(sides)) > 1 else "" for side in sides]
        return [
            f"{prefix}{size_text(maps)}\n{predicted_class(maps, self.class_names)}"
            for prefix, maps in zip(prefixes, maps_per_size, strict=True)
        ]


def predicted_class(maps: AttentionMaps, class_names: Sequence[str] | None = None) -> str:
    """The most probable class with its probability, such as "left (75 %)"."""
    label = int(maps.probabilities.argmax())
    percent = 100 * maps.probabilities[label]
    name = one_line(class_names[label]) if class_names else f"class {label}"
    return f"{name} ({percent:.{0 if percent >= 1 else 2}f}\u00a0%)"


def output_stems(names: Sequence[str]) -> list[str]:
    """File stems for the outputs of input files: without the suffix of the input where that is unambiguous.

    Args:
        names: of the inputs, all different, such as "a.mp4", "b.mp4", "b.png": the stems are "a", "b.mp4", "b.png".
    """
    names = [output_name(name) for name in names]
    stems = [str(Path(name).with_suffix("")) for name in names]
    uses = Counter([*stems, *(name for name, stem in zip(names, stems, strict=True) if name != stem)])
    return [stem if uses[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]
