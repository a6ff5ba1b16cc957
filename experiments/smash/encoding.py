"""Does the encoding matter? Weights from each architecture's own and another's.

Claim (Brock et al. 2018, section 4.2, in words): weights from the correct encoding are
better than weights from a wrong one.

Commands, minutes on two cores::

    jaxhypernas search --workdir W
    python experiments/smash/encoding.py --workdir W

Prints, over the run's random sample: mean validation loss and accuracy, and how each
ranks the test loss of the candidates trained from scratch.
"""

from dataclasses import dataclass

import jax
import numpy as np
import tyro
from etils.epath import Path

import jaxhypernas as jhn
from jaxhypernas.generators.configs import SmashConfig
from jaxhypernas.generators.smash import smash
from jaxhypernas.numerics.stats import format_report, rank_report
from jaxhypernas.programs.populations import parse
from jaxhypernas.programs.scorers import batches_of, scored_on
from jaxhypernas.programs.scoring import make_score
from jaxhypernas.types import Scores


@dataclass(frozen=True)
class Args:
    workdir: Path
    """work directory of a finished search with generator smash"""


def score_pairs(run: jhn.Run, archs, others) -> Scores:
    """Scores networks under weights that are generated for others."""
    space, target, _ = run.parts.searched
    own = space.encoding
    config = run.config.generator
    assert own is not None and isinstance(config, SmashConfig)

    # A candidate is a pair: the network that runs, and the architecture that its
    # weights are generated for.
    encoding = own._replace(
        encode=lambda pair: own.encode(pair[1]),
        decode=lambda w, pair: own.decode(w, pair[0]),
    )
    paired = target._replace(
        apply=lambda theta, pair, x: target.apply(theta, pair[0], x)
    )
    generator = smash(config, encoding, target)
    score = make_score(
        paired, generator, run.parts.local_mesh, run.parts.chunk
    )
    valid = batches_of(
        run.parts, run.dataset, scored_on(run.parts, run.dataset)
    )
    return score((run.phi, valid), (archs, others), space.cost(archs).flops)


def main(args: Args) -> None:
    run = jhn.Run(args.workdir)
    retrained = run.retrained.read().to_pylist()
    rows = [row for row in retrained if row["group"] == "sample"]
    names = run.config.names
    chosen = names["generator"], names["space"]
    if chosen != ("smash", "memory_bank") or len(rows) < 3:
        raise jhn.UserError(
            "workdir: it needs a finished search with generator smash on space "
            "memory_bank"
        )
    space = run.parts.searched.space
    archs = parse(space, [row["arch"] for row in rows])
    others = jax.tree.map(lambda x: np.roll(x, 1, axis=0), archs)
    result = {
        "own encoding": score_pairs(run, archs, archs),
        "another's encoding": score_pairs(run, archs, others),
    }
    for name, scores in result.items():
        print(
            f"{name}: loss {scores.loss.mean():.4f}, accuracy "
            f"{scores.accuracy.mean():.4f}, {len(rows)} candidates"
        )
    losses = {name: np.asarray(s.loss) for name, s in result.items()}
    own, another = losses.values()
    print(describe(another - own))
    truth_A = -np.array([row["test_loss"] for row in rows])
    claims = {name: -loss_A for name, loss_A in losses.items()}
    print(format_report(rank_report(claims, truth_A)))


def describe(difference_A: np.ndarray) -> str:
    """The mean difference in loss, with its bootstrap interval."""
    A = len(difference_A)
    rng = np.random.default_rng(0)
    means = [difference_A[rng.integers(0, A, A)].mean() for _ in range(10_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    worse = np.mean(difference_A > 0)
    return (
        f"difference in loss {difference_A.mean():.4f} [{low:.4f}, {high:.4f}], "
        f"worse for {worse:.0%}"
    )


if __name__ == "__main__":
    main(tyro.cli(Args))
