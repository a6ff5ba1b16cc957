"""Values of flags from words, by tyro; whatever tyro refuses becomes a UserError.

tyro reports failures through ``tyro._errors``, which it calls private: only this file
uses it, and ``tests/test_cli.py`` fails if it changes.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import tyro
from etils.epath import Path
from tyro import _errors

from jaxhypernas.cli.flags import REQUIRED, Flag
from jaxhypernas.types import UserError

_SIMILAR = 0.75
"""Least similarity of a word and the one that was meant, from 0 to 1."""

_NOUNS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    type(None): "None",
}


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
    return _parse(verb, flags, words, partial=False)[0]


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
    return _parse(verb, flags, words, partial=True)[0]


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns ``": did you mean CHOICE?"``, or nothing if no choice is similar.

    Args:
        word: A word that is not one of the choices.
        choices: The words that are understood.
    """
    found = difflib.get_close_matches(word, list(choices), 1, _SIMILAR)
    return f": did you mean {found[0]}?" if found else ""


def _parse(
    verb: str, flags: Sequence[Flag], words: Sequence[str], partial: bool
) -> tuple[dict[str, Any], list[str]]:
    field_of = {f"field_{i}": flag for i, flag in enumerate(flags)}
    fields = [_field(name, flag) for name, flag in field_of.items()]
    values_type = dataclasses.make_dataclass("Values", fields, kw_only=True)

    def refuse(event: _errors.ParseErrorEvent) -> None:
        raise UserError(_complaint(verb, event, field_of))

    with _errors.on_parse_error(refuse):
        parsed, rest = tyro.cli(
            values_type,
            prog=f"jaxhypernas {verb}",
            args=words,
            return_unknown_args=True,
            add_help=False,
        )
    if rest and not partial:
        raise UserError(_unknown(verb, rest, flags))
    values = {
        flag.place: _value(flag, getattr(parsed, name))
        for name, flag in field_of.items()
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
    return Path(value)


def _complaint(
    verb: str, event: _errors.ParseErrorEvent, field_of: dict[str, Flag]
) -> str:
    """The message for a failure that tyro reports."""
    if isinstance(event, _errors.MissingArgs):
        if event.unrecognized_tokens:
            words = event.unrecognized_tokens
            return _unknown(verb, words, list(field_of.values()))
        missing = event.missing_arguments[0].arg.field.intern_name
        flag = field_of[missing]
        return f"{flag.place}: it is missing: give {flag.name}"

    argument = getattr(event, "argument", None)
    if argument is None:
        # An event of a kind that this parser cannot cause, or a new one.
        return f"{verb}: {type(event).__name__}: see jaxhypernas {verb} --help"
    flag = field_of[argument.field.intern_name]
    if isinstance(event, _errors.BadValue):
        return f"{flag.place}: a value must follow {flag.name}"
    if isinstance(event, _errors.InvalidChoice):
        choices = ", ".join(flag.choices)
        hint = nearest(event.value, flag.choices)
        return f"{flag.place}: {event.value!r} is not one of {choices}{hint}"
    assert isinstance(event, _errors.InstantiationFailure)
    # tyro explains the alternatives of a union on many lines.
    reason = "" if "\n" in event.message else f" ({event.message})"
    return f"{flag.place}: it must be {_noun(flag.kind)}{reason}"


def _noun(kind: Any) -> str:
    """A type of values in words."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return f"values, each {_noun(arguments[0])}"
    if arguments:
        return " or ".join(map(_noun, arguments))
    return _NOUNS.get(kind, getattr(kind, "__name__", str(kind)))


def _unknown(verb: str, words: Sequence[str], flags: Sequence[Flag]) -> str:
    """The message for words that no flag takes."""
    word = words[0]
    if not word.startswith("-"):
        return f"{verb}: {word!r} follows no flag that takes it: leave it out"
    place = word.lstrip("-").replace("-", "_")
    group, _, field = place.rpartition(".")
    same_field = [f.name for f in flags if f.place.endswith(f".{field}")]
    if same_field:
        hint = f": did you mean {same_field[0]}?"
    else:
        names = [f.name for f in flags] + [f.alias for f in flags]
        hint = nearest(word, filter(None, names))

    # Flags of an entry of a registry are there only if the entry is chosen.
    chosen = next((f for f in flags if f.place == group), None)
    whose = f" with {chosen.name} {chosen.default}" if chosen else ""
    return f"{place}: there is no flag {word}{whose}{hint}"
