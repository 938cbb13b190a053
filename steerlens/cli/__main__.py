"""`python -m steerlens.cli`."""

import sys

from steerlens.cli import main

if __name__ == "__main__":
    sys.exit(main())
