"""Completion of verbs and flags in a shell, by shtab."""

import argparse
from collections.abc import Iterator

import shtab

from jaxhypernas.cli.flags import Flag, config_flags, verb_flags
from jaxhypernas.cli.verbs import VERBS
from jaxhypernas.cli.verbs.base import Configured
from jaxhypernas.config.config import Config

SHELLS: list[str] = list(shtab.SUPPORTED_SHELLS)
"""Shells that there is completion for."""


def script(shell: str) -> str:
    """Returns the script that completes verbs, flags, choices and paths.

    It knows the flags of the default space, generator and strategy.

    Args:
        shell: One of `SHELLS`.
    """
    parser = argparse.ArgumentParser("jaxhypernas")
    verbs = parser.add_subparsers()
    for name, verb in VERBS.items():
        # A percent sign begins a place to fill in.
        about = str(verb.__doc__).splitlines()[0].replace("%", "%%")
        sub = verbs.add_parser(name, help=about)
        for flag in _flags(verb):
            _add(sub, flag)
    return shtab.complete(parser, shell)


def _flags(verb: type) -> Iterator[Flag]:
    yield from verb_flags(verb)
    if issubclass(verb, Configured):
        yield from config_flags(Config())


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    names = [flag.name, flag.alias] if flag.alias else [flag.name]
    about = flag.doc.replace("%", "%%")
    if flag.kind is bool:
        parser.add_argument(*names, action="store_true", help=about)
        return
    action = parser.add_argument(
        *names, choices=flag.choices or None, help=about
    )
    if flag.is_path or flag.kind == tuple[str, ...]:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
