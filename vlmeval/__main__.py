"""`python -m vlmeval`: the same as the command `vlmeval`."""

import sys

from vlmeval.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
