"""What does each part of the score add, over several trainings?

Claim: the score of capacity, separability and loss ranks better than each of its parts
and than counts, on NAS-Bench-201 and on NAS-Bench-101.
Commands, for each seed, 15 to 22 minutes of training on two cores, then 3 minutes of
scoring::

    jaxhypernas train --workdir W0 --preset nasbench201 --generator ghn --seed 0
    python experiments/ranking/ablation.py --workdir W0 W1 W2 --truth FILE

with ``--space nasbench101`` for the other benchmark. Truth: a CSV with arch (or ops and
edges) and a column of accuracies.
Hardware: any.
Numbers: experiments/LOG.md, README.md. The parts and their combination were chosen with
the labels of both tables in sight: these figures flatter them.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from etils import epath
from matplotlib.figure import Figure
from scipy.stats import t as student

from jaxhypernas import Run
from jaxhypernas.cli.readers import RowFile
from jaxhypernas.report.ranking import plain, rank_rows

MEASURES = {
    "tau": "tau",
    "rho": "rho",
    "top_tau": "tau of the top 10 %",
    "regret": "regret",
}


@dataclass(frozen=True)
class Args:
    workdir: tuple[Path, ...]
    """work directories of trained runs, one for each seed"""

    truth: str
    """CSV of architectures and accuracies"""

    column: str = "cifar10_test_200"
    """column of the accuracy"""

    picture: Path | None = None
    """PNG to write"""


def over_seeds(values: list[float]) -> str:
    """The mean, and Student's 95 % interval of it where there are several seeds."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.3f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values)
    half /= len(values) ** 0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def draw(values: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draws a panel for each measure, a point for each seed."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    names = list(values)
    for panel, (measure, title) in zip(panels, MEASURES.items(), strict=True):
        for place, name in enumerate(names):
            seeds = values[name][measure]
            panel.scatter(seeds, [place] * len(seeds), s=14, c="tab:blue")
        panel.set_yticks(range(len(names)), names)
        panel.set_xlabel(title)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def main(args: Args) -> None:
    """Prints each measure of each ranking, over seeds."""
    file = RowFile(epath.Path(args.truth), "truth")
    rows = [row.values for row in file.rows("arch", args.column)]
    archs = [row["arch"] for row in rows]
    truth_A = np.array([float(row[args.column]) for row in rows])
    values: dict[str, dict[str, list[float]]] = {}
    for workdir in args.workdir:
        scored = Run(workdir).score(archs).to_pylist()
        for name, ranking in plain(rank_rows(scored, truth_A)).items():
            own = values.setdefault(name, {m: [] for m in MEASURES})
            for measure in MEASURES:
                own[measure].append(ranking[measure]["value"])
    print(f"{len(archs)} architectures, {len(args.workdir)} seeds")
    print(f"| | {' | '.join(MEASURES.values())} |")
    print("|---" * (1 + len(MEASURES)) + "|")
    for name, own in values.items():
        cells = " | ".join(over_seeds(own[measure]) for measure in MEASURES)
        print(f"| {name} | {cells} |")
    if args.picture is not None:
        draw(values, args.picture)


if __name__ == "__main__":
    main(tyro.cli(Args))
