"""Renders a camera_motion dataset and writes its annotations."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from data_pipelines.datasets.camera_motion.camera_paths import camera_path
from data_pipelines.datasets.camera_motion.frames import render_frames, write_video
from data_pipelines.datasets.camera_motion.photographs import load_photograph
from data_pipelines.datasets.camera_motion.recipe import MOTIONS, SPLITS, Recipe, draw_photographs, motion_of
from data_pipelines.datasets.camera_motion.worlds import build_world
from data_pipelines.datasets.something_something import Annotation, write_something_something
from data_pipelines.io.atomic import write_json
from data_pipelines.io.cores import num_workers
from data_pipelines.io.errors import DataError
from data_pipelines.io.json_files import SMALL_BYTES, read_json
from data_pipelines.io.processes import end_with_parent, process_pool
from data_pipelines.io.progress import progress

RECIPE_FILE = "recipe.json"
VIDEO_FOLDER = "videos"


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
    write_something_something(root, annotations, [motion.template for motion in MOTIONS])


def unrendered(root: Path, recipe: Recipe) -> list[tuple[str, int]]:
    """(split, index) of each video that `prepare` would render; changes nothing.

    Raises:
        DataError: ``root`` contains other files, or the dataset of another recipe.
    """
    recipe_file = root / RECIPE_FILE
    if recipe_file.is_file():
        found, expected = read_json(recipe_file, max_bytes=SMALL_BYTES), recipe.to_dict()
        if found != expected:
            raise DataError(f"{recipe_file}: found {found}, expected {expected}; delete {root} or use another folder")
    elif root.is_dir() and any(root.iterdir()):
        raise DataError(f"{root}: found files but no {RECIPE_FILE}, expected a camera_motion dataset or no files")
    videos = root / VIDEO_FOLDER
    present = {file.name for file in videos.iterdir()} if videos.is_dir() else set()
    jobs = [(split, index) for split in SPLITS for index in range(recipe.num_videos(split))]
    return [(split, index) for split, index in jobs if f"{recipe.video_id(split, index)}.mp4" not in present]


def render_video(recipe: Recipe, folder: Path, split: str, index: int) -> None:
    """Render video ``index`` of ``split`` into ``folder``."""
    rng = recipe.rng(split, index)
    first, second = (load_photograph(photograph) for photograph in draw_photographs(split, rng))
    path = camera_path(motion_of(index), recipe.frames, rng)
    frames = render_frames(build_world(first, second, rng), path, recipe.height, recipe.width)
    write_video(folder / f"{recipe.video_id(split, index)}.mp4", frames)


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
    """The names of the video's photographs fill the template's placeholder."""
    photographs = draw_photographs(split, recipe.rng(split, index))
    subjects = " and ".join(photograph.subject for photograph in photographs)
    template = MOTIONS[motion_of(index)].template
    return Annotation(
        id=recipe.video_id(split, index),
        label=template.replace("[something]", subjects),
        template=template,
        placeholders=[subjects],
    )
