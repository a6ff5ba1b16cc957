"""How many candidates does each strategy score to reach a given quality, and how well does PNAS's surrogate rank?

Claim (Liu et al. 2018, section 5.4): progressive search needs up to 5x fewer candidates than reinforcement learning; on
levels it has not seen, its surrogate's rank correlation is 0.1 to 0.5 (section 5.2; mind that theirs are samples).
Command: python experiments/pnas/efficiency.py --workdir W, after jaxhypernas train --workdir W --preset nasbench201
--data-dir D. Scores go to W's table and are looked up the second time: with a full table this takes a minute.
Prints, for every strategy and seed, the candidates scored until a loss within the best 1 % and 0.1 % of all scored was
found, and the surrogate's Spearman correlation per level, trained and extrapolated (within the beam it chose).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import tyro

from jaxhypernas import search
from jaxhypernas.cli import set_up
from jaxhypernas.run import Run

STRATEGIES = ("random", "evolution", "progressive")


@dataclass(frozen=True)
class Args:
    workdir: Path  # of a trained run on a space whose cells grow
    number: int = 500  # candidates for random and evolution
    beam: int = 100
    seeds: int = 3


def main(args: Args) -> None:
    run = Run(args.workdir)
    config = replace(run.config.search, number=args.number, beam=args.beam, population=50, tournament=10)
    histories = {}
    for name in STRATEGIES:
        for seed in range(args.seeds):
            losses: list[float] = []

            def evaluate(population, losses=losses):
                losses += [row["loss"] for row in run.score(population)]
                return np.array(losses[-len(jax.tree.leaves(population)[0]) :])

            state = search.run(search.STRATEGIES[name](run.space, config), jax.random.key(seed), evaluate)
            histories[name, seed] = losses
            if name == "progressive":
                ranks = [f"{c.trained:.2f}/{c.extrapolated:.2f}" for c in state.correlations]
                print(f"surrogate {config.surrogate}, seed {seed}: rho trained/extrapolated by level {' '.join(ranks)}")
    known = np.sort([row["loss"] for row in run.scores.rows])
    for share in (0.01, 0.001):
        wanted = known[int(share * len(known))]
        for (name, seed), losses in histories.items():
            hits = np.flatnonzero(np.array(losses) <= wanted)
            told = f"after {hits[0] + 1}" if len(hits) else f"not in {len(losses)}"
            print(f"best {share:.1%} of {len(known)} scored: {name}, seed {seed}: {told}")


if __name__ == "__main__":
    set_up()
    main(tyro.cli(Args))
