"""Renders a camera_motion dataset and writes its annotations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from data_pipelines.datasets.camera_motion.camera_paths import TICKS_PER_SECOND, CameraPath, camera_path, log_uniform
from data_pipelines.datasets.camera_motion.encoding import Encoding, draw_encoding, write_video
from data_pipelines.datasets.camera_motion.frames import render_frames
from data_pipelines.datasets.camera_motion.recipe import RENDERER_VERSION, SPLITS, Recipe, template_of
from data_pipelines.datasets.camera_motion.scenes import Scene, draw_scene, draw_sources
from data_pipelines.datasets.camera_motion.sensor import Sensor, draw_sensor, expose
from data_pipelines.datasets.something_something import Annotation, write_something_something
from data_pipelines.io.atomic import write_json
from data_pipelines.io.cores import num_workers
from data_pipelines.io.errors import DataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from data_pipelines.io.processes import end_with_parent, process_pool
from data_pipelines.io.progress import progress

RECIPE_FILE = "recipe.json"
VIDEO_FOLDER = "videos"
LONGEST_SIDE = 16 / 9  # of the shorter side


def prepare(root: Path, recipe: Recipe) -> None:
    """Render the videos of ``recipe`` that ``root`` lacks and write the annotations.

    Raises:
        DataError: ``root`` contains other files, or the dataset of another recipe.
    """
    missing = unrendered(root, recipe)
    if not (root / RECIPE_FILE).is_file():
        write_json(root / RECIPE_FILE, recipe.to_dict())
    (root / VIDEO_FOLDER).mkdir(exist_ok=True)
    if missing:
        _render_all(root, recipe, missing)
    annotations = {split: [_annotation(recipe, split, i) for i in range(recipe.num_videos(split))] for split in SPLITS}
    write_something_something(root, annotations, [template_of(each) for each in recipe.classes])


def unrendered(root: Path, recipe: Recipe) -> list[tuple[str, int]]:
    """(split, index) of each video that `prepare` would render; changes nothing.

    Raises:
        DataError: ``root`` contains other files, or the dataset of another recipe.
    """
    recipe_file = root / RECIPE_FILE
    if recipe_file.is_file():
        found, expected = read_json(recipe_file, dict, max_bytes=SMALL_BYTES), recipe.to_dict()
        if (version := found.get("camera_motion")) != RENDERER_VERSION:
            raise DataError(
                f"{recipe_file}: found a dataset of renderer version {version}, expected version {RENDERER_VERSION}; "
                f"delete {root} or use another folder"
            )
        if Recipe().to_dict() | found != expected:  # older files lack newer parameters
            raise DataError(f"{recipe_file}: found {found}, expected {expected}; delete {root} or use another folder")
    elif root.is_dir() and any(root.iterdir()):
        raise DataError(f"{root}: found files but no {RECIPE_FILE}, expected a camera_motion dataset or no files")
    videos = root / VIDEO_FOLDER
    present = {file.name for file in videos.iterdir()} if videos.is_dir() else set()
    jobs = [(split, index) for split in SPLITS for index in range(recipe.num_videos(split))]
    return [(split, index) for split, index in jobs if f"{recipe.video_id(split, index)}.mp4" not in present]


@dataclass(frozen=True)
class Clip:
    """Everything that determines a video, except its noise."""

    scene: Scene
    camera: CameraPath
    sensor: Sensor
    encoding: Encoding
    height: int
    width: int

    def frames(self, rng: np.random.Generator) -> np.ndarray:
        """The frames, uint8 (T, H, W, 3), with noise from ``rng``."""
        return expose(render_frames(self.scene, self.camera, self.height, self.width), self.sensor, rng)


def draw_clip(recipe: Recipe, split: str, label: int, rng: np.random.Generator) -> Clip:
    """Draw a video of class ``label``. Only the camera's path depends on the class."""
    sources = draw_sources(recipe, split, rng)
    fps = round(log_uniform(rng, recipe.min_fps, recipe.max_fps))
    time = np.arange(max(1, round(recipe.frames * fps / TICKS_PER_SECOND))) * TICKS_PER_SECOND / fps
    long_side = round(recipe.short_side * log_uniform(rng, 1, LONGEST_SIDE) / 2) * 2
    height, width = (recipe.short_side, long_side) if rng.random() < 0.5 else (long_side, recipe.short_side)
    return Clip(
        scene=draw_scene(sources, recipe, time, rng),
        camera=camera_path(recipe.classes[label], time, rng, recipe.variation / 100),
        sensor=draw_sensor(height, width, recipe, time, rng),
        encoding=draw_encoding(fps, recipe.variation / 100, rng),
        height=height,
        width=width,
    )


def render_video(recipe: Recipe, folder: Path, split: str, index: int) -> None:
    """Render video ``index`` of ``split`` into ``folder``."""
    rng = recipe.rng(split, index)
    clip = draw_clip(recipe, split, recipe.label_of(index), rng)
    write_video(folder / f"{recipe.video_id(split, index)}.mp4", clip.frames(rng), clip.encoding)


def _render_all(root: Path, recipe: Recipe, jobs: list[tuple[str, int]]) -> None:
    render = partial(render_video, recipe, root / VIDEO_FOLDER)
    with process_pool(num_workers(), initializer=_start_renderer) as pool:
        rendered = pool.map(render, *zip(*jobs, strict=True), chunksize=16)
        for _ in progress(rendered, desc=f"rendering {root}", total=len(jobs), unit="video"):
            pass


def _start_renderer() -> None:
    end_with_parent()
    torch.set_num_threads(1)


def _annotation(recipe: Recipe, split: str, index: int) -> Annotation:
    """The names of the background's photographs or video fill the template's placeholder."""
    subjects = draw_sources(recipe, split, recipe.rng(split, index)).subjects
    template = template_of(recipe.classes[recipe.label_of(index)])
    return Annotation(
        id=recipe.video_id(split, index),
        label=template.replace("[something]", subjects),
        template=template,
        placeholders=[subjects],
    )
