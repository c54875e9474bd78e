"""``python -m lookupvivit COMMAND``; see `lookupvivit.cli.main`."""

from lookupvivit.cli.main import main

main()
