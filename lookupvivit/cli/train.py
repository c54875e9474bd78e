"""Train a model; `tools/train_net.py`."""

from lookupvivit.cli.arguments import run_with_config
from lookupvivit.cli.closed_output import quiet_when_output_closes


@quiet_when_output_closes()
def main() -> None:
    """Parse the command line and train, or print what would be trained."""
    from lookupvivit.cli.dry_run import dry_run
    from lookupvivit.training.trainer import train

    run_with_config(train, "Train a model.", dry_run)


if __name__ == "__main__":
    main()
