"""Help as text of at most 80 columns."""

import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from jaxhypernas.cli.flags import REQUIRED, Flag
from jaxhypernas.cli.verbs import VERBS

_WIDTH = 80

_FLAG_COLUMN = 24
_VERB_COLUMN = 12
"""Where the second columns of the lists begin."""

_LAST = ("plugin", "distributed", "filter_log")
"""Flags of the verb that its help shows last."""

_METAVARS = {int: "N", float: "X", str: "TEXT", tuple: "N ..."}


def overview() -> str:
    """Returns the help of the program."""
    verbs = [(name, _first_line(verb)) for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: jaxhypernas VERB [--flag value ...]",
            "",
            *_wrap(
                "Neural architecture search with hypernetworks: one network writes "
                "the weights of every architecture, so one training run scores "
                "thousands of architectures."
            ),
            "",
            "  jaxhypernas search            a whole search on digits: minutes on "
            "two cores",
            "  jaxhypernas search --help     its flags",
            "",
            "Verbs; each goes on where it was stopped:",
            *_list(verbs, _VERB_COLUMN),
            "",
            "Several processes: each runs the same command with --distributed.",
            "Documentation: README.md, docs/ and help(jaxhypernas) in Python.",
            "Version: jaxhypernas --version. In a shell: jaxhypernas completion "
            "bash.",
        ]
    )


def verb_help(
    name: str, own: Sequence[Flag], configured: Sequence[Flag], full: bool
) -> str:
    """Returns the help of a verb.

    Args:
        name: The verb.
        own: Flags of the verb's own fields.
        configured: Flags of the configuration, or none.
        full: Whether to show all flags of the configuration, or the common ones.
    """
    verb = VERBS[name]
    about, _, more = str(inspect.getdoc(verb)).partition("\n\n")
    last = [flag for flag in own if flag.place in _LAST]
    shown = [flag for flag in own if flag.place not in _LAST]
    if not full:
        common = {flag.place: flag for flag in configured}
        shown += [common[place] for place in verb.common if place in common]
    parts = [
        f"usage: jaxhypernas {name} [--flag value ...]",
        "",
        *_wrap(about),
        *_wrap(more),
        "",
        f"  {verb.example}",
        "",
        *_list(_row(flag, full) for flag in [*shown, *last]),
    ]
    if full:
        parts += _sections(configured)
    elif configured:
        parts += [
            "",
            "All flags, with those of the chosen space, generator and strategy: "
            "--help-all",
        ]
    return "\n".join(parts)


def _sections(flags: Iterable[Flag]) -> list[str]:
    """Flags under a heading for each section of the configuration."""
    lines = []

    def section(flag: Flag) -> str:
        group, dot, _ = flag.place.rpartition(".")
        return group if dot else flag.place

    for name, group in itertools.groupby(flags, section):
        lines += ["", f"{name}:", *_list(_row(flag, True) for flag in group)]
    return lines


def _row(flag: Flag, full: bool) -> tuple[str, str]:
    """A flag and its meaning."""
    names = min(flag.alias or flag.name, flag.name, key=len)
    if full and flag.alias:
        names = f"{flag.name}, {flag.alias}"
    metavar = _metavar(flag.kind)
    if "." not in flag.place:
        # A list of a verb has one value each time that its flag is given.
        metavar = metavar.removesuffix(" ...")
    text = flag.doc
    if flag.choices:
        text += f": {', '.join(flag.choices)}"
    if flag.kind is bool and flag.default is True:
        group, _, field = flag.name[2:].rpartition(".")
        text += f" (off: --{group}.no-{field})"
    return f"{names} {metavar}".strip(), f"{text} {_default(flag)}".strip()


def _default(flag: Flag) -> str:
    value = flag.default
    if value is REQUIRED:
        return "(required)"
    if value is None or value is False or value in ("", ()):
        return ""
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    return f"[{value}]"


def _metavar(kind: Any) -> str:
    """What stands for a value."""
    if kind is bool:
        return ""
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return "NAME"
    if origin is tuple:
        each = _metavar(typing.get_args(kind)[0])
        return f"{each} ..."
    arguments = [
        each for each in typing.get_args(kind) if each is not type(None)
    ]
    if arguments:
        return _metavar(arguments[0])
    return _METAVARS.get(kind, kind.__name__.upper())


def _first_line(verb: type) -> str:
    return str(inspect.getdoc(verb)).partition("\n")[0].rstrip(".")


def _list(
    rows: Iterable[tuple[str, str]], column: int = _FLAG_COLUMN
) -> list[str]:
    """Two columns; the second begins on its own line where the first is too long."""
    lines = []
    for head, text in rows:
        indent = f"  {head}".ljust(column)
        if not indent.endswith(" "):
            lines.append(indent)
            indent = " " * column
        lines += textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=indent,
            subsequent_indent=" " * column,
            break_on_hyphens=False,
        )
    return lines


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), _WIDTH)
