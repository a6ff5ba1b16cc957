"""``jaxhypernas VERB --flag value ...``: words become a verb, which runs."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jaxhypernas import __version__
from jaxhypernas.cli import help as help_text
from jaxhypernas.cli import plugins, startup
from jaxhypernas.cli.complaints import nearest
from jaxhypernas.cli.configuration import begin, change
from jaxhypernas.cli.flags import config_flags, verb_flags
from jaxhypernas.cli.parsing import parse, parse_known
from jaxhypernas.cli.verbs import VERBS
from jaxhypernas.cli.verbs.base import Configured, Verb
from jaxhypernas.store import files
from jaxhypernas.types import UserError


@dataclass(frozen=True)
class _First:
    """Flags of every verb that are read before all others."""

    plugin: tuple[str, ...] = ()
    """plug-ins, whose flags are then known"""

    help: bool = False
    """show the common flags"""

    help_all: bool = False
    """show all flags"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; errors of the user are one line on standard error::

        main(["top", "--workdir", "runs/search"])

    Args:
        argv: The words of the command line; None: those of the process.

    Returns:
        The exit code: 0, or 2 for an error of the user.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verb = None
    try:
        for word in words:
            files.check_remote(word)
        with files.writing("config.json"):
            verb = understand(words)
        if verb is not None:
            startup.run_verb(verb, words)
    except BaseException as error:
        return startup.end(error, verb)
    return 0


def understand(words: Sequence[str]) -> Verb | None:
    """Makes a verb from the words of the command line.

    Args:
        words: The words.

    Returns:
        The verb; None if the words ask for help or the version, which is printed.

    Raises:
        UserError: The words name no verb, or a flag's value does not fit.
    """
    first, *rest = words or ["--help"]
    if first == "--version":
        print(f"jaxhypernas {__version__}")
        return None
    if first == "completion":
        print(_completion(rest))
        return None
    if first == "help" and rest:
        first, rest = rest[0], ["--help"]
    if first in ("help", "--help", "-h", "--help-all"):
        print(help_text.overview())
        return None
    if first not in VERBS:
        raise UserError(
            f"verb: {first!r} is not one of {', '.join(VERBS)}"
            f"{nearest(first, VERBS)}"
        )
    positional = VERBS[first].positional
    if positional and rest and not rest[0].startswith("-"):
        rest = [f"--{positional}", *rest]
    return _make(first, rest)


def _completion(words: Sequence[str]) -> str:
    """The script of completion for a shell."""
    from jaxhypernas.cli import completion

    if len(words) != 1 or words[0] not in completion.SHELLS:
        shells = ", ".join(completion.SHELLS)
        raise UserError(f"completion: give one of {shells} after it")
    return completion.script(words[0])


def _make(name: str, words: Sequence[str]) -> Verb | None:
    """The verb with the values of its flags; None if its help is printed."""
    verb = VERBS[name]
    first = _First(**parse_known(name, verb_flags(_First), words))
    for plugin in first.plugin:
        plugins.load(plugin)
    is_help = first.help or first.help_all

    own = verb_flags(verb)
    config = None
    if issubclass(verb, Configured):
        # Help does not depend on the state of a work directory.
        hidden = "workdir" if is_help else ""
        choosing = [flag for flag in own if flag.place != hidden]
        config = begin(name, choosing, words)
    configured = [] if config is None else list(config_flags(config))
    if is_help:
        text = help_text.verb_help(name, own, configured, first.help_all)
        print(text)
        return None

    values = parse(name, [*own, *configured], words)
    fields = {flag.place: values[flag.place] for flag in own}
    if config is not None:
        fields["config"] = change(config, values)
    return verb(**fields)
