"""``python -m netwarren.mesh``: the node proxy as a program; see `program`."""

import sys

from netwarren.mesh.program import main

if __name__ == "__main__":
    sys.exit(main())
