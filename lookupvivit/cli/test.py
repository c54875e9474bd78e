"""Test a model on several views of every video; `tools/test_net.py`."""

from lookupvivit.cli.closed_output import ends_quietly
from lookupvivit.cli.config_program import run_with_config
from lookupvivit.config import RunConfig


def _test(config: RunConfig) -> None:
    from lookupvivit.training.multi_view_test import test  # imports torch, which the help does not need

    test(config)


@ends_quietly()
def main() -> None:
    """Parse the command line and test."""
    run_with_config(_test, "Test a model on several views of every video.")


if __name__ == "__main__":
    main()
