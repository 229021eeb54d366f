"""`python -m emotest.cli`."""

from emotest.cli import main

if __name__ == "__main__":
    main()
