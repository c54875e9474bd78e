"""camera_motion: ten classes that only motion over time distinguishes, rendered locally from photographs.

A camera pans, tilts, zooms, rotates, stands still or shakes over a still world. The world is made of photographs that
ship inside the scikit-image and scikit-learn wheels, so nothing is downloaded. Training and validation share no
photograph.

By construction, no single frame reveals the class:
- Every video starts at a uniformly random position and angle. The world repeats as its own mirror image without end.
- Every video starts at a uniformly random zoom. Two layers, an octave apart, repeat the zoom without end.
- The camera's pose is therefore uniformly random in every later frame too, whatever the motion.
- Every frame is resampled at sub-pixel positions, so a still camera is not sharper, and is encoded independently at
  the same quality.

The result has Something-Something's layout, see `data_pipelines.datasets.something_something`. The modules, in reading
order: `recipe` (what to render), `photographs`, `worlds`, `camera_paths`, `frames` (the renderer), `preparation` (all
videos and their annotations).
"""

from data_pipelines.datasets.camera_motion.preparation import prepare, unrendered
from data_pipelines.datasets.camera_motion.recipe import Recipe

__all__ = ["Recipe", "prepare", "unrendered"]
