"""``python -m torchstone``: the command line."""

from torchstone.cli import main

main()
