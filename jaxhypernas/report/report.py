"""The report of a run: report.md, report.json and their pictures."""

import math
from typing import Any

import numpy as np
from etils.epath import Path

from jaxhypernas.numerics import stats
from jaxhypernas.report import plots
from jaxhypernas.report.ranking import plain, rank_rows
from jaxhypernas.report.trust import trust
from jaxhypernas.store import files, json_text
from jaxhypernas.store.score_table import SHORT_ID, Order


def write(
    workdir: Path,
    title: str,
    setting: str,
    order: Order,
    grammar: str,
    best: list[dict],
    loss_A: np.ndarray,
    retrained: list[dict],
    chosen: list[dict],
) -> dict:
    """Writes the report of a run.

    Args:
        workdir: The directory to write to.
        title: The report's heading.
        setting: One line on data, seeds and hardware.
        order: What candidates are ordered by.
        grammar: How to read the strings of architectures.
        best: Rows of the best candidates.
        loss_A: Losses of all candidates, in the order they were scored.
        retrained: A row for each candidate trained from scratch; its ``group`` is
            ``"top"`` (the best), ``"active"`` (chosen by what was trained before)
            or ``"sample"`` (random).
        chosen: A row for each training that the user asked for, in whatever way.

    Returns:
        The figures in report.json.

    Raises:
        UserError: The sample cannot be ranked: see `stats.rank_report`.
    """
    sample = [row for row in retrained if row["group"] == "sample"]
    top = [row for row in retrained if row["group"] == "top"]
    active = [row for row in retrained if row["group"] == "active"]
    loss_ranking = rank_rows(sample, -_column(sample, "test_loss"))
    accuracy_ranking = rank_rows(sample, _column(sample, "test_accuracy"))
    trusted = [
        trust(sample, -_column(sample, "test_loss"), order, "test loss"),
        trust(
            sample, _column(sample, "test_accuracy"), order, "test accuracy"
        ),
    ]

    figures: dict[str, Any] = {
        "scored": len(loss_A),
        "trained_from_scratch": len(retrained),
        "diverged": diverged(retrained),
        "scores_not_finite": int((~np.isfinite(loss_A)).sum()),
        **_accuracies(sample, top, active),
        "rank": plain(loss_ranking),
        "rank_accuracy": plain(accuracy_ranking),
        "trust": trusted,
        "chosen": chosen,
    }
    lines = [
        f"# {title}",
        "",
        setting,
        "",
        *_accuracy_lines(figures, len(sample), len(top), len(active)),
        "",
        *_diverged_lines(figures, len(retrained)),
        *_ranking_lines(trusted, len(sample), loss_ranking, accuracy_ranking),
        "",
        *_best_lines(order, best),
        "",
        "## The winner",
        "",
        *_code(figures["winner"]["arch"]),
        "",
        *((grammar, "") if grammar else ()),
        *_chosen_lines(chosen),
    ]
    files.write_text(workdir / "report.md", "\n".join(lines))
    as_json = json_text.dumps(figures, indent=2) + "\n"
    files.write_text(workdir / "report.json", as_json)
    plots.save(workdir / "scores.png", plots.scores(retrained))
    plots.save(workdir / "search.png", plots.search(loss_A))
    return figures


def diverged(rows: list[dict]) -> list[str]:
    """Returns the ids of candidates whose losses are not finite after training.

    Args:
        rows: Rows of candidates trained from scratch.
    """
    ids = [row["id"] for row in rows if not _is_finite(row)]
    return list(dict.fromkeys(ids))


def _is_finite(row: dict) -> bool:
    losses = row["trained_valid_loss"], row["test_loss"]
    return all(map(math.isfinite, losses))


def _accuracies(
    sample: list[dict], top: list[dict], active: list[dict]
) -> dict[str, Any]:
    """Returns the winner's row, its accuracy, and mean accuracies."""
    # The validation set chooses the winner; the test set judges it.
    # A candidate that diverged wins only if all did.
    chosen = top + active
    finite = [row for row in chosen if _is_finite(row)]
    winner = min(finite or chosen, key=lambda row: row["trained_valid_loss"])
    trained_valid = _mean(sample, "trained_valid_accuracy")
    return {
        "winner": winner,
        "winner_test_accuracy": winner["test_accuracy"],
        "top_test_accuracy": _mean(top, "test_accuracy"),
        "active_test_accuracy": (
            _mean(active, "test_accuracy") if active else None
        ),
        "sample_test_accuracy": _mean(sample, "test_accuracy"),
        "sample_generated_accuracy": _mean(sample, "accuracy"),
        "sample_trained_valid_accuracy": trained_valid,
    }


