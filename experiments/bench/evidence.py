"""What does separability cost, beside the loss?

Claim: at most as much as the loss, on every space.
Command: python experiments/bench/evidence.py
Hardware: any; minutes on two cores.
Numbers: experiments/LOG.md.

Random architectures at the sizes of the preset ``nasbench201`` (cells) and of ``small``
(memory banks), random images, a hypernetwork that is not trained. The two programs are
timed by turns, and the fastest of three calls counts.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from measures import best_seconds

from jaxhypernas import PRESETS, Config
from jaxhypernas.archs.population import identities
from jaxhypernas.config.config import REGISTRIES
from jaxhypernas.data.batches import Batches, batch_shape
from jaxhypernas.execution.config import ExecutionConfig
from jaxhypernas.programs.parts import Parts, build
from jaxhypernas.programs.scoring import make_score
from jaxhypernas.programs.separability import IMAGES, make_separability

CIFAR, DIGITS = (32, 32, 3), (8, 8, 1)
HELD_OUT = {CIFAR: 500, DIGITS: 287}
"""Images that candidates are scored on."""


@dataclass(frozen=True)
class Args:
    number: int = 32
    """candidates of each space"""

    space: tuple[str, ...] = (
        "memory_bank",
        "nasbench101",
        "nasbench201",
        "pnas",
        "one_shot",
        "ghn",
    )
    """spaces"""

    chunk: int = 0
    """candidates side by side; 0: the library's choice"""


def parts_of(name: str, chunk: int) -> Parts:
    """The parts of a run on the space."""
    execution = ExecutionConfig(chunk)
    config, image = Config(execution=execution), DIGITS
    if name != "memory_bank":
        space = REGISTRIES["space"][name].config()
        image = CIFAR
        config = replace(
            PRESETS["nasbench201"], space=space, execution=execution
        )
    return build(config, image, 10, jax.local_devices()[:1])


def costs(name: str, number: int, chunk: int) -> tuple[float, float]:
    """Seconds per candidate of the loss and of separability."""
    parts = parts_of(name, chunk)
    space, target, generator = parts.searched
    keys = jax.random.split(jax.random.key(0), number)
    sample = jax.vmap(lambda key: space.canonical(space.sample(key, 1.0)))
    archs = jax.device_get(jax.jit(sample)(keys))
    work_A = space.cost(archs).flops

    T, B = batch_shape(HELD_OUT[parts.image], parts.config.score.batch)
    rng = np.random.default_rng(0)
    x_TxBxHxWxC = rng.normal(size=(T, B, *parts.image)).astype(np.float32)
    y_TxB = rng.integers(10, size=(T, B)).astype(np.int32)
    batches = Batches(jnp.asarray(x_TxBxHxWxC), jnp.asarray(y_TxB))
    images = batches.x_TxBxHxWxC.reshape(-1, *parts.image)[:IMAGES]

    phi = jax.jit(generator.init)(jax.random.key(1))
    run = parts.local_mesh, parts.chunk
    score = make_score(target, generator, *run)
    separability = make_separability(
        target, *run, lambda: (jax.random.key(2), images)
    )
    return (
        best_seconds(lambda: score((phi, batches), archs, work_A)) / number,
        best_seconds(lambda: separability(archs, identities(archs), work_A))
        / number,
    )


def main(args: Args) -> None:
    """Prints a row for each space."""
    print("| space | loss, ms | separability, ms | ratio |\n|---|---|---|---|")
    for name in args.space:
        loss, own = costs(name, args.number, args.chunk)
        row = f"| {name} | {loss * 1e3:.1f} | {own * 1e3:.1f} |"
        print(f"{row} {own / loss:.2f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args))
