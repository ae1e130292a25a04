"""`python -m treille` is the command `treille`."""

from treille.cli import main

main()
