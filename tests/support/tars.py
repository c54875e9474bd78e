"""Images as bytes, and tar files of them."""

import io
import tarfile

import numpy as np
from PIL import Image


def image_bytes(value, kind="png"):
    content = io.BytesIO()
    Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(content, kind)
    return content.getvalue()


def write_tar(path, members, **options):
    """Write (name, bytes) members with tarfile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path
