"""The command line as a program: the one place that ends the process."""

import os
import sys
from typing import NoReturn

from jaxhypernas.cli.main import main
from jaxhypernas.cli.startup import PIPE_CLOSED


def run() -> None:
    """Runs the command line as a program, with the arguments of the process.

    A program that failed ends at once: threads of orbax may wait for a disk, and other
    processes may wait for this one.
    """
    sys.unraisablehook = _ignore_closed_loop
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = PIPE_CLOSED
    if code:
        _exit(code)


def _exit(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)


def _ignore_closed_loop(unraisable: "sys.UnraisableHookArgs") -> None:
    """Passes failures on, but for those of writes that orbax has given up."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
