"""``python -m mustdrop.cli`` is the command ``mustdrop``."""

import sys

from mustdrop.cli.main import main


def run() -> None:
    """Console script: run the command and exit with its code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
