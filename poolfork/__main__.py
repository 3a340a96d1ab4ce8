"""``python -m poolfork``."""

import sys

from poolfork.cli import main

if __name__ == "__main__":
    sys.exit(main())
