"""One training step of each generator, compared with numbers that were kept.

The numbers say that a change altered what is computed. If the alteration is meant,
write them anew: python tests/test_golden.py
"""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, family, generator

from jaxhypernas.data.batches import Images
from jaxhypernas.execution.candidates import bind, mean_candidates
from jaxhypernas.programs.steps import init_state, make_optimizer, make_steps

FILE = Path(__file__).parent / "golden.json"
CASES = {
    "smash on memory_bank": ("memory_bank", "smash"),
    "smash on nasbench201": ("nasbench201", "smash"),
    "ghn on nasbench201": ("nasbench201", "ghn"),
    "shared on pnas": ("pnas", "shared"),
    "standalone on nasbench101": ("nasbench101", "standalone"),
}


def measure(case: str) -> dict[str, float]:
    """Loss of a step, and the mean size of phi before and after it."""
    space_name, generator_name = CASES[case]
    space, target = family(space_name)
    own = generator(generator_name, space, target)

    def sample(key, progress):
        keys = jax.random.split(key, TINY.train.architectures)
        return jax.vmap(lambda k: space.sample(k, progress))(keys)

    def mean(f, replicated, population):
        return mean_candidates(partial(f, replicated), population, 1)

    logits = bind(target, own)
    run = make_steps(TINY.train, TINY.data, logits, own.decay, sample, mean, 1)
    x = jax.random.bits(jax.random.key(0), (32, 8, 8, 1), jnp.uint8)
    y = jnp.arange(32, dtype=jnp.int32) % 10
    images = Images(x, y, jnp.full(1, 127.0), jnp.full(1, 74.0))
    begin = partial(
        init_state, own, make_optimizer(TINY.train, TINY.train.steps)
    )
    start = jax.jit(begin)(jax.random.key(1))
    state, loss = jax.jit(run)(
        start, images, jnp.int32(1), jnp.int32(TINY.train.steps)
    )
    return {
        "loss": float(loss),
        "phi before": mean_size(start.phi),
        "phi after": mean_size(state.phi),
    }


def mean_size(tree) -> float:
    leaves = [
        np.abs(np.asarray(leaf)).ravel() for leaf in jax.tree.leaves(tree)
    ]
    return float(np.concatenate(leaves).mean(dtype=np.float64))


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    golden = json.loads(FILE.read_text())[case]
    assert measure(case) == pytest.approx(golden, rel=1e-4), (
        "training computes something else than before: if it should, run "
        "python tests/test_golden.py and say why in the commit"
    )


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    figures = {case: measure(case) for case in CASES}
    FILE.write_text(json.dumps(figures, indent=2) + "\n")
