"""Values of flags from words, by tyro."""

import dataclasses
import os
import typing
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import tyro
from etils.epath import Path
from tyro import _errors

from jaxhypernas.cli.complaints import about_event, about_unknown
from jaxhypernas.cli.flags import REQUIRED, Flag
from jaxhypernas.types import UserError

_UNITS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}


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


def _whole(flag: Flag, text: str) -> int | None:
    """The whole number that a text says, as in 1000, 1_000, 1e3, 1k or 1M."""
    is_optional = flag.kind == int | None
    if is_optional and text == "None":
        return None
    number, unit = text, 1
    if text[-1:] in _UNITS:
        number, unit = text[:-1], _UNITS[text[-1]]
    try:
        value = Decimal(number) * unit
        whole = int(value)
    except (ArithmeticError, ValueError):
        value, whole = Decimal(0), 1
    # Far more than any flag takes, and quick to write out.
    if value != whole or abs(value) > 2**63:
        alternative = " or None" if is_optional else ""
        raise UserError(
            f"{flag.place}: {text[:40]!r} is not a whole number{alternative}, as in "
            "1000, 1e3 or 1M"
        )
    return whole


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
    if _is_text(flag) and default is not None:
        default = str(default)
    return name, kind, dataclasses.field(default=default)


def _as_text(flag: Flag) -> Any:
    """The type that tyro parses."""
    if not _is_text(flag):
        return flag.kind
    is_optional = type(None) in typing.get_args(flag.kind)
    return str | None if is_optional else str


def _is_text(flag: Flag) -> bool:
    """Whether tyro parses text: an empty path would be ``.``, and 1e3 no number."""
    return flag.is_path or flag.kind in (int, int | None)


def _value(flag: Flag, value: Any) -> Any:
    if not _is_text(flag) or value is None:
        return value
    if not flag.is_path:
        return _whole(flag, value)
    if not str(value):
        raise UserError(f"{flag.place}: it is empty: give a path")
    # A shell leaves the ~ of --workdir=~/run as it is.
    return Path(os.path.expanduser(value))
