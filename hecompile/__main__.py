"""`python -m hecompile` is the command line."""

import sys

from hecompile.cli import main

if __name__ == "__main__":
    sys.exit(main())
