"""Values of flags from words, by tyro."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from etils.epath import Path
from tyro import _errors

from jaxhypernas.cli.complaints import about_event, about_unknown
from jaxhypernas.cli.flags import REQUIRED, Flag
from jaxhypernas.types import UserError


def parse(
    verb: str, flags: Sequence[Flag], words: Sequence[str]
) -> dict[str, Any]:
    """Returns the values of a verb's flags, by place.

    Args:
        verb: The verb, for messages.
        flags: All flags that it has.
        words: The words after the verb.

    Raises:
        UserError: A word is not a flag, or a value does not fit its flag.
    """
    values, rest = _parse(verb, flags, words)
    if rest:
        raise UserError(about_unknown(verb, rest, flags))
    return values


def parse_known(
    verb: str, flags: Sequence[Flag], words: Sequence[str]
) -> dict[str, Any]:
    """Returns the values of some of a verb's flags; all other words are skipped.

    Args:
        verb: The verb, for messages.
        flags: The flags to look for; each has a default.
        words: The words after the verb.

    Raises:
        UserError: A value does not fit its flag.
    """
    return _parse(verb, flags, words)[0]


def _parse(
    verb: str, flags: Sequence[Flag], words: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of flags, and the words that are neither flag nor value."""
    flag_of = {f"field_{i}": flag for i, flag in enumerate(flags)}
    fields = [_field(name, flag) for name, flag in flag_of.items()]
    values_type = dataclasses.make_dataclass("Values", fields, kw_only=True)

    def refuse(event: _errors.ParseErrorEvent) -> None:
        raise UserError(about_event(verb, event, flag_of))

    with _errors.on_parse_error(refuse):
        parsed, rest = tyro.cli(
            values_type,
            args=words,
            return_unknown_args=True,
            add_help=False,
        )
    values = {
        flag.place: _value(flag, getattr(parsed, name))
        for name, flag in flag_of.items()
    }
    return values, rest


def _field(name: str, flag: Flag) -> tuple:
    """A field of the dataclass that tyro parses."""
    aliases = [flag.alias] if flag.alias else None
    markers: list[Any] = [tyro.conf.arg(name=flag.name[2:], aliases=aliases)]
    if "." not in flag.place:
        # A switch of a verb has no opposite, and a list grows by a value each time;
        # in the configuration a switch has an opposite, and a list is given at once.
        markers += [tyro.conf.FlagCreatePairsOff, tyro.conf.UseAppendAction]
    annotated: Any = Annotated
    kind = annotated[(_as_text(flag), *markers)]
    if flag.default is REQUIRED:
        return name, kind
    default = flag.default
    if flag.is_path and default is not None:
        default = str(default)
    return name, kind, dataclasses.field(default=default)


def _as_text(flag: Flag) -> Any:
    """The type that tyro parses: paths are text, as an empty path would be ``.``"""
    if not flag.is_path:
        return flag.kind
    return str if flag.kind is Path else str | None


def _value(flag: Flag, value: Any) -> Any:
    if not flag.is_path or value is None:
        return value
    if not str(value):
        raise UserError(f"{flag.place}: it is empty: give a path")
    # A shell leaves the ~ of --workdir=~/run as it is.
    return Path(os.path.expanduser(value))
