"""Arrays of predictions in .npz files: written atomically, without pickles, and read with one clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.io.atomic import atomic_write
from data_pipelines.io.npz_files import READ_ERRORS, open_npz
from lookupvivit.errors import UserError


class PredictionsError(UserError):
    """Predictions are incomplete, contradictory or unreadable; one line that names the file or the field."""


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], compress: bool = True) -> None:
    """Write arrays without pickles, atomically; missing folders are created."""
    save = np.savez_compressed if compress else np.savez
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as file,
    ):  # np.savez appends .npz to a name, not to a file
        save(file, allow_pickle=False, **arrays)


def load_arrays(path: str | Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays that `save_arrays` wrote.

    Args:
        path: of the file.
        names: the arrays to read; default: all.

    Raises:
        FileNotFoundError: the file does not exist.
        PredictionsError: the file is corrupt, has other content, or lacks an array.
    """
    try:
        with open_npz(path) as archive:
            return {name: archive[name] for name in names or archive.files}
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        raise PredictionsError(f"{path}: found no readable predictions ({error})") from error
