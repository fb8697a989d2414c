"""`python -m manymask`."""

from manymask.cli import main

main()
