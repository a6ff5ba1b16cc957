"""How far do counts rank architectures, without any network?

Claim: capacity, live FLOPs of cells over 1 + ops of the shortest path, ranks
NAS-Bench-101's cells and the best tenth of NAS-Bench-201's better than live FLOPs
alone, and as well in small networks as in the benchmark's.
Command: python experiments/ranking/counts.py --truth FILE --space nasbench201
Hardware: any; seconds.
Numbers: experiments/LOG.md. Capacity was chosen with the labels of both tables in
sight: these figures flatter it.

Truth: a CSV with arch (or ops and edges) and a column of accuracies. Sizes are those of
the benchmarks, with --small those of small networks.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro
from etils.epath import Path

from jaxhypernas.archs.sizes import Nasbench101Config, Nasbench201Config
from jaxhypernas.cli.readers import RowFile
from jaxhypernas.families import FAMILIES
from jaxhypernas.numerics.evidence import capacity
from jaxhypernas.numerics.stats import format_report, rank_report
from jaxhypernas.programs.populations import parse

SIZES = {
    "nasbench201": (Nasbench201Config(16, 5), Nasbench201Config(8, 1)),
    "nasbench101": (Nasbench101Config(128, 3), Nasbench101Config(16, 1)),
}
"""Channels and cells of the benchmark's networks and of small ones."""

IMAGE = (32, 32, 3)


@dataclass(frozen=True)
class Args:
    truth: str
    """CSV of architectures and accuracies"""

    space: Literal["nasbench201", "nasbench101"]
    """the space of its architectures"""

    column: str = "cifar10_test_200"
    """column of the accuracy"""

    small: bool = False
    """count small networks"""


def main(args: Args) -> None:
    """Prints tau, rho, tau of the top 10 % and regret of each count."""
    sizes = SIZES[args.space][args.small]
    space, _ = FAMILIES[args.space].build(sizes, IMAGE, 10)
    table = RowFile(Path(args.truth), "truth")
    rows = [row.values for row in table.rows("arch", args.column)]
    population = parse(space, [row["arch"] for row in rows])
    cost = space.cost(population)
    counts = {
        "live parameters": cost.live_params,
        "live FLOPs": cost.live_flops,
        "capacity": capacity(cost, space.depth(population)),
    }
    truth_A = np.array([float(row[args.column]) for row in rows])
    print(f"{len(rows)} architectures, {sizes}")
    print(format_report(rank_report(counts, truth_A)))


if __name__ == "__main__":
    main(tyro.cli(Args))
