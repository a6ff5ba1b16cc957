"""The configuration as JSON: config.json of a work directory."""

import dataclasses
import json
import re
import typing
from typing import Any, Literal

from etils.epath import Path, PathLike

from jaxhypernas import __version__
from jaxhypernas.config.config import (
    REGISTRIES,
    Config,
    difference,
    name_of,
)
from jaxhypernas.store import files
from jaxhypernas.types import Settings, UserError

OLDEST = [0, 2, 0]
"""The first version that wrote the format of this one."""


def save(config: Config, path: PathLike) -> None:
    """Writes a configuration, whole or not at all.

    Args:
        config: The configuration.
        path: The file; replaced if it is there.
    """
    content = {"version": __version__, **to_json(config)}
    files.write_text(Path(path), json.dumps(content, indent=2) + "\n")


def load(path: PathLike) -> Config:
    """Reads what `save` wrote.

    Args:
        path: The file.

    Raises:
        UserError: The file is damaged, or another version wrote it.
    """
    try:
        values = json.loads(Path(path).read_text())
        if not isinstance(values, dict):
            raise UserError("it holds no configuration")
        _check_version(values.pop("version", "0.1.0"))
        return from_json(values)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"workdir: {path} cannot be used ({error}): use a new --workdir"
        ) from None


def _check_version(version: object) -> None:
    """Raises UserError for a file of a newer version, or one of another format."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".")]

    if not re.fullmatch(r"\d+(\.\d+)*", str(version)):
        raise UserError(f"version: {version!r} is not the number of a version")
    if not OLDEST <= numbers(str(version)) <= numbers(__version__):
        raise UserError(
            f"version {version} wrote it, this is version {__version__}"
        )


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
        UserError: A field is missing, unknown, of another type or out of range.
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
    return Config(**_fields(kinds, values, ""))


def _fields(
    kinds: dict[str, Any], values: dict[str, Any], place: str
) -> dict[str, Any]:
    """The fields of a group, each of its kind."""
    for name in sorted(set(kinds) ^ set(values)):
        problem = "is missing" if name in kinds else "there is no such field"
        raise UserError(f"{place}{name}: {problem}")
    return {
        name: _value(kinds[name], value, f"{place}{name}")
        for name, value in values.items()
    }


def _value(kind: Any, value: Any, name: str) -> Any:
    """The value of a field: a group, or a leaf."""
    if isinstance(kind, type) and issubclass(kind, Settings):
        if not isinstance(value, dict):
            raise UserError(f"{name}: {value!r} is not a group of fields")
        hints = typing.get_type_hints(kind)
        return kind(**_fields(hints, value, f"{name}."))
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


def resolve(workdir: Path, config: Config | None) -> Config:
    """Returns the configuration of a run.

    Args:
        workdir: The work directory; it need not exist.
        config: The configuration of a new run. For a begun run it must be the same but
            for ``execution`` and the place of the images; None takes the run's own.

    Returns:
        The configuration, with absolute paths of local images.

    Raises:
        UserError: The directory holds another configuration, or none is given.
    """
    path = workdir / "config.json"
    stored = load(path) if path.exists() else None
    if config is None and stored is None:
        raise UserError(
            f"workdir: {workdir} holds no run: begin one with jaxhypernas train "
            f"--workdir {workdir}"
        )
    if config is None:
        return stored  # type: ignore[return-value]
    config = dataclasses.replace(config, data=config.data.absolute())
    if stored is None:
        return config
    data = dataclasses.replace(
        stored.data,
        dataset=config.data.dataset,
        data_dir=config.data.data_dir,
    )
    comparable = dataclasses.replace(
        stored,
        execution=config.execution,
        data=data,
    )
    found = difference(comparable, config)
    if found is not None:
        name, theirs, ours = found
        raise UserError(
            f"{name}: {workdir} was begun with {theirs}, not {ours}: use a new "
            "--workdir"
        )
    return config


def moved(
    workdir: Path,
    dataset: str | None,
    data_dir: str | None,
) -> Config | None:
    """Returns the configuration of a begun run whose images lie elsewhere now.

    Args:
        workdir: The work directory.
        dataset: As ``data.dataset``; None: as before.
        data_dir: As ``data.data_dir``; None: as before.

    Returns:
        The configuration; None if the directory holds no run.

    Raises:
        UserError: config.json cannot be used.
    """
    path = workdir / "config.json"
    if not path.exists():
        return None
    stored = load(path)
    data = dataclasses.replace(
        stored.data,
        dataset=dataset or stored.data.dataset,
        data_dir=data_dir or stored.data.data_dir,
    )
    return dataclasses.replace(stored, data=data)


def begin(workdir: Path, config: Config, stored: Config | None) -> None:
    """Writes config.json of a work directory, from the first of several processes.

    Args:
        workdir: The work directory; made if it does not exist.
        config: The configuration.
        stored: The configuration that the directory holds; None: it holds none.

    Raises:
        UserError: The directory cannot be written, or processes do not share it.
    """
    # It imports JAX; a mistyped flag is refused without it.
    from jaxhypernas.hosts import processes

    path = workdir / "config.json"
    try:
        with processes.in_turn():
            if processes.first() and config != stored:
                workdir.mkdir(parents=True, exist_ok=True)
                save(config, path)
            if not path.exists():
                raise UserError(
                    f"workdir: process {processes.index()} does not see the file that "
                    f"process 0 wrote to {workdir}: use a directory that all processes "
                    "share"
                )
    except OSError as error:
        raise UserError(
            f"workdir: {workdir} cannot be written ({error.strerror}): use another "
            "--workdir"
        ) from None
