"""A trained hypernetwork to take along: a small work directory that scores candidates.

It holds the configuration, phi, the images that candidates are scored on, and a card.
It has no images to train on and no candidates.
"""

from collections.abc import Callable

import jax
import numpy as np
from etils.epath import Path

from jaxhypernas import __version__
from jaxhypernas.config import data_file
from jaxhypernas.config import file as config_file
from jaxhypernas.data.dataset import Dataset
from jaxhypernas.data.splits import Split
from jaxhypernas.hosts import processes, rollcall
from jaxhypernas.numerics.stats import format_report
from jaxhypernas.programs import scorers, training
from jaxhypernas.programs.parts import Parts
from jaxhypernas.report.ranking import rank_rows
from jaxhypernas.store import files, weights
from jaxhypernas.types import Params, UserError

PHI, IMAGES = "phi", "images"
"""Names of the arrays in ``weights/``."""

CARD = "card.md"
"""Name of the card."""


def pack(
    parts: Parts,
    dataset: Dataset,
    phi: Callable[[], Params],
    workdir: Path,
    out: Path,
    measured: str,
) -> list[Path]:
    """Writes a trained hypernetwork to take along.

    Args:
        parts: The parts of the run.
        dataset: The images.
        phi: Returns the parameters of the trained generator.
        workdir: The work directory of the run.
        out: The directory to write to; it must be empty, or not there.
        measured: How well its scores rank candidates, for the card; may be empty.

    Returns:
        The directory; of several processes, the first one writes it.

    Raises:
        UserError: The generator is not trained, or the directory holds something.
    """
    training.check_trained(parts)
    host_phi = jax.device_get(phi())
    if not processes.first():
        return [out]
    check_new(out)
    scored_on = scorers.scored_on(parts, dataset)
    arrays = {
        "x": scored_on.x_NxHxWxC,
        "y": scored_on.y_N,
        "mean": dataset.mean_C,
        "std": dataset.std_C,
    }
    weights.save(out, PHI, host_phi)
    weights.save(out, IMAGES, arrays)
    images = data_file.load(workdir) or data_file.identify(dataset)
    data_file.save(out, images)
    text = _card(parts, images, scored_on.size, host_phi, measured)
    files.write_text(out / CARD, text)
    # Last: without it the directory is no run.
    config_file.save(parts.config, out / "config.json")
    return [out]


def of_sample(rows: list[dict], steps: int) -> str:
    """Says how scores rank the run's own random sample, for the card.

    Args:
        rows: A row for each candidate trained from scratch.
        steps: For how long each was trained.

    Returns:
        Lines; none where there is too little to rank.
    """
    sample = [row for row in rows if row["group"] == "sample"]
    loss_A = np.array([row["test_loss"] for row in sample], np.float64)
    try:
        ranking = rank_rows(sample, -loss_A)
    except UserError:
        return ""
    head = f"{len(sample)} random candidates, trained from scratch for {steps:,} steps"
    about = "truth test loss, 95 % bootstrap intervals"
    return f"```\n{head}; {about}\n{format_report(ranking)}\n```"


