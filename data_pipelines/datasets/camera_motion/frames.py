"""Frames of a scene along a camera path."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_pipelines.datasets.camera_motion.camera_paths import CameraPath
from data_pipelines.datasets.camera_motion.recipe import ANGLE, LOG_SCALE, X, Y
from data_pipelines.datasets.camera_motion.scenes import BORDER, REFERENCE_SIDE, Plane, Scene, to_tensor

# Four samples per pixel: their position in the pixel, and when they are taken while the shutter is open.
SAMPLES = ((-0.25, -0.25, -0.375), (0.25, -0.25, 0.125), (-0.25, 0.25, -0.125), (0.25, 0.25, 0.375))
MEAN_LOG_SCALE = 0.15  # of texture units per frame unit, about which the camera's log scale varies


def render_frames(scene: Scene, camera: CameraPath, height: int, width: int) -> Tensor:
    """Render a scene along a camera path of T frames: float (T, 3, height, width) in [0, 1]."""
    points = _sample_points(scene, height, width)
    frames = torch.zeros(())
    for plane in scene.planes:
        pixels = _render_plane(plane, camera, points).view(len(camera.poses), -1, height, width)
        frames = pixels if pixels.shape[1] == 3 else frames * (1 - pixels[:, 3:]) + pixels[:, :3]
    return frames


def render_opacity(plane: Plane, scene: Scene, camera: CameraPath, height: int, width: int) -> Tensor:
    """The share of each pixel that the objects of a plane cover, float (T, height, width) in [0, 1].

    Args:
        plane: of ``scene``, with an opacity. The planes in front of it are ignored.
        scene, camera, height, width: as for `render_frames`.
    """
    pixels = _render_plane(plane, camera, _sample_points(scene, height, width))
    return pixels[:, 3].view(-1, height, width)


def _sample_points(scene: Scene, height: int, width: int) -> Tensor:
    """Where each sample looks, in the units of a pose, (samples * height * width, 3), as x, y and 1.

    Motion blur and lens are constant in a video. Only the affine map from here to a texture changes over time.
    """
    unit = REFERENCE_SIDE / min(height, width)
    rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    parts = []
    for right, down, shutter in SAMPLES:
        y, x = np.meshgrid((rows + down) * unit, (columns + right) * unit, indexing="ij")
        factor = 1 + scene.distortion * (x**2 + y**2) / (2 * BORDER**2)
        factor /= 1 + (scene.tilt[0] * x + scene.tilt[1] * y) / BORDER
        x, y = x * factor, y * factor
        blur = scene.blur * shutter
        cos, sin = np.exp(blur[LOG_SCALE]) * np.cos(blur[ANGLE]), np.exp(blur[LOG_SCALE]) * np.sin(blur[ANGLE])
        parts.append(np.stack([cos * x - sin * y + blur[X], sin * x + cos * y + blur[Y], np.ones_like(x)], -1))
    return to_tensor(np.stack(parts)).view(-1, 3)


def _render_plane(plane: Plane, camera: CameraPath, points: Tensor) -> Tensor:
    """The plane's pixels, (T, C, height * width)."""
    poses = camera.poses * plane.parallax + plane.motion
    pixels = torch.zeros(len(poses), plane.textures[0].shape[1], len(points) // len(SAMPLES))
    for shot, (texture, centre) in enumerate(zip(plane.textures, plane.centres, strict=True)):
        frames = np.flatnonzero(camera.shots == shot)
        if not len(frames):
            continue
        index = torch.from_numpy(frames)
        grid = points @ to_tensor(_affine_maps(poses[frames], centre, plane.side))
        visible = texture.expand(len(index), -1, -1, -1) if len(texture) == 1 else texture[index]
        sampled = F.grid_sample(
            visible, grid[:, :, None], mode="bilinear", padding_mode="reflection", align_corners=False
        )
        pixels[index] = sampled.view(len(index), pixels.shape[1], len(SAMPLES), -1).mean(2)
    return pixels


def _affine_maps(poses: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """From (x, y, 1) of a frame to coordinates of a texture, where -1 and 1 are its borders: (T, 3, 2)."""
    x, y, log_scale, angle = poses.T
    scale = 2 / side * np.exp(log_scale + MEAN_LOG_SCALE)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    offset = 2 * centre - 1
    rows = [[cos, sin], [-sin, cos], [cos * x - sin * y + offset[0], sin * x + cos * y + offset[1]]]
    return np.moveaxis(np.array(rows), -1, 0)
