"""`python -m manymask`."""

from manymask.cli.main import main

main()
