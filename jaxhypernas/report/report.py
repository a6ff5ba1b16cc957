"""report.md, report.json and their pictures, from the tables of a run."""

import json

import matplotlib
import numpy as np
from etils.epath import Path

from jaxhypernas.numerics import stats

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def rank_rows(rows: list[dict], truth: np.ndarray) -> dict[str, stats.Ranking]:
    """How generated-weight scores rank against a truth (higher is better), beside the baselines they must beat."""
    scores = {
        "generated weights": -np.array([row["loss"] for row in rows]),
        "live parameters": np.array([row["live_params"] for row in rows]),
        "live FLOPs": np.array([row["live_flops"] for row in rows]),
    }
    return stats.rank_report(scores, truth)


def plain(ranking: dict[str, stats.Ranking]) -> dict:
    """The same as JSON has it: intervals as objects of value, low and high."""
    return {
        name: {
            k: v._asdict() if isinstance(v, stats.Interval) else v
            for k, v in row.items()
        }
        for name, row in ranking.items()
    }


def summary(scored: int, retrained: list[dict]) -> dict:
    """The run's figures: what was scored, how well scores rank, what the winner reaches when trained from scratch."""
    sample = [row for row in retrained if row["group"] == "sample"]
    top = [row for row in retrained if row["group"] == "top"]
    winner = min(top, key=lambda row: row["trained_valid_loss"])
    return {
        "scored": scored,
        "trained_from_scratch": len(retrained),
        "winner": winner,
        "winner_test_accuracy": winner["test_accuracy"],
        "top_test_accuracy": float(
            np.mean([row["test_accuracy"] for row in top])
        ),
        "sample_test_accuracy": float(
            np.mean([row["test_accuracy"] for row in sample])
        ),
        "sample_generated_accuracy": float(
            np.mean([row["accuracy"] for row in sample])
        ),
        "sample_trained_valid_accuracy": float(
            np.mean([row["trained_valid_accuracy"] for row in sample])
        ),
        "rank": plain(
            rank_rows(sample, -np.array([row["test_loss"] for row in sample]))
        ),
        "rank_accuracy": plain(
            rank_rows(
                sample, np.array([row["test_accuracy"] for row in sample])
            )
        ),
    }


def write(
    workdir: Path,
    title: str,
    setting: str,
    best: list[dict],
    loss_A: np.ndarray,
    retrained: list[dict],
) -> dict:
    """Write the report; returns its summary.

    Args:
        setting: one line on data, seeds and hardware.
        best: rows of the best candidates by score.
        loss_A: of all candidates, in the order they were scored.
    """
    figures = summary(len(loss_A), retrained)
    sample = [row for row in retrained if row["group"] == "sample"]
    n, top = len(sample), len(retrained) - len(sample)
    lines = [
        f"# {title}",
        "",
        setting,
        "",
        f"Scored {figures['scored']} distinct candidates; trained {figures['trained_from_scratch']} from scratch.",
        "",
        "| trained from scratch | test accuracy |",
        "|---|---|",
        f"| the winner: best validation loss of the top {top} by score | {figures['winner_test_accuracy']:.4f} |",
        f"| mean of the top {top} | {figures['top_test_accuracy']:.4f} |",
        f"| mean of the random sample of {n} | {figures['sample_test_accuracy']:.4f} |",
        "",
        f"Validation accuracy of the sample: {figures['sample_generated_accuracy']:.4f} with generated weights, "
        f"{figures['sample_trained_valid_accuracy']:.4f} trained.",
        "",
        f"## Can the scores be trusted? {n} random candidates, 95 % bootstrap intervals",
        "",
        "Against test loss when trained from scratch:",
        "",
        "```",
        stats.format_report(
            rank_rows(sample, -np.array([row["test_loss"] for row in sample]))
        ),
        "```",
        "",
        "Against test accuracy:",
        "",
        "```",
        stats.format_report(
            rank_rows(
                sample, np.array([row["test_accuracy"] for row in sample])
            )
        ),
        "```",
        "",
        "![scores against truth](scores.png)",
        "![search](search.png)",
        "",
        "## Best by score",
        "",
        "| loss | accuracy | params | FLOPs | architecture |",
        "|---|---|---|---|---|",
        *(
            f"| {r['loss']:.4f} | {r['accuracy']:.4f} | {r['params']:,} | {r['flops']:,} | `{r['id']}` |"
            for r in best
        ),
        "",
        f"## The winner\n\n```\n{figures['winner']['arch']}\n```\n",
    ]
    (workdir / "report.md").write_text("\n".join(lines))
    (workdir / "report.json").write_text(json.dumps(figures, indent=2) + "\n")
    _plot_scores(workdir / "scores.png", retrained)
    _plot_search(workdir / "search.png", loss_A)
    return figures


def _plot_scores(path: Path, retrained: list[dict]) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for group, colour in (("sample", "tab:blue"), ("top", "tab:red")):
        rows = [row for row in retrained if row["group"] == group]
        x, y = [row["loss"] for row in rows], [row["test_loss"] for row in rows]
        axes.scatter(
            x,
            y,
            s=18,
            c=colour,
            label={"sample": "random sample", "top": "top by score"}[group],
        )
    axes.set(
        xlabel="validation loss, generated weights (nats)",
        ylabel="test loss, trained from scratch (nats)",
    )
    axes.legend(frameon=False)
    with path.open("wb") as file:
        figure.savefig(file, dpi=150)
    plt.close(figure)


def _plot_search(path: Path, loss_A: np.ndarray) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    axes.scatter(
        np.arange(1, len(loss_A) + 1),
        loss_A,
        s=3,
        c="tab:gray",
        label="candidate",
    )
    axes.plot(
        np.arange(1, len(loss_A) + 1),
        np.minimum.accumulate(loss_A),
        c="tab:red",
        label="best so far",
    )
    axes.set(
        xlabel="candidates scored",
        ylabel="validation loss, generated weights (nats)",
    )
    axes.legend(frameon=False)
    with path.open("wb") as file:
        figure.savefig(file, dpi=150)
    plt.close(figure)
