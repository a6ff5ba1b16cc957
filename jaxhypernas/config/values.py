"""The configuration as nested dictionaries, as JSON has them."""

import dataclasses
import typing
from typing import Any, Literal

from jaxhypernas.config.config import REGISTRIES, Config, name_of
from jaxhypernas.types import Settings, UserError

BEFORE = {"score.images": 0, "score.order": "loss"}
"""What a file means that lacks a field, where that is not today's default."""


def to_json(config: Config) -> dict[str, Any]:
    """Returns a configuration as nested dictionaries.

    Args:
        config: The configuration; the chosen entries of registries are written with
            their ``name``.
    """
    values: dict[str, Any] = dataclasses.asdict(config)
    for slot in REGISTRIES:
        name = name_of(slot, getattr(config, slot))
        values[slot] = {"name": name, **values[slot]}
    return values


def from_json(values: dict[str, Any]) -> Config:
    """Returns the configuration that `to_json` wrote.

    Args:
        values: Nested dictionaries.

    Raises:
        UserError: A field is unknown, of another type or out of range, or one without a
            default is missing.
    """
    kinds = typing.get_type_hints(Config)
    values = dict(values)
    for slot, registry in REGISTRIES.items():
        section = values.get(slot)
        if not isinstance(section, dict) or "name" not in section:
            raise UserError(
                f"{slot}: it must be a group of fields with a name"
            )
        section = dict(section)
        name = section.pop("name")
        if not isinstance(name, str) or name not in registry:
            raise UserError(
                f"{slot}: {name!r} is not one of {', '.join(registry)}; entries of "
                "your own need --plugin"
            )
        kinds[slot] = registry[name].config
        values[slot] = section
    return Config(**_fields(Config, kinds, values, ""))


def lacking(
    whole: dict[str, Any], values: dict[str, Any], place: str = ""
) -> list[str]:
    """Returns the places of fields that a file lacks.

    Args:
        whole: What `to_json` gives for the configuration of the file.
        values: What the file holds.
        place: What stands before the names of the fields.
    """
    places = []
    for name, value in whole.items():
        if name not in values:
            places.append(f"{place}{name}")
        elif isinstance(value, dict):
            places += lacking(value, values[name], f"{place}{name}.")
    return places


def _fields(
    owner: type[Settings],
    kinds: dict[str, Any],
    values: dict[str, Any],
    place: str,
) -> dict[str, Any]:
    """The fields of a group that are there, each of its kind."""
    for name in sorted(set(values) - set(kinds)):
        raise UserError(f"{place}{name}: there is no such field")
    for field in dataclasses.fields(owner):  # type: ignore[arg-type]
        no_value = field.default is dataclasses.MISSING
        no_default = no_value and field.default_factory is dataclasses.MISSING
        if no_default and field.name not in values:
            raise UserError(f"{place}{field.name}: is missing")
    before = {
        field: BEFORE[f"{place}{field}"]
        for field in kinds
        if f"{place}{field}" in BEFORE
    }
    return {
        name: _value(kinds[name], value, f"{place}{name}")
        for name, value in {**before, **values}.items()
    }


def _value(kind: Any, value: Any, name: str) -> Any:
    """The value of a field: a group, or a leaf."""
    if isinstance(kind, type) and issubclass(kind, Settings):
        if not isinstance(value, dict):
            raise UserError(f"{name}: {value!r} is not a group of fields")
        hints = typing.get_type_hints(kind)
        return kind(**_fields(kind, hints, value, f"{name}."))
    if not _fits(value, kind):
        expected = getattr(kind, "__name__", kind)
        raise UserError(f"{name}: {value!r} is not of type {expected}")
    return tuple(value) if isinstance(value, list) else value


def _fits(value: object, kind: Any) -> bool:
    """Whether JSON's value is of a leaf's kind."""
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        is_list = isinstance(value, list)
        return is_list and all(_fits(item, arguments[0]) for item in value)
    if arguments:
        return any(_fits(value, argument) for argument in arguments)
    # bool is a subclass of int, but True is no number of steps.
    return type(value) in ((int, float) if kind is float else (kind,))
