"""Command-line programs. Importing this package prepares the environment for torch, which its modules import."""

import os

from lookupvivit.cli.environment import set_threading

set_threading(os.environ)
