"""Beginning a run with the weights of another one: from.json of a work directory."""

import json
from dataclasses import replace

import jax
from etils.epath import Path

from jaxhypernas.config import data_file
from jaxhypernas.config import file as config_file
from jaxhypernas.config.config import Config, differences
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.hosts import processes
from jaxhypernas.programs import limits, pretrained, training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.store import files, json_text, lock
from jaxhypernas.store.checkpoints import Checkpoints
from jaxhypernas.types import Params, UserError

NAME = "from.json"
"""Name of the file in a work directory."""


def adopt(parts: Parts, dataset: Dataset, workdir: Path, source: Path) -> None:
    """Makes phi of another run the state before the first step of a new one.

    The step, the optimiser's state and the key are those of the new run. A run that
    was begun in this way already stays as it is.

    Args:
        parts: The parts of the new run.
        dataset: The images.
        workdir: The work directory of the new run.
        source: The work directory of the other run; phi is that of its newest
            checkpoint.

    Raises:
        UserError: The new run has begun without ``source``, cannot begin, or phi of
            ``source`` does not fit it.
    """
    training.check_trained(parts)
    place = str(source if files.is_remote(source) else source.resolve())
    if (workdir / "config.json").exists():
        _check_origin(workdir, place)
        return
    training.check_batch(parts)
    limits.check(parts, dataset)
    step, phi = _newest_phi(parts, source)
    state = training.start_everywhere(parts)._replace(phi=phi)
    origin = {"workdir": place, "step": step}
    if processes.first():
        workdir.mkdir(parents=True, exist_ok=True)
        text = json_text.dumps(origin, indent=2)
        files.write_text(workdir / NAME, text + "\n")
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        like = training.abstract_state(parts, parts.replicated)
        if checkpoints.restore(like) is None:
            checkpoints.save(0, state)


def _check_origin(workdir: Path, place: str) -> None:
    """Raises `UserError` if a begun run does not come from a place."""
    path = workdir / NAME
    origin = json.loads(path.read_text())["workdir"] if path.exists() else None
    if origin != place:
        how = f"from {origin}" if origin else "from no other run"
        raise UserError(
            f"from: {workdir} was begun {how}: leave --from out, or use a new "
            "--workdir"
        )


def _newest_phi(parts: Parts, source: Path) -> tuple[int, Params]:
    """The newest step of another run and its phi, on all devices."""
    path = source / "config.json"
    if not path.exists():
        raise UserError(
            f"from: {source} holds no run: give the --workdir of one"
        )
    theirs = config_file.load(path)
    _check_fits(parts, theirs, source)

    if pretrained.is_packed(source):
        phi = pretrained.load_phi(parts, source)
        return theirs.train.steps, jax.device_put(phi, parts.replicated)

    # The state of another optimiser has other leaves.
    config = replace(parts.config, train=theirs.train)
    there = parts._replace(config=config)
    like = training.abstract_state(there, parts.replicated)
    restored = None
    with lock.held(source, "train --from"):
        if (source / "checkpoints").is_dir():
            with Checkpoints(source / "checkpoints") as checkpoints:
                restored = checkpoints.restore(like)
    if restored is None:
        raise UserError(
            f"from: {source} has no checkpoint: run jaxhypernas train --workdir "
            f"{source} first"
        )
    step, state = restored
    return step, state.phi


def _check_fits(parts: Parts, theirs: Config, source: Path) -> None:
    """Raises `UserError` unless phi has the same meaning in two runs."""
    ours = parts.config
    found = None
    for slot in ("generator", "space"):
        if theirs.names[slot] != ours.names[slot]:
            found = slot, theirs.names[slot], ours.names[slot]
            break
        settings = getattr(theirs, slot), getattr(ours, slot)
        found = found or next(differences(*settings, f"{slot}."), None)
    images = data_file.load(source)
    if found is None and images is not None:
        shapes = images.image, images.classes
        if shapes != (parts.image, parts.classes):
            here = parts.image, parts.classes
            found = "images (shape and classes)", shapes, here
    if found is not None:
        name, there, here = found
        raise UserError(
            f"from: {name}: {there} in {source}, {here} here: they must be the same"
        )
