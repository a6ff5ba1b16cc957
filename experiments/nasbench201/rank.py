"""Do scores under generated weights rank NAS-Bench-201's cells? Beside counts, published supernets and proxies.

Claim: none beforehand; a score whose tau is below live-path parameters' (0.65) has shown nothing.
Command: jaxhypernas train --workdir W --preset nasbench201 --generator shared|smash|ghn --data-dir D, then
python experiments/nasbench201/rank.py --workdir W [W ...] --truth nasbench201_dev.csv [--picture P.png]. Truth: test
accuracy after 200 epochs.
Prints tau, rho, tau within the top 10 % and regret with 95 % bootstrap intervals over all rows of the file.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tyro

from jaxhypernas.cli.main import set_up
from jaxhypernas.numerics.stats import format_report, rank_report
from jaxhypernas.run import Run

PUBLISHED = (
    "supernet_oneshot_cifar10",
    "supernet_fewshot_cifar10",
    "zc_logsynflow_cifar10",
)


@dataclass(frozen=True)
class Args:
    workdir: tuple[Path, ...]  # of trained runs
    truth: Path  # CSV with arch, cifar10_test_200 and the columns in PUBLISHED
    picture: Path | None = (
        None  # PNG: score against truth, a panel for each run
    )


def main(args: Args) -> None:
    with args.truth.open(newline="") as file:
        rows = list(csv.DictReader(file))
    truth = np.array([float(row["cifar10_test_200"]) for row in rows])
    published = {
        name: np.array([float(row[name]) for row in rows]) for name in PUBLISHED
    }
    figure, panels = plt.subplots(
        1,
        len(args.workdir),
        figsize=(4 * len(args.workdir), 3.4),
        layout="constrained",
    )
    for workdir, panel in zip(args.workdir, np.ravel(panels), strict=True):
        run = Run(workdir)
        with run.score_bar(len(rows)) as bar:
            scores = run.score(run.parse([row["arch"] for row in rows]), bar)
        columns = {
            name: np.array([row[name] for row in scores], float)
            for name in scores[0]
            if name not in ("id", "arch")
        }
        claims = {
            "generated weights: loss": -columns["loss"],
            "generated weights: accuracy": columns["accuracy"],
            "live parameters": columns["live_params"],
            "live FLOPs": columns["live_flops"],
            **published,
        }
        print(
            f"{len(rows)} cells, {len({row['id'] for row in scores})} distinct, generator {run.config.generator}"
        )
        print(format_report(rank_report(claims, truth)))
        panel.scatter(columns["loss"], truth, s=2, alpha=0.4)
        panel.set(
            title=run.config.generator,
            xlabel="validation loss, generated weights (nats)",
            ylim=(85, 95),
        )
        panel.set_xlim(
            columns["loss"].min() - 0.01, np.quantile(columns["loss"], 0.97)
        )
    np.ravel(panels)[0].set_ylabel("test accuracy, 200 epochs (%)")
    if args.picture:
        figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    set_up()
    main(tyro.cli(Args))
