"""Do scores under generated weights rank NAS-Bench-201's cells?

They are compared with counts, published supernets and zero-cost proxies.

Claim: none beforehand. A score whose tau is below the tau of live parameters (0.65) has
shown nothing.

Commands, 20 minutes of training and 7 minutes of scoring for each run on two cores::

    jaxhypernas train --workdir W --preset nasbench201 --generator ghn --data-dir D
    python experiments/nasbench201/rank.py --workdir W --truth nasbench201_dev.csv

with ``--generator`` shared, smash or ghn; several work directories make a picture with
several panels. Truth: test accuracy after 200 epochs. Prints tau, rho, tau within the
top 10 % and regret, with 95 % bootstrap intervals over all rows of the file.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro
from matplotlib.figure import Figure

import jaxhypernas as jhn
from jaxhypernas.numerics.evidence import Evidence, score
from jaxhypernas.numerics.stats import format_report, rank_report

PUBLISHED = (
    "supernet_oneshot_cifar10",
    "supernet_fewshot_cifar10",
    "zc_logsynflow_cifar10",
)


@dataclass(frozen=True)
class Args:
    workdir: tuple[Path, ...]
    """work directories of trained runs"""

    truth: Path
    """CSV with arch, cifar10_test_200 and the published scores"""

    picture: Path | None = None
    """PNG to write: score against truth, a panel for each run"""


def claims_of(scores: pa.Table) -> dict[str, np.ndarray]:
    """Scores and counts of the cells; higher is better."""
    column = {name: scores[name].to_numpy() for name in scores.column_names}
    evidence = Evidence(*(column[name] for name in Evidence._fields))
    return {
        "score": score(evidence),
        "capacity": evidence.capacity,
        "separability": evidence.separability,
        "generated weights: loss": -column["loss"],
        "generated weights: accuracy": column["accuracy"],
        "live parameters": column["live_params"],
        "live FLOPs": column["live_flops"],
    }


def draw(panel, title: str, loss_A: np.ndarray, truth_A: np.ndarray) -> None:
    """Draws score against truth, without the worst 3 % of losses."""
    panel.scatter(loss_A, truth_A, s=2, alpha=0.4)
    panel.set_title(title)
    panel.set_xlabel("validation loss, generated weights (nats)")
    panel.set_xlim(loss_A.min() - 0.01, np.quantile(loss_A, 0.97))
    panel.set_ylim(85, 95)


def main(args: Args) -> None:
    with args.truth.open(newline="") as file:
        rows = list(csv.DictReader(file))
    truth_A = np.array([float(row["cifar10_test_200"]) for row in rows])
    published = {
        name: np.array([float(row[name]) for row in rows])
        for name in PUBLISHED
    }
    number = len(args.workdir)
    figure = Figure(figsize=(4 * number, 3.4), layout="constrained")
    panels = figure.subplots(1, number, squeeze=False)[0]
    panels[0].set_ylabel("test accuracy, 200 epochs (%)")
    for workdir, panel in zip(args.workdir, panels, strict=True):
        run = jhn.Run(workdir)
        scores = run.score([row["arch"] for row in rows])
        generator = run.config.names["generator"]
        distinct = len(set(scores["id"].to_pylist()))
        print(f"{len(rows)} cells, {distinct} distinct, generator {generator}")
        claims = {**claims_of(scores), **published}
        print(format_report(rank_report(claims, truth_A)))
        draw(panel, generator, scores["loss"].to_numpy(), truth_A)
    if args.picture is not None:
        figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Args))
