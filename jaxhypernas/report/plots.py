"""Pictures of a report. Matplotlib is imported when a picture is drawn."""

from typing import TYPE_CHECKING

import numpy as np
from etils.epath import Path

from jaxhypernas.store import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scores(retrained: list[dict]) -> "Figure":
    """Draws test loss when trained from scratch over loss with generated weights.

    Args:
        retrained: A row for each candidate trained from scratch, of either group.
    """
    figure, axes = _figure()
    groups = (
        ("sample", "random sample", "tab:blue"),
        ("top", "top", "tab:red"),
        ("active", "chosen after them", "tab:green"),
    )
    left_out = 0
    for group, label, colour in groups:
        rows = [row for row in retrained if row["group"] == group]
        if not rows:
            continue
        generated = np.array([row["loss"] for row in rows])
        trained = np.array([row["test_loss"] for row in rows])
        finite = np.isfinite(generated) & np.isfinite(trained)
        axes.scatter(
            generated[finite], trained[finite], s=18, c=colour, label=label
        )
        left_out += int((~finite).sum())
    _tell_left_out(axes, left_out)
    axes.set(
        xlabel="validation loss, generated weights (nats)",
        ylabel="test loss, trained from scratch (nats)",
    )
    axes.legend(frameon=False)
    return figure


def search(loss_A: np.ndarray) -> "Figure":
    """Draws each candidate's loss, and the best so far, in the order of the search.

    Args:
        loss_A: Losses with generated weights, in the order they were scored.
    """
    figure, axes = _figure()
    number_A = np.arange(1, len(loss_A) + 1)
    finite = np.isfinite(loss_A)
    worst_A = np.where(finite, loss_A, np.inf)
    best_A = np.minimum.accumulate(worst_A)
    _tell_left_out(axes, int((~finite).sum()))
    axes.scatter(
        number_A[finite],
        loss_A[finite],
        s=3,
        c="tab:gray",
        label="candidate",
    )
    axes.plot(number_A, best_A, c="tab:red", label="best so far")
    axes.set(
        xlabel="candidates scored",
        ylabel="validation loss, generated weights (nats)",
    )
    axes.legend(frameon=False)
    return figure


def save(path: Path, figure: "Figure") -> None:
    """Writes a picture as PNG, whole or not at all.

    Args:
        path: The file.
        figure: The picture.
    """
    with files.replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _tell_left_out(axes: "Axes", number: int) -> None:
    """Says above a picture how many candidates have no place in it."""
    if number:
        axes.set_title(f"{number} that diverged not shown", fontsize=9)


def _figure() -> "tuple[Figure, Axes]":
    # A figure without pyplot leaves the user's backend alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    return figure, figure.subplots()