def check_new(out: Path) -> None:
    """Checks that a hypernetwork can be written to a directory.

    Args:
        out: The directory.

    Raises:
        UserError: It holds something.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"out: {out} holds something: give a new directory")


def adopt(source: Path, workdir: Path) -> None:
    """Begins a run with a hypernetwork that `pack` wrote.

    Args:
        source: The directory that `pack` wrote.
        workdir: The work directory; one that has begun with it already stays as it is.

    Raises:
        UserError: ``source`` holds no such hypernetwork, or ``workdir`` another run.
    """
    if not is_packed(source):
        raise UserError(
            f"pretrained: {source} holds no hypernetwork to take along: jaxhypernas "
            "pack writes one"
        )
    with processes.in_turn():
        if processes.first() and not (workdir / "config.json").exists():
            _copy(source, workdir)
    if not _is_same(source, workdir):
        raise UserError(
            f"pretrained: {workdir} holds another run: use a new --workdir"
        )


def _copy(source: Path, workdir: Path) -> None:
    names = [data_file.NAME, CARD, "config.json"]
    stored = sorted(path.name for path in (source / weights.NAME).iterdir())
    (workdir / weights.NAME).mkdir(parents=True, exist_ok=True)
    # config.json is the last: without it the directory is no run.
    for name in [*(f"{weights.NAME}/{name}" for name in stored), *names]:
        with files.replacing(workdir / name) as file:
            file.write((source / name).read_bytes())


def _is_same(source: Path, workdir: Path) -> bool:
    """Whether a run began with a hypernetwork; names of files hold checksums."""

    def names(place: Path) -> set[str]:
        found = (place / weights.NAME).glob(f"{PHI}.*")
        return {path.name for path in found}

    return bool(names(source) & names(workdir))


def is_packed(workdir: Path) -> bool:
    """Says whether a directory has a pretrained hypernetwork, as `pack` writes it.

    Args:
        workdir: The directory.
    """
    directory = workdir / weights.NAME
    found = directory.is_dir() and any(directory.glob(f"{IMAGES}.*"))
    return found and (workdir / "config.json").exists()


def load_images(workdir: Path) -> Dataset:
    """Reads the images that candidates are scored on.

    Args:
        workdir: A directory that `is_packed`.

    Returns:
        The images, without any for training and testing.

    Raises:
        UserError: A file is damaged.
    """
    arrays = weights.read(workdir, IMAGES)
    known = data_file.load(workdir)
    if arrays is None or known is None:
        raise UserError(f"workdir: {workdir} is damaged: files are missing")
    valid = Split(arrays["x"], arrays["y"])
    none = valid.take(np.zeros(0, int))
    return Dataset(
        config_file.load(workdir / "config.json").data.dataset,
        known.classes,
        none,
        valid,
        none,
        arrays["mean"],
        arrays["std"],
        class_names=known.class_names,
    )


def load_phi(parts: Parts, workdir: Path) -> Params:
    """Reads the parameters of the generator.

    Args:
        parts: The parts of the run.
        workdir: A directory that `is_packed`.

    Returns:
        phi, on every device of this process.

    Raises:
        UserError: The file is damaged.
    """
    like = jax.eval_shape(parts.searched.generator.init, parts.key)
    phi = weights.load(workdir, PHI, like)
    if phi is None:
        raise UserError(f"workdir: {workdir} is damaged: phi is missing")
    return jax.device_put(phi, parts.replicated_here)


def check_trains(workdir: Path) -> None:
    """Checks that a run has training images.

    Args:
        workdir: The work directory.

    Raises:
        UserError: It began with a hypernetwork that was taken along.
    """
    if is_packed(workdir):
        raise UserError(
            f"workdir: {workdir} began with a pretrained hypernetwork and has no "
            f"training images: begin a run with jaxhypernas train --from {workdir}"
        )


def _card(
    parts: Parts,
    images: data_file.Identity,
    scored_on: int,
    phi: Params,
    measured: str,
) -> str:
    config = parts.config
    names = config.names
    train = config.train
    height, width, channels = parts.image
    numbers = sum(leaf.size for leaf in jax.tree.leaves(phi))
    return f"""# A pretrained hypernetwork: {names["generator"]} on {names["space"]}

- Writes weights of: {names["space"]}, {config.space}.
- Generator: {names["generator"]}, {numbers:,} numbers.
- Trained on: {images.train:,} images of {config.data.dataset} \
({height}x{width}x{channels}, {images.classes} classes, checksum {images.checksum}); \
{train.steps:,} steps of {train.architectures} architectures x {train.batch} images; \
one seed ({config.seed}).
- Scores on: {scored_on:,} held-out images, which are here.
- Made by: jaxhypernas {__version__}, code {rollcall.code()}.

{measured or "How well its scores rank candidates was not measured."}

```
jaxhypernas score --pretrained THIS_DIRECTORY --workdir runs/mine --archs archs.txt
```
"""
