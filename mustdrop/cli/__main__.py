"""``python -m mustdrop.cli`` is the command ``mustdrop``."""

import sys


def run() -> None:
    """Console script: run the command and exit with its code."""
    try:
        from mustdrop.cli.main import main  # here, because ctrl-C may come while it is imported

        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped before the command started", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
