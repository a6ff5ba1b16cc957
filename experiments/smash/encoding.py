"""Does the encoding matter? Weights generated from each architecture's own encoding against another's.

Claim (Brock et al. 2018, section 4.2, in words): weights from the correct encoding are better than from a wrong one.
Command: python experiments/smash/encoding.py --workdir W, after jaxhypernas search --workdir W. Minutes on two cores.
Prints, over the run's random sample: mean validation loss and accuracy, and how each ranks the trained test loss.
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import tyro
from etils.epath import Path

from jaxhypernas.cli.main import set_up
from jaxhypernas.generators import memory_bank_encoding, smash
from jaxhypernas.numerics.stats import format_report, rank_report
from jaxhypernas.programs.scoring import make_score, score_one
from jaxhypernas.run import Run
from jaxhypernas.types import UserError


@dataclass(frozen=True)
class Args:
    workdir: Path  # of a finished search with generator smash


def main(args: Args) -> None:
    run = Run(args.workdir)
    rows = [
        row
        for row in run.retrained.read().to_pylist()
        if row["group"] == "sample"
    ]
    if (run.config.generator, run.config.space) != (
        "smash",
        "memory_bank",
    ) or len(rows) < 3:
        raise UserError(
            "workdir: needs a finished search with generator smash on space memory_bank"
        )
    archs = run.parse([row["arch"] for row in rows])
    others = jax.tree.map(lambda x: np.roll(x, 1, axis=0), archs)

    # A candidate is a pair: the network that runs, and the architecture that its weights are generated for.
    own = memory_bank_encoding(run.config.memory_bank)
    encoding = own._replace(
        encode=lambda pair: own.encode(pair[1]),
        decode=lambda w, pair: own.decode(w, pair[0]),
    )
    target = run.target._replace(
        apply=lambda theta, pair, x: run.target.apply(theta, pair[0], x)
    )
    generator = smash(run.config.smash, encoding, run.target)
    score = make_score(
        partial(score_one, target, generator), run.mesh, run.chunk
    )
    batches = run.valid
    result = {
        "own encoding": score((run.phi, batches), (archs, archs)),
        "another's encoding": score((run.phi, batches), (archs, others)),
    }
    for name, scores in result.items():
        print(
            f"{name}: loss {scores.loss.mean():.4f}, accuracy {scores.accuracy.mean():.4f}, {len(rows)} candidates"
        )
    difference = result["another's encoding"].loss - result["own encoding"].loss
    rng = np.random.default_rng(0)
    drawn = [
        difference[rng.integers(0, len(rows), len(rows))].mean()
        for _ in range(10_000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    worse = np.mean(difference > 0)
    print(
        f"difference in loss {difference.mean():.4f} [{low:.4f}, {high:.4f}], worse for {worse:.0%}"
    )
    truth = -np.array([row["test_loss"] for row in rows])
    print(
        format_report(
            rank_report(
                {
                    name: -np.asarray(scores.loss)
                    for name, scores in result.items()
                },
                truth,
            )
        )
    )


if __name__ == "__main__":
    set_up()
    main(tyro.cli(Args))
