"""`python -m emotest.cli`."""

from emotest.cli import main

main()
