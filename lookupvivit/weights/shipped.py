"""The pretrained models inside this package, by name."""

from __future__ import annotations

from pathlib import Path

SHIPPED_MODELS = {"camera_motion": Path(__file__).parents[1] / "camera_motion" / "weights"}


def shipped_or(path: str | Path) -> Path:
    """The folder of a shipped model if ``path`` is its name and no such file exists, otherwise ``path``."""
    path = Path(path)
    return path if path.exists() else SHIPPED_MODELS.get(str(path), path)
