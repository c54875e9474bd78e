"""Predict the classes of a source that may never end, with a line for every change: ``predict --follow``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from data_pipelines.io.atomic import full_disk_names
from data_pipelines.io.errors import DataError, VideoDecodeError
from data_pipelines.io.text import escape_surrogates, one_line
from data_pipelines.read_ahead import read_ahead
from data_pipelines.video.live import open_live, source_name
from lookupvivit.visualization.time_format import format_time

if TYPE_CHECKING:
    import numpy as np

    from lookupvivit.evaluation.segments import Segment
    from lookupvivit.evaluation.stream import ClipPrediction, Stream

FRAMES_AHEAD = 8  # that a thread reads while the model computes; the main thread stays responsive to Ctrl-C
CLEAR_TO_END = "\x1b[K"


def follow(stream: Stream, arguments: argparse.Namespace) -> None:
    """Predict ``arguments.follow`` until it ends or Ctrl-C.

    Raises:
        DataError: the source cannot be opened, has no frame, or fails.
    """
    from lookupvivit.evaluation.prediction_report import segment_as_json, top_as_json
    from lookupvivit.evaluation.segments import SegmentMerger

    source, merger, end = arguments.follow, SegmentMerger(stream.class_names), 0.0
    with ExitStack() as stack:
        save = stack.enter_context(json_lines(arguments.json))
        display = stack.enter_context(LiveDisplay(sys.stdout))

        def report(segments: list[Segment]) -> None:
            for segment in segments:
                display.end_segment(segment)
                save({"segment": segment_as_json(segment)})

        try:
            for clip in _predictions(stream, source):
                top = top_as_json(stream.class_names, clip.probabilities, arguments.top)
                save({"start": round(clip.start, 3), "end": round(clip.end, 3), "top": top})
                report(merger.add(clip.start, clip.end, clip.probabilities))
                end = clip.end
                display.update(merger.current, clip)
            if not end:
                raise DataError(f"{source_name(source)}: found no frame, expected a video")
        finally:  # also after Ctrl-C, or an error in the source
            if end:
                report(merger.finish(end))
                display.finish(end)


def _predictions(stream: Stream, source: str) -> Iterator[ClipPrediction]:
    for _, parts in read_ahead([source], _frames, threads=1, parts=FRAMES_AHEAD):
        fps = next(parts)
        yield from stream(parts, fps)  # type: ignore[arg-type]


def _frames(source: str) -> Iterator[Fraction | np.ndarray]:
    """The frame rate of a source, then its frames."""
    with open_live(source) as live:
        yield live.fps
        try:
            yield from live.frames
        except VideoDecodeError as error:
            raise VideoDecodeError(f"{source_name(source)}: {error}") from None


class LiveDisplay:
    """Prints segments.

    On a terminal, a line for every complete segment, and below them one for the latest clip, which is overwritten.
    Elsewhere, a line for every change of class, without escape codes.

    Args:
        file: standard output.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._is_terminal = file, file.isatty()
        self._shown: tuple[float, str] | None = None

    def __enter__(self) -> LiveDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._print("", end="")

    def update(self, current: tuple[float, str] | None, clip: ClipPrediction) -> None:
        """Show the latest clip, and the start and class of the current segment."""
        if self._is_terminal:
            [(name, probability)] = clip.top(1)
            line = one_line(f"{format_time(clip.end, tenths=True):>9}  {name} ({100 * probability:.0f} %)")
            self._print(line[: shutil.get_terminal_size().columns - 1], end="")
        elif current is not None and current != self._shown:
            self._shown = current
            self._print(f"{format_time(current[0], tenths=True):>9}  {current[1]}")

    def end_segment(self, segment: Segment) -> None:
        """Show a complete segment."""
        from lookupvivit.evaluation.prediction_report import segment_line

        if self._is_terminal:
            self._print(segment_line(segment))
        elif (segment.start, segment.class_name) != self._shown:  # it began and ended between two updates
            self._shown = segment.start, segment.class_name
            self._print(f"{format_time(segment.start, tenths=True):>9}  {segment.class_name}")

    def finish(self, seconds: float) -> None:
        """Show the end of the source."""
        self._print(f"{format_time(seconds, tenths=True):>9}  end")

    def _print(self, line: str, end: str = "\n") -> None:
        """Print a line in place of the one of the latest clip."""
        print(f"\r{one_line(line)}{CLEAR_TO_END}" if self._is_terminal else one_line(line), end=end, file=self._file)
        self._file.flush()


@contextmanager
def json_lines(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that appends a JSON object to a file, as one line that is complete when it returns.

    Args:
        path: file to replace by the first object, not before; None writes nothing.
    """
    if path is None:
        yield lambda content: None
        return
    with ExitStack() as stack, full_disk_names(path):
        file: FileIO | None = None

        def save(content: dict[str, Any]) -> None:
            nonlocal file
            if file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open(path, "wb", buffering=0))
            file.write(escape_surrogates(json.dumps(content, ensure_ascii=False)).encode() + b"\n")

        yield save
