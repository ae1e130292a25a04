"""The command `treille`."""

from treille.cli.app import main

__all__ = ["main"]
