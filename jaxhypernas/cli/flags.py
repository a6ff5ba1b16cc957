"""Flags: one for each field of a verb and of the configuration."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from etils.epath import Path

from jaxhypernas.config.config import REGISTRIES, Config, name_of
from jaxhypernas.config.presets import PRESETS
from jaxhypernas.numerics.recipes import AUGMENTATIONS, LOSSES, OPTIMIZERS
from jaxhypernas.types import Settings, field_docs

REQUIRED = dataclasses.MISSING
"""Default of a flag that must be given."""

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "preset": PRESETS,
    **REGISTRIES,
    "train.loss": LOSSES,
    "train.optimizer": OPTIMIZERS,
    "retrain.train.loss": LOSSES,
    "retrain.train.optimizer": OPTIMIZERS,
    "data.augment": AUGMENTATIONS,
}
"""The values of some flags, by place; plug-ins that a user registers are there."""

ALIASES = {
    "help": "-h",
    "dataset": "--data.dataset",
    "data_dir": "--data.data-dir",
    "from_run": "--from",
    "data.dataset": "--dataset",
    "data.data_dir": "--data-dir",
    "score.order": "--score",
    "search.max_params": "--max-params",
    "search.max_flops": "--max-flops",
}
"""Shorter names of some flags, by place."""


class Flag(NamedTuple):
    """A flag of a verb."""

    place: str
    """Place of its field, as in ``train.learning_rate``."""

    kind: Any
    """Type of its value."""

    default: Any
    """Its value where it is not given, or `REQUIRED`."""

    owner: type
    """The class that has the field."""

    @property
    def name(self) -> str:
        """The flag as it is typed, as in ``--train.learning-rate``."""
        return "--" + self.place.replace("_", "-")

    @property
    def alias(self) -> str:
        """Its shorter name; empty if it has none."""
        return ALIASES.get(self.place, "")

    @property
    def choices(self) -> tuple[str, ...]:
        """Its values, if they are listed."""
        for kind in (self.kind, *typing.get_args(self.kind)):
            if typing.get_origin(kind) is Literal:
                return tuple(filter(None, typing.get_args(kind)))
        return ()

    @property
    def doc(self) -> str:
        """The docstring of the field, in one line."""
        field = self.place.rpartition(".")[2]
        return " ".join(field_docs(self.owner).get(field, "").split())

    @property
    def is_path(self) -> bool:
        """Whether its value is a path."""
        return Path in (self.kind, *typing.get_args(self.kind))


def verb_flags(verb: type) -> list[Flag]:
    """Returns the flags of a verb's own fields.

    Args:
        verb: A dataclass.
    """
    kinds = typing.get_type_hints(verb)
    flags = []
    for field in dataclasses.fields(verb):
        kind = kinds[field.name]
        if field.name in CHOICES:
            kind = one_of("", *CHOICES[field.name])
        if kind is not Config:
            flags.append(Flag(field.name, kind, field.default, verb))
    return flags


def config_flags(settings: Settings, place: str = "") -> Iterator[Flag]:
    """Returns a flag for each field of a configuration and of its sections.

    A field that chooses an entry of a registry has a flag for the entry's name, and one
    for each field of the chosen entry.

    Args:
        settings: The configuration; its values are the defaults.
        place: Place of the configuration, as in ``"train."``.
    """
    owner = type(settings)
    kinds = typing.get_type_hints(owner)
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        name = f"{place}{field.name}"
        value = getattr(settings, field.name)
        if name in REGISTRIES:
            entries = one_of(*REGISTRIES[name])
            yield Flag(name, entries, name_of(name, value), owner)
        if isinstance(value, Settings):
            yield from config_flags(value, f"{name}.")
        elif name in CHOICES:
            yield Flag(name, one_of(*CHOICES[name]), value, owner)
        else:
            yield Flag(name, kinds[field.name], value, owner)


def one_of(*values: str) -> Any:
    """Returns the type of a flag with listed values.

    Args:
        values: The values; an empty text stands for a flag that is not given.
    """
    literal: Any = Literal
    return literal[values]
