"""Draw random camera paths: a pose and a shot for each frame of a video.

A pose has the columns x and y (in units of 1/64 of the frame's shorter side, y points down), log scale (of scene units
per frame unit) and angle (radians). Signs follow the viewer: when the camera pans left, the scene moves right. The unit
of time is a tick, 1/12 s.

No single frame shows the class, because its log scale and its angle are uniformly distributed in all classes, and its
position is relative to a uniformly random one in the scene. The log scale is limited. A zoom that reaches the end of
its range continues at its other end, with a cut to another shot. All other classes have cuts at equally random times.

All classes draw the same random numbers, so that those drawn later do not depend on the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.datasets.camera_motion.recipe import ANGLE, LOG_SCALE, CameraClass, Motion, X, Y

TICKS_PER_SECOND = 12
SCALE_RANGE = 2 * float(np.log(2))

# Mean speed per tick, log-uniform over a factor of ten. Over the frame, pans and rotations are on average equally fast.
# Zooms are slower, because fast ones would need many cuts.
SPEEDS = {X: (0.4, 4.0), Y: (0.4, 4.0), LOG_SCALE: (0.01, 0.1), ANGLE: (0.02, 0.2)}

# Root mean square of the handheld jitter's x and y. The jitter of a moving camera may be as strong as that of a shaking
# one, but not strong enough to hide the direction of the motion.
STILL_JITTER = (0.02, 0.25)
SHAKE_JITTER = (0.6, 3.0)
WEAKEST_JITTER, STRONGEST_JITTER = 0.02, 2.0
JITTER_PER_SPEED = 1.2  # largest jitter, in units of an equally fast pan's displacement per tick
JITTER_AXES = np.array([1, 1, 0, 0.015])  # of each pose column, relative to x; none of the scale, which has limits
JITTER_PERIODS = (4.0, 10.0)  # ticks


class CameraPath(NamedTuple):
    """Poses, (T, 4), and which of the two shots of the scene each frame belongs to, (T,)."""

    poses: np.ndarray
    shots: np.ndarray


def camera_path(
    camera_class: CameraClass, time: np.ndarray, rng: np.random.Generator, variation: float = 1.0
) -> CameraPath:
    """Draw the camera's path.

    Args:
        time: of each frame, (T,), in ticks from the start of the video.
        variation: from 0 (constant motions of medium speed) to 1, see `Recipe`.
    """
    if len(camera_class) == 1:
        return _single_motion(camera_class[0], time, rng, variation)
    return _sequence(camera_class, time, rng, variation)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniformly distributed."""
    return _log_interpolate(rng.random(), low, high)


def _log_interpolate(fraction: float, low: float, high: float) -> float:
    return float(low * (high / low) ** fraction)


def _single_motion(motion: Motion, time: np.ndarray, rng: np.random.Generator, variation: float) -> CameraPath:
    # Where they lie in their log-uniform ranges.
    speed, jitter_strength = 0.5 + variation * (rng.random() - 0.5), rng.random()
    distance = _distance(time, rng, variation)
    jitter = _unit_jitter(time, rng) * JITTER_AXES
    start, direction_of_cuts = rng.uniform(0, (2 * SCALE_RANGE, SCALE_RANGE, 2 * np.pi)), rng.choice((-1, 1))

    if motion.shakes:
        jitter_range = SHAKE_JITTER
    elif motion.axis is None:
        jitter_range = STILL_JITTER
    else:
        strongest = min(STRONGEST_JITTER, JITTER_PER_SPEED * _log_interpolate(speed, *SPEEDS[X]))
        jitter_range = (WEAKEST_JITTER, strongest)
        jitter_strength *= variation
    path = _directed(motion, distance, speed, start, direction_of_cuts)
    return path._replace(poses=path.poses + jitter * _log_interpolate(jitter_strength, *jitter_range))


