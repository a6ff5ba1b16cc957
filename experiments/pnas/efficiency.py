"""How many candidates does each strategy score to reach a given quality?

And how well does PNAS's surrogate rank?

Claim (Liu et al. 2018): progressive search needs up to 5x fewer candidates; Spearman's
rank correlation of its LSTM ensemble is 0.97, 0.91, 0.80, 0.77 on levels 1 to 4, on
which it was fitted, and 0.16, 0.47, 0.49, 0.50 on random children of the next level.

Commands::

    jaxhypernas train --workdir W --preset nasbench201 --generator ghn --data-dir D
    python experiments/pnas/efficiency.py --workdir W

Scores go to the table of W and are looked up the second time. Prints, for every seed,
the correlation by level: fitted, on random children, and within the children that the
search chose; and for every strategy the candidates scored until a loss within the best
1 % and 0.1 % of all scored was found.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np
import tyro
from etils.epath import Path

import jaxhypernas as jhn
from jaxhypernas.archs.population import rows, size
from jaxhypernas.numerics import stats
from jaxhypernas.search.configs import (
    EvolutionConfig,
    Limits,
    ProgressiveConfig,
    RandomConfig,
)
from jaxhypernas.search.surrogate import make_surrogate


@dataclass(frozen=True)
class Args:
    workdir: Path
    """work directory of a trained run, on a space whose cells grow"""

    number: int = 300
    """candidates of random search and evolution"""

    population: int = 50
    """candidates alive in evolution"""

    beam: int = 100
    """candidates of each level of progressive search"""

    seeds: int = 3
    """seeds of each strategy"""

    surrogate: Literal["mlp", "lstm"] = "mlp"
    """surrogate of progressive search"""


def losses_of(run: jhn.Run, population) -> np.ndarray:
    """Losses of a population, from the table or scored now."""
    return run.scores.loss(run.scorer.score_missing(population))


def correlation_on_children(
    run: jhn.Run,
    state,
    config: ProgressiveConfig,
    seed: int,
    number: int = 100,
) -> float:
    """How the surrogate ranks random children of the architectures it was fitted to."""
    growth = run.parts.searched.space.growth
    assert growth is not None
    level = state.level + 1
    children = growth.children(state.beam, level)
    order = np.random.default_rng(seed).permutation(size(children))
    most = max(size(children), config.beam)
    picked = rows(children, order[:number])
    surrogate = make_surrogate(config.surrogate, growth, most)
    rating_A = surrogate.predict(state.params, growth.tokens(picked, level))
    return stats.spearman(rating_A, -losses_of(run, picked))


def search(run: jhn.Run, config, seed: int) -> tuple[np.ndarray, list[str]]:
    """Losses in the order of a search, and the surrogate's correlations by level."""
    space = run.parts.searched.space
    name = {RandomConfig: "random", EvolutionConfig: "evolution"}.get(
        type(config), "progressive"
    )
    strategy = jhn.STRATEGIES[name].build(config, space, Limits())
    state = strategy.init(jax.random.key(seed))
    losses, on_children = [], []
    while (asked := strategy.ask(state)) is not None:
        losses.append(losses_of(run, asked))
        state = strategy.tell(state, asked, losses[-1])
        growth = space.growth
        grows = name == "progressive" and growth is not None
        if grows and state.level < growth.levels:
            on_children.append(
                correlation_on_children(run, state, config, seed)
            )
    correlations = [
        f"{c.trained:.2f}/{random:.2f}/{c.extrapolated:.2f}"
        for c, random in zip(
            getattr(state, "correlations", ()), on_children, strict=False
        )
    ]
    return np.concatenate(losses), correlations


def main(args: Args) -> None:
    run = jhn.Run(args.workdir)
    space = run.parts.searched.space
    if space.growth is None:
        raise jhn.UserError(f"workdir: cells of {space.name} do not grow")
    configs = {
        "random": RandomConfig(args.number),
        "evolution": EvolutionConfig(
            args.number, args.population, tournament=10
        ),
        "progressive": ProgressiveConfig(args.beam, args.surrogate),
    }
    histories = {}
    for name, config in configs.items():
        for seed in range(args.seeds):
            histories[name, seed], correlations = search(run, config, seed)
            if correlations:
                print(
                    f"{args.surrogate}, seed {seed}: rho fitted/random/chosen by "
                    f"level: {', '.join(correlations)}"
                )
    known = np.sort(run.scores.column("loss"))
    for share in (0.01, 0.001):
        wanted = known[int(share * len(known))]
        for (name, seed), loss_A in histories.items():
            hits = np.flatnonzero(loss_A <= wanted)
            when = f"not in {len(loss_A)}"
            if len(hits):
                when = f"after {hits[0] + 1}"
            print(
                f"best {share:.1%} of {len(known)} scored: {name}, seed {seed}: {when}"
            )


if __name__ == "__main__":
    main(tyro.cli(Args))