def _column(rows: list[dict], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def _mean(rows: list[dict], name: str) -> float:
    return float(np.mean(_column(rows, name)))


def _code(text: str) -> list[str]:
    return ["```", text, "```"]


def _accuracy_lines(
    figures: dict, sample: int, top: int, active: int
) -> list[str]:
    winner_accuracy = figures["winner_test_accuracy"]
    top_accuracy = figures["top_test_accuracy"]
    sample_accuracy = figures["sample_test_accuracy"]
    generated = figures["sample_generated_accuracy"]
    trained = figures["sample_trained_valid_accuracy"]
    after, active_lines = "", []
    if active:
        accuracy = figures["active_test_accuracy"]
        after = f" and the {active} chosen after them"
        active_lines = [
            f"| mean of the {active} chosen by what was trained before | "
            f"{accuracy:.4f} |"
        ]
    return [
        f"Scored {figures['scored']} distinct candidates; trained "
        f"{figures['trained_from_scratch']} from scratch.",
        "",
        "| trained from scratch | test accuracy |",
        "|---|---|",
        f"| the winner: best validation loss of the top {top}{after} | "
        f"{winner_accuracy:.4f} |",
        f"| mean of the top {top} | {top_accuracy:.4f} |",
        *active_lines,
        f"| mean of the random sample of {sample} | {sample_accuracy:.4f} |",
        "",
        f"Validation accuracy of the sample: {generated:.4f} with generated weights, "
        f"{trained:.4f} trained.",
    ]


def _diverged_lines(figures: dict, trained: int) -> list[str]:
    """Says which candidates count as worst; nothing if there are none."""
    lines = []
    if ids := figures["diverged"]:
        listed = ", ".join(f"`{text}`" for text in ids)
        lines.append(
            f"{len(ids)} of {trained} candidates diverged when trained from scratch: "
            f"{listed}. They count as the worst."
        )
    if number := figures["scores_not_finite"]:
        lines.append(
            f"{number} of {figures['scored']} scores are not finite. They count as the "
            "worst; scoring again tries them again."
        )
    return [text for line in lines for text in (line, "")]


def _ranking_lines(
    trusted: list[str],
    sample: int,
    loss_ranking: dict[str, stats.Ranking],
    accuracy_ranking: dict[str, stats.Ranking],
) -> list[str]:
    return [
        f"## Can the scores be trusted? {sample} random candidates, 95 % bootstrap "
        "intervals",
        "",
        *(text for line in dict.fromkeys(trusted) for text in (line, "")),
        "Against test loss when trained from scratch:",
        "",
        *_code(stats.format_report(loss_ranking)),
        "",
        "Against test accuracy:",
        "",
        *_code(stats.format_report(accuracy_ranking)),
        "",
        "![scores against truth](scores.png)",
        "![search](search.png)",
    ]


def _best_lines(order: Order, best: list[dict]) -> list[str]:
    lines = [
        f"## Best by {order}",
        "",
        "| id | score | loss | accuracy | params | FLOPs | architecture |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in best:
        cells = (
            f"`{row['id'][:SHORT_ID]}`",
            f"{row['score']:.3f}",
            f"{row['loss']:.4f}",
            f"{row['accuracy']:.4f}",
            f"{row['params']:,}",
            f"{row['flops']:,}",
            # A bar in a string would end the cell.
            f"`{row['arch'].replace('|', chr(92) + '|')}`",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _chosen_lines(rows: list[dict]) -> list[str]:
    """What became of the architectures that the user chose to train."""
    if not rows:
        return []
    lines = [
        "## Chosen and trained",
        "",
        "Validation chooses, the test set judges. Changes are those to the run's own "
        "configuration.",
        "",
        "| id | begun with | changes | validation accuracy | test accuracy |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            f"`{row['id'][:SHORT_ID]}`",
            (row.get("start") or "scratch").split()[0],
            (row.get("changes") or "").strip("{}").replace('"', ""),
            f"{row['trained_valid_accuracy']:.4f}",
            f"{row['test_accuracy']:.4f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
