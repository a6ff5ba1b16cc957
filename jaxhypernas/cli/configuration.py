"""The configuration that flags describe: a preset or a begun run, with changes."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from etils.epath import Path

from jaxhypernas.cli.flags import Flag, config_flags, one_of
from jaxhypernas.cli.parsing import parse_known
from jaxhypernas.config.config import REGISTRIES, Config
from jaxhypernas.config.file import load
from jaxhypernas.config.presets import PRESETS
from jaxhypernas.types import Settings

_SettingsT = TypeVar("_SettingsT", bound=Settings)


def begin(verb: str, flags: Sequence[Flag], words: Sequence[str]) -> Config:
    """Returns the configuration that a verb's other flags change.

    It is the work directory's own, or that of ``--preset``, or the default one.
    ``--space``, ``--generator`` and ``--strategy`` put another entry's default
    configuration in.

    Args:
        verb: The verb, for messages.
        flags: The flags of the verb's own fields.
        words: The words after the verb; flags of the configuration are skipped.

    Raises:
        UserError: A value does not fit, or config.json of the work directory cannot be
            used.
    """
    choices = [
        flag._replace(kind=one_of("", *flag.choices), default="")
        for flag in config_flags(Config())
        if flag.place in REGISTRIES
    ]
    first = [flag for flag in flags if flag.place in ("workdir", "preset")]
    values = parse_known(verb, [*first, *choices], words)
    config = _start(values.get("preset", ""), values.get("workdir"))
    entries: dict[str, Any] = {
        slot: registry[values[slot]].config()
        for slot, registry in REGISTRIES.items()
        if values[slot] not in ("", config.names[slot])
    }
    return dataclasses.replace(config, **entries)


def _start(preset: str, workdir: Path | None) -> Config:
    """The configuration before any flag changes it."""
    if not preset and workdir is not None:
        path = workdir / "config.json"
        if path.exists():
            return load(path)
    return PRESETS[preset or "small"]


def change(
    settings: _SettingsT, values: dict[str, Any], place: str = ""
) -> _SettingsT:
    """Returns a configuration with the values of flags.

    Args:
        settings: The configuration.
        values: The value of each of its fields, by place.
        place: Place of the configuration, as in ``"train."``.

    Raises:
        UserError: A value is out of range.
    """
    changed = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        name = f"{place}{field.name}"
        value = getattr(settings, field.name)
        if isinstance(value, Settings):
            changed[field.name] = change(value, values, f"{name}.")
        else:
            changed[field.name] = values[name]
    return type(settings)(**changed)
