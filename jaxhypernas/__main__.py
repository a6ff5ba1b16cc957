"""``jaxhypernas``, and ``python -m jaxhypernas``: the command line as a program."""

import os
import sys

from jaxhypernas.cli import main as cli


def run() -> None:
    """After a failure the program ends, though orbax's threads may wait for what could not be written."""
    try:
        cli.main()
    except SystemExit as stop:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 0)


if __name__ == "__main__":
    run()
