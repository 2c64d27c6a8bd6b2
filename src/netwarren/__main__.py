"""``python -m netwarren``."""

import sys

from netwarren.cli import main

sys.exit(main())
