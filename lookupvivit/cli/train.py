"""Train a model; `tools/train_net.py`."""

from lookupvivit.cli.closed_output import quiet_when_output_closes
from lookupvivit.cli.config_program import run_with_config


@quiet_when_output_closes()
def main() -> None:
    """Parse the command line and train, or print what would be trained."""
    from lookupvivit.cli.dry_run import dry_run
    from lookupvivit.training.trainer import train

    trust = "resume a run directory of another user, whose checkpoints are pickles that can run code"
    run_with_config(train, "Train a model.", dry_run, flags={"trust_other_owner": trust})


if __name__ == "__main__":
    main()
