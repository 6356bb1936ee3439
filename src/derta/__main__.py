"""`python -m derta`: the command line."""

import sys

from derta.cli import main

sys.exit(main())
