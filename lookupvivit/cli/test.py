"""Test a model on several views of every video; `tools/test_net.py`."""

from lookupvivit.cli.closed_output import quiet_when_output_closes
from lookupvivit.cli.config_program import run_with_config
from lookupvivit.config import RunConfig


def _test(config: RunConfig) -> None:
    from lookupvivit.training.multi_view_test import test  # imports torch, which the help does not need

    test(config)


@quiet_when_output_closes()
def main() -> None:
    """Parse the command line and test."""
    run_with_config(_test, "Test a model on several views of every video.")


if __name__ == "__main__":
    main()
