"""Whose run directory it is: resuming unpickles DeepSpeed's shards, which can run code of whoever wrote them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lookupvivit.config import ConfigError
from lookupvivit.training.distributed import World


def require_own(checkpoint: Path | None, world: World, trust_other_owner: bool = False) -> None:
    """Check that a checkpoint, if there is one, and its run directory belong to the user of this process; collective.

    Raises:
        ConfigError: a file or folder belongs to another user, who is not trusted.
    """
    if checkpoint is None or trust_other_owner:
        return
    if problem := world.text_from_main(find_foreign(checkpoint) if world.is_main else ""):
        raise ConfigError(
            f"output_dir: {problem}; resuming unpickles the checkpoint, which can run code of its owner. "
            "Add --trust-other-owner if you trust them, or start from the weights with another output_dir and init_from"
        )


def find_foreign(checkpoint: Path) -> str:
    """Which file or folder of a checkpoint or its run directory belongs to another user; empty if none does."""
    if not hasattr(os, "geteuid"):  # Windows
        return ""
    run_dir = checkpoint.parents[1]
    own = own_users(run_dir)
    for path in (run_dir, checkpoint.parent, checkpoint, *sorted(checkpoint.rglob("*"))):
        owner = path.stat().st_uid
        if owner not in own:
            return f"{path} belongs to user {_name(owner)}, not to {_name(os.geteuid())}"
    return ""


def own_users(folder: Path) -> set[int]:
    """The ids that files of this user have in ``folder``: a network file system may map them, root's to nobody's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return {os.geteuid(), os.fstat(file.fileno()).st_uid}


def _name(user: int) -> str:
    import pwd  # not on Windows

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
