"""The configuration as JSON: config.json of a work directory."""

import dataclasses
import json
import re
from functools import cache
from typing import Any

from etils.epath import Path, PathLike

from jaxhypernas import __version__
from jaxhypernas.config.config import Config, differences
from jaxhypernas.config.values import from_json, lacking, to_json
from jaxhypernas.store import files
from jaxhypernas.types import UserError

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

    Fields that the version that wrote it did not have take their defaults, or what that
    version did, and a line on standard error says so.

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
        config = from_json(values)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"workdir: {path} cannot be used ({error}): use a new --workdir"
        ) from None
    added = lacking(to_json(config), values)
    if added:
        whole = to_json(config)
        taken = [f"{place} = {_at(whole, place)}" for place in added]
        _say_once(f"{path} is of an older version: {', '.join(taken)}")
    return config


def _at(values: Any, place: str) -> Any:
    """The value at a place, as in ``train.steps``."""
    for name in place.split("."):
        values = values[name]
    return values


@cache
def _say_once(line: str) -> None:
    """Prints a line, however often a command reads the file."""
    files.report(line)


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
    found = next(differences(comparable, config), None)
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


def begun_steps(workdir: Path) -> int | None:
    """Returns the number of training steps that a run was begun with.

    Args:
        workdir: The work directory.

    Returns:
        The number; None if the directory holds no run.

    Raises:
        UserError: config.json cannot be used.
    """
    path = workdir / "config.json"
    return load(path).train.steps if path.exists() else None


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
