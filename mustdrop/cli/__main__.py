"""``python -m mustdrop.cli`` is the command ``mustdrop``."""

import sys

from mustdrop.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
