"""How many candidates does each strategy score to reach a given quality, and how well does PNAS's surrogate rank?

Claim (Liu et al. 2018): progressive search needs up to 5x fewer candidates; Spearman's rank correlation of its LSTM
ensemble is 0.97, 0.91, 0.80, 0.77 on levels 1 to 4, on which it was fitted, and 0.16, 0.47, 0.49, 0.50 on random
children of the next level.
Command: python experiments/pnas/efficiency.py --workdir W, after jaxhypernas train --workdir W --preset nasbench201
--generator ghn --data-dir D. Scores go to W's table and are looked up the second time.
Prints, for every seed, the correlation by level: fitted, on random children, and within the children it chose; and for
every strategy the candidates scored until a loss within the best 1 % and 0.1 % of all scored was found.
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np
import tyro
from etils.epath import Path

from jaxhypernas import search
from jaxhypernas.cli.main import set_up
from jaxhypernas.numerics import stats
from jaxhypernas.run import Run
from jaxhypernas.types import UserError

STRATEGIES = ("random", "evolution", "progressive")


@dataclass(frozen=True)
class Args:
    workdir: Path  # of a trained run on a space whose cells grow
    number: int = 300  # candidates for random and evolution
    beam: int = 100
    seeds: int = 3
    surrogate: Literal["mlp", "lstm"] = "mlp"


def correlation_on_children(run, state, config, seed, number=100) -> float:
    """Of the surrogate's ratings with low losses, for random children of the architectures it was fitted to."""
    growth = run.space.growth
    children = growth.children(state.beam, state.level + 1)
    size = len(jax.tree.leaves(children)[0])
    picked = np.random.default_rng(seed).permutation(size)[:number]
    children = jax.tree.map(lambda x: np.asarray(x)[picked], children)
    surrogate = search.make_surrogate(
        config.surrogate, growth, max(size, config.beam)
    )
    rating_A = surrogate.predict(
        state.params, growth.tokens(children, state.level + 1)
    )
    return stats.spearman(rating_A, -run.scores.loss(run.add(children)))


def main(args: Args) -> None:
    run = Run(args.workdir)
    if (growth := run.space.growth) is None:
        raise UserError(f"workdir: cells of {run.space.name} do not grow")
    config = replace(
        run.config.search,
        number=args.number,
        beam=args.beam,
        population=50,
        tournament=10,
        surrogate=args.surrogate,
    )
    histories = {}
    for name in STRATEGIES:
        for seed in range(args.seeds):
            strategy = search.STRATEGIES[name](run.space, config)
            state, losses, random = strategy.init(jax.random.key(seed)), [], []
            while (asked := strategy.ask(state)) is not None:
                loss_A = run.scores.loss(run.add(asked))
                state, losses = (
                    strategy.tell(state, asked, loss_A),
                    [*losses, *loss_A],
                )
                if name == "progressive" and state.level < growth.levels:
                    random.append(
                        correlation_on_children(run, state, config, seed)
                    )
            histories[name, seed] = losses
            if name == "progressive":
                ranks = [
                    f"{c.trained:.2f}/{r:.2f}/{c.extrapolated:.2f}"
                    for c, r in zip(state.correlations, random, strict=False)
                ]
                print(
                    f"{config.surrogate}, seed {seed}: rho fitted/random/chosen by level: {', '.join(ranks)}"
                )
    known = np.sort(run.scores.column("loss"))
    for share in (0.01, 0.001):
        wanted = known[int(share * len(known))]
        for (name, seed), losses in histories.items():
            hits = np.flatnonzero(np.array(losses) <= wanted)
            told = (
                f"after {hits[0] + 1}" if len(hits) else f"not in {len(losses)}"
            )
            print(
                f"best {share:.1%} of {len(known)} scored: {name}, seed {seed}: {told}"
            )


if __name__ == "__main__":
    set_up()
    main(tyro.cli(Args))
