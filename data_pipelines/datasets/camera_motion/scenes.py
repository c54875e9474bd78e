"""Scenes without borders: planes at several depths, and objects that move on their own.

A scene has two shots, between which videos cut. In each shot, a plane shows another texture, or another part of it.
Textures repeat as their own mirror image, and every plane starts at a uniformly random position. Its position is
therefore uniformly random in every later frame, whatever the motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_pipelines.datasets.camera_motion.camera_paths import log_uniform
from data_pipelines.datasets.camera_motion.footage import TAKES, Take, footage_texture
from data_pipelines.datasets.camera_motion.photographs import PHOTOGRAPHS, Photograph, load_photograph
from data_pipelines.datasets.camera_motion.recipe import Recipe
from data_pipelines.datasets.camera_motion.textures import (
    photograph_texture,
    random_regions,
    random_shapes,
    with_opacity,
)

REFERENCE_SIDE = 64  # units of a pose per shorter side of the frame
TEXTURE_SIDE = 192  # side of a texture in the same units, at log scale 0
FOOTAGE_SIDE = 120  # the same of footage, which has fewer details

OBJECT_SPEEDS = (0.2, 3.0)  # per tick
FOLLOWED = 0.2  # fraction of the moving objects that the camera follows
BLUR_LENGTHS = (0.05, 4.0)
BORDER = 32.0  # distance of the frame's border from its centre


class Sources(NamedTuple):
    """What a video shows: a photograph per shot in the background, or a take; a photograph for everything in front."""

    background: tuple[Photograph, Photograph] | Take
    front: Photograph

    @property
    def subjects(self) -> str:
        names = [self.background] if isinstance(self.background, Take) else self.background
        return " and ".join(source.subject for source in names)


@dataclass(frozen=True)
class Plane:
    """A part of the scene at one depth.

    Attributes:
        textures: of each shot, (1, C, S, S), or (T, C, S, S) if it moves. C is 3, or 4 with an opacity and colours that
            are multiplied by it.
        side: of the textures, in units of a pose.
        centres: position in the texture of each shot, (2, 2), in sides of the texture.
        parallax: by how much the camera's pose changes the plane's, (4,).
        motion: own motion, (T, 4), which is added to the pose.
    """

    textures: tuple[Tensor, Tensor]
    side: float
    centres: np.ndarray
    parallax: np.ndarray
    motion: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Planes, and how the lens projects them.

    Attributes:
        planes: from back to front.
        tilt: of the scene against the frame, (2,), as the change of scale from the centre to the border.
        distortion: radial, of the lens.
        blur: motion blur as a change of the pose while the shutter is open, (4,).
    """

    planes: tuple[Plane, ...]
    tilt: np.ndarray
    distortion: float
    blur: np.ndarray


def draw_sources(recipe: Recipe, split: str, rng: np.random.Generator) -> Sources:
    """Draw what a video shows. These are the first draws from the video's generator."""
    photographs, takes = PHOTOGRAPHS[split], TAKES[split]
    first, second, front = (photographs[i] for i in rng.integers(len(photographs), size=3))
    take = takes[rng.integers(len(takes))]
    background = take if rng.uniform(0, 100) < recipe.footage else (first, second)
    return Sources(background, front)


def draw_scene(sources: Sources, recipe: Recipe, time: np.ndarray, rng: np.random.Generator) -> Scene:
    """Draw a scene, which is independent of the class. Videos of sequences have a background only."""
    size = round(TEXTURE_SIDE * recipe.short_side / REFERENCE_SIDE)
    planes = [_background(sources, size, time, rng)]
    variation = recipe.variation / 100
    if recipe.moves == 1:
        photograph = load_photograph(sources.front)
        depths = rng.choice(3, p=(1 - 0.5 * variation, 0.35 * variation, 0.15 * variation))
        strength = rng.uniform(0.15, 0.8) * (rng.random() < 0.6)
        for depth in range(1, depths + 1):
            planes.append(_region_plane(photograph, size, depth * strength, time, rng))
        if rng.random() < 0.5 * variation:
            planes.append(_object_plane(photograph, size, depths * strength, time, rng))
    has_tilt = rng.random() < 0.6 * variation
    tilt, distortion = rng.uniform(-0.2, 0.2, 2) * has_tilt, rng.uniform(-0.1, 0.1) * has_tilt
    return Scene(tuple(planes), tilt, float(distortion), _draw_blur(rng, variation))


def _background(sources: Sources, size: int, time: np.ndarray, rng: np.random.Generator) -> Plane:
    if isinstance(sources.background, Take):
        first, second = (footage_texture(sources.background, time, rng) for _ in range(2))
        side = FOOTAGE_SIDE
    else:
        photographs = (load_photograph(photograph) for photograph in sources.background)
        first, second = (photograph_texture(photograph, size, rng)[None] for photograph in photographs)
        side = TEXTURE_SIDE
    return _plane((first, second), side, 0.0, np.zeros((len(time), 4)), rng)


def _region_plane(photograph: Tensor, size: int, nearness: float, time: np.ndarray, rng: np.random.Generator) -> Plane:
    """A still part of the scene in front of the background, with holes."""
    texture = with_opacity(photograph_texture(photograph, size, rng), random_regions(size, rng))[None]
    return _plane((texture, texture), TEXTURE_SIDE, nearness, np.zeros((len(time), 4)), rng)


def _object_plane(photograph: Tensor, size: int, nearness: float, time: np.ndarray, rng: np.random.Generator) -> Plane:
    """Objects that move with a constant velocity. Some also come closer or recede; the camera follows some of them."""
    texture = with_opacity(photograph_texture(photograph, size, rng), random_shapes(size, rng))[None]
    speed, direction = log_uniform(rng, *OBJECT_SPEEDS), rng.uniform(0, 2 * np.pi)
    approach = rng.uniform(-0.02, 0.02) * (rng.random() < 0.3)
    velocity = np.array([speed * np.cos(direction), speed * np.sin(direction), approach, 0])
    if is_followed := rng.random() < FOLLOWED:
        velocity[:] = 0
    plane = _plane((texture, texture), TEXTURE_SIDE, nearness, (time - time.mean())[:, None] * velocity, rng)
    if is_followed:
        plane.parallax[:2] = 0
    return plane


def _plane(
    textures: tuple[Tensor, Tensor], side: float, nearness: float, motion: np.ndarray, rng: np.random.Generator
) -> Plane:
    """Place textures at random positions. Near planes move faster, and some also zoom faster."""
    centres, moves_closer = rng.uniform(0, 2, (2, 2)), rng.random() < 0.5
    parallax = 1 + nearness * np.array([1, 1, 0.5 * moves_closer, 0])
    return Plane(textures, side, centres, parallax, motion)


def _draw_blur(rng: np.random.Generator, variation: float) -> np.ndarray:
    """Draw a motion blur, (4,): along a line, or of a zoom or a rotation. It is independent of the camera's motion.

    With a blur along the motion, a single frame would show whether the camera pans, tilts, zooms or rotates.
    """
    shortest, longest = BLUR_LENGTHS
    length = log_uniform(rng, shortest, shortest * (longest / shortest) ** variation)
    kind, direction = rng.random(), rng.uniform(0, 2 * np.pi)
    if kind < 0.5:
        return np.array([length * np.cos(direction), length * np.sin(direction), 0, 0])
    return np.array([0, 0, length / BORDER, 0]) if kind < 0.75 else np.array([0, 0, 0, length / BORDER])


def to_tensor(array: np.ndarray) -> Tensor:
    """Convert to float32."""
    return torch.from_numpy(np.ascontiguousarray(array)).float()
