"""What verbs do to train candidates one by one: the run's own, or chosen ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from etils.epath import Path

from jaxhypernas.config import changes as config_changes
from jaxhypernas.programs import chosen, populations, retraining, training
from jaxhypernas.programs.active import Pool
from jaxhypernas.programs.candidate_verbs import score_sample
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.retraining import Wanted
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.programs.training_verbs import UNIT
from jaxhypernas.programs.truth import FromScratch
from jaxhypernas.report import progress
from jaxhypernas.store import weights
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Params, UserError

Start = Literal["scratch", "generated", "trained"]
"""Weights that training begins with: random ones, those that the generator writes, or
those of the candidate's best training so far, at the same sizes and on the same split
of the images."""


class Way(NamedTuple):
    """How to train architectures that the user chose."""

    parts: Parts
    """Parts with the sizes and the training wanted."""

    from_scratch: Callable[[], FromScratch]
    """Returns the function that trains and scores candidates in this way."""

    start: Start
    """The weights to begin with."""

    phi: Callable[[], Params]
    """Returns the parameters of the trained generator."""


def retrain(
    parts: Parts,
    scorer: Scorer,
    from_scratch: Callable[[], FromScratch],
    table: Table,
    workdir: Path,
) -> None:
    """Trains the best and a random sample from scratch, and those they speak for.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        from_scratch: Returns the function that trains and scores candidates.
        table: The table of retrained candidates.
        workdir: The work directory.

    Raises:
        UserError: No candidate is scored yet, or images are streamed.
    """
    training.check_not_streamed(parts.config)
    active = parts.config.retrain.active
    wanted = _wanted(parts, scorer)
    left = retraining.missing(table, wanted)
    total = len(wanted) + active
    begun = len(wanted) - len(left) + min(_active(table), active)
    with _training(parts, from_scratch, table, workdir, begun, total) as train:
        train(left)
        if _active(table) < active:
            _train_active(parts, scorer, table, train)
    scorer.table.compact()


def retrain_chosen(
    parts: Parts,
    scorer: Scorer,
    table: Table,
    workdir: Path,
    archs: Sequence[str],
    way: Way,
) -> pa.Table:
    """Trains architectures that the user chose.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        table: The table of retrained candidates.
        workdir: The work directory.
        archs: Architecture strings or ids.
        way: How to train them.

    Returns:
        Their rows of the table, each once.

    Raises:
        UserError: A string is no architecture, images are streamed, or the weights to
            begin with are not there.
    """
    training.check_not_streamed(way.parts.config)
    changes = config_changes.changes(parts.config, way.parts.config)
    start = _start(parts, way, changes, table, workdir)
    strings = map(scorer.table.named, archs)
    population = populations.parse(parts.searched.space, strings)
    id_A = dict.fromkeys(scorer.score_missing(population).tolist())
    rows = scorer.table.rows(np.array([*id_A], np.uint64)).to_pylist()
    wanted = [Wanted("chosen", row, changes, *start(row)) for row in rows]
    left = retraining.missing(table, wanted)
    begun = len(wanted) - len(left)
    with _training(
        way.parts, way.from_scratch, table, workdir, begun, len(wanted)
    ) as train:
        train(left)
    scorer.table.compact()
    return retraining.found(table, wanted)


@contextmanager
def _training(
    parts: Parts,
    from_scratch: Callable[[], FromScratch],
    table: Table,
    workdir: Path,
    begun: int,
    total: int,
) -> Iterator[Callable[[list[Wanted]], None]]:
    """Yields what trains candidates and shows a progress bar; then merges shards."""
    with progress.bar("retrain", total, UNIT, start=begun) as bar:
        note = ""

        def observe_steps(steps: int) -> None:
            batch = parts.config.retrain.train.batch
            bar.advance(0, steps * batch * parts.mesh.size, note)

        def observe(number: int, accuracy: float) -> None:
            nonlocal note
            note = f"test accuracy {accuracy:.3f}"
            bar.advance(number, 0, note)

        def train(candidates: list[Wanted]) -> None:
            retraining.retrain(
                parts.searched.space,
                table,
                candidates,
                from_scratch(),
                parts.mesh.size,
                observe_steps,
                observe,
                partial(weights.save, workdir),
            )

        yield train
    table.compact()


def _train_active(
    parts: Parts,
    scorer: Scorer,
    table: Table,
    train: Callable[[list[Wanted]], None],
) -> None:
    """Trains those that the ones before them make promising, a piece at a time."""
    order = parts.config.score.order
    trained = retraining.by_run(table.read().to_pylist())
    pool = Pool(parts.searched.space, scorer.table, order, trained)
    while (left := parts.config.retrain.active - _active(table)) > 0:
        trained = retraining.by_run(table.read().to_pylist())
        rows = pool.choose(trained, min(left, parts.mesh.size))
        if not rows:
            break
        train([Wanted("active", row) for row in rows])


def _active(table: Table) -> int:
    """How many candidates were chosen by those trained before them."""
    if not len(table):
        return 0
    return table.read(["group"])["group"].to_pylist().count("active")


def _wanted(parts: Parts, scorer: Scorer) -> list[Wanted]:
    """The best and the random sample, each scored."""
    table, config = scorer.table, parts.config
    # First, as what is best then is best when this goes on after a stop.
    random = table.rows(score_sample(parts, scorer)).to_pylist()
    best = table.best(config.retrain.top, order=config.score.order)
    # A score is of the table as it is now, the rest of a row for ever.
    best = best.drop_columns("score").to_pylist()
    return [
        *(Wanted("top", row) for row in best),
        *(Wanted("sample", row) for row in random),
    ]


def _start(
    parts: Parts, way: Way, changes: str, table: Table, workdir: Path
) -> Callable[[dict], tuple[str, Callable[[], Params] | None]]:
    """Makes what says which weights the candidate of a row begins with."""
    binding = config_changes.binding(changes)
    if way.start == "generated" and binding:
        raise UserError(
            "start: the generator writes weights of the run's own sizes, and was "
            "trained on the run's own split of the images: leave "
            f"{', '.join(binding)} out, or use --start scratch"
        )
    # Trainings of this call do not begin with one another's weights.
    trained = [
        row
        for row in chosen.by_loss(table.read().to_pylist())
        if config_changes.binding(row.get("changes") or "") == binding
    ]

    def generated(text: str) -> Params:
        return chosen.generated(parts, way.phi(), text).theta

    def kept(row: dict) -> Params:
        return chosen.kept(way.parts, workdir, row).theta

    def start(row: dict) -> tuple[str, Callable[[], Params] | None]:
        if way.start == "scratch":
            return way.start, None
        if way.start == "generated":
            return way.start, partial(generated, row["arch"])
        same = [each for each in trained if each["id"] == row["id"]]
        if not same:
            raise UserError(
                f"start: {row['id']} has no kept weights of these sizes and this "
                "split of the images: train it from scratch first"
            )
        name = chosen.file_name(same[0])
        return f"trained {name}", partial(kept, same[0])

    return start
