"""Test a model on several views of every video; `tools/test_net.py`."""

from lookupvivit.cli.closed_output import quiet_when_output_closes
from lookupvivit.cli.config_program import run_with_config


@quiet_when_output_closes()
def main() -> None:
    """Parse the command line and test."""
    from lookupvivit.training.multi_view_test import test

    run_with_config(test, "Test a model on several views of every video.")


if __name__ == "__main__":
    main()
