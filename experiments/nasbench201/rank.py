"""Do scores under generated weights rank NAS-Bench-201's cells? Beside counts, published supernets and proxies.

Claim: none beforehand; a score whose tau is below live-path parameters' (0.65) has shown nothing.
Command: jaxhypernas train --workdir W --preset nasbench201 --generator shared|smash|ghn --data-dir D, then
python experiments/nasbench201/rank.py --workdir W --truth nasbench201_dev.csv. Truth: test accuracy after 200 epochs.
Prints tau, rho, tau within the top 10 % and regret with 95 % bootstrap intervals over all rows of the file.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jaxhypernas.cli import set_up
from jaxhypernas.run import Run
from jaxhypernas.stats import format_report, rank_report

PUBLISHED = ("supernet_oneshot_cifar10", "supernet_fewshot_cifar10", "zc_logsynflow_cifar10")


@dataclass(frozen=True)
class Args:
    workdir: Path  # of a trained run
    truth: Path  # CSV with arch, cifar10_test_200 and the columns in PUBLISHED


def main(args: Args) -> None:
    with args.truth.open(newline="") as file:
        rows = list(csv.DictReader(file))
    run = Run(args.workdir)
    population = run.parse([row["arch"] for row in rows])
    with run.score_bar(len(rows)) as bar:
        scores = run.score(population, bar)
    claims = {
        "generated weights: loss": -np.array([row["loss"] for row in scores]),
        "generated weights: accuracy": np.array([row["accuracy"] for row in scores]),
        "live parameters": np.array([row["live_params"] for row in scores], float),
        "live FLOPs": np.array([row["live_flops"] for row in scores], float),
        **{name: np.array([float(row[name]) for row in rows]) for name in PUBLISHED},
    }
    truth = np.array([float(row["cifar10_test_200"]) for row in rows])
    print(f"{len(rows)} cells, {len({row['id'] for row in scores})} distinct, generator {run.config.generator}")
    print(format_report(rank_report(claims, truth)))


if __name__ == "__main__":
    set_up()
    main(tyro.cli(Args))
