"""The program round a verb: its set-up, its last line and its exit code."""

import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext

from jaxhypernas.cli.verbs.base import Configured, RunVerb, Verb
from jaxhypernas.types import UserError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

PIPE_CLOSED = 141
"""Exit code after the reader of the output ended, as shells have it."""


def run_verb(verb: Verb, words: Sequence[str]) -> None:
    """Runs a verb and prints what it wrote.

    Args:
        verb: The verb.
        words: The command line; all processes of a distributed run have the same.

    Raises:
        UserError: The user gave something wrong, or a disk is full or protected.
        interrupt.StoppedError: A signal came; everything that was finished is saved.
    """
    from jaxhypernas.execution.devices import fix_numbers, set_up
    from jaxhypernas.hosts import interrupt, processes, rollcall
    from jaxhypernas.store import files, lock

    if isinstance(verb, RunVerb | Configured):
        fix_numbers()
        # Devices are as many as when JAX is first used, which `join` does.
        set_up()
    if isinstance(verb, RunVerb) and verb.distributed:
        path = verb.workdir / "config.json"
        config = path.read_bytes() if path.exists() else b""
        rollcall.join(list(words), config, filter_log=verb.filter_log)
    place = getattr(verb, "workdir", "")
    alone = nullcontext()
    if isinstance(verb, RunVerb) and verb.writes:
        alone = lock.held(verb.workdir, words[0])
    with interrupt.handled(), files.writing(place), alone:
        written = verb.run()
    if processes.first():
        for path in written:
            print(f"wrote {path}")


def end(error: BaseException, verb: Verb | None) -> int:
    """Says why a verb failed, in one line where the program is not at fault.

    Args:
        error: The failure.
        verb: The verb, if it was understood.

    Returns:
        The exit code. A failure of the program itself is raised again.
    """
    if isinstance(error, UserError):
        _say(" ".join(str(error).split()))
        return 2
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED

    from jaxhypernas.hosts import interrupt

    if isinstance(error, interrupt.StoppedError):
        _say(str(error))
        return error.code
    from jaxhypernas.execution.devices import is_out_of_memory

    if is_out_of_memory(error):
        _say(
            "the device is out of memory: lower --execution.chunk (candidates side by "
            "side), or begin a run with smaller batches or networks; all that was "
            "finished is saved"
        )
        return 2
    if not getattr(verb, "distributed", False):
        raise error
    return _end_distributed(error)


def _end_distributed(error: BaseException) -> int:
    """The exit code of one of several processes; the others must not wait for it."""
    import jax

    from jaxhypernas.hosts import rollcall

    # Gloo's errors are at times a ValueError.
    is_lost = isinstance(error, jax.errors.JaxRuntimeError)
    if is_lost or "Gloo" in str(error):
        rollcall.lost()
        return rollcall.LOST_CODE
    traceback.print_exception(error)
    return 1


def _say(line: str) -> None:
    print(f"jaxhypernas: {line}", file=sys.stderr)