def _directed(
    motion: Motion, distance: np.ndarray, speed: float, start: np.ndarray, direction_of_cuts: int
) -> CameraPath:
    """The path of one motion without jitter.

    Args:
        motion: also one that has no direction.
        distance: how far a motion of speed 1 has come in each frame, (T,).
        speed: where the speed lies in its range, from 0 to 1.
        start: uniformly random: zoom within two shots, log scale if the camera does not zoom, and angle.
        direction_of_cuts: whether the zoom that determines the cuts goes in (-1) or out, if the camera does not zoom.
    """
    poses = np.zeros((len(distance), 4))
    zoom_direction = motion.direction if motion.axis == LOG_SCALE else direction_of_cuts
    zoom = start[0] + zoom_direction * _log_interpolate(speed, *SPEEDS[LOG_SCALE]) * distance
    if motion.axis is not None:
        poses[:, motion.axis] = motion.direction * _log_interpolate(speed, *SPEEDS[motion.axis]) * distance
    poses[:, ANGLE] += start[2]
    poses[:, LOG_SCALE] = (zoom if motion.axis == LOG_SCALE else start[1]) % SCALE_RANGE - SCALE_RANGE / 2
    return CameraPath(poses, np.floor(zoom / SCALE_RANGE).astype(int) % 2)


def _distance(time: np.ndarray, rng: np.random.Generator, variation: float) -> np.ndarray:
    """Draw how far a motion of mean speed 1 has come at each time, (T,).

    At full variation, the motion is constant (40 %), changes its speed (30 %), starts late or stops early (15 % each).
    """
    kind, pause, ramp = rng.random(), rng.uniform(0.05, 0.25), rng.uniform(0.05, 0.3)
    knots = rng.uniform(0.3, 1, 5)
    fine = np.linspace(0, 1, 241)
    if kind > 0.6 * variation:
        speed = np.ones_like(fine)
    elif kind > 0.3 * variation:
        speed = np.interp(fine, np.linspace(0, 1, len(knots)), knots)
    else:
        speed = np.interp(fine, (pause, pause + ramp), (0, 1))
        speed = speed if kind > 0.15 * variation else speed[::-1]
    travelled = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    duration = max(time[-1], 1e-9)
    return duration * np.interp(time / duration, fine, travelled / travelled[-1])


def _unit_jitter(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a handheld jitter, (T, 4): two sine waves per pose column, with root mean square 1."""
    periods, phases = rng.uniform(*JITTER_PERIODS, (4, 2)), rng.uniform(0, 2 * np.pi, (4, 2))
    return np.sin(2 * np.pi * time[:, None, None] / periods + phases).sum(-1)


def _sequence(moves: Sequence[Motion], time: np.ndarray, rng: np.random.Generator, variation: float) -> CameraPath:
    """Draw the path of a sequence of moves, with a cut to a new random pose between two moves.

    Length, speed and pose are drawn per slot, and the slots are assigned to the moves in the order of their axes. A
    move and its opposite have the same poses in opposite order. Sequences that differ only in directions, or in the
    order of the moves' axes, therefore consist of the same frames in another order: unordered frames show the axes at
    most.
    """
    lengths = np.full(len(moves), len(time) // len(moves))
    lengths[: len(time) % len(moves)] += 1
    lengths = rng.permutation(lengths)
    places = rng.uniform(-200, 200, (len(moves), 2))
    starts = rng.uniform(0, (2 * SCALE_RANGE, SCALE_RANGE, 2 * np.pi), (len(moves), 3))
    speeds = 0.5 + variation * (rng.random(len(moves)) - 0.5)  # where they lie in their log-uniform ranges
    directions = rng.choice((-1, 1), len(moves))

    tick = time[-1] / max(len(time) - 1, 1)
    axes = [motion.axis for motion in moves if motion.axis is not None]
    slots = np.argsort(np.argsort(axes, kind="stable"))  # the rank of each move's axis
    parts = []
    for motion, slot in zip(moves, slots, strict=True):
        distance = tick * (np.arange(lengths[slot]) - (lengths[slot] - 1) / 2)
        direction_of_cuts = directions[slot] * motion.direction  # so that opposite moves have opposite cuts
        part = _directed(motion, distance, speeds[slot], starts[slot], direction_of_cuts)
        part.poses[:, [X, Y]] += places[slot]
        parts.append(part)
    return CameraPath(np.concatenate([part.poses for part in parts]), np.concatenate([part.shots for part in parts]))
