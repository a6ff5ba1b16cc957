"""What verbs do to the candidates of a work directory: score, search, retrain, report.

Every function does what is missing and leaves the rest as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from etils.epath import Path

from jaxhypernas.archs.population import rows
from jaxhypernas.config.data_file import Identity
from jaxhypernas.data.batches import batch_shape
from jaxhypernas.execution import compilations
from jaxhypernas.families import FAMILIES
from jaxhypernas.hosts import processes
from jaxhypernas.numerics import evidence
from jaxhypernas.programs import populations, retraining
from jaxhypernas.programs.parts import Parts
from jaxhypernas.programs.scorer import Scorer
from jaxhypernas.report import progress
from jaxhypernas.report.report import write as write_report
from jaxhypernas.search.budget import within
from jaxhypernas.search.loop import run_search
from jaxhypernas.store.metrics import Metrics
from jaxhypernas.store.score_table import ScoreTable
from jaxhypernas.store.tables import Table
from jaxhypernas.types import Arch, UserError


@contextmanager
def scoring_bar(
    name: str, total: int, scorer: Scorer
) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar for `Scorer.score_missing`.

    Args:
        name: Name of the bar.
        total: Number of candidates.
        scorer: The scorer.

    Yields:
        ``observe(known, scored)``.
    """
    with progress.bar(name, total, "candidates") as bar:

        def observe(known: int, scored: int) -> None:
            lowest = scorer.table.lowest
            note = f"lowest loss {lowest:.3f}" if len(scorer.table) else ""
            bar.advance(known + scored, scored, note)

        yield observe


def score_pieces(
    parts: Parts, scorer: Scorer, pieces: Iterable[Arch], total: int
) -> Iterator[tuple[Arch, np.ndarray]]:
    """Scores a stream of populations.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        pieces: The populations.
        total: Number of candidates in all of them.

    Yields:
        Each population with its uint64 ids [A], in order.
    """
    with scoring_bar("score", total, scorer) as observe:
        for population in pieces:
            yield population, scorer.score_missing(population, observe)
    scorer.table.compact()


def score(parts: Parts, scorer: Scorer, archs: Sequence[str]) -> pa.Table:
    """Scores architectures.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        archs: At least one architecture string, or id of a candidate in the table.

    Returns:
        Their rows, in order.

    Raises:
        UserError: A string is not an architecture of the space, or there is none;
            nothing is scored.
    """
    if isinstance(archs, str) or not len(archs):
        raise UserError(
            "archs: give a list of at least one architecture string"
        )
    # All strings are parsed before the first one is scored.
    strings = map(scorer.table.named, archs)
    pieces = list(populations.iter_parsed(parts.searched.space, strings))
    scored = list(score_pieces(parts, scorer, pieces, len(archs)))
    return pa.concat_tables(given_rows(scorer, *each) for each in scored)


def given_rows(scorer: Scorer, population: Arch, id_A: np.ndarray) -> pa.Table:
    """Returns the rows of scored architectures, with the strings of those given.

    Architectures that are the same network share a row, with the counts and the string
    of one of them; the string is replaced here.

    Args:
        scorer: The scorer of the run.
        population: The architectures.
        id_A: Their ids.
    """
    found = scorer.table.rows(id_A)
    strings = [
        scorer.space.to_string(rows(population, i)) for i in range(len(id_A))
    ]
    place = found.column_names.index("arch")
    return found.set_column(place, "arch", [pa.array(strings)])


Objective = Callable[[pa.Table], Any]
"""``objective(rows)``: a number for each row of the score table; the highest is best.
The column ``score`` is the one that searches look for, or minus the loss."""


