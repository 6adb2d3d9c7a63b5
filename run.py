"""`python run.py --model M --data D`: evaluate a model on a benchmark. The same as the command `vlmeval`."""

import sys

from vlmeval.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
