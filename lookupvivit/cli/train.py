"""Train a model; `tools/train_net.py`."""

from __future__ import annotations

from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.config_program import run_with_config
from lookupvivit.config import RunConfig

# These import torch and DeepSpeed, which the help does not need.


def _train(config: RunConfig, **flags: bool) -> None:
    from lookupvivit.training.trainer import train

    train(config, **flags)


def _dry_run(config: RunConfig, world: int | None) -> None:
    from lookupvivit.cli.dry_run import dry_run

    dry_run(config, world)


@ends_quietly()
def main() -> None:
    """Parse the command line and train, or print what would be trained."""
    trust = "resume a run directory of another user, whose checkpoints are pickles that can run code"
    run_with_config(_train, "Train a model.", _dry_run, flags={"trust_other_owner": trust})


if __name__ == "__main__":
    main()
