"""Messages for words that cannot be parsed: they name the flag, and the fix.

tyro reports failures through ``tyro._errors``, which it calls private. Only this file
and ``parsing`` use it; ``tests/test_cli.py`` fails if it changes.
"""

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tyro import _errors

from jaxhypernas.cli.flags import Flag

_SIMILAR = 0.75
"""Least similarity of a word and the one that was meant, from 0 to 1."""

_NOUNS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    type(None): "None",
}


def about_event(
    verb: str, event: _errors.ParseErrorEvent, flag_of: Mapping[str, Flag]
) -> str:
    """Returns the message for a failure that tyro reports.

    Args:
        verb: The verb.
        event: The failure.
        flag_of: The flag of each field that tyro parses, by the field's name.
    """
    if isinstance(event, _errors.MissingArgs):
        if event.unrecognized_tokens:
            words = event.unrecognized_tokens
            return about_unknown(verb, words, list(flag_of.values()))
        missing = event.missing_arguments[0].arg.field.intern_name
        flag = flag_of[missing]
        return f"{flag.place}: it is missing: give {flag.name}"

    argument = getattr(event, "argument", None)
    if argument is None:
        # An event of a kind that this parser cannot cause, or a new one.
        return f"{verb}: {type(event).__name__}: see jaxhypernas {verb} --help"
    flag = flag_of[argument.field.intern_name]
    if isinstance(event, _errors.BadValue):
        return f"{flag.place}: a value must follow {flag.name}"
    if isinstance(event, _errors.InvalidChoice):
        choices = ", ".join(flag.choices)
        hint = nearest(event.value, flag.choices)
        return f"{flag.place}: {event.value!r} is not one of {choices}{hint}"

    # tyro explains the alternatives of a union on many lines.
    message = getattr(event, "message", type(event).__name__)
    reason = "" if "\n" in message else f" ({message})"
    return f"{flag.place}: it must be {_noun(flag.kind)}{reason}"


def about_unknown(
    verb: str, words: Sequence[str], flags: Sequence[Flag]
) -> str:
    """Returns the message for words that no flag takes.

    Args:
        verb: The verb.
        words: The words, at least one.
        flags: All flags of the verb.
    """
    word = words[0]
    if not word.startswith("-"):
        return f"{verb}: {word!r} follows no flag that takes it: leave it out"
    place = word.lstrip("-").replace("-", "_") or word
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


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns ``": did you mean CHOICE?"``, or nothing if no choice is similar.

    Args:
        word: A word that is not one of the choices.
        choices: The words that are understood.
    """
    found = difflib.get_close_matches(word, list(choices), 1, _SIMILAR)
    return f": did you mean {found[0]}?" if found else ""


def _noun(kind: Any) -> str:
    """A type of values in words."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return f"values, each {_noun(arguments[0])}"
    if arguments:
        return " or ".join(map(_noun, arguments))
    return _NOUNS.get(kind, getattr(kind, "__name__", str(kind)))