def search(
    parts: Parts,
    scorer: Scorer,
    workdir: Path,
    objective: Objective | None = None,
) -> None:
    """Runs the strategy; it replays the candidates that are scored already.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        workdir: The work directory.
        objective: What the search looks for; None: the score.
    """
    table = scorer.table
    metrics = Metrics(workdir)
    total = parts.strategy.total + sampled(parts)
    with scoring_bar("search", total, scorer) as observe:
        score = _score(parts, scorer, observe)

        def evaluate(population: Arch) -> np.ndarray:
            id_A = scorer.score_missing(population, observe)
            metrics.append(
                {
                    "scored": len(table),
                    "best": table.lowest,
                    "compilations": compilations.total(),
                }
            )
            score_A = score(id_A)
            if objective is not None:
                rows = table.rows(id_A).append_column("score", [score_A])
                score_A = np.asarray(objective(rows), np.float64)
            return -score_A

        run_search(parts.strategy, jax.random.fold_in(parts.key, 1), evaluate)
    table.compact()


def _score(
    parts: Parts, scorer: Scorer, observe: Callable[[int, int], None]
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes ``score(id_A)``: the numbers of candidates that a search maximises.

    The score of a candidate stays what it was when the search has seen others: ranks
    are replaced by where the evidence of the random sample lies.
    """
    table = scorer.table
    if parts.config.score.order == "loss":
        return lambda id_A: -table.loss(id_A)
    sample = table.evidence(score_sample(parts, scorer, observe))
    reference = evidence.refer(sample)

    def score(id_A: np.ndarray) -> np.ndarray:
        return evidence.score_beside(table.evidence(id_A), reference)

    return score


def sampled(parts: Parts) -> int:
    """Returns how many candidates a search scores beside those of the strategy.

    Args:
        parts: The parts of the run.
    """
    config = parts.config
    return config.retrain.sample if config.score.order == "evidence" else 0


def score_sample(
    parts: Parts,
    scorer: Scorer,
    observe: Callable[[int, int], None] = lambda known, scored: None,
) -> np.ndarray:
    """Returns the ids of the random sample, scored where the table lacks it.

    Args:
        parts: The parts of the run.
        scorer: The scorer of the run.
        observe: As in `Scorer.score_missing`.
    """
    draw = within(parts.searched.space, parts.config.search)
    key = jax.random.fold_in(parts.key, 2)
    sample = draw.sample(key, parts.config.retrain.sample)
    return scorer.score_missing(sample, observe)


def report(
    parts: Parts,
    images: Identity,
    table: ScoreTable,
    retrained: Table,
    workdir: Path,
) -> dict:
    """Writes the report of a run.

    Args:
        parts: The parts of the run.
        images: What identifies the images.
        table: The table of scores.
        retrained: The table of retrained candidates.
        workdir: The work directory.

    Returns:
        The figures of the report; of several processes, the first one writes it and the
        others return nothing.

    Raises:
        UserError: No candidate has been trained from scratch.
    """
    trained = retrained.read().to_pylist()
    groups = {row["group"] for row in trained}
    if not groups >= {"top", "sample"}:
        raise UserError(
            f"workdir: {workdir} has no best candidates and no random sample trained "
            "from scratch: run jaxhypernas retrain first"
        )
    if not processes.first():
        return {}
    order = parts.config.score.order
    return write_report(
        workdir,
        "Search report",
        _setting(parts, images),
        order,
        FAMILIES[parts.config.names["space"]].grammar,
        table.best(5, order=order).to_pylist(),
        table.column("loss"),
        retraining.by_run(trained),
        [row for row in trained if row["group"] == "chosen"],
    )


def _setting(parts: Parts, images: Identity) -> str:
    """One line on data, seeds and hardware."""
    config = parts.config
    names = config.names
    scored_on = config.score.taken(images.valid)
    batches, size = batch_shape(scored_on, config.score.batch)
    device = parts.mesh.devices.flat[0].device_kind
    named = ""
    if images.class_names:
        named = f" ({', '.join(images.class_names)})"
    return (
        f"{config.data.dataset}{named}: {images.train} training, {images.valid} "
        f"held-out, {images.test} test images; space {names['space']}, "
        f"generator {names['generator']} ({config.train.steps} steps), strategy "
        f"{names['strategy']}; BatchNorm by statistics of the evaluated batch ({size} "
        f"images, {batches} batches); one seed ({config.seed}); retraining "
        f"{config.retrain.train.steps} steps; {parts.mesh.size} {device} device(s), "
        f"{parts.chunk} candidate(s) side by side on each, form {parts.form}."
    )
