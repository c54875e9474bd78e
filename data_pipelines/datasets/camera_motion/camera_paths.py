"""Draw random camera poses, one per frame of a video."""

from __future__ import annotations

import numpy as np

from data_pipelines.datasets.camera_motion.recipe import ANGLE, LOG_SCALE, MOTIONS, X, Y

OCTAVE = float(np.log(2))  # difference in log scale between the two layers of a world


def camera_path(label: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the camera poses of a video of class ``label``, (num_frames, 4).

    The columns are x and y (in frame pixels, y points down), log scale (of world pixels per frame pixel) and angle
    (radians). Signs follow the viewer: when the camera pans left, the scene moves right. In every frame, the scale
    modulo two octaves and the angle modulo a full turn are uniformly distributed.
    """
    time = np.arange(num_frames) - (num_frames - 1) / 2  # in frames, 0 at the centre of the video
    pose = np.zeros((num_frames, 4))
    # All classes draw the same random numbers, so that those below do not depend on the class.
    pan_speed = rng.uniform(0.9, 1.7)  # frame pixels per frame
    # Radians or log scale per frame. At the border of the frame, this is about as fast as a pan.
    turn_speed = rng.uniform(0.03, 0.055)
    shake = _shake(time, rng)

    motion = MOTIONS[label]
    if motion.shakes:
        pose[:, :2] = shake
    elif motion.axis is not None:
        speed = pan_speed if motion.axis in (X, Y) else turn_speed
        pose[:, motion.axis] = motion.direction * speed * time

    pose[:, [X, Y]] += rng.uniform(-0.25, 0.25, (num_frames, 2))  # no class is perfectly still
    pose[:, [LOG_SCALE, ANGLE]] += rng.uniform(0, (2 * OCTAVE, 2 * np.pi))
    return pose


def _shake(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the shake of a hand-held camera, (num_frames, 2) in frame pixels.

    Each axis has two sine waves with periods of 5 to 9 frames.
    """
    periods, phases = rng.uniform(5, 9, (2, 2)), rng.uniform(0, 2 * np.pi, (2, 2))
    amplitude = rng.uniform(0.8, 1.8, (2, 2))
    return (amplitude * np.sin(2 * np.pi * time[:, None, None] / periods + phases)).sum(-1)
